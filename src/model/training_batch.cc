#include "model/training_batch.h"

#include <algorithm>
#include <cstring>

#include "tensor/device.h"

namespace gov {
namespace {

constexpr std::size_t kAlign = 256;

void check(const Config& c, const PackedRows& rows) {
  const auto require = [](bool ok, const char* what) {
    if (!ok) fail(ErrorCode::kInvalidArgument, "a training batch: {}", what);
  };
  const std::size_t count = rows.tokens.size();
  require(count > 0, "it has no rows");
  require(rows.positions.size() == count && rows.modality.size() == count && rows.targets.size() == count &&
              rows.row_weights.size() == count,
          "arrays of unequal lengths");
  require(rows.cu_seqlens.size() >= 2 && rows.cu_seqlens.front() == 0 &&
              rows.cu_seqlens.back() == static_cast<std::int64_t>(count) &&
              std::is_sorted(rows.cu_seqlens.begin(), rows.cu_seqlens.end()),
          "cu_seqlens do not cover its rows");
  const auto side = static_cast<std::size_t>(c.vision.image_size);
  const std::size_t image = static_cast<std::size_t>(c.vision.num_channels) * side * side;
  require(rows.pixels.empty() || (c.use_vision && rows.pixels.size() % image == 0), "pixels that do not fit the model");
  for (const PackedRows::Fill& fill : rows.fills) require(fill.rows.size() == fill.sources.size(), "uneven image rows");
}

}  // namespace

const TrainingBatch& TrainingRows::set(Context& ctx, const Config& config, const PackedRows& rows, double scale) {
  check(config, rows);
  std::vector<std::int32_t> text(rows.tokens.begin(), rows.tokens.end()), lengths, loss_rows, targets;
  std::vector<float> weights;
  batch_ = {};
  for (std::size_t t = 0; t < text.size(); ++t) {
    if (rows.modality[t] != 0) text[t] = -1;
    if (rows.targets[t] < 0) continue;
    loss_rows.push_back(static_cast<std::int32_t>(t));
    targets.push_back(rows.targets[t]);
    weights.push_back(static_cast<float>(static_cast<double>(rows.row_weights[t]) * scale));
  }
  for (std::size_t d = 1; d < rows.cu_seqlens.size(); ++d) {
    lengths.push_back(rows.cu_seqlens[d] - rows.cu_seqlens[d - 1]);
    batch_.max_rows = std::max<std::int64_t>(batch_.max_rows, lengths.back());
  }
  staging_.clear();
  std::vector<std::pair<Tensor*, std::size_t>> places;
  const auto stage = [&]<class T>(Tensor& t, std::span<const T> values, DType dtype, Shape shape,
                                  std::string_view name) {
    t = Tensor(nullptr, dtype, shape, name, ctx.device);
    if (values.empty()) return;
    const std::size_t at = staging_.size(), bytes = values.size_bytes();
    staging_.resize(at + (bytes + kAlign - 1) / kAlign * kAlign);
    std::memcpy(staging_.data() + at, values.data(), bytes);
    places.emplace_back(&t, at);
  };
  const auto ints = [&](Tensor& t, std::span<const std::int32_t> values, std::string_view name) {
    stage(t, values, DType::kI32, Shape{static_cast<std::int64_t>(values.size())}, name);
  };
  ints(batch_.tokens, rows.tokens, "tokens");
  ints(batch_.text_tokens, text, "text_tokens");
  ints(batch_.positions, rows.positions, "positions");
  ints(batch_.cu_seqlens, rows.cu_seqlens, "cu_seqlens");
  ints(batch_.lengths, lengths, "lengths");
  ints(batch_.loss_rows, loss_rows, "loss_rows");
  ints(batch_.targets, targets, "targets");
  stage(batch_.row_weights, std::span<const float>(weights), DType::kF32, batch_.targets.shape, "row_weights");
  stage(batch_.modality, rows.modality, DType::kU8, batch_.tokens.shape, "modality");
  batch_.fills.resize(rows.fills.size());
  for (std::size_t i = 0; i < rows.fills.size(); ++i) {
    ints(batch_.fills[i].rows, rows.fills[i].rows, "image rows");
    ints(batch_.fills[i].sources, rows.fills[i].sources, "image sources");
  }
  if (!rows.pixels.empty()) {
    const VisionConfig& v = config.vision;
    const std::int64_t image = v.num_channels * v.image_size * v.image_size;
    stage(batch_.pixels, rows.pixels, DType::kF32,
          Shape{static_cast<std::int64_t>(rows.pixels.size()) / image, v.num_channels, v.image_size, v.image_size},
          "pixels");
  }
  if (memory_.bytes() < staging_.size() || memory_.device() != ctx.device)
    memory_ = Buffer(staging_.size(), ctx.device, "a training batch");
  for (const auto& [tensor, at] : places) tensor->data = static_cast<char*>(memory_.data()) + at;
  copy_bytes(memory_.data(), ctx.device, staging_.data(), DeviceKind::kCpu, staging_.size(), ctx.stream);
  return batch_;
}

}  // namespace gov
