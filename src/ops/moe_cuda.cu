// Mixture of experts on CUDA. Every path sorts the (token, k) pairs by expert on the device, runs both projections over
// the sorted rows, and combines per token. Three forms of the projections:
// - general: exact F32, every type and size, every GPU (moe_general.cuh);
// - MXFP4 on Hopper's tensor cores, bf16 activations: decode in batches, and prefill where there is no bf16 copy;
// - bf16 weights on Hopper's tensor cores: prefill (moe_gemm.cuh).
#include <algorithm>
#include <cmath>

#include "ops/cuda/moe_gemm.cuh"
#include "ops/cuda/moe_general.cuh"

namespace gov::ops::cuda {
namespace {

constexpr std::int64_t kMostSortedExperts = 8192;  // histograms of the sort in shared memory
constexpr std::int64_t kMostGemmExperts = 1024;    // tables of the tensor-core kernels in shared memory
// Rows an expert, on average, from which reading four times the bytes of MXFP4 costs no more than widening 4-bit codes
// (H100, widths of gpt-oss: at 256 rows MXFP4 takes 5 % less, at 1,024 the two are equal).
constexpr std::int64_t kDenseFromRows = 512;
constexpr std::int64_t kSmallGeneralRows = 8;  // average up to which the general path takes its 8-row tile
constexpr int kFewestStages = 3;

enum class MoePath { kGeneral, kMxfp4, kDense };

struct MoeShape {
  std::int64_t tokens, per_token, experts, hidden, inner, pairs;
};

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return ceil_div(n, unit) * unit; }

Tensor dense_bf16(const ExpertProjection& p) {
  if (p.expanded) return p.expanded;
  return !p.blocks && p.weight.dtype == DType::kBF16 ? p.weight : Tensor{};
}

// The longest chunk to prepare for: about what the fullest expert gets under random routing.
std::int64_t expected_rows(const MoeShape& m) {
  const double average = static_cast<double>(m.pairs) / static_cast<double>(std::max<std::int64_t>(m.experts, 1));
  return std::min(m.tokens, static_cast<std::int64_t>(average + 2 * std::sqrt(average)) + 1);
}

int chunk_rows(MoePath path, const MoeShape& m) {
  const std::int64_t rows = expected_rows(m);
  switch (path) {
    case MoePath::kMxfp4: return rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : rows <= 96 ? 96 : 192;
    case MoePath::kDense: return 256;
    default: return m.pairs <= kSmallGeneralRows * m.experts ? 8 : 64;
  }
}

// Stages of the ring that kBlocks blocks on a multiprocessor have room for.
template <class Shape>
int gemm_stages(const Context& ctx, std::int64_t scale_blocks, std::int64_t experts) {
  constexpr std::size_t kReserved = 1024;  // what CUDA takes of a multiprocessor's memory for each block
  const std::size_t most = (device_of(ctx).shared_bytes_per_block + kReserved) / Shape::kBlocks - kReserved;
  const std::size_t fixed = gemm_fixed_bytes<Shape>(static_cast<int>(scale_blocks), static_cast<int>(experts));
  return most <= fixed ? 0 : static_cast<int>(std::min<std::size_t>((most - fixed) / Shape::kStageBytes, kMostStages));
}

// What the tensor-core kernels need: Hopper, bf16 activations, 16-byte rows, and room for their rings.
MoePath choose_path(const Context& ctx, const MoeShape& m, const Tensor& x, const ExpertProjection& gate_up,
                    const ExpertProjection& down) {
  if (device_of(ctx).capability != 90 || x.dtype != DType::kBF16 || !aligned16(x) || m.hidden % 16 != 0 ||
      m.inner % 8 != 0 || m.experts > kMostGemmExperts) {
    return MoePath::kGeneral;
  }
  const auto rings_fit = [&](std::int64_t blocks) {
    return gemm_stages<GemmShape<true, 32>>(ctx, blocks, m.experts) >= kFewestStages &&
           gemm_stages<GemmShape<true, 96>>(ctx, blocks, m.experts) >= kFewestStages &&
           gemm_stages<GemmShape<true, 192>>(ctx, blocks, m.experts) >= kFewestStages;
  };
  const auto codes_fit = [&](const ExpertProjection& p) {
    return p.blocks && p.moderate_scales && aligned16(p.blocks) && aligned16(p.scales) && p.out_features() % 16 == 0 &&
           rings_fit(p.in_features() / 32);
  };
  const auto dense_fits = [&](const ExpertProjection& p) {
    const Tensor weight = dense_bf16(p);
    return weight && aligned16(weight) && p.out_features() % 16 == 0 && p.in_features() % 8 == 0;
  };
  const bool codes = codes_fit(gate_up) && codes_fit(down), dense = dense_fits(gate_up) && dense_fits(down);
  if (dense && (!codes || m.pairs >= kDenseFromRows * m.experts)) return MoePath::kDense;
  return codes ? MoePath::kMxfp4 : MoePath::kGeneral;
}

Routing sort(Context& ctx, const MoeShape& m, const Tensor& indices, int rows) {
  if (m.experts > kMostSortedExperts)
    fail(ErrorCode::kUnsupported, "moe: at most {} experts, there are {}", kMostSortedExperts, m.experts);
  Routing r{};
  r.offsets = ctx.workspace.take<int>(m.experts + 1);
  r.chunks = ctx.workspace.take<int>(m.experts + 1);
  r.slot_of_pair = ctx.workspace.take<int>(m.pairs);
  r.pair_of_slot = ctx.workspace.take<int>(m.pairs);
  r.experts = static_cast<int>(m.experts);
  r.pairs = static_cast<int>(m.pairs);
  constexpr std::int64_t kMostShared = 96 * 1024;
  const std::int64_t table = std::max<std::int64_t>(m.experts, 1) * static_cast<std::int64_t>(sizeof(int));
  const std::int64_t warps =
      std::max<std::int64_t>(1, std::min({std::int64_t{32}, ceil_div(m.pairs, kWarp), kMostShared / table - 1}));
  launch(ctx, "moe", sort_pairs<1>,
         {dim3(1), dim3(static_cast<unsigned>(warps * kWarp)), static_cast<std::size_t>((warps + 1) * table), true},
         indices.as<std::int32_t>(), rows, r);
  return r;
}

template <class Y>
void combine(Context& ctx, const MoeShape& m, const Y* y, const Tensor& weights, const Routing& r, const Tensor& out) {
  const dim3 grid(static_cast<unsigned>(m.tokens), static_cast<unsigned>(ceil_div(m.hidden, kCombineColumns)));
  const auto kernel = m.hidden % 4 == 0 && aligned16(out) ? combine_slots<Y, true> : combine_slots<Y, false>;
  launch(ctx, "moe", kernel, {grid, dim3(kCombineThreads), 0, true}, y, weights.as<float>(),
         static_cast<int>(m.per_token), static_cast<int>(m.hidden), r, out.as<float>());
}

// One block a slot while there are few tokens, then one a token.
template <bool kPermuted>
void gather(Context& ctx, const MoeShape& m, const Tensor& x, std::int64_t pitch, const Routing& r, bf16_t* rows) {
  constexpr std::int64_t kManyTokens = 512;
  const std::int64_t parts = m.tokens >= kManyTokens ? 1 : m.per_token;
  const dim3 grid(static_cast<unsigned>(m.tokens), static_cast<unsigned>(parts));
  launch(ctx, "moe", gather_slots<kPermuted>,
         {grid, dim3(128), kPermuted ? static_cast<std::size_t>(pitch) * 2 : 0, true},
         static_cast<const bf16_t*>(x.data), static_cast<int>(m.per_token), static_cast<int>(m.hidden),
         static_cast<int>(pitch), r, rows);
}

Bias bias_of(const ExpertProjection& p) { return {p.bias.data, p.bias.dtype}; }

// --- general ------------------------------------------------------------------------------------------------------

template <bool kUp, int kRows, class X>
void general_projection(Context& ctx, const MoeShape& m, const X* x, const ExpertProjection& p, GeneralArgs args) {
  args.in = static_cast<int>(p.in_features());
  args.out = static_cast<int>(p.out_features());
  args.row_tiles = static_cast<int>(ceil_div(args.out, kGeneralOut));
  args.bias = bias_of(p);
  const std::int64_t chunks = std::min(m.pairs, ceil_div(m.pairs, kRows) + m.experts);
  const std::int64_t blocks = chunks * args.row_tiles;
  if (blocks > 0x7fffffff) fail(ErrorCode::kUnsupported, "moe: too many rows for one call: {}", m.pairs);
  const Launch how{dim3(static_cast<unsigned>(blocks)), dim3(kGeneralThreads), 0, true};
  if (p.blocks) {
    const Mxfp4Experts experts{static_cast<const std::uint8_t*>(p.blocks.data),
                               static_cast<const std::uint8_t*>(p.scales.data)};
    launch(ctx, "moe", general_experts<X, Mxfp4Experts, kUp, kRows>, how, x, experts, args);
    return;
  }
  dispatch_weight(p.weight.dtype, [&](auto element) {
    using T = decltype(element);
    launch(ctx, "moe", general_experts<X, DenseExperts<T>, kUp, kRows>, how, x,
           DenseExperts<T>{static_cast<const T*>(p.weight.data)}, args);
  });
}

template <int kRows>
void general(Context& ctx, const MoeShape& m, const Tensor& x, const Tensor& weights, const ExpertProjection& gate_up,
             const ExpertProjection& down, GeneralArgs args, const Tensor& out) {
  float* activations = ctx.workspace.take<float>(m.pairs * m.inner);
  float* y = ctx.workspace.take<float>(m.pairs * m.hidden);
  args.y = activations;
  dispatch_act(x.dtype, [&](auto element) {
    using X = decltype(element);
    general_projection<true, kRows>(ctx, m, static_cast<const X*>(x.data), gate_up, args);
  });
  args.y = y;
  general_projection<false, kRows>(ctx, m, static_cast<const float*>(activations), down, args);
  combine(ctx, m, y, weights, args.routing, out);
}

// --- tensor cores -------------------------------------------------------------------------------------------------

template <bool kMxfp4, int kColumns, bool kUp>
void gemm_projection(Context& ctx, const MoeShape& m, const ExpertProjection& p, const bf16_t* rows, std::int64_t pitch,
                     std::int64_t row_count, GemmArgs args) {
  using Shape = GemmShape<kMxfp4, kColumns>;
  const std::int64_t in = p.in_features(), outputs = p.out_features();
  args.out = static_cast<int>(outputs);
  args.steps = static_cast<int>(ceil_div(in, Shape::kDepth));
  args.bias = bias_of(p);
  args.scale_blocks = kMxfp4 ? static_cast<int>(in / 32) : 0;
  args.scales = kMxfp4 ? static_cast<const std::uint8_t*>(p.scales.data) : nullptr;
  args.stages = gemm_stages<Shape>(ctx, args.scale_blocks, m.experts);
  const auto extent = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const CUtensorMap row_map = hopper::tensor_map(
      "moe", CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, rows,
      {2, {extent(pitch), extent(row_count), 1}, extent(pitch), {64, Shape::kBoxRows, 1}}, CU_TENSOR_MAP_SWIZZLE_128B);
  const CUtensorMap weight_map =
      kMxfp4
          ? hopper::tensor_map(
                "moe", CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, p.blocks.data,
                {3, {extent(in / 2), extent(outputs), extent(m.experts)}, extent(in / 2), {64, Shape::kRows, 1}},
                CU_TENSOR_MAP_SWIZZLE_NONE)
          : hopper::tensor_map("moe", CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, dense_bf16(p).data,
                               {3, {extent(in), extent(outputs), extent(m.experts)}, extent(in), {64, Shape::kRows, 1}},
                               CU_TENSOR_MAP_SWIZZLE_128B);
  const std::size_t shared =
      gemm_fixed_bytes<Shape>(args.scale_blocks, args.routing.experts) + args.stages * std::size_t{Shape::kStageBytes};
  const unsigned blocks = static_cast<unsigned>(device_of(ctx).multiprocessors / 2 * 2 * Shape::kBlocks);
  launch(ctx, "moe", expert_gemm<kMxfp4, kColumns, kUp>, {dim3(blocks), dim3(Shape::kThreads), shared, true},
         weight_map, row_map, args);
}

template <bool kMxfp4, int kColumns>
void gemm(Context& ctx, const MoeShape& m, const Tensor& x, const Tensor& weights, const ExpertProjection& gate_up,
          const ExpertProjection& down, GemmArgs args, const Tensor& out) {
  using Y = GemmOut<kColumns>;
  const std::int64_t unit = kMxfp4 ? 128 : 8;
  const std::int64_t pitch = round_up(m.hidden, unit), inner_pitch = round_up(m.inner, unit);
  const std::int64_t row_count = std::max<std::int64_t>(m.pairs, 32);  // at least a copy's rows
  bf16_t* rows = ctx.workspace.take<bf16_t>(row_count * pitch);
  args.activations = ctx.workspace.take<bf16_t>(row_count * inner_pitch);
  args.activation_pitch = static_cast<int>(inner_pitch);
  Y* y = ctx.workspace.take<Y>(m.pairs * m.hidden);
  args.y = y;
  gather<kMxfp4>(ctx, m, x, pitch, args.routing, rows);
  gemm_projection<kMxfp4, kColumns, true>(ctx, m, gate_up, rows, pitch, row_count, args);
  gemm_projection<kMxfp4, kColumns, false>(ctx, m, down, args.activations, inner_pitch, row_count, args);
  combine(ctx, m, y, weights, args.routing, out);
}

}  // namespace

void moe(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights, const ExpertProjection& gate_up,
         const ExpertProjection& down, float alpha, float limit, const Tensor& out) {
  const MoeShape m{x.shape[0], indices.shape[1], gate_up.experts(), x.shape[1], down.in_features(), indices.elements()};
  if (m.pairs == 0 || m.experts == 0 || m.hidden == 0) return;
  if (m.pairs > 0x7fffffff / 2) fail(ErrorCode::kUnsupported, "moe: too many rows for one call: {}", m.pairs);
  const MoePath path = choose_path(ctx, m, x, gate_up, down);
  const int rows = chunk_rows(path, m);
  const Routing routing = sort(ctx, m, indices, rows);
  if (path == MoePath::kGeneral) {
    GeneralArgs args{};
    args.routing = routing;
    args.per_token = static_cast<int>(m.per_token);
    args.alpha = alpha;
    args.limit = limit;
    if (rows == 8) general<8>(ctx, m, x, weights, gate_up, down, args, out);
    else general<64>(ctx, m, x, weights, gate_up, down, args, out);
    return;
  }
  GemmArgs args{};
  args.routing = routing;
  args.alpha = alpha;
  args.limit = limit;
  if (path == MoePath::kDense) gemm<false, 256>(ctx, m, x, weights, gate_up, down, args, out);
  else if (rows == 16) gemm<true, 16>(ctx, m, x, weights, gate_up, down, args, out);
  else if (rows == 32) gemm<true, 32>(ctx, m, x, weights, gate_up, down, args, out);
  else if (rows == 64) gemm<true, 64>(ctx, m, x, weights, gate_up, down, args, out);
  else if (rows == 96) gemm<true, 96>(ctx, m, x, weights, gate_up, down, args, out);
  else gemm<true, 192>(ctx, m, x, weights, gate_up, down, args, out);
}

}  // namespace gov::ops::cuda
