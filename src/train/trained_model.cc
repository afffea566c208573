#include "train/trained_model.h"

#include <algorithm>

#include "base/mxfp4.h"
#include "base/sha256.h"
#include "model/device_weights.h"
#include "ops/backward.h"
#include "tensor/device.h"

namespace gov::train {
namespace {

// Fills the host's set from a model there, then brings it to where the other one is.
void read_masters(Context& ctx, const Model& from, const ParameterSet& to, const ParameterSet::Wanted& wanted) {
  if (!ctx.on_cuda()) {
    read_parameters(from.config, from.weights, to);
    return;
  }
  const ParameterSet host(from.config, DeviceKind::kCpu, "weights", wanted);
  read_parameters(from.config, from.weights, host);
  for (std::size_t i = 0; i < host.entries().size(); ++i) {
    const Tensor &source = host.entries()[i].tensor, &target = to.entries()[i].tensor;
    copy_bytes(target.data, target.device, source.data, source.device, source.bytes(), ctx.stream);
  }
  synchronize(ctx.stream);
}

std::vector<std::byte> to_host(Context& ctx, const Tensor& t) {
  std::vector<std::byte> bytes(t.bytes());
  copy_bytes(bytes.data(), DeviceKind::kCpu, t.data, t.device, t.bytes(), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
  return bytes;
}

std::string hex(const Sha256Digest& digest) {
  std::string text;
  for (const std::uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

ParameterSet::Wanted ParameterPlan::wanted() const {
  return [names = trained](const ParameterSpec& spec) { return names.contains(spec.name); };
}

std::int64_t ParameterPlan::count(bool trained_ones) const {
  std::int64_t sum = 0;
  for (const ParameterSpec& spec : specs)
    if (trained.contains(spec.name) == trained_ones) sum += spec.shape.elements();
  return sum;
}

ParameterPlan plan_parameters(const TrainConfig& config, const Config& model) {
  Config dense = model;
  dense.mxfp4_experts = false;
  ParameterPlan plan;
  plan.specs = parameter_table(dense);
  std::vector<std::string> names;
  for (const ParameterSpec& spec : plan.specs) names.push_back(spec.name);
  plan.rules = parameter_rules(config, names);
  for (std::size_t i = 0; i < names.size(); ++i)
    if (!plan.rules[i].frozen) plan.trained.insert(names[i]);
  return plan;
}

TrainedModel::TrainedModel(Context& ctx, Model start, const ParameterPlan& plan, const RunConfig& run, ThreadPool& pool)
    : trained_(plan.trained),
      masters_(start.config, ctx.device, "master weights", plan.wanted()),
      gradients_(start.config, ctx.device, "gradients", plan.wanted()),
      first_(start.config, ctx.device, "first moments", plan.wanted()),
      second_(start.config, ctx.device, "second moments", plan.wanted()),
      sums_(gradients_.entries().size() * sizeof(double), ctx.device, "gradient norms") {
  for (const ParameterRule& rule : plan.rules)
    if (!rule.frozen) rules_.push_back(rule);
  read_masters(ctx, start, masters_, plan.wanted());
  if (ctx.on_cuda() && run.precision == RunConfig::Precision::kBf16)
    copies_ = std::make_unique<ParameterSet>(start.config, ctx.device, "weights", plan.wanted(), DType::kBF16);
  const ParameterSet& used = copies_ ? *copies_ : masters_;
  if (plan.all_trained()) {
    Weights weights;
    use_parameters(used, weights);
    model_ = make_model(masters_.config(), std::move(weights), ctx.device, ctx.ordinal);
  } else {
    model_ = ctx.on_cuda() ? to_device(std::move(start), {ctx.ordinal, false, {}}, pool) : std::move(start);
    use_parameters(used, model_.weights);
  }
  masters_changed(ctx);
}

void TrainedModel::masters_changed(Context& ctx) {
  if (copies_) {
    std::vector<bf16> narrow;
    for (std::size_t i = 0; i < masters_.entries().size(); ++i) {
      const std::vector<std::byte> bytes = to_host(ctx, masters_.entries()[i].tensor);
      const auto* values = reinterpret_cast<const float*>(bytes.data());
      narrow.resize(bytes.size() / sizeof(float));
      for (std::size_t k = 0; k < narrow.size(); ++k) narrow[k] = to_bf16(values[k]);
      const Tensor& copy = copies_->entries()[i].tensor;
      copy_bytes(copy.data, copy.device, narrow.data(), DeviceKind::kCpu, copy.bytes(), ctx.stream);
      synchronize(ctx.stream);
    }
  }
  pack(ctx);
}

std::vector<double> TrainedModel::squared_gradients(Context& ctx) const {
  const auto count = static_cast<std::int64_t>(gradients_.entries().size());
  const Tensor sums(sums_.data(), DType::kF64, {count}, "norms", ctx.device);
  fill_bytes(sums.data, ctx.device, 0, sums.bytes(), ctx.stream);
  for (std::int64_t i = 0; i < count; ++i)
    ops::add_squares(ctx, gradients_.entries()[static_cast<std::size_t>(i)].tensor, sums.slice(i, 1));
  std::vector<double> squares(static_cast<std::size_t>(count));
  copy_bytes(squares.data(), DeviceKind::kCpu, sums.data, ctx.device, sums.bytes(), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
  return squares;
}

void TrainedModel::update(Context& ctx, const OptimizerConfig& optimizer, double lr, double scale, std::int64_t t) {
  const auto narrow = [](double x) { return static_cast<float>(x); };
  for (std::size_t i = 0; i < masters_.entries().size(); ++i) {
    const ops::AdamwArgs args{narrow(lr * rules_[i].lr_multiplier),
                              narrow(optimizer.beta1),
                              narrow(optimizer.beta2),
                              narrow(optimizer.eps),
                              narrow(rules_[i].decay),
                              narrow(scale),
                              t};
    ops::adamw(ctx, args, gradients_.entries()[i].tensor, masters_.entries()[i].tensor, first_.entries()[i].tensor,
               second_.entries()[i].tensor, copies_ ? copies_->entries()[i].tensor : Tensor());
  }
  pack(ctx);
}

void TrainedModel::pack_experts(Context& ctx) {
  if (packs_experts()) return;
  for (std::size_t layer = 0; layer < model_.weights.layers.size(); ++layer) {
    MoeWeights& moe = model_.weights.layers[layer].moe;
    const MoeWeights& master = masters_.views().layers[layer].moe;
    for (auto [place, values] :
         {std::pair{&moe.gate_up, &master.gate_up.weight}, std::pair{&moe.down, &master.down.weight}}) {
      if (!*values) continue;  // frozen
      const std::int64_t experts = values->shape[0], out = values->shape[1], in = values->shape[2];
      if (in % kMxfp4Block != 0)
        fail(ErrorCode::kUnsupported, "qat.kind mxfp4: experts of width {}, a multiple of {} is needed", in,
             kMxfp4Block);
      const Shape scales{experts, out, in / kMxfp4Block}, blocks{experts, out, in / kMxfp4Block, kMxfp4BlockBytes};
      PackedExperts p{*values,
                      Buffer(static_cast<std::size_t>(blocks.elements()), ctx.device, "packed experts"),
                      Buffer(static_cast<std::size_t>(scales.elements()), ctx.device, "packed experts"),
                      {},
                      {},
                      place};
      p.blocks = Tensor(p.blocks_memory.data(), DType::kU8, blocks, "blocks", ctx.device);
      p.scales = Tensor(p.scales_memory.data(), DType::kU8, scales, "scales", ctx.device);
      packed_.push_back(std::move(p));
    }
  }
  pack(ctx);
}

void TrainedModel::pack(Context& ctx) {
  for (PackedExperts& p : packed_) {
    ops::mxfp4_quantize(ctx, p.master, p.blocks, p.scales);
    p.place->weight = {};
    p.place->blocks = p.blocks;
    p.place->scales = p.scales;
    if (!ctx.on_cuda()) continue;  // only kernels of a GPU ask for moderate scales
    const std::vector<std::byte> scales = to_host(ctx, p.scales);
    p.place->moderate_scales =
        std::all_of(scales.begin(), scales.end(), [](std::byte s) { return int(s) <= kLargestModerateScale; });
  }
}

ParameterSet TrainedModel::values(Context& ctx, const Model* start) const {
  ParameterSet all(masters_.config(), DeviceKind::kCpu, "weights");
  if (start) read_parameters(start->config, start->weights, all);
  auto next = masters_.entries().begin();
  for (const ParameterSet::Entry& entry : all.entries()) {
    if (next == masters_.entries().end() || next->spec.name != entry.spec.name) continue;
    const Tensor& source = (next++)->tensor;
    copy_bytes(entry.tensor.data, DeviceKind::kCpu, source.data, source.device, source.bytes(), ctx.stream);
  }
  if (ctx.on_cuda()) synchronize(ctx.stream);
  return all;
}

std::string TrainedModel::frozen_hash(Context& ctx, ThreadPool& pool) const {
  std::vector<Tensor> frozen;
  // The walk assigns nothing here, and the layers have their sizes already.
  for_each_parameter(model_.config, const_cast<Weights&>(model_.weights),
                     [&](const ParameterSpec& spec, const Tensor& tensor) {
                       std::string name = spec.name;
                       for (const std::string_view end : {"_blocks", "_scales"})
                         if (name.ends_with(end)) name.resize(name.size() - end.size());
                       if (tensor && !trained_.contains(name)) frozen.push_back(tensor);
                     });
  if (frozen.empty()) return "";
  std::vector<Sha256Digest> digests(frozen.size());
  const auto hash = [&](std::size_t i, const void* data) {
    digests[i] = sha256({static_cast<const std::byte*>(data), frozen[i].bytes()});
  };
  if (ctx.on_cuda()) {
    for (std::size_t i = 0; i < frozen.size(); ++i) hash(i, to_host(ctx, frozen[i]).data());
  } else {
    pool.parallel_for(static_cast<std::int64_t>(frozen.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) hash(i, frozen[i].data);
    });
  }
  Sha256 all;
  for (const Sha256Digest& digest : digests) all.update(std::as_bytes(std::span(digest)));
  return hex(all.digest());
}

}  // namespace gov::train
