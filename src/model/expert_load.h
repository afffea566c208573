#pragma once
// How many rows each expert of each layer was given, by the kind of row: what the router does with text and with
// pictures.

#include <cstdint>
#include <vector>

namespace gov {

struct ExpertLoad {
  std::vector<std::int64_t> text, image;  // [layers * experts]
};

}  // namespace gov
