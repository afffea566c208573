// The decode step of one sequence in six kernels a layer. Every kernel streams its weights through the ring of gemv.cuh
// and is launched dependent on the one before: its ring fills while that one still runs.

#include "ops/cuda/gemv.cuh"
#include "ops/fused.h"

namespace gov::ops {
namespace cuda {
namespace {

constexpr int kMostExperts = 8;  // experts of one token

// Shared memory: barriers of the ring and of the vectors, the sums of a batch of tiles by warp, the split vector, the
// ring.
struct SharedPlan {
  int vector, ring, total;
};
constexpr int kVectorBarrier = 128, kRedOffset = 256;
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
      barrier_init(ring.empty + 8 * i, W::kWarps * kWarp);
    }
    barrier_init_fence();
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

// Which slot and row a thread finishes. What it needs for that from memory it loads before the weights stream by: a
// load at the end would be waited for with nothing else to do.
template <int kRows>
__device__ inline int slot_of() {
  return threadIdx.x / kRows;
}
template <int kRows>
__device__ inline int row_of() {
  return threadIdx.x % kRows;
}

// The sums of up to kBatch slots of kRows rows (one or two tiles), [slot][warp][row]. Warps run ahead of each other by
// as much as the ring allows; they meet once a batch. Calls finish(slot, row of the slot, sum, whether there is such a
// slot) once a row, neighbouring rows in neighbouring lanes. All consumers call it; afterwards the space is free again.
template <class W, int kRows>
__device__ void finish_slots(const float* red, int slots, bool more, auto&& finish) {
  named_barrier(2, W::kWarps * kWarp);
  static_assert(W::kBatch * kRows <= W::kWarps * kWarp);
  const int slot = slot_of<kRows>(), row = row_of<kRows>();
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

// The tile and row that a thread finishes in a batch, and what it needs for that.
struct Own {
  int tile, row;
  float bias = 0, scale = 1, a = 0, b = 0;
};
// x[row] += value.
struct AddTo {
  float* x;
  __device__ int row(int tile, int r) const { return tile * kTileRows + r; }
  __device__ void load(int, int row, Own& own) const { own.a = x[row]; }
  __device__ void store(int, int row, float value, const Own& own, bool real) const {
    if (real) x[row] = own.a + value;
  }
};
struct WriteTo {
  float* out;
  __device__ int row(int tile, int r) const { return tile * kTileRows + r; }
  __device__ void load(int, int, Own&) const {}
  __device__ void store(int, int row, float value, const Own&, bool real) const {
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
  // cos and sin of the row's angle, the sine with its sign.
  __device__ void load(int tile, int, Own& own) const {
    const int per_head = head_dim / kTileRows, i = tile % per_head * 4 + (threadIdx.x & 3);
    const bool turns = cos != nullptr && tile / per_head < heads + kv_heads;
    own.a = turns ? cos[i] : 1.f;
    own.b = turns ? ((threadIdx.x & 4) == 0 ? -sin[i] : sin[i]) : 0.f;
  }
  __device__ void store(int tile, int row, float value, const Own& own, bool real) const {
    const int head = tile / (head_dim / kTileRows);
    const float partner = __shfl_xor_sync(kAllLanes, value, 4);
    value = value * own.a + partner * own.b;
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

// Half rows are cut into equal chunks, one a stage: of 64-byte steps, at most 23 of them.
constexpr int kMostSteps = 23, kStagePitch = row_pitch(64 * kMostSteps);
struct Chunks {
  int half_bytes, bytes;  // of a half row; of a chunk, the last one may be shorter
};
template <class W>
__host__ __device__ Chunks chunks_of(int k) {
  Chunks c{};
  c.half_bytes = k / 2 * W::kPartBytes;
  const int steps = (c.half_bytes + 63) / 64, count = (steps + kMostSteps - 1) / kMostSteps;
  c.bytes = (steps + count - 1) / count * 64;
  return c;
}

template <class W>
__device__ void dense_produce(const DenseArgs& a, Ring ring, int lane, const auto& epilogue) {
  const Chunks chunks = chunks_of<W>(a.k);
  const std::uint64_t policy = policy_evict_first();
  for (int tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const int half = lane / kTileRows % 2;
    const char* from =
        a.weight + (static_cast<std::int64_t>(epilogue.row(tile, lane % kTileRows)) * 2 + half) * chunks.half_bytes;
    for (int begin = 0; begin < chunks.half_bytes; begin += chunks.bytes) {
      const int bytes = min(chunks.bytes, chunks.half_bytes - begin);
      barrier_wait(ring.empty_barrier(), ring.phase ^ 1);
      if (lane == 0) barrier_expect(ring.full_barrier(), kFragmentRows * bytes);
      __syncwarp();
      if (lane < kFragmentRows) {
        bulk_copy(ring.buffer() + lane * kStagePitch, from + begin, bytes, ring.full_barrier(), policy);
      }
      ring.advance();
    }
  }
}

__device__ Own own_of(const DenseArgs& a, const auto& epilogue, int batch) {
  const int tile = batch + slot_of<kTileRows>() * static_cast<int>(gridDim.x);
  Own own;
  own.tile = tile < a.tiles ? tile : 0;
  own.row = epilogue.row(own.tile, row_of<kTileRows>());
  epilogue.load(own.tile, own.row, own);
  if (a.scales != nullptr) own.scale = a.scales[own.row];
  if (a.bias != nullptr) own.bias = to_float(a.bias[own.row]);
  return own;
}

template <class W, int kKept, class Epilogue>
__global__ void __launch_bounds__((W::kWarps + 1) * kWarp, 2)
    dense_kernel(const DenseArgs a, const Epilogue epilogue, const int vector_offset, const int ring_offset) {
  extern __shared__ __align__(128) char shared[];
  constexpr int kStageBytes = kFragmentRows * kStagePitch;
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
  Own own = own_of(a, epilogue, blockIdx.x);
  float* red = reinterpret_cast<float*>(shared + kRedOffset);
  char* vector = shared + vector_offset;
  const float back =
      stage_vector<W>(a.x, gains, a.eps, a.k, vector, threadIdx.x, kThreads, kThreads, reinterpret_cast<float2*>(red));
  const int g = lane / 4, t = lane % 4;
  const Chunks chunks = chunks_of<W>(a.k);
  const char* column = vector + column_offset<W>(g, a.k) + t * 16;
  for (int batch = blockIdx.x; batch < a.tiles; batch += W::kBatch * gridDim.x) {
    if (batch != static_cast<int>(blockIdx.x)) own = own_of(a, epilogue, batch);
    int kept = 0;
    for (int tile = batch; kept < W::kBatch && tile < a.tiles; tile += gridDim.x, ++kept) {
      SumsOf<W> sums;
      for (int begin = 0; begin < chunks.half_bytes; begin += chunks.bytes) {
        barrier_wait(ring.full_barrier(), ring.phase);
#pragma unroll
        for (int s = 0; s < (kMostSteps + W::kWarps - 1) / W::kWarps; ++s) {
          const int inner = (warp + s * W::kWarps) * 64, at = begin + inner;  // bytes from the start of chunk and half
          if (inner < chunks.bytes && at < chunks.half_bytes) {
            const bool inside = at + t * 16 < chunks.half_bytes;  // the last step may be a part of one
            const std::uint32_t from = ring.buffer() + g * kStagePitch + inner + t * 16;
            const uint4 low = inside ? read16(from) : uint4{0, 0, 0, 0};
            const uint4 high = inside ? read16(from + kTileRows * kStagePitch) : uint4{0, 0, 0, 0};
            multiply(sums, low, high, *reinterpret_cast<const uint4*>(column + at));
          }
        }
        barrier_arrive(ring.empty_barrier());
        ring.advance();
      }
      const float sum = sum_columns<W>(sums);
      if (t == 0) red[(kept * W::kWarps + warp) * kTileRows + g] = sum;
    }
    const auto finish = [&](int, int, float value, bool real) {
      epilogue.store(own.tile, own.row, value * (own.scale * back) + own.bias, own, real);
    };
    finish_slots<W, kTileRows>(red, kept, batch + W::kBatch * gridDim.x < a.tiles, finish);
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
  const SharedPlan plan = shared_plan<W>(1, a.k, kFragmentRows * kStagePitch);
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
  float* out;           // down
  std::int8_t* digits;  // h: written by gate_up, read by down
};

// One stage: the 4-bit rows of two tiles, then the scales of each.
__host__ __device__ constexpr int expert_stage_bytes(int k) {
  return (kFragmentRows * code_row_pitch(k / 2) + k / 2 + 127) / 128 * 128;
}

// Lanes 0..7 copy the rows of the first tile, 8..15 of the second, if `pairs` is 2; `expert` and `tile` are the lane's
// own.
__device__ inline void produce_pair(const ExpertArgs& a, Ring& ring, int expert, int tile, int lane, int pairs,
                                    std::uint64_t policy) {
  const int row_bytes = a.k / 2, pitch = code_row_pitch(row_bytes), which = lane / kTileRows;
  const std::int64_t row = static_cast<std::int64_t>(expert) * a.rows + static_cast<std::int64_t>(tile) * kTileRows;
  barrier_wait(ring.empty_barrier(), ring.phase ^ 1);
  if (lane == 0) barrier_expect(ring.full_barrier(), pairs * (kTileRows * row_bytes + row_bytes / 2));
  __syncwarp();
  if (which < pairs) {
    const std::uint32_t to = ring.buffer() + which * kTileRows * pitch;
    if (pitch != row_bytes) {
      bulk_copy(to + lane % kTileRows * pitch, a.blocks + (row + lane % kTileRows) * row_bytes, row_bytes,
                ring.full_barrier(), policy);
    } else if (lane % kTileRows == 0) {
      bulk_copy(to, a.blocks + row * row_bytes, kTileRows * row_bytes, ring.full_barrier(), policy);
    }
    if (lane % kTileRows == 0) {
      bulk_copy(ring.buffer() + kFragmentRows * pitch + which * (row_bytes / 2), a.scales + row * (a.k / 32),
                row_bytes / 2, ring.full_barrier(), policy);
    }
  }
  ring.advance();
}

// This warp's share of a stage: first += tile 0 times the vector x, second += tile 1 times the vector y.
__device__ inline void consume_pair(Ring& ring, float (&first)[4], float (&second)[4], const char* x, const char* y,
                                    int k, int warp, int lane) {
  using W = Mxfp4Weights;
  const int g = lane / 4, t = lane % 4, row_bytes = k / 2, pitch = code_row_pitch(row_bytes), blocks = k / 64;
  const int column = column_offset<W>(g, k) + t * 8;
  barrier_wait(ring.full_barrier(), ring.phase);
  const std::uint32_t codes = ring.buffer() + g * pitch + t * 4;
  const std::uint32_t scales = ring.buffer() + kFragmentRows * pitch + g * (k / 32);
  const auto add = [&](float(&sums)[4], int tile, const char* vector, int block) {
    const std::uint32_t at = codes + tile * kTileRows * pitch + block * 16,
                        scale = scales + tile * (row_bytes / 2) + block;
    multiply_block(sums, read4(at), read4(at + row_bytes / 2),
                   *reinterpret_cast<const uint2*>(vector + column + block * 32), read1(scale), read1(scale + blocks));
  };
  int block = warp;
  for (; block + 2 * W::kWarps < blocks; block += 3 * W::kWarps) {
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      add(first, 0, x, block + i * W::kWarps);
      add(second, 1, y, block + i * W::kWarps);
    }
  }
  for (; block < blocks; block += W::kWarps) {
    add(first, 0, x, block);
    add(second, 1, y, block);
  }
  barrier_arrive(ring.empty_barrier());
  ring.advance();
}

__device__ inline float swiglu_value(float gate, float up, float alpha, float limit) {
  gate = fminf(gate, limit);
  up = fminf(fmaxf(up, -limit), limit);
  return (up + 1.f) * gate / (1.f + expf(-alpha * gate));
}

// The experts' inner activations are bounded: |h| <= (limit + 1) * max(limit, 0.28 / alpha). They go from gate_up to
// down as the digits of fixed-point numbers relative to this bound.
__host__ __device__ inline float inner_bound(float alpha, float limit) {
  return (limit + 1.f) * fmaxf(limit, 0.28f / alpha);
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
    const std::uint64_t policy = policy_evict_first();
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
    const int own = batch + slot_of<kFragmentRows>() * static_cast<int>(gridDim.x), item = own < items ? own : 0;
    const int row = item % pairs * kFragmentRows + row_of<kFragmentRows>();
    const float bias =
        a.bias != nullptr ? to_float(a.bias[static_cast<std::int64_t>(expert_of(item)) * a.rows + row]) : 0.f;
    int kept = 0;
    for (int i = batch; kept < W::kBatch && i < items; i += gridDim.x, ++kept) {
      float first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
      consume_pair(ring, first, second, vector, vector, a.k, warp, lane);
      const float low = back * sum_columns<W>(first), high = back * sum_columns<W>(second);
      if (lane % 4 == 0) {
        float* mine = red + (kept * W::kWarps + warp) * kFragmentRows + lane / 4;
        mine[0] = low;
        mine[kTileRows] = high;
      }
    }
    const auto finish = [&](int, int r, float value, bool real) {
      value += bias;
      const float up = __shfl_down_sync(kAllLanes, value, 1);
      if (real && r % 2 == 0) {
        const float h = swiglu_value(value, up, a.alpha, a.limit);
        int q = __float_as_int(fmaf(h, kMostDigits / inner_bound(a.alpha, a.limit), kMagic)) - kMagicBits;
        std::int8_t* to = a.digits + static_cast<std::int64_t>(item / pairs) * kParts * (a.rows / 2) + row / 2;
#pragma unroll
        for (int p = 0; p < kParts; ++p, q = (q + 128) >> 8) to[p * (a.rows / 2)] = static_cast<std::int8_t>(q);
      }
    };
    finish_slots<W, kFragmentRows>(red, kept, batch + W::kBatch * gridDim.x < items, finish);
  }
}

// Copies the digits of all chosen experts' vectors; one warp does it.
__device__ inline void copy_vectors(const ExpertArgs& a, char* vector, std::uint32_t arrived, int lane) {
  using W = Mxfp4Weights;
  if (lane == 0) barrier_expect(arrived, a.per_token * kParts * a.k);
  __syncwarp();
  const std::uint64_t policy = policy_evict_first();
  for (int i = lane; i < a.per_token * kParts * 2; i += kWarp) {
    const int choice = i / (2 * kParts), part = i / 2 % kParts, half = i % 2;
    bulk_copy(
        shared_address(vector + choice * vector_bytes<W>(a.k) + part * part_pitch<W>(a.k) + half * half_pitch<W>(a.k)),
        a.digits + (static_cast<std::int64_t>(choice) * kParts + part) * a.k + half * (a.k / 2), a.k / 2, arrived,
        policy);
  }
}

// Blocks take tiles of output rows; a tile runs through all chosen experts, in their order, two at a time.
__global__ void __launch_bounds__((Mxfp4Weights::kWarps + 1) * kWarp, 2)
    down_kernel(const ExpertArgs a, const int vector_offset, const int ring_offset) {
  using W = Mxfp4Weights;
  extern __shared__ __align__(128) char shared[];
  if (threadIdx.x == 0) barrier_init(shared_address(shared + kVectorBarrier), 1);
  Ring ring = make_ring<W>(shared, ring_offset, expert_stage_bytes(a.k));
  start_ring<W>(ring);
  grid_dependency_launch();
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (warp == W::kWarps) {
    // No wait: gate_up started only after the router had ended, so the chosen experts are known.
    const std::uint64_t policy = policy_evict_first();
    for (int tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
      for (int choice = 0; choice < a.per_token; choice += 2) {
        const int mine = min(choice + lane / kTileRows % 2, a.per_token - 1);
        produce_pair(a, ring, min(max(a.indices[mine], 0), a.experts - 1), tile, lane, min(2, a.per_token - choice),
                     policy);
      }
    }
    return;
  }
  // Known already: the router's choice, and x, which nobody has changed since.
  const auto share = [&](int choice) {
    const int expert = a.indices[choice];
    return expert >= 0 && expert < a.experts ? a.weights[choice] : 0.f;
  };
  int own_row = 0;
  float old = 0, bias = 0;
  const auto load_own = [&](int batch) {
    const int tile = batch + slot_of<kTileRows>() * static_cast<int>(gridDim.x);
    own_row = (tile < a.tiles ? tile : 0) * kTileRows + row_of<kTileRows>();
    old = a.out[own_row];
    bias = 0;
    for (int choice = 0; choice < a.per_token && a.bias != nullptr; ++choice) {
      const int expert = min(max(a.indices[choice], 0), a.experts - 1);
      bias += share(choice) * to_float(a.bias[static_cast<std::int64_t>(expert) * a.rows + own_row]);
    }
  };
  load_own(blockIdx.x);
  grid_dependency_wait();
  float* red = reinterpret_cast<float*>(shared + kRedOffset);
  char* vector = shared + vector_offset;
  const std::uint32_t arrived = shared_address(shared + kVectorBarrier);
  if (warp == 0) copy_vectors(a, vector, arrived, lane);
  barrier_wait(arrived, 0);
  const float back = 0.5f * inner_bound(a.alpha, a.limit) / kMostDigits;
  for (int batch = blockIdx.x; batch < a.tiles; batch += W::kBatch * gridDim.x) {
    if (batch != static_cast<int>(blockIdx.x)) load_own(batch);
    int kept = 0;
    for (int tile = batch; kept < W::kBatch && tile < a.tiles; tile += gridDim.x, ++kept) {
      float total = 0;
      for (int choice = 0; choice < a.per_token; choice += 2) {
        float first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
        const bool both = choice + 1 < a.per_token;
        const char* x = vector + choice * vector_bytes<W>(a.k);
        consume_pair(ring, first, second, x, both ? x + vector_bytes<W>(a.k) : x, a.k, warp, lane);
        total += share(choice) * back * sum_columns<W>(first);
        const float other = sum_columns<W>(second);
        if (both) total += share(choice + 1) * back * other;
      }
      if (lane % 4 == 0) red[(kept * W::kWarps + warp) * kTileRows + lane / 4] = total;
    }
    const auto finish = [&](int, int, float value, bool real) {
      if (real) a.out[own_row] = old + (value + bias);
    };
    finish_slots<W, kTileRows>(red, kept, batch + W::kBatch * gridDim.x < a.tiles, finish);
  }
}

ExpertArgs expert_args(const ExpertProjection& p, const Tensor& indices, const Tensor& h, float alpha, float limit) {
  ExpertArgs a{};
  a.blocks = static_cast<const char*>(p.blocks.data);
  a.scales = static_cast<const char*>(p.scales.data);
  a.bias = p.bias ? static_cast<const bf16_t*>(p.bias.data) : nullptr;
  a.digits = static_cast<std::int8_t*>(h.data);
  a.alpha = alpha;
  a.limit = limit;
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

[[noreturn]] void refuse(const char* op, const char* why) { fail(ErrorCode::kInvalidArgument, "{}: {}", op, why); }
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
         s.inner * s.experts_per_token <= 16384;
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
  cuda::launch(ctx, "decode_router", cuda::router_kernel,
               {dim3(static_cast<unsigned>(a.experts)), cuda::kRouterThreads, 0, true}, a);
}

void decode_gate_up(Context& ctx, const Tensor& x, const Tensor& norm, float eps, const Tensor& indices,
                    const ExpertProjection& gate_up, float alpha, float limit, const Tensor& h) {
  using W = cuda::Mxfp4Weights;
  if (!gate_up.blocks) refuse("decode_gate_up", "experts must be MXFP4");
  cuda::ExpertArgs a = cuda::expert_args(gate_up, indices, h, alpha, limit);
  a.x = x.as<float>();
  a.norm = static_cast<const cuda::bf16_t*>(norm.data);
  a.eps = eps;
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
                 const ExpertProjection& down, float alpha, float limit, const Tensor& x) {
  using W = cuda::Mxfp4Weights;
  if (!down.blocks) refuse("decode_down", "experts must be MXFP4");
  cuda::ExpertArgs a = cuda::expert_args(down, indices, h, alpha, limit);
  a.weights = weights.as<float>();
  a.out = x.as<float>();
  const double used = static_cast<double>(a.per_token) / a.experts;
  ctx.begin_op(used * static_cast<double>(down.blocks.bytes() + down.scales.bytes()), 2.0 * a.per_token * a.rows * a.k);
  const cuda::SharedPlan plan = cuda::shared_plan<W>(a.per_token, a.k, cuda::expert_stage_bytes(a.k));
  const auto blocks = static_cast<unsigned>(std::min(cuda::device_of(ctx).multiprocessors, a.tiles));
  cuda::launch(ctx, "decode_down", cuda::down_kernel,
               {dim3(blocks), (W::kWarps + 1) * cuda::kWarp, static_cast<std::size_t>(plan.total), true}, a,
               plan.vector, plan.ring);
}

}  // namespace gov::ops
