#pragma once
// Paged memory for keys and values: one layout on every path and device. Who owns which block is the engine's business.

#include <vector>

#include "model/config.h"
#include "tensor/tensor.h"

namespace gov {

struct KvCacheSpec {
  std::int64_t block_size = 16;     // positions per block
  std::int64_t full_blocks = 0;     // blocks of every full-attention layer
  std::int64_t sliding_blocks = 0;  // blocks of every sliding layer
  DType dtype = DType::kF32;        // F32, BF16 or, on a GPU, F8E4M3
};

// Blocks that one sequence needs at most for `tokens` positions when it grows by `chunk` rows at a time: all of them in
// full layers; in sliding layers the window, the chunk and one block for each ragged end.
std::int64_t full_blocks_needed(const KvCacheSpec& spec, std::int64_t tokens);
std::int64_t sliding_blocks_needed(const KvCacheSpec& spec, const Config& config, std::int64_t tokens,
                                   std::int64_t chunk);
// Bytes of the cache that `spec` describes.
std::uint64_t kv_cache_bytes(const Config& config, const KvCacheSpec& spec);

struct KvLayer {
  Tensor k, v;  // [blocks, kv_heads, block_size, head_dim]
};

class KvCache {
 public:
  KvCache(const Config& config, const KvCacheSpec& spec, DeviceKind device = DeviceKind::kCpu);
  const KvLayer& layer(std::int64_t index) const { return layers_[static_cast<std::size_t>(index)]; }
  const KvCacheSpec& spec() const { return spec_; }

 private:
  KvCacheSpec spec_;
  std::vector<KvLayer> layers_;
  std::vector<Buffer> buffers_;
};

}  // namespace gov
