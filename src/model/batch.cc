#include "model/batch.h"

#include <algorithm>
#include <cstring>

namespace gov {
namespace {

constexpr std::size_t kAlign = 256;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// The arrays of a batch that go over in one copy.
std::array<Tensor*, 10> arrays_of(Batch& b) {
  return {&b.tokens,     &b.positions,         &b.modality,      &b.cu_seqlens,           &b.kv_lens,
          &b.full.slots, &b.full.block_tables, &b.sliding.slots, &b.sliding.block_tables, &b.logits_rows};
}

}  // namespace

void BatchBuilder::clear(std::int64_t max_blocks) {
  max_blocks_ = max_blocks;
  max_rows_ = 0;
  for (auto* v :
       {&tokens_, &positions_, &cu_seqlens_, &kv_lens_, &logits_rows_, &vision_rows_, &full_tables_, &sliding_tables_})
    v->clear();
  cu_seqlens_.push_back(0);
  modality_.clear();
  full_slots_.clear();
  sliding_slots_.clear();
  image_rows_.clear();
}

void BatchBuilder::begin_sequence(std::int32_t kv_len, std::span<const std::int32_t> full_table,
                                  std::span<const std::int32_t> sliding_table) {
  kv_lens_.push_back(kv_len);
  cu_seqlens_.push_back(cu_seqlens_.back());
  const auto append = [&](std::vector<std::int32_t>& tables, std::span<const std::int32_t> table) {
    GOV_DCHECK(static_cast<std::int64_t>(table.size()) <= max_blocks_);
    tables.insert(tables.end(), table.begin(), table.end());
    tables.resize(kv_lens_.size() * static_cast<std::size_t>(max_blocks_), -1);
  };
  append(full_tables_, full_table);
  append(sliding_tables_, sliding_table);
}

void BatchBuilder::add_row(std::int32_t token, std::int32_t position, std::int64_t full_slot, std::int64_t sliding_slot,
                           ImageRow image) {
  if (image.image) {
    vision_rows_.push_back(static_cast<std::int32_t>(tokens_.size()));
    image_rows_.push_back(image);
  }
  tokens_.push_back(image.image ? 0 : token);
  modality_.push_back(image.image ? 1 : 0);
  positions_.push_back(position);
  full_slots_.push_back(full_slot);
  sliding_slots_.push_back(sliding_slot);
  ++cu_seqlens_.back();
  max_rows_ = std::max<std::int64_t>(max_rows_, cu_seqlens_.back() - cu_seqlens_[cu_seqlens_.size() - 2]);
}

void BatchBuilder::want_logits() { logits_rows_.push_back(static_cast<std::int32_t>(tokens_.size()) - 1); }

Batch BatchBuilder::describe() const {
  const auto size = [](const auto& v) { return static_cast<std::int64_t>(v.size()); };
  const std::int64_t sequences = size(kv_lens_);
  Batch b;
  b.tokens = Tensor::of(tokens_.data(), {size(tokens_)}, "tokens");
  b.positions = Tensor::of(positions_.data(), {size(positions_)}, "positions");
  b.modality = Tensor(const_cast<std::uint8_t*>(modality_.data()), DType::kU8, {size(modality_)}, "modality");
  b.cu_seqlens = Tensor::of(cu_seqlens_.data(), {sequences + 1}, "cu_seqlens");
  b.kv_lens = Tensor::of(kv_lens_.data(), {sequences}, "kv_lens");
  b.full = {Tensor::of(full_slots_.data(), {size(full_slots_)}, "full slots"),
            Tensor::of(full_tables_.data(), {sequences, max_blocks_}, "full block_tables")};
  b.sliding = {Tensor::of(sliding_slots_.data(), {size(sliding_slots_)}, "sliding slots"),
               Tensor::of(sliding_tables_.data(), {sequences, max_blocks_}, "sliding block_tables")};
  b.logits_rows = Tensor::of(logits_rows_.data(), {size(logits_rows_)}, "logits_rows");
  b.vision_rows = Tensor::of(vision_rows_.data(), {size(vision_rows_)}, "vision_rows");
  b.max_rows = max_rows_;
  for (const std::int32_t keys : kv_lens_) b.max_keys = std::max<std::int64_t>(b.max_keys, keys);
  return b;
}

Batch BatchBuilder::view(std::int64_t hidden_size) {
  Batch b = describe();
  vision_embeds_.clear();
  for (const auto& [image, row] : image_rows_) {
    const float* const begin = image + row * hidden_size;
    vision_embeds_.insert(vision_embeds_.end(), begin, begin + hidden_size);
  }
  b.vision_embeds = Tensor::of(vision_embeds_.data(), {b.vision_rows.rows(), hidden_size}, "vision_embeds");
  return b;
}

BatchUploader::BatchUploader(std::int64_t rows, std::int64_t sequences, std::int64_t max_blocks,
                             std::int64_t hidden_size)
    : hidden_size_(hidden_size) {
  const std::size_t embeds = static_cast<std::size_t>(rows * hidden_size) * sizeof(float);
  const std::size_t arrays = bytes(rows, sequences, max_blocks, hidden_size) - embeds;
  device_ = Buffer(arrays, DeviceKind::kCuda, "a batch");
  embeds_ = Buffer(embeds, DeviceKind::kCuda, "a batch");
  for (Staging& staging : staging_) staging = {PinnedBuffer(arrays, "a batch"), Event::create()};
}

std::uint64_t BatchUploader::bytes(std::int64_t rows, std::int64_t sequences, std::int64_t max_blocks,
                                   std::int64_t hidden_size) {
  const auto r = static_cast<std::size_t>(rows), s = static_cast<std::size_t>(sequences);
  const std::size_t row_bytes = 4 * sizeof(std::int32_t) + 1 + 2 * sizeof(std::int64_t);  // logits and image rows too
  const std::size_t sequence_bytes =
      3 * sizeof(std::int32_t) + 2 * static_cast<std::size_t>(max_blocks) * sizeof(std::int32_t);
  return r * row_bytes + s * sequence_bytes + 12 * kAlign + r * static_cast<std::size_t>(hidden_size) * sizeof(float);
}

Batch BatchUploader::upload(const BatchBuilder& builder, void* stream) {
  std::swap(staging_[0], staging_[1]);
  Staging& staging = staging_[0];
  staging.copied.wait();
  Batch b = builder.describe();
  std::size_t at = 0;
  const auto stage = [&](Tensor& t) {
    const std::size_t size = t.bytes();
    if (at + size > staging.buffer.bytes())
      fail(ErrorCode::kInvalidArgument, "a batch of {} rows exceeds what was planned", b.tokens.rows());
    if (size > 0) std::memcpy(static_cast<char*>(staging.buffer.data()) + at, t.data, size);
    t.data = static_cast<char*>(device_.data()) + at;
    t.device = DeviceKind::kCuda;
    at = aligned(at + size);
  };
  for (Tensor* t : arrays_of(b)) stage(*t);
  stage(b.vision_rows);
  copy_bytes(device_.data(), DeviceKind::kCuda, staging.buffer.data(), DeviceKind::kCpu,
             std::min(at, staging.buffer.bytes()), stream);
  staging.copied.record(stream);

  b.vision_embeds =
      Tensor(embeds_.data(), DType::kF32, {b.vision_rows.rows(), hidden_size_}, "vision_embeds", DeviceKind::kCuda);
  const std::vector<ImageRow>& rows = builder.image_rows_;
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {  // runs of one image's rows
    const auto follows = [&](std::size_t i) {
      return rows[i].image == rows[i - 1].image && rows[i].row == rows[i - 1].row + 1;
    };
    for (end = begin + 1; end < rows.size() && follows(end);) ++end;
    copy_bytes(static_cast<float*>(embeds_.data()) + static_cast<std::int64_t>(begin) * hidden_size_, DeviceKind::kCuda,
               rows[begin].image + rows[begin].row * hidden_size_, DeviceKind::kCuda,
               (end - begin) * static_cast<std::size_t>(hidden_size_) * sizeof(float), stream);
  }
  return b;
}

}  // namespace gov
