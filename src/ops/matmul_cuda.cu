// Dense products of derivatives: BF16 x BF16 through cublasLt, everything else in exact F32; and sums over rows.
#include "ops/cuda/matmul.cuh"

#include <algorithm>

#include "ops/cuda/library.cuh"
#include "ops/cuda/product.cuh"

namespace gov::ops::cuda {

// The descriptors of one product and how it is done. To cublasLt, whose matrices are column-major, it is
// c^T [n, m] = op(b)^T op(a)^T.
struct Matmul {
  Matmul(const char* name, const MatmulKey& k) : op(name) {
    check_lt(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, bool transposed) {
      const cublasOperation_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
      check_lt(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value));
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, k.transposed_b);
    set(CUBLASLT_MATMUL_DESC_TRANSB, k.transposed_a);
    const auto u = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
    check_lt(cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, u(k.transposed_b ? k.k : k.n), u(k.transposed_b ? k.n : k.k),
                                        k.pitch_b));
    check_lt(cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, u(k.transposed_a ? k.m : k.k), u(k.transposed_a ? k.k : k.m),
                                        k.pitch_a));
    check_lt(
        cublasLtMatrixLayoutCreate(&c, k.out_type == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F, u(k.n), u(k.m), k.n));
  }
  ~Matmul() {
    for (cublasLtMatrixLayout_t layout : {a, b, c}) {
      if (layout) cublasLtMatrixLayoutDestroy(layout);
    }
    if (product) cublasLtMatmulDescDestroy(product);
  }
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  void check_lt(cublasStatus_t status) const {
    if (status != CUBLAS_STATUS_SUCCESS) fail(ErrorCode::kDevice, "CUDA: {}: {}", op, cublasLtGetStatusString(status));
  }

  // The library's first choice among those that repeat their results. False: it has none.
  bool choose(const Library& lib, const MatmulKey& key) {
    cublasLtMatmulPreference_t preference = nullptr;
    check_lt(cublasLtMatmulPreferenceCreate(&preference));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
    };
    const std::uint32_t alignment = static_cast<std::uint32_t>(key.alignment);
    const std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    cublasStatus_t status = prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kLtWorkspaceBytes);
    for (const auto attribute :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      if (status == CUBLAS_STATUS_SUCCESS) status = prefer(attribute, alignment);
    if (status == CUBLAS_STATUS_SUCCESS) status = prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    if (status == CUBLAS_STATUS_SUCCESS)
      status = cublasLtMatmulAlgoGetHeuristic(lib.lt, product, b, a, c, c, preference, 1, &result, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0 || result.state != CUBLAS_STATUS_SUCCESS) return false;
    algo = result.algo;
    return true;
  }

  const char* op;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algo{};
};

namespace {

// --- exact -----------------------------------------------------------------------------------------------------------

// Element (row, depth) of an operand: kAlong says which of the two is contiguous.
template <class T, Along kAlong>
struct DenseOperand {
  const T* data;
  std::int64_t pitch;
  __device__ float at(std::int64_t row, std::int64_t depth) const {
    return to_float(kAlong == Along::kDepth ? data[row * pitch + depth] : data[depth * pitch + row]);
  }
};

// Grid (n tiles, m tiles, parts of k).
template <class A, Along kA, class B, Along kB, class C>
struct DenseProduct {
  static constexpr Along kAlongA = kA, kAlongB = kB;
  DenseOperand<A, kA> left;
  DenseOperand<B, kB> right;
  C* c;            // one part only
  float* partial;  // [parts, m, n], or null
  std::int64_t m, n, k, per_part;
  bool accumulate;

  __device__ bool tile(ProductTile& t) const {
    t.group = 0;
    t.first_m = static_cast<std::int64_t>(blockIdx.y) * kProductTile;
    t.first_n = static_cast<std::int64_t>(blockIdx.x) * kProductTile;
    t.end_m = m;
    t.end_n = n;
    t.begin_k = blockIdx.z * per_part;
    t.end_k = min(t.begin_k + per_part, k);
    return true;
  }
  __device__ float a(const ProductTile&, std::int64_t row, std::int64_t depth) const { return left.at(row, depth); }
  __device__ float b(const ProductTile&, std::int64_t row, std::int64_t depth) const { return right.at(row, depth); }
  __device__ void store(const ProductTile&, std::int64_t row, std::int64_t column, float sum) const {
    if (partial) {
      partial[(blockIdx.z * m + row) * n + column] = sum;
      return;
    }
    C* const to = c + row * n + column;
    *to = from_float<C>(accumulate ? to_float(*to) + sum : sum);
  }
};

constexpr int kThreads = 256;

// c (+)= the sum of the parts, in order. Bound by memory.
template <class C>
__global__ void join_parts(const float* __restrict__ partial, int parts, std::int64_t elements, bool accumulate, C* c) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= elements) return;
  float sum = 0;
  for (int p = 0; p < parts; ++p) sum += partial[p * elements + i];
  c[i] = from_float<C>(accumulate ? to_float(c[i]) + sum : sum);
}

// Calls f(type, integral_constant<Along>).
template <class F>
void dispatch_operand(const Matrix& x, bool depth_contiguous, F&& f) {
  dispatch_weight(x.dtype, [&](auto type) {
    if (depth_contiguous) f(type, std::integral_constant<Along, Along::kDepth>{});
    else f(type, std::integral_constant<Along, Along::kRows>{});
  });
}

void multiply_exact(Context& ctx, const char* op, const Matrix& a, bool transposed_a, const Matrix& b,
                    bool transposed_b, const MatmulKey& key, void* c) {
  const std::int64_t tiles = ceil_div(key.m, kProductTile) * ceil_div(key.n, kProductTile);
  // Few results of long sums: parts of the sums beside each other.
  constexpr std::int64_t kShortest = 256;
  const std::int64_t most =
      std::max<std::int64_t>(1, 2 * device_of(ctx).multiprocessors / std::max<std::int64_t>(tiles, 1));
  std::int64_t parts = std::min({most, std::int64_t{64}, std::max<std::int64_t>(1, key.k / kShortest)});
  const std::int64_t per_part =
      ceil_div(ceil_div(std::max<std::int64_t>(key.k, 1), parts), kProductDepth) * kProductDepth;
  parts = std::max<std::int64_t>(1, ceil_div(key.k, per_part));
  float* const partial = parts > 1 ? ctx.workspace.take<float>(parts * key.m * key.n) : nullptr;
  const dim3 grid(static_cast<unsigned>(ceil_div(key.n, kProductTile)),
                  static_cast<unsigned>(ceil_div(key.m, kProductTile)), static_cast<unsigned>(parts));
  if (grid.y > 65535) fail(ErrorCode::kUnsupported, "{}: too many rows for one call: {}", op, key.m);
  dispatch_act(key.out_type, [&](auto out) {
    using C = decltype(out);
    dispatch_operand(a, !transposed_a, [&](auto a_type, auto along_a) {
      dispatch_operand(b, transposed_b, [&](auto b_type, auto along_b) {
        using A = decltype(a_type);
        using B = decltype(b_type);
        if constexpr (!std::is_same_v<A, f16_t>) {  // activations are F32 or BF16
          constexpr Along kA = decltype(along_a)::value, kB = decltype(along_b)::value;
          const DenseProduct<A, kA, B, kB, C> product{{static_cast<const A*>(a.data), a.pitch},
                                                      {static_cast<const B*>(b.data), b.pitch},
                                                      static_cast<C*>(c),
                                                      partial,
                                                      key.m,
                                                      key.n,
                                                      key.k,
                                                      per_part,
                                                      key.accumulate};
          launch(ctx, op, product_tiles<DenseProduct<A, kA, B, kB, C>>, {grid, dim3(kProductThreads), 0, true},
                 product);
        }
      });
    });
    if (partial) {
      const std::int64_t elements = key.m * key.n;
      launch(ctx, op, join_parts<C>,
             {dim3(static_cast<unsigned>(ceil_div(elements, kThreads))), dim3(kThreads), 0, true},
             static_cast<const float*>(partial), static_cast<int>(parts), elements, key.accumulate, static_cast<C*>(c));
    }
  });
}

// --- tensor cores ----------------------------------------------------------------------------------------------------

int common_alignment(std::initializer_list<const void*> pointers) {
  std::uintptr_t bits = 16;
  for (const void* p : pointers) bits |= reinterpret_cast<std::uintptr_t>(p);
  return static_cast<int>(bits & (~bits + 1));
}

// False if cublasLt has nothing for these operands.
bool multiply_lt(Context& ctx, const char* op, const Matrix& a, const Matrix& b, const MatmulKey& key, void* c) {
  Library& lib = library(ctx);
  auto known = lib.matmuls.find(key);
  if (known == lib.matmuls.end()) {
    auto made = std::make_shared<Matmul>(op, key);
    if (!made->choose(lib, key)) made.reset();
    known = lib.matmuls.emplace(key, std::move(made)).first;
  }
  std::shared_ptr<Matmul>& product = known->second;
  if (!product) return false;
  const float one = 1.f, beta = key.accumulate ? 1.f : 0.f;
  const cublasStatus_t status =
      cublasLtMatmul(lib.lt, product->product, &one, b.data, product->b, a.data, product->a, &beta, c, product->c, c,
                     product->c, &product->algo, lib.lt_workspace.data(), lib.lt_workspace.bytes(), stream_of(ctx));
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    product.reset();  // nothing was started
    return false;
  }
  product->check_lt(status);
  return true;
}

// --- sums over rows --------------------------------------------------------------------------------------------------

constexpr int kSumColumns = 64, kSumRows = 4;  // threads of a block along columns and rows

struct RowSums {
  RowGroups groups;
  std::int64_t rows, columns, pitch;
  int splits;
  float* partial;  // [groups, splits, columns]
};

// Grid (columns / (kSumColumns * kCount), splits, groups): a block sums a part of a group's rows. Bound by memory.
template <int kCount, class T>
__global__ void __launch_bounds__(kSumColumns* kSumRows) sum_rows(RowSums s, const T* __restrict__ x) {
  __shared__ float parts[kSumRows][kSumColumns * kCount + 1];
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t group = blockIdx.z;
  const std::int64_t begin = s.groups.begins ? s.groups.begins[group] : 0;
  const std::int64_t count = s.groups.counts ? s.groups.counts[group] : s.rows;
  const std::int64_t per = (count + s.splits - 1) / s.splits, first = blockIdx.y * per, end = min(first + per, count);
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kSumColumns + threadIdx.x) * kCount;
  float sum[kCount] = {};
  if (column < s.columns) {
#pragma unroll 4
    for (std::int64_t r = first + threadIdx.y; r < end; r += kSumRows) {
      float v[kCount];
      load_row(x + (begin + r) * s.pitch + column, v);
      const float w = s.groups.weights ? s.groups.weights[begin + r] : 1.f;
#pragma unroll
      for (int j = 0; j < kCount; ++j) sum[j] = fmaf(w, v[j], sum[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kCount; ++j) parts[threadIdx.y][threadIdx.x * kCount + j] = sum[j];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.y) * kSumColumns + static_cast<int>(threadIdx.x); i < kSumColumns * kCount;
       i += kSumColumns * kSumRows) {
    const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * kSumColumns * kCount + i;
    float total = 0;
#pragma unroll
    for (int y = 0; y < kSumRows; ++y) total += parts[y][i];
    if (c < s.columns) s.partial[(group * s.splits + blockIdx.y) * s.columns + c] = total;
  }
}

__global__ void __launch_bounds__(kThreads) join_row_sums(RowSums s, float* __restrict__ sums) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, group = blockIdx.y;
  if (column >= s.columns) return;
  float total = 0;
  for (int i = 0; i < s.splits; ++i) total += s.partial[(group * s.splits + i) * s.columns + column];
  sums[group * s.columns + column] += total;
}

// Bound by memory: 6 bytes an element.
template <int kCount>
__global__ void __launch_bounds__(kThreads) narrow_elements(const float* __restrict__ x, std::int64_t n, bf16_t* to) {
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount;
  if (i >= n) return;
  float v[kCount];
  load_row(x + i, v);
  store_row(to + i, v);
}

}  // namespace

void multiply(Context& ctx, const char* op, const Matrix& a, bool transposed_a, const Matrix& b, bool transposed_b,
              void* c, DType c_type, bool accumulate) {
  const MatmulKey key{transposed_a ? a.columns : a.rows,
                      transposed_b ? b.rows : b.columns,
                      transposed_a ? a.rows : a.columns,
                      a.pitch,
                      b.pitch,
                      transposed_a,
                      transposed_b,
                      accumulate,
                      c_type,
                      common_alignment({a.data, b.data, c})};
  if (key.m == 0 || key.n == 0 || (key.k == 0 && accumulate)) return;
  const bool tensor_cores = a.dtype == DType::kBF16 && b.dtype == DType::kBF16 && key.k > 0;
  if (tensor_cores && multiply_lt(ctx, op, a, b, key, c)) return;
  multiply_exact(ctx, op, a, transposed_a, b, transposed_b, key, c);
}

void add_row_sums(Context& ctx, const char* op, const Matrix& x, const RowGroups& groups, float* sums) {
  if (x.columns == 0 || groups.groups == 0 || x.rows == 0) return;
  const bool vector =
      x.columns % kVector == 0 && x.pitch % kVector == 0 && reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0;
  const std::int64_t across = ceil_div(x.columns, kSumColumns * (vector ? kVector : 1));
  const std::int64_t wanted = ceil_div(4 * device_of(ctx).multiprocessors, across * groups.groups);
  const std::int64_t longest = ceil_div(x.rows, groups.groups);
  const std::int64_t splits = std::max<std::int64_t>(1, std::min(wanted, ceil_div(longest, 8 * kSumRows)));
  RowSums s{groups,
            x.rows,
            x.columns,
            x.pitch,
            static_cast<int>(splits),
            ctx.workspace.take<float>(groups.groups * splits * x.columns)};
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(splits), static_cast<unsigned>(groups.groups));
  dispatch_act(x.dtype, [&](auto type) {
    using T = decltype(type);
    dispatch_vector(vector, [&](auto count) {
      launch(ctx, op, sum_rows<decltype(count)::value, T>, {grid, dim3(kSumColumns, kSumRows), 0, true}, s,
             static_cast<const T*>(x.data));
    });
  });
  launch(ctx, op, join_row_sums,
         {dim3(static_cast<unsigned>(ceil_div(x.columns, kThreads)), static_cast<unsigned>(groups.groups)),
          dim3(kThreads), 0, true},
         s, sums);
}

Tensor narrow(Context& ctx, const char* op, const Tensor& x) {
  if (x.dtype == DType::kBF16) return x;
  const std::int64_t n = x.elements();
  const Tensor to(ctx.workspace.take<bf16_t>(n), DType::kBF16, x.shape, x.name, DeviceKind::kCuda);
  if (n == 0) return to;
  dispatch_vector(vectorizable(n, x), [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    launch(ctx, op, narrow_elements<kCount>,
           {dim3(static_cast<unsigned>(ceil_div(n, kThreads * kCount))), dim3(kThreads), 0, true},
           static_cast<const float*>(x.data), n, static_cast<bf16_t*>(to.data));
  });
  return to;
}

}  // namespace gov::ops::cuda
