// moe_forward and moe_backward. Pairs (token, k) are sorted by expert on the device; a pair's place is its slot. Two
// forms:
// - tensor cores of Hopper: BF16 activations, experts in BF16 or MXFP4 (unpacked into the workspace, some experts at a
//   time, where there is no expanded copy), grouped_gemm.cuh;
// - general: exact F32, every type and size, every GPU, moe_product.cuh.
//
// With y = W2 a + b2, a = swiglu(h), h = W1 x + b1 of a slot with weight w, and dout of its token: g = W2^T dout is
// formed first, without w. Then dw = g . a + dout . b2 needs no y; dh = w g swiglu'(h); dW2 += dout (w a)^T; dW1 += dh
// x^T; and dx of the token is the sum over its slots of W1^T dh.
#include <algorithm>

#include "ops/cuda/expand.cuh"
#include "ops/cuda/grouped_gemm.cuh"
#include "ops/cuda/matmul.cuh"
#include "ops/cuda/moe_product.cuh"
#include "ops/cuda/moe_slots.cuh"

namespace gov::ops::cuda {
namespace {

constexpr std::int64_t kMostSortedExperts = 8192;  // histograms of the sort in shared memory
constexpr std::int64_t kMostGroupedExperts = 1024;
constexpr std::int64_t kExpandBytes = std::int64_t{288} << 20;  // of workspace for unpacked experts

struct Sizes {
  std::int64_t tokens, per_token, experts, hidden, inner, pairs;
  std::int64_t slots;  // room for
};

Sizes sizes_of(const Tensor& x, const Tensor& indices, const ExpertProjection& gate_up, const ExpertProjection& down) {
  return {x.shape[0],         indices.shape[1],   gate_up.experts(), x.shape[1],
          down.in_features(), indices.elements(), indices.elements()};
}

template <int kUnit>
Routing sort(Context& ctx, const char* op, Sizes& s, const Tensor& indices, int chunk_rows) {
  if (s.experts > kMostSortedExperts)
    fail(ErrorCode::kUnsupported, "{}: at most {} experts, there are {}", op, kMostSortedExperts, s.experts);
  if (s.pairs > 0x7fffffff / 2) fail(ErrorCode::kUnsupported, "{}: too many rows for one call: {}", op, s.pairs);
  s.slots = s.pairs + (kUnit - 1) * std::min(s.experts, s.pairs);
  Routing r{};
  r.offsets = ctx.workspace.take<int>(s.experts + 1);
  r.chunks = ctx.workspace.take<int>(s.experts + 1);
  r.counts = ctx.workspace.take<int>(s.experts);
  r.slot_of_pair = ctx.workspace.take<int>(s.pairs);
  r.pair_of_slot = ctx.workspace.take<int>(s.slots);
  r.experts = static_cast<int>(s.experts);
  r.pairs = static_cast<int>(s.pairs);
  constexpr std::int64_t kMostShared = 96 * 1024;
  const std::int64_t table = std::max<std::int64_t>(s.experts, 1) * static_cast<std::int64_t>(sizeof(int));
  const std::int64_t warps =
      std::max<std::int64_t>(1, std::min({std::int64_t{32}, ceil_div(s.pairs, kWarp), kMostShared / table - 1}));
  launch(ctx, op, sort_pairs<kUnit>,
         {dim3(1), dim3(static_cast<unsigned>(warps * kWarp)), static_cast<std::size_t>((warps + 1) * table), true},
         indices.as<std::int32_t>(), chunk_rows, r);
  return r;
}

Bias bias_of(const ExpertProjection& p) { return {p.bias.data, p.bias.dtype}; }

Launch slot_launch(std::int64_t slots) {
  return {dim3(static_cast<unsigned>(ceil_div(slots, kSlotWarps))), dim3(kSlotThreads), 0, true};
}

template <class To>
To* gather(Context& ctx, const char* op, const Sizes& s, const Routing& r, const Tensor& x, To* rows,
           const Tensor& weights = {}, float* slot_weights = nullptr) {
  const int width = static_cast<int>(s.hidden);
  dispatch_act(x.dtype, [&](auto type) {
    using X = decltype(type);
    dispatch_vector(vectorizable(width, x), [&](auto count) {
      launch(ctx, op, gather_rows_by_slot<decltype(count)::value, X, To>, slot_launch(s.slots), r,
             static_cast<const X*>(x.data), static_cast<int>(s.per_token), width, rows,
             static_cast<const float*>(weights.data), slot_weights);
    });
  });
  return rows;
}

template <class Row>
void combine(Context& ctx, const char* op, const Sizes& s, const Routing& r, const Row* rows, const Tensor& weights,
             const Tensor& out) {
  dispatch_act(out.dtype, [&](auto type) {
    using Out = decltype(type);
    dispatch_vector(vectorizable(s.hidden, out), [&](auto count) {
      constexpr int kCount = decltype(count)::value;
      const std::int64_t threads = s.tokens * (s.hidden / kCount);
      const Launch how{dim3(static_cast<unsigned>(ceil_div(threads, kSlotThreads))), dim3(kSlotThreads), 0, true};
      const int per_token = static_cast<int>(s.per_token), tokens = static_cast<int>(s.tokens);
      const int width = static_cast<int>(s.hidden);
      Out* const to = static_cast<Out*>(out.data);
      if (weights)
        launch(ctx, op, sum_slots<kCount, true, Row, Out>, how, r, rows, weights.as<float>(), per_token, tokens, width,
               to);
      else launch(ctx, op, sum_slots<kCount, false, Row, Out>, how, r, rows, nullptr, per_token, tokens, width, to);
    });
  });
}

template <class Row>
void slopes(Context& ctx, const char* op, const Sizes& s, const SlotSlopes& args, const void* h, DType h_type,
            const Row* g, const Row* dout, Row* dh, Row* activations) {
  // By sizes alone: the order of a row's sum follows from it, and a kept h may lie anywhere.
  const bool vector = s.inner % kVector == 0 && s.hidden % kVector == 0;
  dispatch_act(h_type, [&](auto type) {
    using H = decltype(type);
    dispatch_vector(vector, [&](auto count) {
      launch(ctx, op, slope_slots<decltype(count)::value, H, Row>, slot_launch(s.slots), args, static_cast<const H*>(h),
             g, dout, dh, activations);
    });
  });
}

// --- general ---------------------------------------------------------------------------------------------------------

template <bool kBack>
void expert_rows(Context& ctx, const char* op, const Sizes& s, const Routing& r, const ExpertProjection& p,
                 const float* x, float* y) {
  const int in = static_cast<int>(p.in_features()), out = static_cast<int>(p.out_features());
  const std::int64_t chunks = std::min(s.pairs, ceil_div(s.pairs, kProductTile) + s.experts);
  const dim3 grid(static_cast<unsigned>(ceil_div(kBack ? in : out, kProductTile)), static_cast<unsigned>(chunks));
  if (grid.y > 65535) fail(ErrorCode::kUnsupported, "{}: too many rows for one call: {}", op, s.pairs);
  const auto run = [&](auto weights) {
    using W = decltype(weights);
    const ExpertRows<W, kBack> product{r, weights, bias_of(p), in, out, x, y};
    launch(ctx, op, product_tiles<ExpertRows<W, kBack>>, {grid, dim3(kProductThreads), 0, true}, product);
  };
  if (p.blocks) {
    run(Mxfp4Experts{static_cast<const std::uint8_t*>(p.blocks.data), static_cast<const std::uint8_t*>(p.scales.data)});
    return;
  }
  dispatch_weight(p.weight.dtype, [&](auto type) {
    using T = decltype(type);
    run(DenseExperts<T>{static_cast<const T*>(p.weight.data)});
  });
}

void expert_weights(Context& ctx, const char* op, const Sizes& s, const Routing& r, std::int64_t out, std::int64_t in,
                    const float* dout, const float* x, const Tensor& dweight, bool accumulate) {
  const dim3 grid(static_cast<unsigned>(ceil_div(in, kProductTile)), static_cast<unsigned>(ceil_div(out, kProductTile)),
                  static_cast<unsigned>(s.experts));
  const ExpertWeights product{r, static_cast<int>(in), static_cast<int>(out), dout, x, dweight.as<float>(), accumulate};
  launch(ctx, op, product_tiles<ExpertWeights>, {grid, dim3(kProductThreads), 0, true}, product);
}

// h by slot, F32.
float* general_up(Context& ctx, const char* op, const Sizes& s, const Routing& r, const ExpertProjection& gate_up,
                  const float* x) {
  float* const h = ctx.workspace.take<float>(s.slots * 2 * s.inner);
  expert_rows<false>(ctx, op, s, r, gate_up, x, h);
  return h;
}

void general_forward(Context& ctx, const char* op, Sizes s, const Tensor& x, const Tensor& indices,
                     const Tensor& weights, const ExpertProjection& gate_up, const ExpertProjection& down, float alpha,
                     float limit, const Tensor& out, const Tensor& h) {
  const Routing r = sort<1>(ctx, op, s, indices, kProductTile);
  float* const rows = gather(ctx, op, s, r, x, ctx.workspace.take<float>(s.slots * s.hidden));
  const float* const by_slot = general_up(ctx, op, s, r, gate_up, rows);
  float* const activations = ctx.workspace.take<float>(s.slots * s.inner);
  dispatch_act(h.dtype, [&](auto type) {
    using H = decltype(type);
    launch(ctx, op, activate_slots<H>, slot_launch(s.slots), r, by_slot, static_cast<int>(s.inner), alpha, limit,
           activations, static_cast<H*>(h.data));
  });
  expert_rows<false>(ctx, op, s, r, down, activations, rows);
  combine<float>(ctx, op, s, r, rows, weights, out);
}

void general_backward(Context& ctx, const char* op, Sizes s, const Tensor& x, const Tensor& indices,
                      const Tensor& weights, const ExpertProjection& gate_up, const ExpertProjection& down, float alpha,
                      float limit, const Tensor& h, const Tensor& dout, const Tensor& dx, const Tensor& dweights,
                      const ExpertGradients& dgate_up, const ExpertGradients& ddown) {
  const Routing r = sort<1>(ctx, op, s, indices, kProductTile);
  float* const slot_weights = ctx.workspace.take<float>(s.slots);
  float* const douts =
      gather(ctx, op, s, r, dout, ctx.workspace.take<float>(s.slots * s.hidden), weights, slot_weights);
  float* const rows =
      !h || dgate_up.dweight ? gather(ctx, op, s, r, x, ctx.workspace.take<float>(s.slots * s.hidden)) : nullptr;
  // What moe_forward() would have kept, to the same bits: rounded as the activations are.
  const void* by_slot = h.data;
  DType h_type = h ? h.dtype : DType::kF32;
  if (!h) {
    const float* const wide = general_up(ctx, op, s, r, gate_up, rows);
    by_slot = wide;
    if (x.dtype == DType::kBF16) {
      const Tensor t(const_cast<float*>(wide), DType::kF32, {s.slots, 2 * s.inner}, "h", DeviceKind::kCuda);
      by_slot = narrow(ctx, op, t).data;
      h_type = DType::kBF16;
    }
  }
  float* const g = ctx.workspace.take<float>(s.slots * s.inner);
  expert_rows<true>(ctx, op, s, r, down, douts, g);
  float* const dh = ctx.workspace.take<float>(s.slots * 2 * s.inner);
  float* const activations = ddown.dweight ? ctx.workspace.take<float>(s.slots * s.inner) : nullptr;
  const SlotSlopes args{r,
                        static_cast<int>(s.inner),
                        static_cast<int>(s.hidden),
                        alpha,
                        limit,
                        static_cast<bool>(h),
                        !h || aligned16(h),
                        bias_of(down),
                        slot_weights,
                        dweights.as<float>()};
  slopes<float>(ctx, op, s, args, by_slot, h_type, g, douts, dh, activations);
  if (ddown.dweight) expert_weights(ctx, op, s, r, s.hidden, s.inner, douts, activations, ddown.dweight, ddown.accumulate);
  if (dgate_up.dweight)
    expert_weights(ctx, op, s, r, 2 * s.inner, s.hidden, dh, rows, dgate_up.dweight, dgate_up.accumulate);
  // Sums of biases by expert: offsets and their differences.
  const auto bias_sums = [&](const float* from, std::int64_t width, const float* row_weights, const Tensor& to) {
    if (to)
      add_row_sums(ctx, op, {from, DType::kF32, s.slots, width, width}, {r.offsets, r.counts, s.experts, row_weights},
                   to.as<float>());
  };
  bias_sums(douts, s.hidden, slot_weights, ddown.dbias);
  bias_sums(dh, 2 * s.inner, nullptr, dgate_up.dbias);
  if (!dx) return;
  expert_rows<true>(ctx, op, s, r, gate_up, dh, douts);
  combine<float>(ctx, op, s, r, douts, {}, dx);
}

// --- tensor cores ----------------------------------------------------------------------------------------------------

// Experts that the tensor cores can read: all of them in BF16, or MXFP4 to be unpacked exactly.
bool grouped_weights(const ExpertProjection& p) {
  if (p.expanded) return aligned16(p.expanded);
  if (p.blocks) return p.moderate_scales && reinterpret_cast<std::uintptr_t>(p.blocks.data) % 4 == 0;
  return p.weight.dtype == DType::kBF16 && aligned16(p.weight);
}

bool grouped_supported(const Context& ctx, const Sizes& s, const Tensor& x, const ExpertProjection& gate_up,
                       const ExpertProjection& down, const Tensor& h) {
  return device_of(ctx).capability == 90 && x.dtype == DType::kBF16 && s.hidden % 16 == 0 && s.inner % 16 == 0 &&
         s.experts <= kMostGroupedExperts && grouped_weights(gate_up) && grouped_weights(down) &&
         (!h || (h.dtype == DType::kBF16 && aligned16(h)));
}

// A map of [outer, rows, width] in boxes of box_width x box_rows.
CUtensorMap grouped_map(const char* op, const void* data, std::int64_t width, std::int64_t rows, std::int64_t outer,
                        int box_width, int box_rows, bool f32 = false) {
  const auto u = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  return hopper::tensor_map(op, f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, f32 ? 4 : 2,
                            data,
                            {3,
                             {u(width), u(rows), u(outer)},
                             u(width),
                             {static_cast<std::uint32_t>(box_width), static_cast<std::uint32_t>(box_rows), 1}},
                            f32 ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B);
}

template <Grouped kKind>
void grouped_launch(Context& ctx, const char* op, const CUtensorMap& a, const CUtensorMap& b, const CUtensorMap& c,
                    const GroupedArgs& args) {
  const unsigned blocks = static_cast<unsigned>(device_of(ctx).multiprocessors / 2 * 2);
  launch(ctx, op, grouped_gemm<kKind>,
         {dim3(blocks), dim3(GroupedShape::kThreads), GroupedShape::bytes(args.experts), true}, a, b, c, args);
}

// A product of slots with all experts' weights, some experts at a time where they must be unpacked.
template <Grouped kKind>
void grouped_rows(Context& ctx, const char* op, const Sizes& s, const ExpertProjection& p, const bf16_t* rows,
                  GroupedArgs args) {
  constexpr bool kBack = kKind == Grouped::kBack;
  const std::int64_t in = p.in_features(), out = p.out_features(), depth = kBack ? out : in;
  args.m = static_cast<int>(kBack ? in : out);
  args.steps = static_cast<int>(ceil_div(depth, GroupedShape::kDepth));
  args.bias = kBack ? Bias{} : bias_of(p);
  const CUtensorMap row_map = grouped_map(op, rows, depth, s.slots, 1, 64, GroupedShape::kBox);
  const void* weights = p.expanded ? p.expanded.data : p.weight.data;
  std::int64_t at_once = s.experts;
  if (!weights) {
    const std::int64_t each = out * in * 2;
    at_once = std::max<std::int64_t>(1, std::min(s.experts, kExpandBytes / each));
  }
  bf16_t* const unpacked = weights ? nullptr : ctx.workspace.take<bf16_t>(at_once * out * in);
  for (std::int64_t first = 0; first < s.experts; first += at_once) {
    const std::int64_t count = std::min(at_once, s.experts - first);
    if (unpacked) expand_experts(ctx, op, p, first, count, unpacked);
    args.first_expert = static_cast<int>(first);
    args.experts = static_cast<int>(count);
    const CUtensorMap weight_map = grouped_map(op, unpacked ? unpacked : weights, in, out, count, 64,
                                               kBack ? GroupedShape::kDepth / 2 : GroupedShape::kHalfRows);
    grouped_launch<kKind>(ctx, op, weight_map, row_map, row_map, args);
  }
}

void grouped_weight_gradient(Context& ctx, const char* op, const Sizes& s, std::int64_t out, std::int64_t in,
                             const bf16_t* dout, const bf16_t* x, const ExpertGradients& to, GroupedArgs args) {
  args.m = static_cast<int>(out);
  args.n = static_cast<int>(in);
  args.experts = static_cast<int>(s.experts);
  args.dweight = to.dweight.as<float>();
  args.accumulate = to.accumulate;
  constexpr int kHalf = GroupedShape::kDepth / 2;
  grouped_launch<Grouped::kWeights>(
      ctx, op, grouped_map(op, dout, out, s.slots, 1, 64, kHalf), grouped_map(op, x, in, s.slots, 1, 64, kHalf),
      grouped_map(op, to.dweight.data, in, out, s.experts, GroupedShape::kTile, GroupedShape::kTile, true), args);
}

bf16_t* take_rows(Context& ctx, const Sizes& s, std::int64_t width) {
  return ctx.workspace.take<bf16_t>(std::max<std::int64_t>(s.slots, 1) * width);
}

void grouped_forward(Context& ctx, const char* op, Sizes s, const Tensor& x, const Tensor& indices,
                     const Tensor& weights, const ExpertProjection& gate_up, const ExpertProjection& down, float alpha,
                     float limit, const Tensor& out, const Tensor& h) {
  GroupedArgs args{};
  args.routing = sort<GroupedShape::kDepth>(ctx, op, s, indices, GroupedShape::kChunk);
  args.alpha = alpha;
  args.limit = limit;
  bf16_t* const rows = gather(ctx, op, s, args.routing, x, take_rows(ctx, s, s.hidden));
  args.activations = take_rows(ctx, s, s.inner);
  args.h = static_cast<bf16_t*>(h.data);
  args.h_by_pair = true;
  grouped_rows<Grouped::kUp>(ctx, op, s, gate_up, rows, args);
  args.y = rows;
  grouped_rows<Grouped::kOut>(ctx, op, s, down, args.activations, args);
  combine<bf16_t>(ctx, op, s, args.routing, rows, weights, out);
}

void grouped_backward(Context& ctx, const char* op, Sizes s, const Tensor& x, const Tensor& indices,
                      const Tensor& weights, const ExpertProjection& gate_up, const ExpertProjection& down, float alpha,
                      float limit, const Tensor& h, const Tensor& dout, const Tensor& dx, const Tensor& dweights,
                      const ExpertGradients& dgate_up, const ExpertGradients& ddown) {
  GroupedArgs args{};
  const Routing r = args.routing = sort<GroupedShape::kDepth>(ctx, op, s, indices, GroupedShape::kChunk);
  args.alpha = alpha;
  args.limit = limit;
  float* const slot_weights = ctx.workspace.take<float>(s.slots);
  bf16_t* const douts = gather(ctx, op, s, r, dout, take_rows(ctx, s, s.hidden), weights, slot_weights);
  bf16_t* const rows = !h || dgate_up.dweight ? gather(ctx, op, s, r, x, take_rows(ctx, s, s.hidden)) : nullptr;
  bf16_t* const dh = take_rows(ctx, s, 2 * s.inner);
  if (!h) {
    args.h = dh;
    grouped_rows<Grouped::kUp>(ctx, op, s, gate_up, rows, args);
    args.h = nullptr;
  }
  bf16_t* const g = args.y = take_rows(ctx, s, std::max(s.inner, s.hidden));
  grouped_rows<Grouped::kBack>(ctx, op, s, down, douts, args);
  bf16_t* const activations = ddown.dweight ? take_rows(ctx, s, s.inner) : nullptr;
  const SlotSlopes slope{r,
                         static_cast<int>(s.inner),
                         static_cast<int>(s.hidden),
                         alpha,
                         limit,
                         static_cast<bool>(h),
                         !h || aligned16(h),
                         bias_of(down),
                         slot_weights,
                         dweights.as<float>()};
  slopes<bf16_t>(ctx, op, s, slope, h ? h.data : dh, DType::kBF16, g, douts, dh, activations);
  if (ddown.dweight) grouped_weight_gradient(ctx, op, s, s.hidden, s.inner, douts, activations, ddown, args);
  if (dgate_up.dweight) grouped_weight_gradient(ctx, op, s, 2 * s.inner, s.hidden, dh, rows, dgate_up, args);
  const auto bias_sums = [&](const bf16_t* from, std::int64_t width, const float* row_weights, const Tensor& to) {
    if (to)
      add_row_sums(ctx, op, {from, DType::kBF16, s.slots, width, width}, {r.offsets, r.counts, s.experts, row_weights},
                   to.as<float>());
  };
  bias_sums(douts, s.hidden, slot_weights, ddown.dbias);
  bias_sums(dh, 2 * s.inner, nullptr, dgate_up.dbias);
  if (!dx) return;
  args.y = g;
  grouped_rows<Grouped::kBack>(ctx, op, s, gate_up, dh, args);
  combine<bf16_t>(ctx, op, s, r, g, {}, dx);
}

}  // namespace

void moe_forward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                 const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                 const Tensor& out, const Tensor& h) {
  const Sizes s = sizes_of(x, indices, gate_up, down);
  if (s.pairs == 0 || s.experts == 0 || s.hidden == 0) return;
  const auto run = grouped_supported(ctx, s, x, gate_up, down, h) ? grouped_forward : general_forward;
  run(ctx, "moe_forward", s, x, indices, weights, gate_up, down, alpha, limit, out, h);
}

void moe_backward(Context& ctx, const Tensor& x, const Tensor& indices, const Tensor& weights,
                  const ExpertProjection& gate_up, const ExpertProjection& down, float alpha, float limit,
                  const Tensor& h, const Tensor& dout, const Tensor& dx, const Tensor& dweights,
                  const ExpertGradients& dgate_up, const ExpertGradients& ddown) {
  constexpr const char* kOp = "moe_backward";
  const Sizes s = sizes_of(x, indices, gate_up, down);
  const auto zero = [&](const Tensor& t) { fill_bytes(t.data, DeviceKind::kCuda, 0, t.bytes(), ctx.stream); };
  for (const ExpertGradients* g : {&dgate_up, &ddown}) {
    if (g->accumulate) continue;
    if (g->dbias) zero(g->dbias);
    if (g->dweight && s.pairs == 0) zero(g->dweight);  // otherwise the products write every element
  }
  if (s.pairs == 0) return;
  // Pairs of no expert have no slot that would write theirs.
  zero(dweights);
  if (s.experts == 0 || s.hidden == 0) return;
  const auto run = grouped_supported(ctx, s, x, gate_up, down, h) ? grouped_backward : general_backward;
  run(ctx, kOp, s, x, indices, weights, gate_up, down, alpha, limit, h, dout, dx, dweights, dgate_up, ddown);
}

}  // namespace gov::ops::cuda
