// The decode step of one sequence in six kernels a layer. Every kernel streams its weights through the ring of gemv.cuh
// and is launched dependent on the one before: its ring fills while that one still runs.

#include "ops/cuda/gemv.cuh"
#include "ops/fused.h"

namespace gov::ops {
namespace cuda {
namespace {

constexpr int kMostExperts = 8;  // experts of one token

// Shared memory: barriers, a factor for each vector, the sums of a batch of tiles by warp, the split vector, the ring.
struct SharedPlan {
  int vector, ring, total;
};
constexpr int kFactorOffset = 128, kRedOffset = 256;
template <class W>
SharedPlan shared_plan(int vectors, std::int64_t k, int stage_bytes) {
  SharedPlan plan{};
  plan.vector = kRedOffset + W::kBatch * W::kWarps * kFragmentRows * 4;
  plan.ring = static_cast<int>(ceil_div(plan.vector + vectors * vector_bytes<W>(static_cast<int>(k)), 128) * 128);
  plan.total = plan.ring + W::kStages * stage_bytes;
  return plan;
}

template <class W>
__device__ Ring make_ring(char* shared, int ring_offset, int stage_bytes) {
  Ring ring{};
  ring.data = shared_address(shared + ring_offset);
  ring.full = shared_address(shared);
  ring.empty = ring.full + 8 * W::kStages;
  ring.stages = W::kStages;
  ring.stage_bytes = stage_bytes;
  return ring;
}

template <class W>
__device__ void start_ring(const Ring& ring) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < W::kStages; ++i) {
      barrier_init(ring.full + 8 * i, 1);
      barrier_init(ring.empty + 8 * i, W::kWarps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
}

__device__ inline uint4 read16(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ inline std::uint32_t read4(std::uint32_t address) {
  std::uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
  return v;
}
__device__ inline std::uint32_t read1(std::uint32_t address) {
  std::uint32_t v;
  asm volatile("ld.shared.u8 %0, [%1];" : "=r"(v) : "r"(address));
  return v;
}

// The sums of up to kBatch slots of kRows rows (one or two tiles), [slot][warp][row]. Warps run ahead of each other by as
// much as the ring allows; they meet once a batch. Calls finish(slot, row of the slot, sum, whether there is such a slot)
// once a row, neighbouring rows in neighbouring lanes. All consumers call it; afterwards the space is free again.
template <class W, int kRows>
__device__ void finish_slots(const float* red, int slots, bool more, auto&& finish) {
  named_barrier(2, W::kWarps * kWarp);
  static_assert(W::kBatch * kRows <= W::kWarps * kWarp);
  const int slot = threadIdx.x / kRows, row = threadIdx.x % kRows;
  if (threadIdx.x / kWarp * (kWarp / kRows) < slots) {
    const bool real = slot < slots;
    const float* sums = red + (real ? slot : 0) * W::kWarps * kRows + row;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < W::kWarps; ++w) sum += sums[w * kRows];
    finish(slot, row, sum, real);
  }
  if (more) named_barrier(2, W::kWarps * kWarp);
}

// --- dense matrices: qkv, o, head ------------------------------------------------------------------------------------

struct DenseArgs {
  const char* weight;
  const float* scales;  // Int8Weights
  const bf16_t* bias;   // or nullptr
  const float* x;
  const bf16_t* norm;  // or nullptr: x as it is
  float eps;
  int rows, k, tiles;  // of the matrix; rows = 8 tiles
};

// x[row] += value.
struct AddTo {
  float* x;
  __device__ int row(int tile, int r) const { return tile * kTileRows + r; }
  __device__ void store(int, int row, float value, bool real) const {
    if (real) x[row] += value;
  }
};
struct WriteTo {
  float* out;
  __device__ int row(int tile, int r) const { return tile * kTileRows + r; }
  __device__ void store(int, int row, float value, bool real) const {
    if (real) out[row] = value;
  }
};
// A tile is four dimensions d of a head and their partners d + D/2, so that neighbouring lanes can rotate them.
template <class Cache>
struct RotateAndAppend {
  float* q;
  Cache *k_cache, *v_cache;
  const float *cos, *sin;  // [D/2] or nullptr
  const std::int64_t* slot;
  int heads, kv_heads, head_dim, block_size;

  __device__ int row(int tile, int r) const {
    const int per_head = head_dim / kTileRows, head = tile / per_head, j = tile % per_head;
    return head * head_dim + j * 4 + (r & 3) + (r >= 4 ? head_dim / 2 : 0);
  }
  __device__ void store(int tile, int row, float value, bool real) const {
    const int lane = threadIdx.x % kWarp;
    const int per_head = head_dim / kTileRows, head = tile / per_head, i = tile % per_head * 4 + (lane & 3);
    const float partner = __shfl_xor_sync(kAllLanes, value, 4);
    if (cos != nullptr && head < heads + kv_heads) {
      const float c = cos[i], s = sin[i];
      value = (lane & 4) == 0 ? value * c - partner * s : value * c + partner * s;
    }
    if (!real) return;
    if (head < heads) {
      q[row] = value;
      return;
    }
    const std::int64_t at = *slot;
    if (at < 0) return;
    const bool key = head < heads + kv_heads;
    const int kv_head = head - heads - (key ? 0 : kv_heads), d = row - head * head_dim;
    const std::int64_t block = at / block_size, in_block = at % block_size;
    (key ? k_cache : v_cache)[((block * kv_heads + kv_head) * block_size + in_block) * head_dim + d] =
        from_float<Cache>(value);
  }
};

constexpr int kChunkBytes = 1024, kStepsPerStage = kChunkBytes / 64;  // of each half row in a stage

template <class W>
__device__ void dense_produce(const DenseArgs& a, Ring ring, int lane, const auto& epilogue) {
  const int half_bytes = static_cast<int>(static_cast<std::int64_t>(a.k) * 8 / W::kPerLane);
  const std::uint64_t policy = evict_first_policy();
  for (int tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const int half = lane / kTileRows % 2;
    const char* from =
        a.weight + (static_cast<std::int64_t>(epilogue.row(tile, lane % kTileRows)) * 2 + half) * half_bytes;
    for (int begin = 0; begin < half_bytes; begin += kChunkBytes) {
      const int bytes = min(kChunkBytes, half_bytes - begin);
      barrier_wait(ring.empty_barrier(), ring.phase ^ 1);
      if (lane == 0) barrier_expect(ring.full_barrier(), kFragmentRows * bytes);
      __syncwarp();
      if (lane < kFragmentRows) {
        bulk_copy(ring.buffer() + lane * row_pitch(kChunkBytes), from + begin, bytes, ring.full_barrier(), policy);
      }
      ring.advance();
    }
  }
}

template <class W, int kKept, class Epilogue>
__global__ void __launch_bounds__((W::kWarps + 1) * kWarp, 2)
    dense_kernel(const DenseArgs a, const Epilogue epilogue, const int vector_offset, const int ring_offset) {
  extern __shared__ __align__(128) char shared[];
  constexpr int kStageBytes = kFragmentRows * row_pitch(kChunkBytes);
  Ring ring = make_ring<W>(shared, ring_offset, kStageBytes);
  start_ring<W>(ring);
  grid_dependency_launch();
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (warp == W::kWarps) {
    dense_produce<W>(a, ring, lane, epilogue);
    return;
  }
  constexpr int kThreads = W::kWarps * kWarp;
  const Gains<kKept> gains(a.norm, a.k, threadIdx.x, kThreads);
  grid_dependency_wait();
  float* red = reinterpret_cast<float*>(shared + kRedOffset);
  char* vector = shared + vector_offset;
  const float back = stage_vector<W>(a.x, gains, a.eps, a.k, vector, threadIdx.x, kThreads, kThreads,
                                     reinterpret_cast<float2*>(red));
  const int g = lane / 4, t = lane % 4, half = a.k / 2, steps = (half + 4 * W::kPerLane - 1) / (4 * W::kPerLane);
  const char* column = vector + column_offset<W>(g, a.k) + t * 16;
  const auto finish = [&](int tile, int r, float value, bool real) {
    const int row = epilogue.row(real ? tile : 0, r);
    if (a.scales != nullptr) value *= back * a.scales[row];
    if (a.bias != nullptr) value += to_float(a.bias[row]);
    epilogue.store(real ? tile : 0, row, value, real);
  };
  for (int batch = blockIdx.x; batch < a.tiles; batch += W::kBatch * gridDim.x) {
    int kept = 0;
    for (int tile = batch; kept < W::kBatch && tile < a.tiles; tile += gridDim.x, ++kept) {
      SumsOf<W> sums;
      for (int first = 0; first < steps; first += kStepsPerStage) {
        barrier_wait(ring.full_barrier(), ring.phase);
#pragma unroll
        for (int s = 0; s < kStepsPerStage / W::kWarps; ++s) {
          const int local = warp + s * W::kWarps, step = first + local;
          if (step < steps) {
            const bool inside = (step * 4 + t) * W::kPerLane < half;  // the last step may be a part of one
            const std::uint32_t at = ring.buffer() + g * row_pitch(kChunkBytes) + local * 64 + t * 16;
            const uint4 low = inside ? read16(at) : uint4{0, 0, 0, 0};
            const uint4 high = inside ? read16(at + kTileRows * row_pitch(kChunkBytes)) : uint4{0, 0, 0, 0};
            multiply(sums, low, high, *reinterpret_cast<const uint4*>(column + step * 64));
          }
        }
        __syncwarp();
        if (lane == 0) barrier_arrive(ring.empty_barrier());
        ring.advance();
      }
      const float sum = sum_columns<W>(sums);
      if (t == 0) red[(kept * W::kWarps + warp) * kTileRows + g] = sum;
    }
    const auto finish_slot = [&](int slot, int r, float value, bool real) {
      finish(batch + slot * static_cast<int>(gridDim.x), r, value, real);
    };
    finish_slots<W, kTileRows>(red, kept, batch + W::kBatch * gridDim.x < a.tiles, finish_slot);
  }
}

template <class W, class Epilogue>
void run_dense(Context& ctx, const char* op, const DecodeMatrix& m, const Tensor& x, const Tensor* norm, float eps,
               const Epilogue& epilogue) {
  DenseArgs a{};
  a.weight = static_cast<const char*>(m.weight.data);
  a.scales = m.scales ? m.scales.as<float>() : nullptr;
  a.bias = m.bias ? static_cast<const bf16_t*>(m.bias.data) : nullptr;
  a.x = x.as<float>();
  a.norm = norm ? static_cast<const bf16_t*>(norm->data) : nullptr;
  a.eps = eps;
  a.rows = static_cast<int>(m.weight.shape[0]);
  a.k = static_cast<int>(m.weight.shape[1]);
  a.tiles = a.rows / kTileRows;
  const SharedPlan plan = shared_plan<W>(1, a.k, kFragmentRows * row_pitch(kChunkBytes));
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(device_of(ctx).multiprocessors, a.tiles));
  const auto kernel = a.k <= 2 * 8 * W::kWarps * kWarp ? dense_kernel<W, 2, Epilogue> : dense_kernel<W, 4, Epilogue>;
  launch(ctx, op, kernel, {blocks, (W::kWarps + 1) * kWarp, static_cast<std::size_t>(plan.total), true}, a, epilogue,
         plan.vector, plan.ring);
}

template <class Epilogue>
void run_dense(Context& ctx, const char* op, const DecodeMatrix& m, const Tensor& x, const Tensor* norm, float eps,
               const Epilogue& epilogue) {
  if (m.weight.dtype == DType::kI8) run_dense<Int8Weights>(ctx, op, m, x, norm, eps, epilogue);
  else run_dense<Bf16Weights>(ctx, op, m, x, norm, eps, epilogue);
}

// --- experts ---------------------------------------------------------------------------------------------------------

struct ExpertArgs {
  const char *blocks, *scales;
  const bf16_t* bias;  // [E, rows] or nullptr
  const float* x;
  const bf16_t* norm;  // gate_up
  float eps;
  const std::int32_t* indices;  // [K]
  const float* weights;         // [K], down
  int rows, k, tiles;           // of one expert
  int experts, per_token;       // E, K
  float alpha, limit;
  float* out;
};

// One stage: the 4-bit rows of two tiles, then the scales of each.
__host__ __device__ constexpr int expert_stage_bytes(int k) {
  return (kFragmentRows * code_row_pitch(k / 2) + k / 2 + 127) / 128 * 128;
}

// Lanes 0..7 copy the rows of the first tile, 8..15 of the second; `experts` and `tiles` are the lane's own. A tile of a
// negative number is left out.
__device__ inline void produce_pair(const ExpertArgs& a, Ring& ring, int expert, int tile, int lane, int pairs,
                                    std::uint64_t policy) {
  const int row_bytes = a.k / 2, pitch = code_row_pitch(row_bytes), which = lane / kTileRows;
  const std::int64_t row = static_cast<std::int64_t>(expert) * a.rows + static_cast<std::int64_t>(tile) * kTileRows;
  barrier_wait(ring.empty_barrier(), ring.phase ^ 1);
  if (lane == 0) barrier_expect(ring.full_barrier(), pairs * (kTileRows * row_bytes + row_bytes / 2));
  __syncwarp();
  if (which < pairs) {
    bulk_copy(ring.buffer() + lane * pitch, a.blocks + (row + lane % kTileRows) * row_bytes, row_bytes,
              ring.full_barrier(), policy);
    if (lane % kTileRows == 0) {
      bulk_copy(ring.buffer() + kFragmentRows * pitch + which * (row_bytes / 2), a.scales + row * (a.k / 32),
                row_bytes / 2, ring.full_barrier(), policy);
    }
  }
  ring.advance();
}

// This warp's share of a stage: first += tile 0 times the vector x, second += tile 1 times the vector y.
__device__ inline void consume_pair(Ring& ring, float (&first)[4], float (&second)[4], const char* x, const char* y, int k,
                                    int warp, int lane) {
  using W = Mxfp4Weights;
  const int g = lane / 4, t = lane % 4, row_bytes = k / 2, pitch = code_row_pitch(row_bytes), blocks = k / 64;
  const int column = column_offset<W>(g, k) + t * 8, table = table_offset<W>(k) + t * 16;
  barrier_wait(ring.full_barrier(), ring.phase);
  const std::uint32_t codes = ring.buffer() + g * pitch + t * 4;
  const std::uint32_t scales = ring.buffer() + kFragmentRows * pitch + g * (k / 32);
  const auto add = [&](float(&sums)[4], int tile, const char* vector, int block) {
    const std::uint32_t at = codes + tile * kTileRows * pitch + block * 16, scale = scales + tile * (row_bytes / 2) + block;
    multiply_block(sums, read4(at), read4(at + row_bytes / 2), *reinterpret_cast<const uint2*>(vector + column + block * 32),
                   *reinterpret_cast<const int4*>(vector + table + block * 64), read1(scale), read1(scale + blocks));
  };
#pragma unroll 2
  for (int block = warp; block < blocks; block += W::kWarps) {
    add(first, 0, x, block);
    add(second, 1, y, block);
  }
  __syncwarp();
  if (lane == 0) barrier_arrive(ring.empty_barrier());
  ring.advance();
}

__device__ inline float swiglu_value(float gate, float up, float alpha, float limit) {
  gate = fminf(gate, limit);
  up = fminf(fmaxf(up, -limit), limit);
  return (up + 1.f) * gate / (1.f + expf(-alpha * gate));
}

// Blocks take pairs of tiles of all chosen experts in turn; a tile is four pairs of gate and up.
template <int kKept>
__global__ void __launch_bounds__((Mxfp4Weights::kWarps + 1) * kWarp, 2)
    gate_up_kernel(const ExpertArgs a, const int vector_offset, const int ring_offset) {
  using W = Mxfp4Weights;
  extern __shared__ __align__(128) char shared[];
  Ring ring = make_ring<W>(shared, ring_offset, expert_stage_bytes(a.k));
  start_ring<W>(ring);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int pairs = a.tiles / 2, items = a.per_token * pairs;  // of one expert, of all chosen
  const auto expert_of = [&](int item) { return min(max(a.indices[item / pairs], 0), a.experts - 1); };
  if (warp == W::kWarps) {
    grid_dependency_wait();
    grid_dependency_launch();  // after the wait: the next kernel reads the chosen experts without waiting for this one
    const std::uint64_t policy = evict_first_policy();
    for (int item = blockIdx.x; item < items; item += gridDim.x)
      produce_pair(a, ring, expert_of(item), item % pairs * 2 + lane / kTileRows % 2, lane, 2, policy);
    return;
  }
  // The router started this kernel after its own wait, so x is final.
  constexpr int kThreads = W::kWarps * kWarp;
  float* red = reinterpret_cast<float*>(shared + kRedOffset);
  char* vector = shared + vector_offset;
  const Gains<kKept> gains(a.norm, a.k, threadIdx.x, kThreads);
  const float back = 0.5f * stage_vector<W>(a.x, gains, a.eps, a.k, vector, threadIdx.x, kThreads, kThreads,
                                            reinterpret_cast<float2*>(red));
  grid_dependency_wait();
  grid_dependency_launch();
  for (int batch = blockIdx.x; batch < items; batch += W::kBatch * gridDim.x) {
    int kept = 0;
    for (int item = batch; kept < W::kBatch && item < items; item += gridDim.x, ++kept) {
      float first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
      consume_pair(ring, first, second, vector, vector, a.k, warp, lane);
      const float low = back * sum_columns<W>(first), high = back * sum_columns<W>(second);
      if (lane % 4 == 0) {
        float* mine = red + (kept * W::kWarps + warp) * kFragmentRows + lane / 4;
        mine[0] = low;
        mine[kTileRows] = high;
      }
    }
    const auto finish = [&](int slot, int r, float value, bool real) {
      const int item = real ? batch + slot * static_cast<int>(gridDim.x) : 0, row = item % pairs * kFragmentRows + r;
      if (a.bias != nullptr) value += to_float(a.bias[static_cast<std::int64_t>(expert_of(item)) * a.rows + row]);
      const float up = __shfl_down_sync(kAllLanes, value, 1);
      if (real && r % 2 == 0) {
        a.out[static_cast<std::int64_t>(item / pairs) * (a.rows / 2) + row / 2] =
            swiglu_value(value, up, a.alpha, a.limit);
      }
    };
    finish_slots<W, kFragmentRows>(red, kept, batch + W::kBatch * gridDim.x < items, finish);
  }
}

// Blocks take tiles of output rows; a tile runs through all chosen experts, in their order, two at a time.
template <int kKept>
__global__ void __launch_bounds__((Mxfp4Weights::kWarps + 1) * kWarp, 2)
    down_kernel(const ExpertArgs a, const int vector_offset, const int ring_offset) {
  using W = Mxfp4Weights;
  extern __shared__ __align__(128) char shared[];
  Ring ring = make_ring<W>(shared, ring_offset, expert_stage_bytes(a.k));
  start_ring<W>(ring);
  grid_dependency_launch();
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (warp == W::kWarps) {
    // No wait: gate_up started only after the router had ended, so the chosen experts are known.
    const std::uint64_t policy = evict_first_policy();
    for (int tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
      for (int choice = 0; choice < a.per_token; choice += 2) {
        const int mine = min(choice + lane / kTileRows % 2, a.per_token - 1);
        produce_pair(a, ring, min(max(a.indices[mine], 0), a.experts - 1), tile, lane, min(2, a.per_token - choice),
                     policy);
      }
    }
    return;
  }
  grid_dependency_wait();
  float* red = reinterpret_cast<float*>(shared + kRedOffset);
  char* vector = shared + vector_offset;
  // Each chosen expert's vector is staged by as many warps.
  const int each = a.per_token <= W::kWarps ? W::kWarps / a.per_token : 1, mine = warp / each;
  const bool works = mine < a.per_token;
  const Gains<kKept> none(nullptr, 0, 0, 1);
  const float back =
      0.5f * stage_vector<W>(works ? a.x + static_cast<std::int64_t>(mine) * a.k : nullptr, none, 0.f, works ? a.k : 0,
                             vector + mine * vector_bytes<W>(a.k), threadIdx.x - mine * each * kWarp, each * kWarp,
                             W::kWarps * kWarp, reinterpret_cast<float2*>(red) + mine * each);
  float* factors = reinterpret_cast<float*>(shared + kFactorOffset);
  if (works && threadIdx.x % (each * kWarp) == 0) factors[mine] = back;
  named_barrier(1, W::kWarps * kWarp);
  const auto share = [&](int choice) {
    const int expert = a.indices[choice];
    return expert >= 0 && expert < a.experts ? a.weights[choice] : 0.f;
  };
  for (int batch = blockIdx.x; batch < a.tiles; batch += W::kBatch * gridDim.x) {
    int kept = 0;
    for (int tile = batch; kept < W::kBatch && tile < a.tiles; tile += gridDim.x, ++kept) {
      float total = 0;
      for (int choice = 0; choice < a.per_token; choice += 2) {
        float first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
        const bool both = choice + 1 < a.per_token;
        const char* x = vector + choice * vector_bytes<W>(a.k);
        consume_pair(ring, first, second, x, both ? x + vector_bytes<W>(a.k) : x, a.k, warp, lane);
        total += share(choice) * factors[choice] * sum_columns<W>(first);
        const float other = sum_columns<W>(second);
        if (both) total += share(choice + 1) * factors[choice + 1] * other;
      }
      if (lane % 4 == 0) red[(kept * W::kWarps + warp) * kTileRows + lane / 4] = total;
    }
    const auto finish = [&](int slot, int r, float value, bool real) {
      const int row = (real ? batch + slot * static_cast<int>(gridDim.x) : 0) * kTileRows + r;
      for (int choice = 0; choice < a.per_token && a.bias != nullptr; ++choice) {
        const int expert = min(max(a.indices[choice], 0), a.experts - 1);
        value += share(choice) * to_float(a.bias[static_cast<std::int64_t>(expert) * a.rows + row]);
      }
      if (real) a.out[row] += value;
    };
    finish_slots<W, kTileRows>(red, kept, batch + W::kBatch * gridDim.x < a.tiles, finish);
  }
}

ExpertArgs expert_args(const ExpertProjection& p, const Tensor& x, const Tensor& indices) {
  ExpertArgs a{};
  a.blocks = static_cast<const char*>(p.blocks.data);
  a.scales = static_cast<const char*>(p.scales.data);
  a.bias = p.bias ? static_cast<const bf16_t*>(p.bias.data) : nullptr;
  a.x = x.as<float>();
  a.indices = indices.as<std::int32_t>();
  a.rows = static_cast<int>(p.out_features());
  a.k = static_cast<int>(p.in_features());
  a.tiles = a.rows / kTileRows;
  a.experts = static_cast<int>(p.experts());
  a.per_token = static_cast<int>(indices.shape[1]);
  return a;
}

// --- router ----------------------------------------------------------------------------------------------------------

struct RouterArgs {
  const float* x;
  const bf16_t *norm, *weight, *bias, *vision_bias;  // vision_bias or nullptr
  const std::uint8_t* modality;                      // or nullptr
  float eps;
  int k, experts, per_token;
  float *logits, *weights;
  std::int32_t* indices;
  unsigned* ticket;  // 0 before and after
};

constexpr int kRouterThreads = 256, kRouterKept = 16;

// The last block to arrive chooses: one warp takes the largest K times, the lower index first among equals.
__device__ void choose_experts(const RouterArgs& a, float* values) {
  for (int e = threadIdx.x; e < a.experts; e += kWarp) values[e] = __ldcg(a.logits + e);
  __syncwarp();
  float chosen[kMostExperts], first = 0, sum = 0;
#pragma unroll
  for (int k = 0; k < kMostExperts; ++k) {
    if (k >= a.per_token) break;
    float best = -INFINITY;
    int at = a.experts;
    for (int e = threadIdx.x; e < a.experts; e += kWarp) {
      if (values[e] > best || (values[e] == best && e < at)) {
        best = values[e];
        at = e;
      }
    }
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, best, offset);
      const int other_at = __shfl_xor_sync(kAllLanes, at, offset);
      if (other > best || (other == best && other_at < at)) {
        best = other;
        at = other_at;
      }
    }
    if (at >= a.experts) at = k;  // only NaN left
    if (k == 0) first = best;
    chosen[k] = expf(best - first);
    sum += chosen[k];
    if (threadIdx.x == 0) a.indices[k] = at;
    if (threadIdx.x == at % kWarp) values[at] = -INFINITY;
    __syncwarp();
  }
#pragma unroll
  for (int k = 0; k < kMostExperts; ++k) {
    if (k < a.per_token && threadIdx.x == 0) a.weights[k] = chosen[k] / sum;
  }
}

// Block e forms logit e.
__global__ void __launch_bounds__(kRouterThreads) router_kernel(const RouterArgs a) {
  __shared__ float2 scratch[kRouterThreads / kWarp];
  __shared__ float values[1024];
  __shared__ bool last;
  const int expert = blockIdx.x;
  float row[kRouterKept], gain[kRouterKept];
#pragma unroll
  for (int i = 0; i < kRouterKept; ++i) {
    const int k = threadIdx.x + i * kRouterThreads;
    row[i] = k < a.k ? to_float(a.weight[static_cast<std::int64_t>(expert) * a.k + k]) : 0.f;
    gain[i] = k < a.k ? to_float(a.norm[k]) : 0.f;
  }
  grid_dependency_wait();
  grid_dependency_launch();
  float squares = 0, dot = 0;
#pragma unroll
  for (int i = 0; i < kRouterKept; ++i) {
    const int k = threadIdx.x + i * kRouterThreads;
    const float x = k < a.k ? a.x[k] : 0.f;
    squares += x * x;
    row[i] *= x * gain[i];
  }
  for (int k = threadIdx.x + kRouterKept * kRouterThreads; k < a.k; k += kRouterThreads) {
    squares += a.x[k] * a.x[k];
    dot += a.x[k] * to_float(a.norm[k]) * to_float(a.weight[static_cast<std::int64_t>(expert) * a.k + k]);
  }
#pragma unroll
  for (int i = 0; i < kRouterKept; ++i) dot += row[i];
  squares = warp_sum(squares);
  dot = warp_sum(dot);
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = make_float2(squares, dot);
  __syncthreads();
  squares = dot = 0;
  for (int w = 0; w < kRouterThreads / kWarp; ++w) {
    squares += scratch[w].x;
    dot += scratch[w].y;
  }
  if (threadIdx.x == 0) {
    float logit = dot * rsqrtf(squares / static_cast<float>(a.k) + a.eps) + to_float(a.bias[expert]);
    if (a.vision_bias != nullptr && a.modality != nullptr && a.modality[0] != 0)
      logit += to_float(a.vision_bias[expert]);
    a.logits[expert] = logit;
    __threadfence();
    last = atomicAdd(a.ticket, 1u) == static_cast<unsigned>(a.experts) - 1;
    if (last) *a.ticket = 0;
    __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x < kWarp) choose_experts(a, values);
}

// --- eight-bit weights -----------------------------------------------------------------------------------------------

__global__ void quantise_kernel(const bf16_t* weight, std::int8_t* out, float* scales, std::int64_t columns) {
  __shared__ float scratch[32];
  const std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * columns;
  float largest = 0;
  for (std::int64_t i = threadIdx.x; i < columns; i += blockDim.x)
    largest = fmaxf(largest, fabsf(to_float(weight[base + i])));
  largest = warp_max(largest);
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = largest;
  __syncthreads();
  for (int w = 0; w < static_cast<int>(blockDim.x / kWarp); ++w) largest = fmaxf(largest, scratch[w]);
  const float scale = largest > 0 ? largest / 127.f : 1.f, inverse = 1.f / scale;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  for (std::int64_t i = threadIdx.x; i < columns; i += blockDim.x) {
    const float q = fminf(fmaxf(rintf(to_float(weight[base + i]) * inverse), -127.f), 127.f);
    out[base + i] = static_cast<std::int8_t>(q);
  }
}

}  // namespace
}  // namespace cuda

namespace {

[[noreturn]] void refuse(const char* op, const char* why) {
  fail(ErrorCode::kInvalidArgument, "{}: {}", op, why);
}
double bytes_of(const DecodeMatrix& m) {
  return static_cast<double>(m.weight.bytes()) + static_cast<double>(m.scales.data ? m.scales.bytes() : 0);
}
double flops_of(const DecodeMatrix& m) { return 2 * static_cast<double>(m.weight.elements()); }
void check_matrix(const char* op, const DecodeMatrix& m, std::int64_t in) {
  if (m.weight.shape.rank() != 2 || m.weight.shape[1] != in || in % 64 != 0 || m.weight.shape[0] % 16 != 0)
    refuse(op, "the weight's shape does not fit");
  if (m.weight.dtype != DType::kBF16 && !(m.weight.dtype == DType::kI8 && m.scales))
    refuse(op, "the weight must be bf16 or 8 bits with scales");
}

}  // namespace

bool decode_supported(const Context& ctx, const DecodeShape& s) {
  return ctx.on_cuda() && cuda_device_info(ctx.ordinal).capability == 90 && s.hidden % 64 == 0 &&
         s.heads * s.head_dim % 64 == 0 && s.head_dim % 16 == 0 && s.inner % 64 == 0 && s.experts <= 1024 &&
         s.experts_per_token <= cuda::kMostExperts && s.hidden <= 8192 && s.heads * s.head_dim <= 8192 &&
         s.inner * s.experts_per_token <= 16384 && s.inner <= 4096;
}

void quantise_rows(Context& ctx, const Tensor& weight, const Tensor& out, const Tensor& scales) {
  ctx.begin_op(static_cast<double>(weight.bytes() + out.bytes()), 0);
  cuda::launch(ctx, "quantise_rows", cuda::quantise_kernel, {dim3(static_cast<unsigned>(weight.shape[0])), 256},
               static_cast<const cuda::bf16_t*>(weight.data), static_cast<std::int8_t*>(out.data), scales.as<float>(),
               weight.shape[1]);
}

void decode_qkv(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const DecodeMatrix& qkv,
                const Tensor& cos, const Tensor& sin, const Tensor& slots, const Tensor& q, const Tensor& k_cache,
                const Tensor& v_cache) {
  check_matrix("decode_qkv", qkv, x.shape[1]);
  ctx.begin_op(bytes_of(qkv), flops_of(qkv));
  cuda::dispatch_cache(k_cache.dtype, [&](auto type) {
    using Cache = decltype(type);
    cuda::RotateAndAppend<Cache> epilogue{};
    epilogue.q = q.as<float>();
    epilogue.k_cache = static_cast<Cache*>(k_cache.data);
    epilogue.v_cache = static_cast<Cache*>(v_cache.data);
    epilogue.cos = cos ? cos.as<float>() : nullptr;
    epilogue.sin = sin ? sin.as<float>() : nullptr;
    epilogue.slot = slots.as<std::int64_t>();
    epilogue.heads = static_cast<int>(q.shape[1]);
    epilogue.kv_heads = static_cast<int>(k_cache.shape[1]);
    epilogue.head_dim = static_cast<int>(q.shape[2]);
    epilogue.block_size = static_cast<int>(k_cache.shape[2]);
    cuda::run_dense(ctx, "decode_qkv", qkv, x, &norm, eps, epilogue);
  });
}

void decode_out(Context& ctx, const Tensor& attended, const DecodeMatrix& o, const Tensor& x) {
  check_matrix("decode_out", o, attended.shape[1]);
  ctx.begin_op(bytes_of(o), flops_of(o));
  cuda::run_dense(ctx, "decode_out", o, attended, nullptr, 0.f, cuda::AddTo{x.as<float>()});
}

void decode_head(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const DecodeMatrix& head,
                 const Tensor& logits) {
  check_matrix("decode_head", head, x.shape[1]);
  ctx.begin_op(bytes_of(head), flops_of(head));
  cuda::run_dense(ctx, "decode_head", head, x, &norm, eps, cuda::WriteTo{logits.as<float>()});
}

void decode_router(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const Tensor& weight,
                   const Tensor& bias, const Tensor& vision_bias, const Tensor& modality, const Tensor& logits,
                   const Tensor& indices, const Tensor& weights, const Tensor& ticket) {
  using cuda::bf16_t;
  cuda::RouterArgs a{};
  a.x = x.as<float>();
  a.norm = static_cast<const bf16_t*>(norm.data);
  a.weight = static_cast<const bf16_t*>(weight.data);
  a.bias = static_cast<const bf16_t*>(bias.data);
  a.vision_bias = static_cast<const bf16_t*>(vision_bias.data);
  a.modality = static_cast<const std::uint8_t*>(modality.data);
  a.eps = eps;
  a.k = static_cast<int>(x.shape[1]);
  a.experts = static_cast<int>(weight.shape[0]);
  a.per_token = static_cast<int>(indices.shape[1]);
  a.logits = logits.as<float>();
  a.indices = indices.as<std::int32_t>();
  a.weights = weights.as<float>();
  a.ticket = static_cast<unsigned*>(ticket.data);
  ctx.begin_op(static_cast<double>(weight.bytes()), 2 * static_cast<double>(weight.elements()));
  cuda::launch(ctx, "decode_router", cuda::router_kernel, {dim3(static_cast<unsigned>(a.experts)), cuda::kRouterThreads, 0, true}, a);
}

void decode_gate_up(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const Tensor& indices,
                    const ExpertProjection& gate_up, float alpha, float limit, const Tensor& h) {
  using W = cuda::Mxfp4Weights;
  if (!gate_up.blocks) refuse("decode_gate_up", "experts must be MXFP4");
  cuda::ExpertArgs a = cuda::expert_args(gate_up, x, indices);
  a.norm = static_cast<const cuda::bf16_t*>(norm.data);
  a.eps = eps;
  a.alpha = alpha;
  a.limit = limit;
  a.out = h.as<float>();
  const double used = static_cast<double>(a.per_token) / a.experts;
  ctx.begin_op(used * static_cast<double>(gate_up.blocks.bytes() + gate_up.scales.bytes()),
               2.0 * a.per_token * a.rows * a.k);
  const cuda::SharedPlan plan = cuda::shared_plan<W>(1, a.k, cuda::expert_stage_bytes(a.k));
  const auto blocks = static_cast<unsigned>(std::min(cuda::device_of(ctx).multiprocessors, a.per_token * a.tiles));
  const auto kernel = a.k <= 8 * W::kWarps * cuda::kWarp ? cuda::gate_up_kernel<1> : cuda::gate_up_kernel<4>;
  cuda::launch(ctx, "decode_gate_up", kernel,
               {dim3(blocks), (W::kWarps + 1) * cuda::kWarp, static_cast<std::size_t>(plan.total), true}, a,
               plan.vector, plan.ring);
}

void decode_down(Context& ctx, const Tensor& h, const Tensor& indices, const Tensor& weights,
                 const ExpertProjection& down, const Tensor& x) {
  using W = cuda::Mxfp4Weights;
  if (!down.blocks) refuse("decode_down", "experts must be MXFP4");
  cuda::ExpertArgs a = cuda::expert_args(down, h, indices);
  a.weights = weights.as<float>();
  a.out = x.as<float>();
  const double used = static_cast<double>(a.per_token) / a.experts;
  ctx.begin_op(used * static_cast<double>(down.blocks.bytes() + down.scales.bytes()),
               2.0 * a.per_token * a.rows * a.k);
  const cuda::SharedPlan plan =
      cuda::shared_plan<W>(a.per_token, a.k, cuda::expert_stage_bytes(a.k));
  const auto blocks = static_cast<unsigned>(std::min(cuda::device_of(ctx).multiprocessors, a.tiles));
  const int threads = W::kWarps / a.per_token * cuda::kWarp;  // that stage one expert's vector
  const auto kernel = a.k <= 4 * 8 * threads ? cuda::down_kernel<4> : cuda::down_kernel<16>;
  cuda::launch(ctx, "decode_down", kernel,
               {dim3(blocks), (W::kWarps + 1) * cuda::kWarp, static_cast<std::size_t>(plan.total), true}, a,
               plan.vector, plan.ring);
}

}  // namespace gov::ops
