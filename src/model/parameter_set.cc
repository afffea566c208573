#include "model/parameter_set.h"

#include <cstring>
#include <unordered_map>

#include "base/mxfp4.h"
#include "tensor/device.h"

namespace gov {
namespace {

constexpr std::size_t kAlign = 256;

Config dense(Config config) {
  config.mxfp4_experts = false;
  return config;
}

Shape used_shape(const ParameterSpec& spec) {
  if (spec.storage != Storage::kExpertMatrix) return spec.shape;
  return {spec.shape[0], spec.shape[2], spec.shape[1]};
}

std::size_t aligned_bytes(const ParameterSpec& spec, DType dtype) {
  return (static_cast<std::size_t>(spec.shape.elements()) * dtype_size(dtype) + kAlign - 1) / kAlign * kAlign;
}

void widen(const Tensor& from, float* to) {
  for (std::int64_t i = 0; i < from.elements(); ++i) {
    switch (from.dtype) {
      case DType::kBF16: to[i] = to_f32(from.as<bf16>()[i]); break;
      case DType::kF16: to[i] = to_f32(from.as<f16>()[i]); break;
      default: to[i] = from.as<float>()[i]; break;
    }
  }
}

void decode(const ops::ExpertProjection& from, float* to) {
  for (std::int64_t b = 0; b < from.scales.elements(); ++b)
    mxfp4_decode_block(from.blocks.as<std::uint8_t>() + b * kMxfp4BlockBytes, from.scales.as<std::uint8_t>()[b],
                       to + b * kMxfp4Block);
}

}  // namespace

std::uint64_t ParameterSet::bytes(const Config& config, const Wanted& wanted, DType dtype) {
  std::uint64_t total = 0;
  for (const ParameterSpec& spec : parameter_table(dense(config)))
    if (!wanted || wanted(spec)) total += aligned_bytes(spec, dtype);
  return total;
}

ParameterSet::ParameterSet(const Config& config, DeviceKind device, std::string_view purpose, const Wanted& wanted,
                           DType dtype)
    : config_(dense(config)), memory_(bytes(config, wanted, dtype), device, purpose) {
  char* at = static_cast<char*>(memory_.data());
  for_each_parameter(config_, views_, [&](const ParameterSpec& spec, Tensor& out) {
    if (wanted && !wanted(spec)) return;
    out = Tensor(at, dtype, used_shape(spec), purpose, device);
    at += aligned_bytes(spec, dtype);
    entries_.push_back({spec, out});
  });
  if (config_.tie_word_embeddings) views_.lm_head = views_.embed;
  zero(nullptr);
  if (device != DeviceKind::kCpu) synchronize(nullptr);
}

void ParameterSet::zero(void* stream) { fill_bytes(memory_.data(), memory_.device(), 0, memory_.bytes(), stream); }

void use_parameters(const ParameterSet& set, Weights& weights) {
  auto next = set.entries().begin();
  for_each_parameter(set.config(), weights, [&](const ParameterSpec& spec, Tensor& out) {
    if (next != set.entries().end() && next->spec.name == spec.name) out = (next++)->tensor;
  });
  for (LayerWeights& layer : weights.layers) {
    layer.attention.qkv = layer.attention.qkv_bias = {};  // views of what may just have been replaced
    for (ops::ExpertProjection* p : {&layer.moe.gate_up, &layer.moe.down})
      if (p->weight) p->blocks = p->scales = p->expanded = {};
  }
  if (set.config().tie_word_embeddings) weights.lm_head = weights.embed;
}

void read_parameters(const Config& config, const Weights& from, const ParameterSet& to) {
  std::unordered_map<const Tensor*, const ops::ExpertProjection*> packed;
  for (const LayerWeights& layer : from.layers)
    for (const ops::ExpertProjection* p : {&layer.moe.gate_up, &layer.moe.down})
      if (p->blocks) packed.emplace(&p->blocks, p);
  auto next = to.entries().begin();
  const auto end = to.entries().end();
  // The walk assigns nothing here, and the layers have their sizes already.
  for_each_parameter(config, const_cast<Weights&>(from), [&](const ParameterSpec& spec, Tensor& tensor) {
    if (next == end || !spec.name.starts_with(next->spec.name)) return;
    float* const values = next->tensor.as<float>();
    if (const auto found = packed.find(&tensor); found != packed.end()) decode(*found->second, values);
    else if (spec.name == next->spec.name) widen(tensor, values);
    else return;
    ++next;
  });
  GOV_DCHECK(next == end);
}

void for_each_stored(const ParameterSet& set,
                     const std::function<void(const ParameterSpec&, std::span<const float>)>& visit) {
  std::vector<float> turned;
  for (const ParameterSet::Entry& entry : set.entries()) {
    const auto size = static_cast<std::size_t>(entry.tensor.elements());
    const float* values = entry.tensor.as<float>();
    if (entry.spec.storage == Storage::kExpertMatrix) {
      const std::int64_t experts = entry.spec.shape[0], in = entry.spec.shape[1], out = entry.spec.shape[2];
      turned.resize(size);
      for (std::int64_t e = 0; e < experts; ++e)
        for (std::int64_t i = 0; i < in; ++i)
          for (std::int64_t o = 0; o < out; ++o)
            turned[static_cast<std::size_t>((e * in + i) * out + o)] = values[(e * out + o) * in + i];
      values = turned.data();
    }
    visit(entry.spec, {values, size});
  }
}

}  // namespace gov
