#pragma once
// Matrix times one vector at the speed of memory: the decode step of a single sequence.
//
// A block streams tiles of 8 weight rows through a ring in shared memory: one warp fills it with bulk copies
// (cp.async.bulk), the others multiply with mma.m16n8k16. Its 16 weight rows are the two halves of eight rows, its
// columns the parts of the vector's two halves: small tiles spread evenly over the multiprocessors. Nothing that the
// kernel before writes is needed to fill the ring, so with programmatic dependent launch it is full before that kernel
// ends, and memory hardly idles between kernels: that decides the speed (a layer's stages take 6 to 12 us each).
//
// Exactness: the vector is split into three columns. With bf16 weights they are bf16 parts whose sum is the F32 value;
// products are exact and sums F32. With int8 and MXFP4 weights they are the base-256 digits of a fixed-point number
// relative to the largest element (23 bits with the sign), and sums are integers (of a block of 32 with MXFP4, F32
// beyond). The k index is permuted alike in both operands, so that what a lane reads from a row in one piece is its
// fragment.
//
// Limit: bytes of the weights / memory bandwidth. Integer instructions, of which a multiprocessor does 64 a clock: none
// a weight (bf16, int8), 1.2 (MXFP4).

#include "ops/cuda/mbarrier.cuh"

namespace gov::ops::cuda {

constexpr int kTileRows = 8, kFragmentRows = 16;

// A barrier among `threads` threads of the block, other than __syncthreads' own.
__device__ inline void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- fragments ---------------------------------------------------------------------------------------------------

__device__ inline void mma_bf16(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                                std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline void mma_int8(int (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                                std::uint32_t b0, std::uint32_t b1, const int4& c) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c.x), "r"(c.y), "r"(c.z), "r"(c.w));
}

constexpr int kParts = 3;

// The forms of a weight matrix. Tiles are summed over the warps kBatch at a time.
struct Bf16Weights {
  static constexpr int kStages = 3, kWarps = 8, kBatch = 8;
  static constexpr int kPartBytes = 2;
  static constexpr int kSkewHalf = 64, kSkewPart = 64;  // see half_pitch
};
struct Int8Weights {  // value = byte * scale of the row
  static constexpr int kStages = 3, kWarps = 8, kBatch = 8;
  static constexpr int kPartBytes = 1;
  static constexpr int kSkewHalf = 64, kSkewPart = 64;
};
struct Mxfp4Weights {
  static constexpr int kStages = 3, kWarps = 12, kBatch = 12;
  static constexpr int kPartBytes = 1;
  static constexpr int kSkewHalf = 96, kSkewPart = 32;
};

// --- the vector --------------------------------------------------------------------------------------------------

// Where the vector's parts are in shared memory: part after part, each as two halves, in order. Halves and parts begin
// so many bytes from the start of a 128-byte line that the reads of neighbouring columns fall into all banks.
__host__ __device__ constexpr int skewed(int bytes, int skew) { return (bytes - skew + 127) / 128 * 128 + skew; }
template <class W>
__host__ __device__ constexpr int half_pitch(int k) {
  return skewed(k / 2 * W::kPartBytes, W::kSkewHalf);
}
template <class W>
__host__ __device__ constexpr int part_pitch(int k) {
  return skewed(2 * half_pitch<W>(k), W::kSkewPart);
}
template <class W>
__host__ __device__ constexpr int vector_bytes(int k) {
  return (kParts * part_pitch<W>(k) + 127) / 128 * 128;
}

// The bytes between this lane's column (g = lane / 4) and the start of the vector: part g % 3, the second half of the
// vector in columns 3 to 5. Columns 6 and 7 repeat two of them; nobody reads their sums.
template <class W>
__device__ inline int column_offset(int g, int k_size) {
  const int column = g < 2 * kParts ? g : g - 2;
  return column % kParts * part_pitch<W>(k_size) + column / kParts * half_pitch<W>(k_size);
}

// Adding kMagic = 1.5 * 2^23 rounds a float to an integer; an integer sum that begins with its bits is, seen as a
// float, kMagic + sum.
constexpr int kMagicBits = 0x4B400000;
constexpr float kMagic = 12582912.f;
constexpr float kMostDigits = 4194303.f;  // the largest fixed-point number: rounding by adding kMagic reaches so far

// Writes elements k .. k + 7 of the vector as three bf16 parts.
__device__ inline void store8(Bf16Weights, char* vector, int k_size, int k, float (&x)[8], float) {
  const int half = k >= k_size / 2;
  char* to = vector + half * half_pitch<Bf16Weights>(k_size) + 2 * (k - half * (k_size / 2));
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    std::uint32_t out[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      out[i] = reinterpret_cast<const std::uint32_t&>(pair);
      x[2 * i] -= __uint_as_float(out[i] << 16);
      x[2 * i + 1] -= __uint_as_float(out[i] & 0xffff0000u);
    }
    *reinterpret_cast<uint4*>(to + p * part_pitch<Bf16Weights>(k_size)) = uint4{out[0], out[1], out[2], out[3]};
  }
}

__device__ inline std::uint32_t low_bytes(int a, int b, int c, int d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}
// ... as three digits, of x * inverse.
template <class W>
__device__ inline void store8(W, char* vector, int k_size, int k, float (&x)[8], float inverse) {
  int q[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) q[i] = __float_as_int(fmaf(x[i], inverse, kMagic)) - kMagicBits;  // rounds: |q| < 2^22
  const int half = k >= k_size / 2, inner = k - half * (k_size / 2);
  char* to = vector + half * half_pitch<W>(k_size) + inner;
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const uint2 out{low_bytes(q[0], q[1], q[2], q[3]), low_bytes(q[4], q[5], q[6], q[7])};
#pragma unroll
    for (int i = 0; i < 8; ++i) q[i] = (q[i] + 128) >> 8;
    *reinterpret_cast<uint2*>(to + p * part_pitch<W>(k_size)) = out;
  }
}

__device__ inline void load8(const float* from, float (&x)[8]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ inline void multiply8(float (&x)[8], uint4 gains) {
  const std::uint32_t words[4] = {gains.x, gains.y, gains.z, gains.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::uint32_t word = words[i / 2];
    x[i] *= __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
  }
}

// The weights of a norm (nullptr: none) that a thread will need: they may be read before the kernel that writes the
// vector has ended. kKept: the eights of the vector that a thread has.
template <int kKept>
struct Gains {
  uint4 kept[kKept];
  bool norm;
  __device__ Gains(const bf16_t* weights, int k_size, int rank, int threads) : norm(weights != nullptr) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int k = 8 * (rank + i * threads);
      kept[i] = norm && k < k_size ? *reinterpret_cast<const uint4*>(weights + k) : uint4{0, 0, 0, 0};
    }
  }
};

// Loads a vector of k_size <= 8 * kKept * threads floats by `threads` threads (whole warps), thread `rank` among them,
// RMS-normalised and weighted where there is a norm, and stores its parts. Returns the factor that sums of digits are
// to be multiplied with. `scratch`: two floats a warp, of these threads. All `everybody` threads meet in named barrier
// 1 twice.
template <class W, int kKept>
__device__ float stage_vector(const float* x, const Gains<kKept>& gains, float eps, int k_size, char* vector, int rank,
                              int threads, int everybody, float2* scratch) {
  constexpr bool kDigits = W::kPartBytes == 1;
  float kept[kKept][8];
  float squares = 0, largest = 0;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int k = 8 * (rank + i * threads);
    if (k < k_size) load8(x + k, kept[i]);
  }
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    if (8 * (rank + i * threads) >= k_size) continue;
#pragma unroll
    for (int j = 0; j < 8; ++j) squares += kept[i][j] * kept[i][j];
    if (gains.norm) multiply8(kept[i], gains.kept[i]);
#pragma unroll
    for (int j = 0; j < 8; ++j) largest = fmaxf(largest, fabsf(kept[i][j]));
  }
  squares = warp_sum(squares);
  largest = warp_max(largest);
  if (rank % kWarp == 0) scratch[rank / kWarp] = make_float2(squares, largest);
  named_barrier(1, everybody);
  squares = largest = 0;
  for (int w = 0; w < threads / kWarp; ++w) {
    squares += scratch[w].x;
    largest = fmaxf(largest, scratch[w].y);
  }
  const float factor = gains.norm ? rsqrtf(squares / static_cast<float>(k_size) + eps) : 1.f;
  const float inverse = largest > 0 ? kMostDigits / largest : 0.f;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
    const int k = 8 * (rank + i * threads);
    if (k >= k_size) continue;
    if constexpr (!kDigits) {
#pragma unroll
      for (int j = 0; j < 8; ++j) kept[i][j] *= factor;
    }
    store8(W{}, vector, k_size, k, kept[i], inverse);
  }
  named_barrier(1, everybody);
  // Infinity and NaN reach the result: they are not finite in `squares` or `largest`.
  return kDigits ? factor * (largest + 0 * squares) / kMostDigits : 1.f;
}

// --- products ----------------------------------------------------------------------------------------------------

// sums += both halves of row g, 16 bytes each, times the vector (x: this lane's 16 bytes of its column). Two sums side
// by side: products that follow each other do not wait for one another.
struct FloatSums {
  float a[4] = {0, 0, 0, 0}, b[4] = {0, 0, 0, 0};
  __device__ float operator[](int i) const { return a[i] + b[i]; }
};
struct IntSums {
  int a[4] = {0, 0, 0, 0}, b[4] = {0, 0, 0, 0};
  __device__ float operator[](int i) const { return static_cast<float>(a[i] + b[i]); }
};
__device__ inline void multiply(FloatSums& sums, uint4 low, uint4 high, uint4 x) {
  mma_bf16(sums.a, low.x, high.x, low.y, high.y, x.x, x.y);
  mma_bf16(sums.b, low.z, high.z, low.w, high.w, x.z, x.w);
}
__device__ inline void multiply(IntSums& sums, uint4 low, uint4 high, uint4 x) {
  mma_int8(sums.a, low.x, high.x, low.y, high.y, x.x, x.y, int4{sums.a[0], sums.a[1], sums.a[2], sums.a[3]});
  mma_int8(sums.b, low.z, high.z, low.w, high.w, x.z, x.w, int4{sums.b[0], sums.b[1], sums.b[2], sums.b[3]});
}
template <class W>
using SumsOf = std::conditional_t<std::is_same_v<W, Int8Weights>, IntSums, FloatSums>;

// Twice the values of the positive codes among four 4-bit codes (the low 16 bits), 0 for the negative ones. The
// permutation picks a byte of its two words by the low three bits of a code; where the fourth is set it repeats the
// sign of that byte, which is 0 here.
__device__ inline std::uint32_t positive_codes(std::uint32_t codes) {
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(0x03020100u), "r"(0x0C080604u), "r"(codes));
  return bytes;
}

// One block of 32 of both halves of row g: `low` and `high` are this lane's eight codes, x its eight digits. Adds the
// block's sum, positive less negative codes, scaled.
__device__ inline void multiply_block(float (&sums)[4], std::uint32_t low, std::uint32_t high, uint2 x,
                                      std::uint32_t low_scale, std::uint32_t high_scale) {
  constexpr int4 kBegin{kMagicBits, kMagicBits, kMagicBits, kMagicBits};
  const auto product = [&](int(&d)[4], std::uint32_t l, std::uint32_t h) {
    mma_int8(d, positive_codes(l), positive_codes(h), positive_codes(l >> 16), positive_codes(h >> 16), x.x, x.y,
             kBegin);
  };
  int p[4], n[4];
  product(p, low, high);
  product(n, low ^ 0x88888888u, high ^ 0x88888888u);
  const float lf = __uint_as_float(low_scale << 23), hf = __uint_as_float(high_scale << 23);
  sums[0] += lf * (__int_as_float(p[0]) - __int_as_float(n[0]));
  sums[1] += lf * (__int_as_float(p[1]) - __int_as_float(n[1]));
  sums[2] += hf * (__int_as_float(p[2]) - __int_as_float(n[2]));
  sums[3] += hf * (__int_as_float(p[3]) - __int_as_float(n[3]));
}

// The whole sum of row g, in lanes t = lane % 4 = 0. Rows below 8 hold first halves in columns 0 to 2, the others
// second halves in 3 to 5; a lane has columns 2t and 2t + 1. Digits weigh 1, 256 and 65,536.
template <class W>
__device__ inline float sum_columns(const auto& s) {
  constexpr float k1 = W::kPartBytes == 1 ? 256.f : 1.f, k2 = k1 * k1;
  const int t = threadIdx.x % 4;
  const float mine = t == 0 ? s[0] + k1 * s[1] : t == 1 ? k2 * s[0] + s[3] : k1 * s[2] + k2 * s[3];
  return mine + __shfl_down_sync(kAllLanes, mine, 1) + __shfl_down_sync(kAllLanes, mine, 2);
}

// --- the ring ----------------------------------------------------------------------------------------------------

// Bytes between rows of a stage. Reads of 16 bytes by four lanes a row: two neighbouring rows fall into all banks.
__host__ __device__ constexpr int row_pitch(int bytes) { return skewed(bytes, 64); }
// Rows of MXFP4 codes are read 4 bytes by four lanes a row. They stay as they are in memory, for one large copy, unless
// then all rows of a tile fell into the same banks.
__host__ __device__ constexpr int code_row_pitch(int bytes) { return bytes % 128 != 0 ? bytes : bytes + 16; }

struct Ring {
  std::uint32_t data, full, empty;  // shared addresses: stages, barriers
  int stages, stage_bytes;
  int stage = 0;
  std::uint32_t phase = 0;
  __device__ std::uint32_t buffer() const { return data + stage * stage_bytes; }
  __device__ std::uint32_t full_barrier() const { return full + 8 * stage; }
  __device__ std::uint32_t empty_barrier() const { return empty + 8 * stage; }
  __device__ void advance() {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

}  // namespace gov::ops::cuda
