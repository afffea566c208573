// The derivative of attention by tiles on the tensor cores of compute capability 8.0 and newer (mma.m16n8k16): BF16
// throughout, heads of 64 dimensions.
//
// Both kernels: a block of 4 warps, each with 16 rows of its own (queries for dq, keys for dk and dv) held in registers
// as operand A, against tiles of 64 of the other side, which are copied to shared memory one ahead. Scores, and with
// them the slopes ds, have rows of A by columns of B in registers, which is the layout of operand A of the product that
// follows. Seven products of 2 * 64 FLOPs a visible pair. Limit: reading operand B from shared memory, about half of
// the tensor cores' rate.
#include <cmath>

#include "ops/cuda/attention_backward.cuh"
#include "ops/cuda/attention_mma.cuh"

namespace gov::ops::cuda {
namespace {

constexpr int kDim = 64, kTile = 64, kThreads = 128;
constexpr int kPieces = kDim / 8;             // of 16 bytes in a row
constexpr int kTileBytes = kTile * kDim * 2;  // of 64 rows
constexpr int kHalf = 32;                     // columns of scores in registers at a time
constexpr int kStageBytes = 2 * kTileBytes;   // two operands
constexpr int kNumbersAt = 3 * kStageBytes;   // dk, dv: lse and delta of the vectors, twice
constexpr int kSharedBytes = kNumbersAt + 2 * 2 * kTile * 4;

using Fragment = std::uint32_t[4];

// 64 rows of x and y to a stage; row(i): its number in memory, or -1.
template <class F>
__device__ void copy_rows(std::uint32_t to, const void* x, const void* y, F&& row) {
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
#pragma unroll
  for (int i = 0; i < kTile * kPieces / kThreads; ++i) {
    const int place = static_cast<int>(threadIdx.x) / kPieces + i * (kThreads / kPieces);
    const std::int64_t r = row(place), at = (r < 0 ? 0 : r) * kDim + piece * 8;
    const std::uint32_t offset = piece_offset<kDim>(place, piece);
    copy_async(to + offset, static_cast<const bf16_t*>(x) + at, r >= 0);
    copy_async(to + kTileBytes + offset, static_cast<const bf16_t*>(y) + at, r >= 0);
  }
}

// The warp's 16 rows as operand A.
__device__ inline void load_own(std::uint32_t rows, Fragment (&to)[kDim / 16]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i)
    load_matrices(rows + piece_offset<kDim>(warp * 16 + lane % 16, 2 * i + lane / 16), to[i]);
}

// s = A B^T for rows first .. first + 31 of B.
__device__ inline void scores(const Fragment (&a)[kDim / 16], std::uint32_t b_rows, int first,
                              float (&s)[kHalf / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (auto& part : s)
#pragma unroll
    for (float& x : part) x = 0;
#pragma unroll
  for (int i = 0; i < kDim / 16; ++i)
#pragma unroll
    for (int n = 0; n < kHalf / 16; ++n) {
      Fragment b;
      load_matrices(b_rows + piece_offset<kDim>(first + n * 16 + lane % 8 + lane / 16 * 8, 2 * i + lane / 8 % 2), b);
      mma_bf16(s[2 * n], a[i][0], a[i][1], a[i][2], a[i][3], b[0], b[1]);
      mma_bf16(s[2 * n + 1], a[i][0], a[i][1], a[i][2], a[i][3], b[2], b[3]);
    }
}

// sums += s B for rows first .. first + 31 of B.
__device__ inline void add_rows(const float (&s)[kHalf / 8][4], std::uint32_t b_rows, int first,
                                float (&sums)[kDim / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int n = 0; n < kHalf / 16; ++n) {
    const float(&x)[4] = s[2 * n], (&y)[4] = s[2 * n + 1];
    const Fragment a = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3])};
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      Fragment b;
      load_transposed(b_rows + piece_offset<kDim>(first + n * 16 + lane % 16, 2 * d + lane / 16), b);
      mma_bf16(sums[2 * d], a[0], a[1], a[2], a[3], b[0], b[1]);
      mma_bf16(sums[2 * d + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

// The lane's part of row `half` of its two (g and g + 8).
__device__ inline void write_row(void* to, DType type, std::int64_t row, int half, float factor,
                                 const float (&sums)[kDim / 8][4]) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int d = 0; d < kDim / 8; ++d) {
    const float x = sums[d][2 * half] * factor, y = sums[d][2 * half + 1] * factor;
    const std::int64_t at = row * kDim + 8 * d + 2 * t;
    if (type == DType::kBF16) *reinterpret_cast<std::uint32_t*>(static_cast<bf16_t*>(to) + at) = pack_bf16(x, y);
    else *reinterpret_cast<float2*>(static_cast<float*>(to) + at) = {x, y};
  }
}

// Grid: (tiles of 64 vectors, kv heads).
__global__ void __launch_bounds__(kThreads, 3)
    tiles_dq(const __grid_constant__ AttentionBack b, const __grid_constant__ TileMap map) {
  extern __shared__ uint4 raw[];
  const std::uint32_t shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(raw));
  const std::uint32_t own = shared + 2 * kStageBytes;
  const Attention& a = b.f;
  grid_dependency_wait();
  grid_dependency_launch();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, t = lane % 4, kv_head = static_cast<int>(blockIdx.y);
  const std::int64_t index = static_cast<std::int64_t>(gridDim.x) - 1 - blockIdx.x;  // late rows see the most keys
  const int s = sequence_of_tile(a, map, index);
  const int first_row = a.cu_seqlens[s], rows = a.cu_seqlens[s + 1] - first_row;
  const int begin = static_cast<int>(index - map.start(first_row, s)) * kTile;
  if (begin >= rows * a.group) return;
  const int count = min(rows * a.group - begin, kTile);
  const auto row_of = [&](int i) { return (begin + min(i, count - 1)) / a.group; };
  const auto place_of = [&](int i) {  // of vector i in q, out, lse
    const int vector = begin + i, row = vector / a.group;
    return static_cast<std::int64_t>(first_row + row) * a.heads + kv_head * a.group + (vector - row * a.group);
  };
  const int first = visible_keys(a, row_of(0), rows).first, end = visible_keys(a, row_of(count - 1), rows).end;
  const int low_row = row_of(warp * 16), high_row = row_of(warp * 16 + 15);
  const auto key_place = [&](int key) {
    return key < end ? (static_cast<std::int64_t>(first_row) + key) * a.kv_heads + kv_head : -1;
  };
  copy_rows(own, a.q, b.dout, [&](int i) { return i < count ? place_of(i) : -1; });
  copy_rows(shared, a.k, a.v, [&](int i) { return key_place(first + i); });
  copies_commit();
  const float scale = a.scale * kLog2E;
  float lse[2], delta[2];
  int row[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int vector = warp * 16 + g + 8 * h;
    const bool valid = vector < count;
    lse[h] = valid ? a.lse[place_of(vector)] * kLog2E : 0.f;
    delta[h] = valid ? b.delta[place_of(vector)] : 0.f;
    row[h] = row_of(vector);
  }
  Fragment q[kDim / 16], dout[kDim / 16];
  float dq[kDim / 8][4] = {};
  int buffer = 0;
  for (int key = first; key < end; key += kTile, buffer ^= 1) {
    copies_wait();
    __syncthreads();  // the copies of all threads are there, and the other buffer is free
    if (key == first) {
      load_own(own, q);
      load_own(own + kTileBytes, dout);
    }
    if (key + kTile < end)
      copy_rows(shared + (buffer ^ 1) * kStageBytes, a.k, a.v, [&](int i) { return key_place(key + kTile + i); });
    copies_commit();
    const std::uint32_t k = shared + buffer * kStageBytes, v = k + kTileBytes;
#pragma unroll
    for (int half = 0; half < kTile; half += kHalf) {
      const int low = key + half, high = low + kHalf;  // its keys
      if (warp * 16 >= count || low >= end || (a.causal && low > high_row) ||
          (a.window > 0 && high - 1 <= low_row - a.window)) {
        continue;
      }
      const bool masked =
          high > end || (a.causal && high - 1 > low_row) || (a.window > 0 && low <= high_row - a.window);
      float p[kHalf / 8][4], dp[kHalf / 8][4];
      scores(q, k, half, p);
      scores(dout, v, half, dp);
#pragma unroll
      for (int n = 0; n < kHalf / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float weight = exp2_fast(fmaf(p[n][e], scale, -lse[e / 2]));
          p[n][e] = weight * (dp[n][e] - delta[e / 2]);
          const int j = low + 8 * n + 2 * t + e % 2;
          if (masked && (j >= end || !sees(a, row[e / 2], j))) p[n][e] = 0;
        }
      add_rows(p, k, half, dq);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int vector = warp * 16 + g + 8 * h;
    if (vector < count) write_row(b.dq, b.dq_type, place_of(vector), h, a.scale, dq);
  }
}

// Grid: (tiles of 64 keys, kv heads). The group's heads are among the vectors, row by row.
__global__ void __launch_bounds__(kThreads, 3)
    tiles_dkv(const __grid_constant__ AttentionBack b, const __grid_constant__ TileMap map) {
  extern __shared__ uint4 raw[];
  const std::uint32_t shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(raw));
  const std::uint32_t own = shared + 2 * kStageBytes;
  const Attention& a = b.f;
  grid_dependency_wait();
  grid_dependency_launch();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, t = lane % 4, kv_head = static_cast<int>(blockIdx.y);
  const int s = sequence_of_tile(a, map, blockIdx.x);  // early keys are seen by the most rows
  const int first_row = a.cu_seqlens[s], rows = a.cu_seqlens[s + 1] - first_row;
  const int first = (static_cast<int>(blockIdx.x) - static_cast<int>(map.start(first_row, s))) * kTile;
  if (first >= rows) return;
  const int count = min(kTile, rows - first);
  const auto key_place = [&](int i) {
    return (static_cast<std::int64_t>(first_row) + first + i) * a.kv_heads + kv_head;
  };
  const KeyRange range = rows_that_see(a, first, count, rows);
  const int begin = range.first * a.group, end = range.end * a.group;
  const auto vector_place = [&](int vector) -> std::int64_t {
    if (vector >= end) return -1;
    const int row = vector / a.group;
    return static_cast<std::int64_t>(first_row + row) * a.heads + kv_head * a.group + (vector - row * a.group);
  };
  const auto copy_vectors = [&](int vector, int buffer) {
    copy_rows(shared + buffer * kStageBytes, a.q, b.dout, [&](int i) { return vector_place(vector + i); });
    const int i = static_cast<int>(threadIdx.x) % kTile;
    const std::int64_t place = vector_place(vector + i);
    const std::uint32_t to = shared + kNumbersAt + (buffer * kThreads + static_cast<int>(threadIdx.x)) * 4;
    copy_async_word(to, (static_cast<int>(threadIdx.x) < kTile ? a.lse : b.delta) + (place < 0 ? 0 : place),
                    place >= 0);
  };
  copy_rows(own, a.k, a.v, [&](int i) { return i < count ? key_place(i) : -1; });
  copy_vectors(begin, 0);
  copies_commit();
  const float scale = a.scale * kLog2E;
  const int own_key = first + warp * 16;  // the warp's first
  Fragment k[kDim / 16], v[kDim / 16];
  float dk[kDim / 8][4] = {}, dv[kDim / 8][4] = {};
  int buffer = 0;
  for (int vector = begin; vector < end; vector += kTile, buffer ^= 1) {
    copies_wait();
    __syncthreads();  // the copies of all threads are there, and the other buffer is free
    if (vector == begin) {
      load_own(own, k);
      load_own(own + kTileBytes, v);
    }
    if (vector + kTile < end) copy_vectors(vector + kTile, buffer ^ 1);
    copies_commit();
    const std::uint32_t q = shared + buffer * kStageBytes, dout = q + kTileBytes;
    const float* const numbers = reinterpret_cast<const float*>(raw) + kNumbersAt / 4 + buffer * kThreads;
#pragma unroll
    for (int half = 0; half < kTile; half += kHalf) {
      const int low = vector + half;
      if (low >= end || warp * 16 >= count) continue;
      const int low_row = low / a.group, high_row = min(low + kHalf - 1, end - 1) / a.group;
      if ((a.causal && own_key > high_row) || (a.window > 0 && own_key + 15 <= low_row - a.window)) continue;
      const bool masked = (a.causal && own_key + 15 > low_row) || (a.window > 0 && own_key <= high_row - a.window);
      float p[kHalf / 8][4], dp[kHalf / 8][4];
      scores(k, q, half, p);
      scores(v, dout, half, dp);
#pragma unroll
      for (int n = 0; n < kHalf / 8; ++n) {
        const int column = half + 8 * n + 2 * t;
        const float2 lse = *reinterpret_cast<const float2*>(numbers + column);
        const float2 delta = *reinterpret_cast<const float2*>(numbers + kTile + column);
        const float offsets[2] = {lse.x * kLog2E, lse.y * kLog2E}, deltas[2] = {delta.x, delta.y};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float weight = exp2_fast(fmaf(p[n][e], scale, -offsets[e % 2]));
          if (masked) {
            if (!sees(a, (vector + column + e % 2) / a.group, own_key + g + e / 2 * 8)) weight = 0;
          }
          p[n][e] = weight;
          dp[n][e] = weight * (dp[n][e] - deltas[e % 2]);
        }
      }
      add_rows(p, dout, half, dv);
      add_rows(dp, q, half, dk);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int i = warp * 16 + g + 8 * h;
    if (i >= count) continue;
    write_row(b.dk, b.dk_type, key_place(i), h, a.scale, dk);
    write_row(b.dv, b.dv_type, key_place(i), h, 1.f, dv);
  }
}

}  // namespace

bool attention_back_tiles_supported(const Context&, const AttentionBack& b) {
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const Attention& a = b.f;
  return a.dim == kDim && a.q_type == DType::kBF16 && a.k_type == DType::kBF16 && a.v_type == DType::kBF16 &&
         b.dout_type == DType::kBF16 && static_cast<std::int64_t>(a.rows) * a.group < (1 << 30) && aligned(a.q) &&
         aligned(a.k) && aligned(a.v) && aligned(b.dout) && aligned(b.dq) && aligned(b.dk) && aligned(b.dv);
}

void attention_back_tiles(Context& ctx, const AttentionBack& b) {
  const Attention& a = b.f;
  const TileMap vectors{a.group, kTile}, keys{1, kTile};
  const unsigned kv_heads = static_cast<unsigned>(a.kv_heads);
  launch(ctx, "attention_backward", tiles_dkv,
         {dim3(static_cast<unsigned>(keys.count(a)), kv_heads), dim3(kThreads), kSharedBytes, true}, b, keys);
  launch(ctx, "attention_backward", tiles_dq,
         {dim3(static_cast<unsigned>(vectors.count(a)), kv_heads), dim3(kThreads), kSharedBytes, true}, b, vectors);
}

}  // namespace gov::ops::cuda
