#include "text/vocabulary.h"

#include <algorithm>

#include "base/error.h"

namespace gov {
namespace {

std::uint64_t hash_bytes(std::string_view bytes) {
  std::uint64_t h = 0xCBF29CE484222325ull;  // FNV-1a, then a mix, as the slots use the low bits
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  h ^= h >> 32;
  h *= 0x9E3779B97F4A7C15ull;
  return h ^ (h >> 29);
}

}  // namespace

std::size_t Vocabulary::slot_of(std::string_view bytes) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = hash_bytes(bytes) & mask;
  while (slots_[slot] >= 0 && this->bytes(slots_[slot]) != bytes) slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::grow() {
  const std::vector<std::int32_t> old =
      std::exchange(slots_, std::vector<std::int32_t>(std::max<std::size_t>(1024, slots_.size() * 2), -1));
  for (const std::int32_t id : old) {
    if (id >= 0) slots_[slot_of(bytes(id))] = id;
  }
}

std::int32_t Vocabulary::find(std::string_view bytes) const {
  if (slots_.empty() || bytes.size() > longest_) return -1;
  return slots_[slot_of(bytes)];
}

void Vocabulary::add(std::int32_t id, std::string_view bytes, TokenKind kind) {
  if (id < 0 || id >= kMaxTokenIds) {
    fail(ErrorCode::kCorrupt, "tokenizer: token id {} is not in 0..{}", id, kMaxTokenIds - 1);
  }
  if (bytes.empty()) fail(ErrorCode::kCorrupt, "tokenizer: token {} is empty", id);
  if (bytes.size() > kMaxTokenBytes) {
    fail(ErrorCode::kCorrupt, "tokenizer: token {} has {} bytes, at most {} are allowed", id, bytes.size(),
         kMaxTokenBytes);
  }
  if (bytes_.size() + bytes.size() > kMaxVocabularyBytes) {
    fail(ErrorCode::kCorrupt, "tokenizer: the tokens take more than {} bytes", kMaxVocabularyBytes);
  }
  if (contains(id)) {
    fail(ErrorCode::kCorrupt, "tokenizer: id {} is given to two tokens, \"{}\" and \"{}\"", id,
         printable(this->bytes(id), 40), printable(bytes, 40));
  }
  if (id >= size()) entries_.resize(static_cast<std::size_t>(id) + 1);
  const auto begin = static_cast<std::uint32_t>(bytes_.size());
  bytes_ += bytes;
  entries_[static_cast<std::size_t>(id)] = {begin, static_cast<std::uint32_t>(bytes.size()), kind, false};
  if (kind != TokenKind::kBytes) return;
  if ((used_slots_ + 1) * 2 > slots_.size()) grow();
  std::int32_t& slot = slots_[slot_of(bytes)];
  if (slot >= 0) {
    fail(ErrorCode::kCorrupt, "tokenizer: token \"{}\" stands twice, as {} and {}", printable(bytes, 40), slot, id);
  }
  slot = id;
  ++used_slots_;
  longest_ = std::max(longest_, bytes.size());
}

}  // namespace gov
