#pragma once
// How many rows each expert of each layer was given, by the kind of row: what the router does with text and with
// pictures.

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace gov {

struct ExpertLoad {
  std::vector<std::int64_t> text, image;  // [layers * experts]; empty: not counted

  void begin(const Config& config) {
    const std::size_t size = static_cast<std::size_t>(config.num_hidden_layers * config.num_local_experts);
    text.assign(size, 0);
    image.assign(size, 0);
  }

  // The rows of one pass through a layer. indices I32 [T, K], modality U8 [T] or empty (all text); both in the host's
  // memory.
  void count(std::int64_t layer, std::int64_t experts, const Tensor& indices, const Tensor& modality) {
    if (text.empty()) return;
    const std::int64_t rows = indices.shape[0], chosen = indices.shape[1];
    const std::int32_t* index = indices.as<std::int32_t>();
    const std::uint8_t* kind = modality ? modality.as<std::uint8_t>() : nullptr;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::int64_t* counts = (kind && kind[row] != 0 ? image : text).data() + layer * experts;
      for (std::int64_t k = 0; k < chosen; ++k) ++counts[index[row * chosen + k]];
    }
  }
};

}  // namespace gov
