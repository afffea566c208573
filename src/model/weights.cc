#include "model/weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <set>

#include "base/mxfp4.h"
#include "model/parameters.h"
#include "model/random.h"

namespace gov {
namespace {

bool is_float(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }

// [E, in, out] -> [E, out, in], elements of `size` bytes, in square tiles that fit the first-level cache.
void transpose_experts(const Tensor& in, void* out, ThreadPool& pool) {
  constexpr std::int64_t kTile = 32;
  const std::int64_t rows = in.shape[1], columns = in.shape[2];
  const std::int64_t bands = (rows + kTile - 1) / kTile;
  const auto run = [&]<class T>(const T* source, T* target) {
    pool.parallel_for(in.shape[0] * bands, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t item = begin; item < end; ++item) {
        const T* from = source + item / bands * rows * columns;
        T* to = target + item / bands * rows * columns;
        const std::int64_t r0 = item % bands * kTile, r1 = std::min(r0 + kTile, rows);
        for (std::int64_t c0 = 0; c0 < columns; c0 += kTile) {
          for (std::int64_t c = c0; c < std::min(c0 + kTile, columns); ++c) {
            for (std::int64_t r = r0; r < r1; ++r) to[c * rows + r] = from[r * columns + c];
          }
        }
      }
    });
  };
  if (in.dtype == DType::kF32) run(static_cast<const std::uint32_t*>(in.data), static_cast<std::uint32_t*>(out));
  else run(static_cast<const std::uint16_t*>(in.data), static_cast<std::uint16_t*>(out));
}

// Refuses scale 255 (NaN), and 253 and 254 where a value of the block would leave the range of F32. Returns the
// largest.
std::uint8_t check_scales(const Tensor& blocks, const Tensor& scales, std::string_view name, ThreadPool& pool) {
  const auto* s = static_cast<const std::uint8_t*>(scales.data);
  const auto* packed = static_cast<const std::uint8_t*>(blocks.data);
  std::atomic<std::int64_t> bad{-1};
  std::vector<std::uint8_t> largest_of(static_cast<std::size_t>(pool.size()), 0);  // per thread
  pool.parallel_for(scales.elements(), std::int64_t{1} << 20, [&](std::int64_t begin, std::int64_t end, int thread) {
    std::uint8_t largest = 0;
    for (std::int64_t i = begin; i < end; ++i) largest = std::max(largest, s[i]);
    std::uint8_t& mine = largest_of[static_cast<std::size_t>(thread)];
    mine = std::max(mine, largest);
    if (largest < 253) return;  // nearly always
    for (std::int64_t i = begin; i < end; ++i) {
      if (s[i] < 253) continue;
      float values[kMxfp4Block];
      mxfp4_decode_block(packed + i * kMxfp4BlockBytes, s[i], values);
      if (!std::all_of(values, values + kMxfp4Block, [](float v) { return std::isfinite(v); })) bad = i;
    }
  });
  if (bad >= 0) {
    fail(ErrorCode::kCorrupt, "{}: scale {} at position {} makes values that are not finite", printable(name),
         s[bad.load()], bad.load());
  }
  return *std::max_element(largest_of.begin(), largest_of.end());
}

// Names that trained checkpoints carry and this model never reads.
bool is_ignored(std::string_view name, const Config& config) {
  if (name.find(".vit.pooler.") != std::string_view::npos || name.ends_with("vit.embeddings.mask_token")) return true;
  if (config.tie_word_embeddings && name == "lm_head.weight") return true;
  return !config.use_vision && name.ends_with("mlp.router.vision_bias");
}

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  const std::size_t shown = std::min(kShown, names.size());
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (names.size() > shown) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

class Loader {
 public:
  Loader(const Checkpoint& file, const Config& config, Weights& weights, ThreadPool& pool, const Log& log)
      : file_(file), config_(config), weights_(weights), pool_(pool), log_(log) {}

  void visit(const ParameterSpec& spec, Tensor& out) {
    std::string name = spec.name;
    std::optional<Tensor> found = file_.find(name);
    if (!found && !spec.alias.empty()) {
      name = spec.alias;
      found = file_.find(name);
    }
    if (!found) {
      if (spec.optional) zeros(spec, out);
      else missing_.push_back(spec.name);
      return;
    }
    used_.insert(name);
    const bool right_type = spec.storage == Storage::kU8 ? found->dtype == DType::kU8 : is_float(found->dtype);
    if (found->shape != spec.shape || !right_type) {
      wrong_.push_back(fmt::format("{} is {} {}, expected {} {}", printable(name), dtype_name(found->dtype),
                                   found->shape.str(), spec.storage == Storage::kU8 ? "u8" : "f32, bf16 or f16",
                                   spec.shape.str()));
      return;
    }
    if (spec.storage == Storage::kExpertMatrix) {
      const Shape used{spec.shape[0], spec.shape[2], spec.shape[1]};
      out = Tensor(own(found->bytes(), "transposed experts"), found->dtype, used, found->name);
      transpose_experts(*found, out.data, pool_);
      return;
    }
    out = *found;
    weights_.mapped_bytes += found->bytes();
  }

  void finish() {
    if (!missing_.empty())
      fail(ErrorCode::kCorrupt, "the checkpoint lacks {} tensors: {}{}", missing_.size(), listed(missing_), hint());
    if (!wrong_.empty())
      fail(ErrorCode::kCorrupt, "{} tensors do not fit config.json: {}", wrong_.size(), listed(wrong_));
    if (!zeroed_.empty()) log_.warn("missing, taken as zero: {}", listed(zeroed_));
    std::vector<std::string> extra;
    for (const std::string_view name : file_.names()) {
      if (!used_.contains(std::string(name)) && !is_ignored(name, config_)) extra.push_back(printable(name));
    }
    if (!extra.empty()) log_.warn("{} tensors of the checkpoint are not used: {}", extra.size(), listed(extra));
    for (LayerWeights& layer : weights_.layers) {
      for (ops::ExpertProjection* p : {&layer.moe.gate_up, &layer.moe.down}) {
        if (p->scales)
          p->moderate_scales = check_scales(p->blocks, p->scales, p->scales.name, pool_) <= kLargestModerateScale;
      }
    }
    file_.check_unchanged();
  }

 private:
  void* own(std::size_t bytes, std::string_view purpose) {
    weights_.owned.emplace_back(bytes, DeviceKind::kCpu, purpose);
    weights_.owned_bytes += bytes;
    return weights_.owned.back().data();
  }
  void zeros(const ParameterSpec& spec, Tensor& out) {
    zeroed_.push_back(spec.name);
    const std::size_t bytes = static_cast<std::size_t>(spec.shape.elements()) * sizeof(float);
    out = Tensor(own(bytes, "a missing tensor"), DType::kF32, spec.shape, "zeros");
    std::memset(out.data, 0, bytes);
  }
  // The commonest reason for missing experts: the other storage form.
  std::string hint() const {
    const bool packed = file_.locate("model.layers.0.mlp.experts.gate_up_proj_blocks").has_value();
    const bool dense = file_.locate("model.layers.0.mlp.experts.gate_up_proj").has_value();
    if (config_.mxfp4_experts && dense)
      return " (config.json says quant_method mxfp4, but the experts are not quantised)";
    if (!config_.mxfp4_experts && packed) return " (the experts are MXFP4, but config.json has no quantization_config)";
    return "";
  }

  const Checkpoint& file_;
  const Config& config_;
  Weights& weights_;
  ThreadPool& pool_;
  const Log& log_;
  std::set<std::string> used_;
  std::vector<std::string> missing_, wrong_, zeroed_;
};

}  // namespace

Weights load_weights(std::shared_ptr<const Checkpoint> checkpoint, Config& config, ThreadPool& pool, const Log& log) {
  const auto names = checkpoint->names();
  const auto is_vision = [](std::string_view name) { return name.starts_with("model.vision_adapter."); };
  if (config.use_vision && std::none_of(names.begin(), names.end(), is_vision)) {
    log.warn("config.json has use_vision, but the checkpoint holds no image encoder: opened as a text model");
    config.use_vision = false;
  }
  Weights weights;
  Loader loader(*checkpoint, config, weights, pool, log);
  for_each_parameter(config, weights, [&](const ParameterSpec& spec, Tensor& out) { loader.visit(spec, out); });
  loader.finish();
  if (config.tie_word_embeddings) weights.lm_head = weights.embed;
  weights.mapped = std::move(checkpoint);
  return weights;
}

Weights random_weights(const Config& config, std::uint64_t seed, ThreadPool& pool) {
  Weights weights;
  for_each_parameter(config, weights, [&](const ParameterSpec& spec, Tensor& out) {
    DType dtype = spec.storage == Storage::kU8 ? DType::kU8 : DType::kBF16;
    if (config.dtype == "float32" && spec.storage != Storage::kU8) dtype = DType::kF32;
    if (config.dtype == "float16" && spec.storage != Storage::kU8) dtype = DType::kF16;
    const std::size_t bytes = static_cast<std::size_t>(spec.shape.elements()) * dtype_size(dtype);
    Buffer values(bytes, DeviceKind::kCpu, "random weights");
    pool.parallel_for(spec.shape.elements(), std::int64_t{1} << 16, [&](std::int64_t begin, std::int64_t end, int) {
      char* start = static_cast<char*>(values.data()) + static_cast<std::size_t>(begin) * dtype_size(dtype);
      fill_random(spec, config, seed, dtype, begin, end - begin, start);
    });
    out = Tensor(values.data(), dtype, spec.shape, "random");
    if (spec.storage == Storage::kExpertMatrix) {
      Buffer turned(bytes, DeviceKind::kCpu, "random weights");
      transpose_experts(out, turned.data(), pool);
      out = Tensor(turned.data(), dtype, {spec.shape[0], spec.shape[2], spec.shape[1]}, "random");
      values = std::move(turned);
    }
    weights.owned.push_back(std::move(values));
    weights.owned_bytes += bytes;
  });
  for (LayerWeights& layer : weights.layers) {
    for (ops::ExpertProjection* p : {&layer.moe.gate_up, &layer.moe.down})
      p->moderate_scales = p->scales && random_scale(config) <= kLargestModerateScale;
  }
  if (config.tie_word_embeddings) weights.lm_head = weights.embed;
  return weights;
}

}  // namespace gov
