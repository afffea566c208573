// Training steps of a model of GPT-OSS 20b's widths on a GPU: forward, backward, norm of the gradients and AdamW, BF16
// with F32 masters, gradients and moments.
//   bench_training [--layers 4] [--experts 32] [--documents 4] [--length 2048] [--steps 5] [--recompute none|moe|block]
//                  [--frozen-experts]

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <map>
#include <string>

#include "model/training.h"
#include "ops/device_limits.h"
#include "ops/device_only.h"
#include "tensor/device.h"

namespace gov {
namespace {

struct Options {
  std::int64_t layers = 4, experts = 32, documents = 4, length = 2048, steps = 5;
  Recompute recompute = Recompute::kNone;
  bool frozen_experts = false;
};

Config config_of(const Options& o) {
  Config c = preset("mini");
  c.num_hidden_layers = o.layers;
  c.num_local_experts = o.experts;
  c.layer_types.clear();
  for (std::int64_t i = 0; i < o.layers; ++i)
    c.layer_types.push_back(i % 2 == 0 ? AttentionKind::kSliding : AttentionKind::kFull);
  c.use_vision = false;
  validate(c);
  return c;
}

// Documents of equal length of random text.
struct Batch {
  std::vector<std::int32_t> tokens, positions, cu_seqlens{0}, targets;
  std::vector<std::uint8_t> modality;
  std::vector<float> weights;
  Batch(const Config& c, const Options& o) {
    std::uint64_t state = 1;
    const auto draw = [&] {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      return static_cast<std::int32_t>((state >> 33) % static_cast<std::uint64_t>(c.vocab_size));
    };
    for (std::int64_t d = 0; d < o.documents; ++d) {
      for (std::int64_t t = 0; t < o.length; ++t) {
        tokens.push_back(draw());
        positions.push_back(static_cast<std::int32_t>(t));
        targets.push_back(draw());
      }
      cu_seqlens.push_back(static_cast<std::int32_t>(tokens.size()));
    }
    modality.assign(tokens.size(), 0);
    weights.assign(tokens.size(), 1.f);
  }
  PackedRows view() const { return {tokens, positions, modality, cu_seqlens, targets, weights, {}, {}}; }
};

// FLOPs of a token: 6 for each parameter that it meets (2 forward, 4 backward; frozen ones 4), and 12 D for each head
// and visible pair.
double flops_per_token(const Config& c, const Options& o) {
  const auto n = [](std::int64_t x) { return static_cast<double>(x); };
  const double experts = 3 * n(c.hidden_size) * n(c.intermediate_size) * n(c.num_experts_per_tok);
  const double others = n(c.hidden_size) * n(2 * c.q_size() + 2 * c.kv_size() + c.num_local_experts);
  double total = 6 * n(c.hidden_size) * n(c.vocab_size);
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const double window = n(c.is_sliding(layer) ? std::min(c.sliding_window, o.length) : o.length);
    const double pairs = window - window * (window - 1) / (2 * n(o.length));  // of a row, on average
    total += 6 * others + (o.frozen_experts ? 4 : 6) * experts + 12 * n(c.q_size()) * pairs;
  }
  return total;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Trainer {
  Trainer(Context& context, const Options& o, const ParameterSet::Wanted& wanted)
      : ctx(context),
        config(config_of(o)),
        weights(config, DeviceKind::kCuda, "weights", {}, DType::kBF16),
        masters(config, DeviceKind::kCuda, "masters", wanted),
        gradients(config, DeviceKind::kCuda, "gradients", wanted),
        first(config, DeviceKind::kCuda, "first moments", wanted),
        second(config, DeviceKind::kCuda, "second moments", wanted),
        sum_memory(sizeof(double), DeviceKind::kCuda, "gradient norm"),
        sum(sum_memory.data(), DType::kF64, {1}, "sum", DeviceKind::kCuda) {
    std::uint64_t key = 0;  // the first update replaces the weights by the masters, which have other values
    for (const ParameterSet* set : {&weights, &masters}) {
      for (const ParameterSet::Entry& e : set->entries()) {
        if (e.spec.init == Init::kOne) ops::fill_value(ctx, e.tensor, 1.f);
        else if (e.spec.init != Init::kZero) ops::fill_random(ctx, e.tensor, 0.02f, ++key);
      }
    }
    for (const ParameterSet::Entry& e : weights.entries()) copies[e.spec.name] = e.tensor;
    Weights views;
    use_parameters(weights, views);
    model = make_model(weights.config(), std::move(views), DeviceKind::kCuda, ctx.ordinal);
  }
  double norm() {
    fill_bytes(sum.data, DeviceKind::kCuda, 0, sizeof(double), ctx.stream);
    for (const ParameterSet::Entry& e : gradients.entries()) ops::add_squares(ctx, e.tensor, sum);
    double squares = 0;
    copy_bytes(&squares, DeviceKind::kCpu, sum.data, DeviceKind::kCuda, sizeof(double), ctx.stream);
    synchronize(ctx.stream);
    return std::sqrt(squares);
  }
  void update(std::int64_t step, double norm) {
    ops::AdamwArgs args;
    args.lr = 1e-4f;
    args.decay = 0.1f;
    args.step = step;
    args.grad_scale = static_cast<float>(std::fmin(1, 1 / (norm + 1e-6)));
    for (std::size_t i = 0; i < masters.entries().size(); ++i) {
      const ParameterSet::Entry& e = masters.entries()[i];
      ops::adamw(ctx, args, gradients.entries()[i].tensor, e.tensor, first.entries()[i].tensor,
                 second.entries()[i].tensor, copies.at(e.spec.name));
    }
  }
  std::uint64_t bytes() const {
    return weights.bytes() + masters.bytes() + gradients.bytes() + first.bytes() + second.bytes();
  }

  Context& ctx;
  Config config;
  ParameterSet weights, masters, gradients, first, second;
  Buffer sum_memory;
  Tensor sum;
  std::map<std::string, Tensor> copies;
  Model model;
};

void run(const Options& o) {
  use_cuda_device(0);
  const Stream stream = Stream::create();
  Context ctx(0, stream.get());
  const double limit = ops::measure_cuda_limits(ctx).fma_gflops * 1e9;
  const Config config = config_of(o);
  Trainer t(ctx, o,
            [&](const ParameterSpec& spec) { return !o.frozen_experts || spec.storage != Storage::kExpertMatrix; });
  const Batch batch(config, o);
  const std::int64_t rows = o.documents * o.length;
  TrainingRows packed;
  const TrainingBatch& on_device = packed.set(ctx, config, batch.view(), 1.0 / static_cast<double>(rows));
  TrainingSizes sizes;
  sizes.rows = sizes.loss_rows = sizes.logits_rows = rows;
  const Place place{DeviceKind::kCuda, DType::kBF16};
  TrainingActivations acts(config, sizes, o.recompute, place);
  LossOptions losses;
  losses.balance = Balance::kHf;
  losses.balance_coefficient = 0.01;
  losses.accumulate = false;
  double times[3] = {};
  for (std::int64_t step = -2; step < o.steps; ++step) {  // two without a clock
    synchronize(ctx.stream);
    const double begin = seconds();
    const TrainingLosses now = loss_and_gradients(ctx, t.model, on_device, losses, acts, &t.gradients);
    synchronize(ctx.stream);
    const double passed = seconds(), norm = t.norm(), normed = seconds();
    t.update(step + 3, norm);
    synchronize(ctx.stream);
    const double end = seconds(), parts[] = {passed - begin, normed - passed, end - normed};
    fmt::print(
        "step {:>2}: loss {:.4f} balance {:.3f} norm {:.3f}  {:.2f} ms forward and backward, {:.2f} norm, {:.2f} "
        "AdamW\n",
        step + 2, now.cross_entropy, now.balance, norm, parts[0] * 1e3, parts[1] * 1e3, parts[2] * 1e3);
    for (int i = 0; i < 3; ++i) times[i] += step < 0 ? 0 : parts[i] / static_cast<double>(o.steps);
  }
  const double tokens = static_cast<double>(rows), flops = flops_per_token(config, o) * tokens;
  const double total = times[0] + times[1] + times[2];
  const auto line = [&](const char* what, double time) {
    fmt::print("{:<24}{:>9.2f} ms{:>10.0f} tokens/s{:>8.1f} TFLOP/s{:>7.1f} % of {:.0f} measured\n", what, time * 1e3,
               tokens / time, flops / time * 1e-12, 100 * flops / time / limit, limit * 1e-12);
  };
  line("forward and backward", times[0]);
  line("a step", total);
  const double gib = 1.0 / (1 << 30);
  fmt::print("memory: {:.2f} GiB of parameters and moments, {:.2f} activations, {:.2f} workspace\n",
             static_cast<double>(t.bytes()) * gib,
             static_cast<double>(TrainingActivations::bytes(config, sizes, o.recompute, place)) * gib,
             static_cast<double>(ctx.workspace.capacity()) * gib);
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--frozen-experts") {
      o.frozen_experts = true;
      continue;
    }
    if (i + 1 == argc) fail(ErrorCode::kInvalidArgument, "{} needs a value", name);
    const std::string value = argv[++i];
    if (name == "--recompute") {
      o.recompute = value == "moe" ? Recompute::kMoe : value == "block" ? Recompute::kBlock : Recompute::kNone;
      continue;
    }
    std::int64_t* const to = name == "--layers"      ? &o.layers
                             : name == "--experts"   ? &o.experts
                             : name == "--documents" ? &o.documents
                             : name == "--length"    ? &o.length
                             : name == "--steps"     ? &o.steps
                                                     : nullptr;
    if (to == nullptr) fail(ErrorCode::kInvalidArgument, "unknown option {}", name);
    *to = std::stoll(value);
  }
  return o;
}

}  // namespace
}  // namespace gov

int main(int argc, char** argv) {
  try {
    gov::run(gov::parse(argc, argv));
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_training: {}\n", e.what());
    return 1;
  }
}
