#include "model/kv_cache.h"

#include <algorithm>

namespace gov {

std::int64_t full_blocks_needed(const KvCacheSpec& spec, std::int64_t tokens) {
  return (tokens + spec.block_size - 1) / spec.block_size;
}

std::int64_t sliding_blocks_needed(const KvCacheSpec& spec, const Config& config, std::int64_t tokens,
                                   std::int64_t chunk) {
  // Live at once: the window before the chunk's first row, and the chunk; each end may share a block with dead
  // positions.
  const std::int64_t live = config.sliding_window - 1 + chunk;
  return std::min(full_blocks_needed(spec, tokens), full_blocks_needed(spec, live) + 1);
}

std::uint64_t kv_cache_bytes(const Config& config, const KvCacheSpec& spec) {
  std::uint64_t blocks = 0;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    blocks += static_cast<std::uint64_t>(config.is_sliding(layer) ? spec.sliding_blocks : spec.full_blocks);
  }
  return 2 * blocks * static_cast<std::uint64_t>(spec.block_size * config.kv_size()) * dtype_size(spec.dtype);
}

KvCache::KvCache(const Config& config, const KvCacheSpec& spec, DeviceKind device) : spec_(spec) {
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::int64_t blocks = config.is_sliding(layer) ? spec.sliding_blocks : spec.full_blocks;
    const Shape shape{blocks, config.num_key_value_heads, spec.block_size, config.head_dim};
    const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * dtype_size(spec.dtype);
    const auto half = [&](std::string_view name) {
      buffers_.emplace_back(bytes, device, "the KV cache");
      return Tensor(buffers_.back().data(), spec.dtype, shape, name, device);
    };
    layers_.push_back({half("k_cache"), half("v_cache")});
  }
}

}  // namespace gov
