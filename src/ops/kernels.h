#pragma once
// The hot loops. One source, compiled once per instruction set into its own namespace (kernels_<isa>.cc); this header
// is what the rest of ops sees of them: plain argument structs and one table of function pointers per instruction set.
//
// It is included by units compiled for AVX2 and AVX-512, so it holds no inline functions: a copy of one, emitted there,
// could be the one the linker keeps for the whole program.

#include <cstdint>

#include "base/cpu_info.h"

namespace gov::ops {

// out[t][r] = weight[r] . x(t) + bias[r] for r < rows, t < tokens. Each sum has its own lanes in one fixed order, so a
// result does not depend on `rows`, `tokens` or how they were cut.
struct LinearArgs {
  const float* x;              // row t at x + (x_rows ? x_rows[t] : t) * x_stride
  const std::int32_t* x_rows;  // gather, or null
  std::int64_t x_stride;
  std::int64_t tokens;
  std::int64_t in;
  const void* weight;          // [rows, in]; MXFP4: blocks [rows, in/32, 16], and x as written by `pack`
  const std::uint8_t* scales;  // MXFP4 only: [rows, in/32]
  std::int64_t rows;
  const float* bias;  // [rows] or null
  float* out;         // row t at out + t * out_stride
  std::int64_t out_stride;
  bool accumulate;  // out += instead of out =
};

inline constexpr int kAttentionKeys = 64;  // keys per block; blocks start at multiples of it in the sequence
inline constexpr int kAttentionTile = 64;  // at most this many (query row, head) vectors per tile
inline constexpr int kMaxHeadDim = 256;
inline constexpr int kAttentionPad = 16;  // scratch rows of length D are padded to a multiple of this

// One tile: `count` query vectors sharing one kv head. Scratch sizes in floats, D' = D padded to kAttentionPad.
struct AttentionTile {
  int count;
  int dim;
  float scale;
  const float* const* q;      // [count] rows of D
  float* const* out;          // [count] rows of D
  const std::int64_t* first;  // [count] first visible key of each vector
  const std::int64_t* last;   // [count] one past the last visible key
  const float* sink;          // [count], or null
  // Row of key j: paged when block_table is set, else k + j * key_stride.
  const void* k;
  const void* v;
  bool cache_bf16;
  std::int64_t key_stride;          // elements between keys (contiguous) or rows of a block (paged: D)
  const std::int32_t* block_table;  // this sequence's, or null
  std::int64_t block_size;          // keys per block
  std::int64_t block_stride;        // elements between blocks
  float* k_scratch;                 // [D', kAttentionKeys], transposed keys
  float* v_scratch;                 // [kAttentionKeys, D']
  float* scores;                    // [kAttentionTile, kAttentionKeys]
  float* accumulators;              // [kAttentionTile, D']
  float* softmax;  // [count, 2], or null: the largest score, and the sum of exp(score - it), the sink's included
};

// c [rows, columns] = A b, or added to c: A's element (row, step) at a + row * a_row + step * a_step, row `step` of b
// at b + step * b_stride. Whole vectors of b are read: its rows must be padded to a multiple of kProductPad.
struct ProductArgs {
  const float* a;
  std::int64_t a_row, a_step;
  const float* b;
  std::int64_t b_stride;
  float* c;
  std::int64_t c_stride;
  std::int64_t rows, columns, steps;
  bool accumulate;
};
inline constexpr int kProductPad = 16;

struct Kernels {
  void (*linear_f32)(const LinearArgs&);
  void (*linear_bf16)(const LinearArgs&);
  void (*linear_f16)(const LinearArgs&);
  void (*linear_mxfp4)(const LinearArgs&);
  // Reorders a row of n (multiple of 32) activations for linear_mxfp4: in groups of 2 x lanes, even elements first.
  void (*pack)(const float* x, std::int64_t n, float* out);
  void (*rms_norm)(const float* x, const float* weight, std::int64_t n, float eps, float* out);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, std::int64_t n, float eps, float* out);
  void (*swiglu)(const float* h, std::int64_t n, float alpha, float limit, float* out);
  void (*gelu_erf)(const float* x, std::int64_t n, float* out);
  void (*gelu_tanh)(const float* x, std::int64_t n, float* out);
  void (*gelu_quick)(const float* x, std::int64_t n, float* out);
  // out[i] = exp((x[i] - shift) * factor), out may be x or null; returns their sum.
  double (*exp_sum)(const float* x, std::int64_t n, float shift, float factor, float* out);
  void (*attention)(const AttentionTile&);
  void (*product)(const ProductArgs&);
  // Gradients of a row (row_gradients.h), dx added to or null; the first returns the inverse root of the mean square,
  // the second leaves the mean and the inverse deviation.
  float (*rms_norm_gradient)(const float* x, const float* weight, const float* dout, std::int64_t n, float eps,
                             float* dx);
  void (*layer_norm_gradient)(const float* x, const float* weight, const float* dout, std::int64_t n, float eps,
                              float* dx, float* mean_and_inverse);
  // n activations; dh may be h.
  void (*swiglu_gradient)(const float* h, const float* dout, std::int64_t n, float alpha, float limit, float* dh);
  void (*gelu_erf_gradient)(const float* x, const float* dout, std::int64_t n, float* dx);
  void (*gelu_tanh_gradient)(const float* x, const float* dout, std::int64_t n, float* dx);
  void (*gelu_quick_gradient)(const float* x, const float* dout, std::int64_t n, float* dx);
  // For device_limits: multiplies and adds `steps` times in kFmaChains independent vectors; sums n floats.
  float (*fma_chains)(std::int64_t steps, float seed);
  float (*read_sum)(const float* x, std::int64_t n);
  int lanes;
};

inline constexpr int kFmaChains = 12;

namespace baseline {
const Kernels& kernels();
}
namespace avx2 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}

// The table of `isa`, or of the best one this build and machine have below it.
const Kernels& kernels(CpuIsa isa);

}  // namespace gov::ops
