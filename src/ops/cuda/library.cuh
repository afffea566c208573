#pragma once
// What the ops of one context keep on its device between calls (Context::library_state): the cublasLt handle, its fixed
// workspace, the algorithms chosen so far, and counters that kernels find at zero and leave at zero.
//
// All of it is made outside of CUDA graphs: a shape must have run once, eagerly, before it is captured.

#include <cublasLt.h>

#include <map>
#include <memory>
#include <vector>

#include "ops/cuda/support.cuh"

namespace gov::ops::cuda {

inline constexpr std::size_t kLtWorkspaceBytes = std::size_t{32} << 20;

// One product D = A B (+ C) (+ bias) as cublasLt knows it: what a choice of algorithm depends on.
struct LtKey {
  std::int64_t rows, in, out;
  DType out_type, bias_type;  // bias_type kBool: none
  bool accumulate;
  int alignment;  // of all pointers, in bytes, at most 16
  auto operator<=>(const LtKey&) const = default;
};

// How a product is done: by which algorithm, and who adds the bias.
struct LtProduct;
struct LtPlan {
  enum class Bias { kNone, kEpilogue, kWidened, kKernel };
  std::shared_ptr<LtProduct> product;  // its descriptors; null: cublasLt has no algorithm for it
  Bias bias = Bias::kNone;
  cublasLtMatmulAlgo_t algo{};
};

// One product c (+)= op(a) op(b) of multiply(), row-major: what a choice of algorithm depends on.
struct MatmulKey {
  std::int64_t m, n, k, pitch_a, pitch_b;
  bool transposed_a, transposed_b, accumulate;
  DType out_type;
  int alignment;  // of all pointers, in bytes, at most 16
  auto operator<=>(const MatmulKey&) const = default;
};
struct Matmul;

struct Library {
  Library();
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  cublasLtHandle_t lt = nullptr;
  Buffer lt_workspace;
  std::map<LtKey, LtPlan> plans;
  std::map<MatmulKey, std::shared_ptr<Matmul>> matmuls;  // null: cublasLt has no algorithm for it
  std::vector<Buffer> counters;   // the last is current; captured graphs may hold addresses of older ones
  std::shared_ptr<void> sampler;  // of sample()
};

// The context's, made on first use.
Library& library(Context& ctx);

// At least n counters, all zero. A kernel that counts in them must leave zeros; ops of one stream share them.
std::uint32_t* counters(Context& ctx, std::int64_t n);

}  // namespace gov::ops::cuda
