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
  for (const std::span<const float> pixels : rows.pixels)
    require(pixels.empty() || (c.use_vision && pixels.size() % image == 0), "pixels that do not fit the model");
  for (const PackedRows::Fill& fill : rows.fills) require(fill.rows.size() == fill.sources.size(), "uneven image rows");
}

// Where the arrays of a batch go in one piece of memory, and what is copied there.
class Layout {
 public:
  explicit Layout(DeviceKind device) : device_(device) {}
  std::size_t bytes() const { return bytes_; }

  template <class T>
  void add(Tensor& t, std::span<const T> values, DType dtype, Shape shape, std::string_view name) {
    t = Tensor(nullptr, dtype, shape, name, device_);
    if (values.empty()) return;
    places_.emplace_back(&t, bytes_);
    add_part(values.data(), values.size_bytes());
    bytes_ = (bytes_ + kAlign - 1) / kAlign * kAlign;
  }

  void add_pixels(Tensor& t, std::span<const std::span<const float>> pixels, const VisionConfig& v) {
    const std::size_t start = bytes_;
    for (const std::span<const float> part : pixels) add_part(part.data(), part.size_bytes());
    if (bytes_ == start) return;
    const Shape image{v.num_channels, v.image_size, v.image_size};
    const auto count = static_cast<std::int64_t>((bytes_ - start) / sizeof(float)) / image.elements();
    t = Tensor(nullptr, DType::kF32, {count, image[0], image[1], image[2]}, "pixels", device_);
    places_.emplace_back(&t, start);
  }

  void place(void* memory) const {
    for (const auto& [tensor, at] : places_) tensor->data = static_cast<char*>(memory) + at;
  }
  // pool: null, as contexts of a GPU may have it, copies in this thread.
  void copy(ThreadPool* pool, void* memory) const {
    auto copy_parts = [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Part& part = parts_[static_cast<std::size_t>(i)];
        std::memcpy(static_cast<char*>(memory) + part.at, part.from, part.bytes);
      }
    };
    const auto count = static_cast<std::int64_t>(parts_.size());
    if (pool) pool->parallel_for(count, 1, copy_parts);
    else copy_parts(0, count, 0);
  }

 private:
  struct Part {
    const void* from;
    std::size_t bytes, at;
  };
  void add_part(const void* from, std::size_t bytes) {
    if (bytes > 0) parts_.push_back({from, bytes, bytes_});
    bytes_ += bytes;
  }

  DeviceKind device_;
  std::size_t bytes_ = 0;
  std::vector<Part> parts_;
  std::vector<std::pair<Tensor*, std::size_t>> places_;
};

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
  Layout layout(ctx.device);
  const auto ints = [&](Tensor& t, std::span<const std::int32_t> values, std::string_view name) {
    layout.add(t, values, DType::kI32, {static_cast<std::int64_t>(values.size())}, name);
  };
  ints(batch_.tokens, rows.tokens, "tokens");
  ints(batch_.text_tokens, text, "text_tokens");
  ints(batch_.positions, rows.positions, "positions");
  ints(batch_.cu_seqlens, rows.cu_seqlens, "cu_seqlens");
  ints(batch_.lengths, lengths, "lengths");
  ints(batch_.loss_rows, loss_rows, "loss_rows");
  ints(batch_.targets, targets, "targets");
  layout.add(batch_.row_weights, std::span<const float>(weights), DType::kF32, batch_.targets.shape, "row_weights");
  layout.add(batch_.modality, rows.modality, DType::kU8, batch_.tokens.shape, "modality");
  batch_.fills.resize(rows.fills.size());
  for (std::size_t i = 0; i < rows.fills.size(); ++i) {
    ints(batch_.fills[i].rows, rows.fills[i].rows, "image rows");
    ints(batch_.fills[i].sources, rows.fills[i].sources, "image sources");
  }
  layout.add_pixels(batch_.pixels, rows.pixels, config.vision);
  if (memory_.bytes() < layout.bytes() || memory_.device() != ctx.device)
    memory_ = Buffer(layout.bytes(), ctx.device, "a training batch");
  layout.place(memory_.data());
  if (!ctx.on_cuda()) {
    layout.copy(ctx.pool, memory_.data());
    return batch_;
  }
  if (staging_.bytes() < layout.bytes()) staging_ = PinnedBuffer(layout.bytes(), "a training batch");
  layout.copy(ctx.pool, staging_.data());
  copy_bytes(memory_.data(), ctx.device, staging_.data(), DeviceKind::kCpu, layout.bytes(), ctx.stream);
  return batch_;
}

}  // namespace gov
