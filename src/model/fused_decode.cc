#include "model/fused_decode.h"

#include <fmt/format.h>

#include "ops/fused.h"

namespace gov {
namespace {

ops::DecodeShape shape_of(const Config& c) {
  return {c.hidden_size,       c.num_attention_heads, c.num_key_value_heads, c.head_dim,
          c.intermediate_size, c.num_local_experts,   c.num_experts_per_tok};
}

// The step's own vectors. They are F32 whatever the activations of batches are.
struct Vectors {
  Tensor q, attended;  // [1, heads*D]
  Tensor h;            // I8 [K, 3, I], see ops::decode_gate_up
  Tensor ticket;       // I32 [1], see ops::decode_router
  Arena arena;

  explicit Vectors(const Config& c) {
    arena.plan(&q, "q", DType::kF32, {1, c.num_attention_heads, c.head_dim});
    arena.plan(&attended, "attended", DType::kF32, {1, c.q_size()});
    arena.plan(&h, "expert activations", DType::kI8, {c.num_experts_per_tok, 3, c.intermediate_size});
    arena.plan(&ticket, "router ticket", DType::kI32, {1});
  }
};

// The int8 form of the attention and head matrices.
struct EightBit {
  struct Matrix {
    Tensor weight, scales;
  };
  std::vector<Matrix> qkv, o;  // [layers]
  Matrix head;
  Arena arena;

  explicit EightBit(const Config& c) : qkv(static_cast<std::size_t>(c.num_hidden_layers)), o(qkv.size()) {
    const auto plan = [&](Matrix& m, std::int64_t rows, std::int64_t columns) {
      arena.plan(&m.weight, "int8 weights", DType::kI8, {rows, columns});
      arena.plan(&m.scales, "int8 scales", DType::kF32, {rows});
    };
    for (Matrix& m : qkv) plan(m, c.q_size() + 2 * c.kv_size(), c.hidden_size);
    for (Matrix& m : o) plan(m, c.hidden_size, c.q_size());
    plan(head, c.vocab_size, c.hidden_size);
  }
};

class FusedStep : public DecodeStep {
 public:
  FusedStep(const Model& model, const KvCache& cache, Activations& acts, bool eight_bit,
            std::unique_ptr<DecodeStep> batches)
      : model_(model), cache_(cache), acts_(acts), batches_(std::move(batches)), vectors_(model.config) {
    vectors_.arena.commit(DeviceKind::kCuda, "the decode step");
    if (eight_bit) {
      eight_bit_ = std::make_unique<EightBit>(model.config);
      eight_bit_->arena.commit(DeviceKind::kCuda, "int8 weights");
    }
  }
  const char* path() const override { return eight_bit_ ? "fused-int8" : "fused"; }

  void run(Context& ctx, const Batch& batch) override {
    if (batch.tokens.rows() != 1) {
      batches_->run(ctx, batch);
      return;
    }
    prepare(ctx);
    const Model& m = model_;
    const Tensor x = acts_.x.slice(0, 1);
    ops::embedding(ctx, m.weights.embed, batch.tokens, x);
    rope_table(ctx, batch, 0, acts_.cos, acts_.sin);
    if (acts_.nope_cos) rope_table(ctx, batch, 1, acts_.nope_cos, acts_.nope_sin);
    for (std::int64_t layer = 0; layer < m.config.num_hidden_layers; ++layer) {
      attention(ctx, layer, batch, x);
      experts(ctx, layer, batch, x);
    }
    if (acts_.expert_load)
      ops::expert_load(ctx, acts_.router_indices, batch.modality, batch.full.slots, acts_.expert_load);
    const ops::DecodeMatrix head = eight_bit_ ? ops::DecodeMatrix{eight_bit_->head.weight, eight_bit_->head.scales, {}}
                                              : ops::DecodeMatrix{m.weights.lm_head, {}, {}};
    ops::decode_head(ctx, x, m.weights.norm, m.config.rms_norm_eps, head, acts_.logits.slice(0, 1));
  }

 private:
  // Before the first step, which is never recorded.
  void prepare(Context& ctx) {
    if (prepared_) return;
    prepared_ = true;
    fill_bytes(vectors_.ticket.data, DeviceKind::kCuda, 0, vectors_.ticket.bytes(), ctx.stream);
    if (!eight_bit_) return;
    const Weights& w = model_.weights;
    for (std::size_t i = 0; i < w.layers.size(); ++i) {
      ops::quantise_rows(ctx, w.layers[i].attention.qkv, eight_bit_->qkv[i].weight, eight_bit_->qkv[i].scales);
      ops::quantise_rows(ctx, w.layers[i].attention.o, eight_bit_->o[i].weight, eight_bit_->o[i].scales);
    }
    ops::quantise_rows(ctx, w.lm_head, eight_bit_->head.weight, eight_bit_->head.scales);
  }

  void rope_table(Context& ctx, const Batch& batch, std::int64_t which, const Tensor& cos, const Tensor& sin) {
    const Tensor frequencies = model_.frequencies.slice(which, 1).view({model_.config.head_dim / 2});
    ops::rope_table(ctx, batch.positions, frequencies, model_.rope_factor, cos.slice(0, 1), sin.slice(0, 1));
  }

  // x += W_o attention(rope(W_q n), rope(W_k n), W_v n), n = norm(x).
  void attention(Context& ctx, std::int64_t layer, const Batch& batch, const Tensor& x) {
    const Config& c = model_.config;
    const auto i = static_cast<std::size_t>(layer);
    const AttentionWeights& w = model_.weights.layers[i].attention;
    const KvLayer& kv = cache_.layer(layer);
    const Tensor slots = (c.is_sliding(layer) ? batch.sliding : batch.full).slots;
    const Angles turn = layer_angles(c, layer, acts_, 1);
    const auto matrix = [&](const EightBit::Matrix* m, const Tensor& weight, const Tensor& bias) {
      return m != nullptr ? ops::DecodeMatrix{m->weight, m->scales, bias} : ops::DecodeMatrix{weight, {}, bias};
    };
    ops::decode_qkv(ctx, x, w.norm, c.rms_norm_eps,
                    matrix(eight_bit_ ? &eight_bit_->qkv[i] : nullptr, w.qkv, w.qkv_bias), turn.cos, turn.sin, slots,
                    vectors_.q, kv.k, kv.v);
    const ops::AttentionArgs args = attention_args(model_, layer, batch, cache_, vectors_.q);
    ops::attention(ctx, args, vectors_.attended.view(vectors_.q.shape));
    ops::decode_out(ctx, vectors_.attended, matrix(eight_bit_ ? &eight_bit_->o[i] : nullptr, w.o, w.o_bias), x);
  }

  // x += sum over the chosen experts of weight * expert(n), n = norm(x).
  void experts(Context& ctx, std::int64_t layer, const Batch& batch, const Tensor& x) {
    const Config& c = model_.config;
    const MoeWeights& w = model_.weights.layers[static_cast<std::size_t>(layer)].moe;
    const Tensor indices = acts_.indices_of(layer, 1), weights = acts_.router_weights.slice(0, 1);
    ops::decode_router(ctx, x, w.norm, c.rms_norm_eps, w.router, w.router_bias, w.vision_bias,
                       w.vision_bias ? batch.modality : Tensor(), acts_.router_logits.slice(0, 1), indices, weights,
                       vectors_.ticket);
    ops::decode_gate_up(ctx, x, w.norm, c.rms_norm_eps, indices, w.gate_up, c.swiglu_alpha, c.swiglu_limit, vectors_.h);
    ops::decode_down(ctx, vectors_.h, indices, weights, w.down, c.swiglu_alpha, c.swiglu_limit, x);
    if (ctx.trace) ctx.emit(fmt::format("router_indices.{}", layer), indices);
  }

  const Model& model_;
  const KvCache& cache_;
  Activations& acts_;
  std::unique_ptr<DecodeStep> batches_;
  Vectors vectors_;
  std::unique_ptr<EightBit> eight_bit_;
  bool prepared_ = false;
};

}  // namespace

bool fused_decode_supported(const Model& model) {
  const Config& c = model.config;
  if (model.device != DeviceKind::kCuda || c.vocab_size % 16 != 0 || c.swiglu_alpha <= 0) return false;
  Context where(model.ordinal, nullptr);
  if (!ops::decode_supported(where, shape_of(c))) return false;
  const auto bf16 = [](const Tensor& t) { return t && t.dtype == DType::kBF16; };
  const auto bf16_or_none = [](const Tensor& t) { return !t || t.dtype == DType::kBF16; };
  for (const LayerWeights& layer : model.weights.layers) {
    const AttentionWeights& a = layer.attention;
    const MoeWeights& m = layer.moe;
    if (!bf16(a.norm) || !bf16(a.qkv) || !bf16_or_none(a.qkv_bias) || !bf16(a.o) || !bf16_or_none(a.o_bias))
      return false;
    if (!bf16(m.norm) || !bf16(m.router) || !bf16(m.router_bias) || !bf16_or_none(m.vision_bias)) return false;
    if (!m.gate_up.blocks || !m.down.blocks || !bf16_or_none(m.gate_up.bias) || !bf16_or_none(m.down.bias))
      return false;
  }
  return bf16(model.weights.norm) && bf16(model.weights.lm_head);
}

std::uint64_t fused_decode_bytes(const Config& config, bool eight_bit) {
  return Vectors(config).arena.planned_bytes() + (eight_bit ? EightBit(config).arena.planned_bytes() : 0);
}

std::unique_ptr<DecodeStep> make_fused_decode(const Model& model, const KvCache& cache, Activations& acts,
                                              bool eight_bit, std::unique_ptr<DecodeStep> batches) {
  if (!fused_decode_supported(model)) {
    fail(
        ErrorCode::kUnsupported,
        "the fused decode step needs a GPU of compute capability 9.0, bf16 weights with MXFP4 experts, and widths that "
        "are multiples of 64");
  }
  return std::make_unique<FusedStep>(model, cache, acts, eight_bit, std::move(batches));
}

}  // namespace gov
