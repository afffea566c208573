// The derivative of attention: which kernel does which job, what they share, and the general kernels.
//
// dq on one side, dk and dv on the other are computed by kernels of their own, which form the weights again: two
// products more than five, but every sum is one thread's and in one order, and nothing is written but results.

#include "ops/cuda/attention_backward.cuh"
#include "ops/cuda/matmul.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kStatsRoom = 64;  // that copies of whole tiles may read behind the last

struct Deltas {
  const void *out, *dout, *sinks;
  DType sink_type;
  const float* lse;              // [rows, heads]
  std::int64_t vectors;          // rows * heads
  int heads, group, dim, lanes;  // lanes: of a vector; a power of two
  float *delta, *by_sinks;       // [rows, heads]; by_sinks may be null
  float2* stats;                 // AttentionBack's
};

// delta = dout . out and by_sinks = -exp(sink - lse) delta. Reads out and dout once: bound by memory.
template <int kCount, class Out, class Dout>
__global__ void __launch_bounds__(kThreads) deltas_kernel(Deltas a) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, vector = thread / a.lanes;
  const int lane = static_cast<int>(thread % a.lanes);
  float sum = 0;
  if (vector < a.vectors) {
    const Out* const out = static_cast<const Out*>(a.out) + vector * a.dim;
    const Dout* const dout = static_cast<const Dout*>(a.dout) + vector * a.dim;
    for (int d = lane * kCount; d < a.dim; d += a.lanes * kCount) {
      float x[kCount], y[kCount];
      load_row(out + d, x);
      load_row(dout + d, y);
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum = fmaf(x[j], y[j], sum);
    }
  }
  for (int offset = a.lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  if (vector >= a.vectors || lane != 0) return;
  a.delta[vector] = sum;
  const float lse = a.lse[vector];
  const std::int64_t row = vector / a.heads, head = vector % a.heads, rows = a.vectors / a.heads;
  a.stats[(head / a.group * rows + row) * a.group + head % a.group] = {lse == -INFINITY ? INFINITY : lse * kLog2E, sum};
  if (!a.by_sinks) return;
  a.by_sinks[vector] = lse == -INFINITY ? 0.f : -expf(load_weight(a.sinks, a.sink_type, vector % a.heads) - lse) * sum;
}

// --- general ---------------------------------------------------------------------------------------------------------

constexpr int kTile = 16;  // vectors (or keys) of a block
constexpr int kStep = 32;  // keys (or vectors) of a step: one a lane
constexpr int kWarps = 4;
constexpr int kOwn = kTile / kWarps;

// The offset of vector i of a (sequence, kv head), and of its row's key, in numbers.
struct Places {
  std::int64_t first_row;
  int kv_head;
  __device__ std::int64_t vector(const Attention& a, std::int64_t i) const {
    return (first_row + i / a.group) * a.heads + static_cast<std::int64_t>(kv_head) * a.group + i % a.group;
  }
  __device__ std::int64_t key(const Attention& a, std::int64_t j) const {
    return (first_row + j) * a.kv_heads + kv_head;
  }
};

// One row into shared memory as F32, zeros behind dim and where there is none; by a warp.
template <int kPer>
__device__ void stage_row(const Attention& a, const void* from, DType type, std::int64_t row, bool valid, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    const int d = lane + j * kWarp;
    to[d] = valid && d < a.dim ? load_act(from, type, row * a.dim + d) : 0.f;
  }
}

// dot products of rows x and y of `dim` numbers, zeros behind; x is the same for all lanes.
__device__ inline void add_products(const float* x, const float* y, int d, float& sum) {
  const float4 u = *reinterpret_cast<const float4*>(x + d);
  sum = fmaf(u.x, y[d], sum);
  sum = fmaf(u.y, y[d + 1], sum);
  sum = fmaf(u.z, y[d + 2], sum);
  sum = fmaf(u.w, y[d + 3], sum);
}

// Any types and sizes, in F32. Grid: (tiles of vectors, kv heads). A warp owns four vectors; in the scores a lane owns
// a key, in the sums it owns kPer dimensions.
template <int kPer>
__global__ void __launch_bounds__(kWarps* kWarp)
    general_dq(const __grid_constant__ AttentionBack b, const __grid_constant__ TileMap map) {
  constexpr int kPad = kPer * kWarp, kPitch = kPad + 1;
  extern __shared__ float4 shared[];
  float* const q = reinterpret_cast<float*>(shared);  // [kTile][kPad]
  float* const douts = q + kTile * kPad;              // [kTile][kPad]
  float* const k_rows = douts + kTile * kPad;         // [kStep][kPitch]
  float* const v_rows = k_rows + kStep * kPitch;      // [kStep][kPitch]
  const Attention& a = b.f;
  grid_dependency_wait();
  grid_dependency_launch();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t tile = static_cast<std::int64_t>(gridDim.x) - 1 - blockIdx.x;
  const int s = sequence_of_tile(a, map, tile);
  const Places at{a.cu_seqlens[s], static_cast<int>(blockIdx.y)};
  const int rows = a.cu_seqlens[s + 1] - static_cast<int>(at.first_row);
  const std::int64_t begin = (tile - map.start(static_cast<int>(at.first_row), s)) * kTile;
  const std::int64_t total = static_cast<std::int64_t>(rows) * a.group;
  if (begin >= total) return;
  const int count = static_cast<int>(min(static_cast<std::int64_t>(kTile), total - begin));
  const auto row_of = [&](int i) { return static_cast<int>((begin + i) / a.group); };
  float lse[kOwn], delta[kOwn], acc[kOwn][kPer] = {};
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int vector = warp * kOwn + i;
    const bool valid = vector < count;
    const std::int64_t place = at.vector(a, valid ? begin + vector : begin);
    stage_row<kPer>(a, a.q, a.q_type, place, valid, q + vector * kPad);
    stage_row<kPer>(a, b.dout, b.dout_type, place, valid, douts + vector * kPad);
    lse[i] = valid ? a.lse[place] : 0.f;
    delta[i] = valid ? b.delta[place] : 0.f;
  }
  const int first = visible_keys(a, row_of(0), rows).first, end = visible_keys(a, row_of(count - 1), rows).end;
  for (int key = first; key < end; key += kStep) {
    __syncthreads();
    for (int i = warp; i < kStep; i += kWarps) {
      const bool valid = key + i < end;
      const std::int64_t place = at.key(a, valid ? key + i : key);
      stage_row<kPer>(a, a.k, a.k_type, place, valid, k_rows + i * kPitch);
      stage_row<kPer>(a, a.v, a.v_type, place, valid, v_rows + i * kPitch);
    }
    __syncthreads();
    float ds[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int vector = warp * kOwn + i;
      float score = 0, product = 0;
      for (int d = 0; d < a.dim; d += 4) {
        add_products(q + vector * kPad, k_rows + lane * kPitch, d, score);
        add_products(douts + vector * kPad, v_rows + lane * kPitch, d, product);
      }
      const bool seen = vector < count && key + lane < end && sees(a, row_of(vector), key + lane);
      ds[i] = seen ? expf(score * a.scale - lse[i]) * (product - delta[i]) : 0.f;
    }
    const int here = min(kStep, end - key);
    for (int j = 0; j < here; ++j) {
      float k[kPer];
#pragma unroll
      for (int e = 0; e < kPer; ++e) k[e] = k_rows[j * kPitch + lane + e * kWarp];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const float weight = __shfl_sync(kAllLanes, ds[i], j);
#pragma unroll
        for (int e = 0; e < kPer; ++e) acc[i][e] = fmaf(weight, k[e], acc[i][e]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int vector = warp * kOwn + i;
    if (vector >= count) continue;
    const std::int64_t to = at.vector(a, begin + vector) * a.dim;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const int d = lane + j * kWarp;
      if (d < a.dim) store_act(b.dq, b.dq_type, to + d, acc[i][j] * a.scale);
    }
  }
}

// The same with the roles changed. Grid: (tiles of keys, kv heads). A warp owns four keys; in the scores a lane owns a
// vector. The group's heads are summed here, in the order of vectors.
template <int kPer>
__global__ void __launch_bounds__(kWarps* kWarp)
    general_dkv(const __grid_constant__ AttentionBack b, const __grid_constant__ TileMap map) {
  constexpr int kPad = kPer * kWarp, kPitch = kPad + 1;
  extern __shared__ float4 shared[];
  float* const k = reinterpret_cast<float*>(shared);  // [kTile][kPad]
  float* const v = k + kTile * kPad;                  // [kTile][kPad]
  float* const q_rows = v + kTile * kPad;             // [kStep][kPitch]
  float* const d_rows = q_rows + kStep * kPitch;      // [kStep][kPitch]
  const Attention& a = b.f;
  grid_dependency_wait();
  grid_dependency_launch();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t tile = blockIdx.x;
  const int s = sequence_of_tile(a, map, tile);
  const Places at{a.cu_seqlens[s], static_cast<int>(blockIdx.y)};
  const int rows = a.cu_seqlens[s + 1] - static_cast<int>(at.first_row);
  const int first = static_cast<int>(tile - map.start(static_cast<int>(at.first_row), s)) * kTile;
  if (first >= rows) return;
  const int count = min(kTile, rows - first);
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int key = warp * kOwn + i;
    const bool valid = key < count;
    const std::int64_t place = at.key(a, first + (valid ? key : 0));
    stage_row<kPer>(a, a.k, a.k_type, place, valid, k + key * kPad);
    stage_row<kPer>(a, a.v, a.v_type, place, valid, v + key * kPad);
  }
  float dk[kOwn][kPer] = {}, dv[kOwn][kPer] = {};
  const KeyRange range = rows_that_see(a, first, count, rows);
  const std::int64_t end = static_cast<std::int64_t>(range.end) * a.group;
  for (std::int64_t begin = static_cast<std::int64_t>(range.first) * a.group; begin < end; begin += kStep) {
    __syncthreads();
    for (int i = warp; i < kStep; i += kWarps) {
      const bool valid = begin + i < end;
      const std::int64_t place = at.vector(a, valid ? begin + i : begin);
      stage_row<kPer>(a, a.q, a.q_type, place, valid, q_rows + i * kPitch);
      stage_row<kPer>(a, b.dout, b.dout_type, place, valid, d_rows + i * kPitch);
    }
    __syncthreads();
    const bool mine = begin + lane < end;
    const std::int64_t place = at.vector(a, mine ? begin + lane : begin);
    const float lse = a.lse[place], delta = b.delta[place];
    const int row = static_cast<int>((begin + lane) / a.group);
    float p[kOwn], ds[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int key = warp * kOwn + i;
      float score = 0, product = 0;
      for (int d = 0; d < a.dim; d += 4) {
        add_products(k + key * kPad, q_rows + lane * kPitch, d, score);
        add_products(v + key * kPad, d_rows + lane * kPitch, d, product);
      }
      p[i] = mine && sees(a, row, first + key) ? expf(score * a.scale - lse) : 0.f;
      ds[i] = p[i] == 0.f ? 0.f : p[i] * (product - delta);
    }
    const int here = static_cast<int>(min(static_cast<std::int64_t>(kStep), end - begin));
    for (int j = 0; j < here; ++j) {
      float qs[kPer], douts[kPer];
#pragma unroll
      for (int e = 0; e < kPer; ++e) {
        qs[e] = q_rows[j * kPitch + lane + e * kWarp];
        douts[e] = d_rows[j * kPitch + lane + e * kWarp];
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const float weight = __shfl_sync(kAllLanes, p[i], j), slope = __shfl_sync(kAllLanes, ds[i], j);
#pragma unroll
        for (int e = 0; e < kPer; ++e) {
          dv[i][e] = fmaf(weight, douts[e], dv[i][e]);
          dk[i][e] = fmaf(slope, qs[e], dk[i][e]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int key = warp * kOwn + i;
    if (key >= count) continue;
    const std::int64_t to = at.key(a, first + key) * a.dim;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const int d = lane + j * kWarp;
      if (d >= a.dim) continue;
      store_act(b.dk, b.dk_type, to + d, dk[i][j] * a.scale);
      store_act(b.dv, b.dv_type, to + d, dv[i][j]);
    }
  }
}

AttentionBack describe(const AttentionArgs& args, const Tensor& out, const Tensor& dout, const Tensor& dq,
                       const Tensor& dk, const Tensor& dv) {
  AttentionBack b{};
  Attention& a = b.f;
  a.q = args.q.data;
  a.k = args.k.data;
  a.v = args.v.data;
  a.sinks = args.sinks.data;
  a.out = out.data;
  a.lse = args.lse.as<float>();
  a.q_type = args.q.dtype;
  a.k_type = args.k.dtype;
  a.v_type = args.v.dtype;
  a.sink_type = args.sinks.dtype;
  a.out_type = out.dtype;
  a.cu_seqlens = args.cu_seqlens.as<std::int32_t>();
  a.kv_lens = args.kv_lens.as<std::int32_t>();
  a.rows = static_cast<int>(args.q.shape[0]);
  a.sequences = static_cast<int>(args.kv_lens.elements());
  a.heads = static_cast<int>(args.q.shape[1]);
  a.kv_heads = static_cast<int>(args.k.shape[1]);
  a.group = a.heads / a.kv_heads;
  a.dim = static_cast<int>(args.q.shape[2]);
  a.window = args.window;
  a.causal = args.causal;
  a.scale = args.scale;
  a.most_keys = a.rows;
  b.dout = dout.data;
  b.dq = dq.data;
  b.dk = dk.data;
  b.dv = dv.data;
  b.dout_type = dout.dtype;
  b.dq_type = dq.dtype;
  b.dk_type = dk.dtype;
  b.dv_type = dv.dtype;
  return b;
}

// Makes delta and stats; adds the sinks' derivatives.
void take_deltas(Context& ctx, const AttentionArgs& args, const Tensor& out, const Tensor& dout, const Tensor& dsinks,
                 AttentionBack& b) {
  constexpr const char* kOp = "attention_backward";
  const std::int64_t rows = out.shape[0], heads = out.shape[1], dim = out.shape[2], vectors = rows * heads;
  Deltas a{out.data,
           dout.data,
           args.sinks.data,
           args.sinks.dtype,
           args.lse.as<float>(),
           vectors,
           static_cast<int>(heads),
           b.f.group,
           static_cast<int>(dim),
           kWarp,
           ctx.workspace.take<float>(vectors),
           dsinks ? ctx.workspace.take<float>(vectors) : nullptr,
           ctx.workspace.take<float2>(vectors + kStatsRoom)};
  dispatch_act(out.dtype, [&](auto out_type) {
    dispatch_act(dout.dtype, [&](auto dout_type) {
      dispatch_vector(vectorizable(dim, out, dout), [&](auto count) {
        constexpr int kCount = decltype(count)::value;
        while (a.lanes / 2 * kCount >= dim) a.lanes /= 2;
        launch(ctx, kOp, deltas_kernel<kCount, decltype(out_type), decltype(dout_type)>,
               {dim3(static_cast<unsigned>(ceil_div(vectors * a.lanes, kThreads))), dim3(kThreads), 0, true}, a);
      });
    });
  });
  if (dsinks) add_row_sums(ctx, kOp, {a.by_sinks, DType::kF32, rows, heads, heads}, {}, dsinks.as<float>());
  b.delta = a.delta;
  b.stats = a.stats;
}

}  // namespace

void attention_back_general(Context& ctx, const AttentionBack& b) {
  const Attention& a = b.f;
  const TileMap vectors{a.group, kTile}, keys{1, kTile};
  const auto run = [&](auto per) {
    constexpr int kPer = decltype(per)::value, kPad = kPer * kWarp;
    const std::size_t shared = sizeof(float) * (2 * kTile * kPad + 2 * kStep * (kPad + 1));
    const unsigned kv_heads = static_cast<unsigned>(a.kv_heads);
    launch(ctx, "attention_backward", general_dq<kPer>,
           {dim3(static_cast<unsigned>(vectors.count(a)), kv_heads), dim3(kWarps * kWarp), shared, true}, b, vectors);
    launch(ctx, "attention_backward", general_dkv<kPer>,
           {dim3(static_cast<unsigned>(keys.count(a)), kv_heads), dim3(kWarps * kWarp), shared, true}, b, keys);
  };
  if (a.dim <= 32) run(std::integral_constant<int, 1>{});
  else if (a.dim <= 64) run(std::integral_constant<int, 2>{});
  else if (a.dim <= 128) run(std::integral_constant<int, 4>{});
  else run(std::integral_constant<int, 8>{});
}

void attention_backward(Context& ctx, const AttentionArgs& args, const Tensor& out, const Tensor& dout,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dsinks) {
  if (args.q.elements() == 0 || args.kv_lens.elements() == 0) return;
  AttentionBack b = describe(args, out, dout, dq, dk, dv);
  take_deltas(ctx, args, out, dout, dsinks, b);
  if (attention_back_hopper_supported(ctx, b)) attention_back_hopper(ctx, b);
  else if (attention_back_tiles_supported(ctx, b)) attention_back_tiles(ctx, b);
  else attention_back_general(ctx, b);
}

}  // namespace gov::ops::cuda
