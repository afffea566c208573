// Attention: which kernel does which job, and the general kernel.
#include "ops/cuda/attention.cuh"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gov::ops::cuda {
namespace {

constexpr int kVectors = 16;  // of a tile
constexpr int kKeys = 32;     // of a step: one a lane
constexpr int kWarps = 4;
constexpr int kOwn = kVectors / kWarps;  // vectors of a warp
constexpr int kMostWarpRows = kKeys / kWarps;

// Rows key, key + 1, .. of k or v into shared memory as F32, zeros behind `end` and behind `dim`, NaN where there is no
// block.
template <class T, int kPer>
__device__ void stage_rows(const Attention& a, const T* from, const std::int64_t (&rows)[kMostWarpRows], int pitch,
                           float* to) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kMostWarpRows; ++i) {
    const std::int64_t row = rows[i];
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const int d = lane + j * kWarp;
      float x = row == -1 ? __int_as_float(0x7fffffff) : 0.f;
      if (d >= a.dim) x = 0;
      else if (row >= 0) x = to_float(from[row * a.dim + d]);
      to[(warp + i * kWarps) * pitch + d] = x;
    }
  }
}

template <int kPer>
__device__ void stage_rows(const Attention& a, const void* from, DType type, const std::int64_t (&rows)[kMostWarpRows],
                           int pitch, float* to) {
  switch (type) {
    case DType::kBF16: stage_rows<bf16_t, kPer>(a, static_cast<const bf16_t*>(from), rows, pitch, to); return;
    case DType::kF8E4M3: stage_rows<f8_t, kPer>(a, static_cast<const f8_t*>(from), rows, pitch, to); return;
    default: stage_rows<float, kPer>(a, static_cast<const float*>(from), rows, pitch, to);
  }
}

// Any types and sizes, in F32. Grid: (tiles, kv heads); a block does one tile of 16 query vectors, four a warp. Keys
// pass through shared memory 32 at a time, as F32: in the scores a lane owns a key, in the sums it owns kPer = ceil(dim
// / 32) dimensions. Aim: the F32 units; shared memory feeds about half of what they can do.
template <int kPer>
__global__ void __launch_bounds__(kWarps* kWarp)
    general_kernel(const __grid_constant__ Attention a, const __grid_constant__ TileMap map) {
  constexpr int kPad = kPer * kWarp, kKeyPitch = kPad + 1;
  extern __shared__ float4 shared[];
  float* const q = reinterpret_cast<float*>(shared);  // [kVectors][kPad]
  float* const v_rows = q + kVectors * kPad;          // [kKeys][kPad]
  float* const k_rows = v_rows + kKeys * kPad;        // [kKeys][kKeyPitch]
  grid_dependency_wait();
  grid_dependency_launch();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int kv_head = static_cast<int>(blockIdx.y);
  const std::int64_t tile = static_cast<std::int64_t>(gridDim.x) - 1 - blockIdx.x;  // late rows see the most keys
  const int s = sequence_of_tile(a, map, tile);
  const int row_begin = a.cu_seqlens[s], rows = a.cu_seqlens[s + 1] - row_begin, keys = a.kv_lens[s];
  const std::int64_t begin = (tile - map.start(row_begin, s)) * kVectors;
  const std::int64_t total = static_cast<std::int64_t>(rows) * a.group;
  if (begin >= total) return;
  const int count = static_cast<int>(min(static_cast<std::int64_t>(kVectors), total - begin));

  const auto row_of = [&](int i) { return static_cast<int>((begin + i) / a.group); };
  const auto offset_of = [&](int i) {  // of vector i in q and out
    const std::int64_t head = static_cast<std::int64_t>(kv_head) * a.group + (begin + i) % a.group;
    return ((static_cast<std::int64_t>(row_begin) + row_of(i)) * a.heads + head) * a.dim;
  };
  KeyRange range[kOwn];
  float largest[kOwn], sum[kOwn], acc[kOwn][kPer];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int vector = warp * kOwn + i;
    range[i] = vector < count ? visible_keys(a, keys - rows + row_of(vector), keys) : KeyRange{0, 0};
    largest[i] = -INFINITY;
    sum[i] = 0;
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const int d = lane + j * kWarp;
      acc[i][j] = 0;
      q[vector * kPad + d] = vector < count && d < a.dim ? load_act(a.q, a.q_type, offset_of(vector) + d) : 0.f;
    }
  }
  const int first = visible_keys(a, keys - rows + row_of(0), keys).first;
  const int end = visible_keys(a, keys - rows + row_of(count - 1), keys).end;

  for (int key = first; key < end; key += kKeys) {
    std::int64_t from[kMostWarpRows];
#pragma unroll
    for (int i = 0; i < kMostWarpRows; ++i) {
      const int j = key + warp + i * kWarps;
      from[i] = j < end ? key_row(a, s, row_begin, j, kv_head) : -2;
    }
    __syncthreads();
    stage_rows<kPer>(a, a.k, a.k_type, from, kKeyPitch, k_rows);
    stage_rows<kPer>(a, a.v, a.v_type, from, kPad, v_rows);
    __syncthreads();

    float p[kOwn] = {};
    for (int d = 0; d < a.dim; d += 4) {  // both sides are zero behind dim
      float k[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) k[e] = k_rows[lane * kKeyPitch + d + e];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const float4 x = *reinterpret_cast<const float4*>(q + (warp * kOwn + i) * kPad + d);
        p[i] = fmaf(x.x, k[0], p[i]);
        p[i] = fmaf(x.y, k[1], p[i]);
        p[i] = fmaf(x.z, k[2], p[i]);
        p[i] = fmaf(x.w, k[3], p[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const bool seen = key + lane >= range[i].first && key + lane < range[i].end;
      const float score = seen ? p[i] * a.scale : -INFINITY;
      const float next = fmaxf(largest[i], warp_max(score));
      p[i] = seen ? expf(score - next) : 0.f;
      const float shrink = next == largest[i] ? 1.f : expf(largest[i] - next);
      largest[i] = next;
      sum[i] = sum[i] * shrink + warp_sum(p[i]);
#pragma unroll
      for (int j = 0; j < kPer; ++j) acc[i][j] *= shrink;
    }
    const int here = min(kKeys, end - key);
    for (int j = 0; j < here; ++j) {
      float v[kPer];
#pragma unroll
      for (int e = 0; e < kPer; ++e) v[e] = v_rows[j * kPad + lane + e * kWarp];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const float weight = __shfl_sync(kAllLanes, p[i], j);
#pragma unroll
        for (int e = 0; e < kPer; ++e) acc[i][e] = fmaf(weight, v[e], acc[i][e]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int vector = warp * kOwn + i;
    if (vector >= count) continue;
    const std::int64_t head = static_cast<std::int64_t>(kv_head) * a.group + (begin + vector) % a.group;
    float total_weight = sum[i];
    if (a.sinks) total_weight += expf(load_weight(a.sinks, a.sink_type, head) - largest[i]);
    const bool none = range[i].first >= range[i].end;
    if (a.lse && lane == 0) a.lse[offset_of(vector) / a.dim] = none ? -INFINITY : largest[i] + logf(total_weight);
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      const int d = lane + j * kWarp;
      if (d < a.dim) store_act(a.out, a.out_type, offset_of(vector) + d, none ? 0.f : acc[i][j] / total_weight);
    }
  }
}

Attention describe(const AttentionArgs& args, const Tensor& out) {
  const bool paged = !args.k;
  const Tensor &k = paged ? args.k_cache : args.k, &v = paged ? args.v_cache : args.v;
  Attention a{};
  a.q = args.q.data;
  a.k = k.data;
  a.v = v.data;
  a.sinks = args.sinks.data;
  a.out = out.data;
  a.lse = static_cast<float*>(args.lse.data);
  a.q_type = args.q.dtype;
  a.k_type = k.dtype;
  a.v_type = v.dtype;
  a.sink_type = args.sinks.dtype;
  a.out_type = out.dtype;
  a.cu_seqlens = args.cu_seqlens.as<std::int32_t>();
  a.kv_lens = args.kv_lens.as<std::int32_t>();
  if (paged) {
    a.block_tables = args.block_tables.as<std::int32_t>();
    a.columns = static_cast<int>(args.block_tables.shape[1]);
    a.block_size = static_cast<int>(k.shape[2]);
    a.blocks = static_cast<int>(k.shape[0]);
  }
  a.rows = static_cast<int>(args.q.shape[0]);
  a.sequences = static_cast<int>(args.kv_lens.elements());
  a.heads = static_cast<int>(args.q.shape[1]);
  a.kv_heads = static_cast<int>(k.shape[1]);
  a.group = a.heads / a.kv_heads;
  a.dim = static_cast<int>(args.q.shape[2]);
  a.window = args.window;
  a.causal = args.causal;
  a.scale = args.scale;
  std::int64_t most = paged ? static_cast<std::int64_t>(a.columns) * a.block_size : a.rows;
  if (args.max_keys > 0) most = std::min(most, args.max_keys);
  if (a.window > 0 && a.causal) most = std::min<std::int64_t>(most, a.window);
  a.most_keys = static_cast<int>(std::min<std::int64_t>(most, std::numeric_limits<int>::max()));
  return a;
}

}  // namespace

void attention_general(Context& ctx, const Attention& a) {
  const TileMap map{a.group, kVectors};
  const auto run = [&](auto per) {
    constexpr int kPad = decltype(per)::value * kWarp;
    const std::size_t shared = sizeof(float) * (kVectors * kPad + kKeys * kPad + kKeys * (kPad + 1));
    const dim3 grid(static_cast<unsigned>(map.count(a)), static_cast<unsigned>(a.kv_heads));
    launch(ctx, "attention", general_kernel<decltype(per)::value>, {grid, dim3(kWarps * kWarp), shared, true}, a, map);
  };
  if (a.dim <= 32) run(std::integral_constant<int, 1>{});
  else if (a.dim <= 64) run(std::integral_constant<int, 2>{});
  else if (a.dim <= 128) run(std::integral_constant<int, 4>{});
  else run(std::integral_constant<int, 8>{});
}

// Few rows a sequence: the keys are split over the GPU (decode). BF16 queries on keys of BF16 or F8: tensor cores, by
// Hopper's own instructions where they fit, else by those of compute capability 8.0. Everything else, and that is also
// every prefill with F32 queries: the general kernel, in F32.
void attention(Context& ctx, const AttentionArgs& args, const Tensor& out) {
  constexpr std::int64_t kFewRows = 4;
  const Attention a = describe(args, out);
  if (a.rows == 0 || a.heads == 0 || a.sequences == 0) return;
  const std::int64_t most_rows = args.max_rows > 0 ? args.max_rows : a.rows;
  if (most_rows <= kFewRows && !a.lse && attention_decode_supported(ctx, a)) attention_decode(ctx, a);
  else if (attention_hopper_supported(ctx, a)) attention_hopper(ctx, a);
  else if (attention_tiles_supported(ctx, a)) attention_tiles(ctx, a);
  else attention_general(ctx, a);
}

}  // namespace gov::ops::cuda
