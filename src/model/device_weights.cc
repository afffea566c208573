#include "model/device_weights.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "model/parameters.h"
#include "model/random.h"
#include "ops/device_only.h"
#include "tensor/device.h"

namespace gov {
namespace {

constexpr std::uint64_t kAlign = 256;

// One tensor of the device's copy.
struct Entry {
  ParameterSpec spec;
  Tensor host;  // type and shape as used; its memory, if it has any
  Tensor* out;
  std::uint64_t offset = 0;
};

// Where every tensor goes: in the order of the table, but what is used as one lies together.
class Layout {
 public:
  void add(const ParameterSpec& spec, const Tensor& host, Tensor& out) {
    index_.emplace(&out, entries_.size());
    entries_.push_back({spec, host, &out});
  }
  // Gives every entry its place; returns the bytes of all.
  std::uint64_t place(Weights& weights) {
    placed_.assign(entries_.size(), false);
    for (LayerWeights& layer : weights.layers) {
      AttentionWeights& a = layer.attention;
      place_together({&a.q, &a.k, &a.v});
      place_together({&a.q_bias, &a.k_bias, &a.v_bias});
    }
    for (Entry& entry : entries_) place_together({entry.out});
    return bytes_;
  }
  std::vector<Entry>& entries() { return entries_; }

 private:
  // One behind the other where they are of one type, each on its own boundary otherwise.
  void place_together(std::initializer_list<Tensor*> tensors) {
    const DType* type = nullptr;
    for (Tensor* t : tensors) {
      const auto found = index_.find(t);
      if (found == index_.end() || placed_[found->second]) continue;
      Entry& entry = entries_[found->second];
      if (!type || entry.host.dtype != *type) bytes_ = (bytes_ + kAlign - 1) / kAlign * kAlign;
      type = &entry.host.dtype;
      entry.offset = bytes_;
      bytes_ += entry.host.bytes();
      placed_[found->second] = true;
    }
  }

  std::vector<Entry> entries_;
  std::vector<bool> placed_;
  std::unordered_map<const Tensor*, std::size_t> index_;
  std::uint64_t bytes_ = 0;
};

Tensor joined(std::initializer_list<const Tensor*> parts, std::string_view name) {
  const Tensor& first = **parts.begin();
  std::int64_t rows = 0;
  const char* next = static_cast<const char*>(first.data);
  for (const Tensor* part : parts) {
    if (!*part || part->data != next || part->dtype != first.dtype) return {};
    rows += part->rows();
    next += part->bytes();
  }
  Shape shape = first.shape.rank() == 2 ? Shape{rows, first.shape[1]} : Shape{rows};
  return Tensor(first.data, first.dtype, shape, name, first.device);
}

std::uint64_t aligned(std::uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// BF16 tensors for all experts, from `at` on.
void view_expanded(const Config& c, Weights& weights, char* at) {
  const auto next = [&](Shape shape) {
    const Tensor t(at, DType::kBF16, shape, "expanded experts", DeviceKind::kCuda);
    at += aligned(t.bytes());
    return t;
  };
  for (LayerWeights& layer : weights.layers) {
    layer.moe.gate_up.expanded = next({c.num_local_experts, 2 * c.intermediate_size, c.hidden_size});
    layer.moe.down.expanded = next({c.num_local_experts, c.hidden_size, c.intermediate_size});
  }
}

// Allocates for the layout and points the weights to their places.
void allocate(const Config& config, Layout& layout, Weights& weights, bool expand) {
  const std::uint64_t stored = layout.place(weights);
  const std::uint64_t expanded = expand && config.mxfp4_experts ? expanded_expert_bytes(config) : 0;
  Buffer memory(aligned(stored) + expanded, DeviceKind::kCuda, "the weights");
  char* base = static_cast<char*>(memory.data());
  for (const Entry& entry : layout.entries()) {
    const char* name =
        entry.spec.storage == Storage::kU8 ? "experts" : "weights";  // the checkpoint's names end with it
    *entry.out = Tensor(base + entry.offset, entry.host.dtype, entry.host.shape, name, DeviceKind::kCuda);
  }
  for (LayerWeights& layer : weights.layers) {
    AttentionWeights& a = layer.attention;
    a.qkv = joined({&a.q, &a.k, &a.v}, "qkv_proj");
    if (a.q_bias) {
      a.qkv_bias = joined({&a.q_bias, &a.k_bias, &a.v_bias}, "qkv_proj.bias");
      if (!a.qkv_bias) a.qkv = {};
    }
  }
  if (expanded > 0) view_expanded(config, weights, base + aligned(stored));
  if (config.tie_word_embeddings) weights.lm_head = weights.embed;
  weights.owned_bytes = memory.bytes();
  weights.owned.push_back(std::move(memory));
}

void expand(Context& ctx, const Weights& weights) {
  for (const LayerWeights& layer : weights.layers) {
    for (const ops::ExpertProjection* p : {&layer.moe.gate_up, &layer.moe.down}) {
      if (p->expanded) ops::expand_mxfp4(ctx, p->blocks, p->scales, p->expanded);
    }
  }
}

// Reads the bytes of a tensor: through read calls where it is part of a mapped file, which is faster than touching its
// pages one by one, else from its memory.
std::function<void(std::uint64_t, std::span<std::byte>)> reader(const Tensor& host, const Checkpoint* checkpoint) {
  const auto* data = static_cast<const std::byte*>(host.data);
  if (checkpoint) {
    for (const SafetensorsFile& file : checkpoint->files()) {
      const std::span<const std::byte> all = file.mapped().bytes();
      const std::less<const std::byte*> before;
      if (all.empty() || before(data, all.data()) || !before(data, all.data() + all.size())) continue;
      const auto start = static_cast<std::uint64_t>(data - all.data());
      const MappedFile* map = &file.mapped();
      return [map, start](std::uint64_t offset, std::span<std::byte> out) { map->read_at(start + offset, out); };
    }
  }
  return [data](std::uint64_t offset, std::span<std::byte> out) { std::memcpy(out.data(), data + offset, out.size()); };
}

// The host's tensors in the order of the table.
std::vector<Tensor> host_tensors(const Config& config, const Weights& host) {
  std::vector<Tensor> tensors;
  for_each_parameter(config, const_cast<Weights&>(host),  // sized already, so nothing changes
                     [&](const ParameterSpec&, Tensor& t) { tensors.push_back(t); });
  return tensors;
}

Layout layout_like(const Config& config, const Weights& host, Weights& weights) {
  const std::vector<Tensor> tensors = host_tensors(config, host);
  Layout layout;
  std::size_t next = 0;
  for_each_parameter(config, weights,
                     [&](const ParameterSpec& spec, Tensor& out) { layout.add(spec, tensors[next++], out); });
  return layout;
}

}  // namespace

std::uint64_t device_weight_bytes(const Config& config, const Weights& host) {
  Weights weights;
  Layout layout = layout_like(config, host, weights);
  return aligned(layout.place(weights));
}

std::uint64_t expanded_expert_bytes(const Config& c) {
  const auto size = [&](std::int64_t out, std::int64_t in) {
    return aligned(static_cast<std::uint64_t>(c.num_local_experts * out * in) * dtype_size(DType::kBF16));
  };
  return static_cast<std::uint64_t>(c.num_hidden_layers) *
         (size(2 * c.intermediate_size, c.hidden_size) + size(c.hidden_size, c.intermediate_size));
}

Model to_device(Model host, const DeviceOptions& options, ThreadPool& pool) {
  use_cuda_device(options.ordinal);
  Weights weights;
  Layout layout = layout_like(host.config, host.weights, weights);
  allocate(host.config, layout, weights, options.expand_experts);
  std::vector<UploadJob> jobs;
  std::uint64_t total = 0;
  for (const Entry& entry : layout.entries()) {
    jobs.push_back({reader(entry.host, host.weights.mapped.get()), entry.out->data, entry.host.bytes()});
    total += entry.host.bytes();
  }
  upload(jobs, options.ordinal, pool, [&](std::uint64_t done) {
    if (options.progress) options.progress(done, total);
  });
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const MoeWeights& from = host.weights.layers[i].moe;
    MoeWeights& to = weights.layers[i].moe;
    to.gate_up.moderate_scales = from.gate_up.moderate_scales;
    to.down.moderate_scales = from.down.moderate_scales;
  }
  if (options.expand_experts) {
    const Stream stream = Stream::create();
    Context ctx(options.ordinal, stream.get());
    expand(ctx, weights);
    synchronize(stream.get());
  }
  return make_model(std::move(host.config), std::move(weights), DeviceKind::kCuda, options.ordinal);
}

Model random_device_model(const Config& config, std::uint64_t seed, const DeviceOptions& options) {
  validate(config);
  use_cuda_device(options.ordinal);
  const DType type = config.dtype == "float32" ? DType::kF32 : config.dtype == "float16" ? DType::kF16 : DType::kBF16;
  Weights weights;
  Layout layout;
  for_each_parameter(config, weights, [&](const ParameterSpec& spec, Tensor& out) {
    const bool turned = spec.storage == Storage::kExpertMatrix;  // used [E, out, in]
    const Shape shape = turned ? Shape{spec.shape[0], spec.shape[2], spec.shape[1]} : spec.shape;
    layout.add(spec, Tensor(nullptr, spec.storage == Storage::kU8 ? DType::kU8 : type, shape, "random"), out);
  });
  allocate(config, layout, weights, options.expand_experts);
  const Stream stream = Stream::create();
  Context ctx(options.ordinal, stream.get());
  for (const Entry& entry : layout.entries()) {
    switch (entry.spec.init) {
      case Init::kZero: ops::fill_value(ctx, *entry.out, 0.f); break;
      case Init::kOne: ops::fill_value(ctx, *entry.out, 1.f); break;
      case Init::kMxfp4Scales: ops::fill_value(ctx, *entry.out, static_cast<float>(random_scale(config))); break;
      case Init::kMxfp4Blocks:
      case Init::kNormal:
        ops::fill_random(ctx, *entry.out, static_cast<float>(config.initializer_range),
                         random_key(seed, entry.spec.name));
        break;
    }
  }
  for (LayerWeights& layer : weights.layers) {
    for (ops::ExpertProjection* p : {&layer.moe.gate_up, &layer.moe.down})
      p->moderate_scales = p->blocks && random_scale(config) <= kLargestModerateScale;
  }
  expand(ctx, weights);
  synchronize(stream.get());
  return make_model(config, std::move(weights), DeviceKind::kCuda, options.ordinal);
}

}  // namespace gov
