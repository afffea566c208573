// linear: BF16 x BF16 through cublasLt's tensor-core kernels, everything else through two kernels of exact F32
// arithmetic: a warp per pair of outputs for few rows, tiles for many.
#include "ops/cuda/linear.cuh"

#include <bit>

#include "ops/cuda/library.cuh"
#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda {
namespace {

constexpr std::int64_t kFewRows = 8;

struct LinearArgs {
  const void* bias;  // [out] or null
  DType bias_type;
  std::int64_t rows, in, out;
  bool accumulate;
};

template <class Out>
__device__ inline void finish(const LinearArgs& a, std::int64_t row, std::int64_t column, float sum, Out* out) {
  if (a.bias) sum += load_weight(a.bias, a.bias_type, column);
  Out* const to = out + row * a.out + column;
  *to = from_float<Out>(a.accumulate ? to_float(*to) + sum : sum);
}

// --- few rows ------------------------------------------------------------------------------------------------------

constexpr int kWarps = 4, kOutputs = 2;  // warps of a block, outputs of a warp

// x [rows <= kTokens, in], weight [out, in]. A warp reads kOutputs weight rows once, for all tokens: bound by the bytes
// of the weights. Grid: out / (kWarps * kOutputs).
template <int kTokens, int kCount, class In, class Weight, class Out>
__global__ void __launch_bounds__(kWarps* kWarp)
    linear_few_rows(LinearArgs a, const In* __restrict__ x, const Weight* __restrict__ weight, Out* __restrict__ out) {
  const int lane = threadIdx.x % kWarp;
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp) * kOutputs;
  if (first >= a.out) return;
  const Weight* w[kOutputs];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) w[o] = weight + min(first + o, a.out - 1) * a.in;
  const In* from[kTokens];
#pragma unroll
  for (int t = 0; t < kTokens; ++t) from[t] = x + min(static_cast<std::int64_t>(t), a.rows - 1) * a.in;
  float sums[kTokens][kOutputs] = {};
  grid_dependency_wait();
  grid_dependency_launch();
#pragma unroll 2
  for (std::int64_t i = lane * kCount; i < a.in; i += kWarp * kCount) {
    float u[kOutputs][kCount];
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) load_row(w[o] + i, u[o]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float v[kCount];
      load_row(from[t] + i, v);
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
#pragma unroll
        for (int j = 0; j < kCount; ++j) sums[t][o] = fmaf(u[o][j], v[j], sums[t][o]);
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      const float sum = warp_sum(sums[t][o]);
      if (lane == 0 && t < a.rows && first + o < a.out) finish(a, t, first + o, sum, out);
    }
  }
}

template <class F>
void dispatch_tokens(std::int64_t rows, F&& f) {
  if (rows <= 1) f(std::integral_constant<int, 1>{});
  else if (rows <= 4) f(std::integral_constant<int, 4>{});
  else f(std::integral_constant<int, 8>{});
}

// --- many rows -----------------------------------------------------------------------------------------------------

constexpr int kTile = 64, kDepth = 32, kTileThreads = 256;
constexpr int kPitch = kTile + 4;  // 16-byte aligned rows; a warp's stores fall into 32 banks
constexpr int kLoads = kTile * kDepth / kTileThreads;

// A tile [kTile rows, kDepth] of a row-major matrix on its way through registers into shared memory, transposed.
template <class T>
struct TileLoader {
  const T* matrix;
  std::int64_t first, rows, width;
  float held[kLoads];

  // Eight neighbours of a row by eight lanes: whole 32-byte sectors of F32.
  __device__ static int depth(int i) { return threadIdx.x % 8 + i % 4 * 8; }
  __device__ static int row(int i) { return threadIdx.x / 8 + i / 4 * 32; }
  __device__ void load(std::int64_t k) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const std::int64_t r = first + row(i), d = k + depth(i);
      held[i] = r < rows && d < width ? to_float(matrix[r * width + d]) : 0.f;
    }
  }
  __device__ void store(float (&tile)[kDepth][kPitch]) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) tile[depth(i)][row(i)] = held[i];
  }
};

// x [rows, in], weight [out, in]. Grid (out / kTile, rows / kTile), 16 x 16 threads with 4 x 4 outputs each, k
// ascending in one sum. Bound by the F32 multipliers: shared memory is read in 16-byte pieces, 3 for 16 multiply-adds.
template <class In, class Weight, class Out>
__global__ void __launch_bounds__(kTileThreads)
    linear_tiles(LinearArgs a, const In* __restrict__ x, const Weight* __restrict__ weight, Out* __restrict__ out) {
  __shared__ __align__(16) float xs[kDepth][kPitch];
  __shared__ __align__(16) float ws[kDepth][kPitch];
  TileLoader<In> x_tile{x, static_cast<std::int64_t>(blockIdx.y) * kTile, a.rows, a.in, {}};
  TileLoader<Weight> w_tile{weight, static_cast<std::int64_t>(blockIdx.x) * kTile, a.out, a.in, {}};
  const int column = threadIdx.x % 16 * 4, row = threadIdx.x / 16 * 4;
  float sums[4][4] = {};
  grid_dependency_wait();
  grid_dependency_launch();
  x_tile.load(0);
  w_tile.load(0);
  for (std::int64_t k = 0; k < a.in; k += kDepth) {
    x_tile.store(xs);
    w_tile.store(ws);
    __syncthreads();
    if (k + kDepth < a.in) {
      x_tile.load(k + kDepth);
      w_tile.load(k + kDepth);
    }
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      const float4 u = *reinterpret_cast<const float4*>(&xs[d][row]);
      const float4 v = *reinterpret_cast<const float4*>(&ws[d][column]);
      const float us[4] = {u.x, u.y, u.z, u.w}, vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(us[i], vs[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t r = x_tile.first + row + i, c = w_tile.first + column + j;
      if (r < a.rows && c < a.out) finish(a, r, c, sums[i][j], out);
    }
  }
}

void linear_exact(Context& ctx, const char* op, const Tensor& x, const Tensor& weight, const LinearArgs& args,
                  const Tensor& out) {
  dispatch_act(x.dtype, [&](auto in) {
    dispatch_weight(weight.dtype, [&](auto w) {
      dispatch_act(out.dtype, [&](auto to) {
        using In = decltype(in);
        using Weight = decltype(w);
        using Out = decltype(to);
        const In* const from = static_cast<const In*>(x.data);
        const Weight* const weights = static_cast<const Weight*>(weight.data);
        Out* const target = static_cast<Out*>(out.data);
        if (args.rows > kFewRows) {
          const dim3 grid(static_cast<unsigned>(ceil_div(args.out, kTile)),
                          static_cast<unsigned>(ceil_div(args.rows, kTile)));
          launch(ctx, op, linear_tiles<In, Weight, Out>, {grid, dim3(kTileThreads), 0, true}, args, from, weights,
                 target);
          return;
        }
        const dim3 grid(static_cast<unsigned>(ceil_div(args.out, kWarps * kOutputs)));
        dispatch_tokens(args.rows, [&](auto tokens) {
          dispatch_vector(vectorizable(args.in, x, weight), [&](auto count) {
            launch(ctx, op, linear_few_rows<decltype(tokens)::value, decltype(count)::value, In, Weight, Out>,
                   {grid, dim3(kWarps * kWarp), 0, true}, args, from, weights, target);
          });
        });
      });
    });
  });
}

// --- cublasLt ------------------------------------------------------------------------------------------------------

// out[row, column] = sums[row, column] + bias[column], where cublasLt cannot do it. May be in place.
template <class Out>
__global__ void add_bias(LinearArgs a, const float* sums, Out* out) {
  grid_dependency_wait();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < a.rows * a.out) out[i] = from_float<Out>(sums[i] + load_weight(a.bias, a.bias_type, i % a.out));
}

__global__ void widen_bias(LinearArgs a, float* __restrict__ out) {
  grid_dependency_wait();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < a.out) out[i] = load_weight(a.bias, a.bias_type, i);
}

void check_lt(cublasStatus_t status, const char* op) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(ErrorCode::kDevice, "CUDA: {}: {}", op, cublasLtGetStatusString(status));
}

cudaDataType_t lt_type(DType dtype) {
  return dtype == DType::kBF16 ? CUDA_R_16BF : dtype == DType::kF16 ? CUDA_R_16F : CUDA_R_32F;
}

}  // namespace

// The descriptors of one product. Column-major: D [out, rows] = W^T x, with W [in, out] and x [in, rows].
struct LtProduct {
  LtProduct(const char* name, const LtKey& k) : op(name), key(k) {
    check_lt(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), op);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    const auto u = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
    check_lt(cublasLtMatrixLayoutCreate(&weight, CUDA_R_16BF, u(k.in), u(k.out), k.in), op);
    check_lt(cublasLtMatrixLayoutCreate(&x, CUDA_R_16BF, u(k.in), u(k.rows), k.in), op);
    check_lt(cublasLtMatrixLayoutCreate(&out, lt_type(k.out_type), u(k.out), u(k.rows), k.out), op);
  }
  ~LtProduct() {
    if (out) cublasLtMatrixLayoutDestroy(out);
    if (x) cublasLtMatrixLayoutDestroy(x);
    if (weight) cublasLtMatrixLayoutDestroy(weight);
    if (product) cublasLtMatmulDescDestroy(product);
  }
  LtProduct(const LtProduct&) = delete;
  LtProduct& operator=(const LtProduct&) = delete;

  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check_lt(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value), op);
  }
  void set_bias(const void* bias, DType type) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(lt_type(type)));
  }
  // The library's first choice, which is the same on every machine of one kind: results repeat from run to run.
  bool choose(Library& lib, cublasLtMatmulAlgo_t& algo) const;

  const char* op;
  LtKey key;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weight = nullptr, x = nullptr, out = nullptr;
};

bool LtProduct::choose(Library& lib, cublasLtMatmulAlgo_t& algo) const {
  cublasLtMatmulPreference_t preference = nullptr;
  check_lt(cublasLtMatmulPreferenceCreate(&preference), op);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
  };
  const std::uint32_t alignment = static_cast<std::uint32_t>(key.alignment);
  // Parts of a split k are added in F32, never in the type of the result.
  const std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  cublasStatus_t status = prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kLtWorkspaceBytes);
  for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    if (status == CUBLAS_STATUS_SUCCESS) status = prefer(attribute, alignment);
  if (status == CUBLAS_STATUS_SUCCESS) status = prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  if (status == CUBLAS_STATUS_SUCCESS)
    status = cublasLtMatmulAlgoGetHeuristic(lib.lt, product, weight, x, out, out, preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0 || result.state != CUBLAS_STATUS_SUCCESS) return false;
  algo = result.algo;
  return true;
}

namespace {

int common_alignment(std::initializer_list<const void*> pointers) {
  std::uintptr_t bits = 16;
  for (const void* p : pointers) bits |= reinterpret_cast<std::uintptr_t>(p);
  return static_cast<int>(bits & (~bits + 1));
}

// Chooses for a shape on its first use: the bias in the epilogue as it is, there as F32, or in a kernel of its own.
LtPlan make_plan(Library& lib, const char* op, const LtKey& key, const LinearArgs& args) {
  LtPlan plan;
  using Bias = LtPlan::Bias;
  if (args.bias) {
    for (const Bias bias : {Bias::kEpilogue, Bias::kWidened}) {
      plan.product = std::make_shared<LtProduct>(op, key);
      plan.product->set_bias(args.bias, bias == Bias::kEpilogue ? args.bias_type : DType::kF32);
      plan.bias = bias;
      if (plan.product->choose(lib, plan.algo)) return plan;
    }
    plan.bias = Bias::kKernel;
    if (key.out_type != DType::kF32) return {};  // the sum would be rounded before the bias, and again behind it
  }
  plan.product = std::make_shared<LtProduct>(op, key);
  if (!plan.product->choose(lib, plan.algo)) plan.product.reset();
  return plan;
}

void launch_bias(Context& ctx, const char* op, const LinearArgs& args, const float* sums, const Tensor& out) {
  dispatch_act(out.dtype, [&](auto to) {
    using Out = decltype(to);
    const dim3 grid(static_cast<unsigned>(ceil_div(args.rows * args.out, 256)));
    launch(ctx, op, add_bias<Out>, {grid, dim3(256), 0, true}, args, sums, static_cast<Out*>(out.data));
  });
}

// False if cublasLt has nothing for these operands.
bool linear_lt(Context& ctx, const char* op, const Tensor& x, const Tensor& weight, const LinearArgs& args,
               const Tensor& out) {
  const int alignment = common_alignment({x.data, weight.data, out.data, args.bias});
  if (args.bias && out.dtype == DType::kBF16 && (alignment < 16 || args.in % 8 != 0 || args.out % 8 != 0)) {
    // The kernels for rows off 16-byte boundaries round the product before they add the bias, as errors of up to one
    // spacing of BF16 show (cublasLt 13.0 on an H100); those for aligned rows round once.
    const Tensor sums(ctx.workspace.take<float>(args.rows * args.out), DType::kF32, out.shape, "sums",
                      DeviceKind::kCuda);
    LinearArgs no_bias = args;
    no_bias.bias = nullptr;
    if (!linear_lt(ctx, op, x, weight, no_bias, sums)) return false;
    launch_bias(ctx, op, args, sums.as<float>(), out);
    return true;
  }
  Library& lib = library(ctx);
  const LtKey key{args.rows,       args.in,  args.out, out.dtype, args.bias ? args.bias_type : DType::kBool,
                  args.accumulate, alignment};
  auto known = lib.plans.find(key);
  if (known == lib.plans.end()) known = lib.plans.emplace(key, make_plan(lib, op, key, args)).first;
  LtPlan& plan = known->second;
  if (!plan.product) return false;

  LtProduct& product = *plan.product;
  if (plan.bias == LtPlan::Bias::kEpilogue) product.set_bias(args.bias, args.bias_type);
  if (plan.bias == LtPlan::Bias::kWidened) {
    float* const wide = ctx.workspace.take<float>(args.out);
    launch(ctx, op, widen_bias, {dim3(static_cast<unsigned>(ceil_div(args.out, 256))), dim3(256), 0, true}, args, wide);
    product.set_bias(wide, DType::kF32);
  }
  const float one = 1.f, beta = args.accumulate ? 1.f : 0.f;
  const cublasStatus_t status = cublasLtMatmul(
      lib.lt, product.product, &one, weight.data, product.weight, x.data, product.x, &beta, out.data, product.out,
      out.data, product.out, &plan.algo, lib.lt_workspace.data(), lib.lt_workspace.bytes(), stream_of(ctx));
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    plan.product.reset();  // nothing was started
    return false;
  }
  check_lt(status, op);
  if (plan.bias == LtPlan::Bias::kKernel) launch_bias(ctx, op, args, out.as<float>(), out);
  return true;
}

}  // namespace

void linear_rows(Context& ctx, const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const Tensor& out, bool accumulate) {
  const std::int64_t rows = x.shape[0], in = x.shape[1];
  const std::int64_t outputs = weight.shape[0];
  if (rows == 0 || outputs == 0) return;
  const LinearArgs args{bias.data, bias.dtype, rows, in, outputs, accumulate};
  const bool tensor_cores = x.dtype == DType::kBF16 && weight.dtype == DType::kBF16 && in > 0;
  if (tensor_cores && rows > 1 && linear_lt(ctx, op, x, weight, args, out)) return;
  linear_exact(ctx, op, x, weight, args, out);
}

void linear(Context& ctx, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& out,
            bool accumulate) {
  linear_rows(ctx, "linear", x, weight, bias, out, accumulate);
}

}  // namespace gov::ops::cuda
