// The index of a sharded checkpoint from arbitrary bytes: whatever is accepted names plain files and distinct tensors.

#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "base/error.h"
#include "io/weight_map.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    std::set<std::string_view> tensors;
    const auto entries = gov::parse_weight_map({reinterpret_cast<const char*>(data), size}, "index");
    for (const gov::WeightMapEntry& entry : entries) {
      if (!gov::is_plain_file_name(entry.file) || !tensors.insert(entry.tensor).second) std::abort();
    }
  } catch (const gov::Error&) {
  }
  return 0;
}
