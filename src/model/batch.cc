#include "model/batch.h"

namespace gov {

void BatchBuilder::clear(std::int64_t max_blocks) {
  max_blocks_ = max_blocks;
  for (auto* v :
       {&tokens_, &positions_, &cu_seqlens_, &kv_lens_, &logits_rows_, &vision_rows_, &full_tables_, &sliding_tables_})
    v->clear();
  cu_seqlens_.push_back(0);
  modality_.clear();
  full_slots_.clear();
  sliding_slots_.clear();
  vision_embeds_.clear();
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
                           const float* image_row, std::int64_t hidden_size) {
  if (image_row) {
    vision_rows_.push_back(static_cast<std::int32_t>(tokens_.size()));
    vision_embeds_.insert(vision_embeds_.end(), image_row, image_row + hidden_size);
  }
  tokens_.push_back(image_row ? 0 : token);
  modality_.push_back(image_row ? 1 : 0);
  positions_.push_back(position);
  full_slots_.push_back(full_slot);
  sliding_slots_.push_back(sliding_slot);
  ++cu_seqlens_.back();
}

void BatchBuilder::want_logits() { logits_rows_.push_back(static_cast<std::int32_t>(tokens_.size()) - 1); }

Batch BatchBuilder::view(std::int64_t hidden_size) {
  const auto size = [](const auto& v) { return static_cast<std::int64_t>(v.size()); };
  const std::int64_t sequences = size(kv_lens_);
  Batch b;
  b.tokens = Tensor::of(tokens_.data(), {size(tokens_)}, "tokens");
  b.positions = Tensor::of(positions_.data(), {size(positions_)}, "positions");
  b.modality = Tensor(modality_.data(), DType::kU8, {size(modality_)}, "modality");
  b.cu_seqlens = Tensor::of(cu_seqlens_.data(), {sequences + 1}, "cu_seqlens");
  b.kv_lens = Tensor::of(kv_lens_.data(), {sequences}, "kv_lens");
  b.full = {Tensor::of(full_slots_.data(), {size(full_slots_)}, "full slots"),
            Tensor::of(full_tables_.data(), {sequences, max_blocks_}, "full block_tables")};
  b.sliding = {Tensor::of(sliding_slots_.data(), {size(sliding_slots_)}, "sliding slots"),
               Tensor::of(sliding_tables_.data(), {sequences, max_blocks_}, "sliding block_tables")};
  b.logits_rows = Tensor::of(logits_rows_.data(), {size(logits_rows_)}, "logits_rows");
  b.vision_rows = Tensor::of(vision_rows_.data(), {size(vision_rows_)}, "vision_rows");
  b.vision_embeds = Tensor::of(vision_embeds_.data(), {size(vision_rows_), hidden_size}, "vision_embeds");
  return b;
}

}  // namespace gov
