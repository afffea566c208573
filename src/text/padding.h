#pragma once
// Token sequences of different lengths as one rectangle.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace gov {

enum class Side { kLeft, kRight };

struct PadOptions {
  std::int32_t pad_id = 0;
  Side pad_side = Side::kRight;                           // where padding is put
  std::optional<std::int64_t> max_length = std::nullopt;  // longer sequences are cut to this; empty: never
  bool truncate = true;                                   // false: a longer sequence is Error kContextLength
  Side truncation_side = Side::kRight;                    // where tokens are taken away
  bool pad_to_max_length = false;                         // columns = max_length instead of the longest sequence
  std::int64_t pad_to_multiple_of = 1;  // columns are rounded up, also past max_length, as in `tokenizers`
};

// [rows, columns], row-major.
struct PaddedBatch {
  std::int64_t rows = 0, columns = 0;
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> mask;     // 1: a token of the sequence, 0: padding
  std::vector<std::int64_t> lengths;  // [rows], without padding

  std::span<const std::int32_t> row(std::int64_t r) const {
    return std::span(ids).subspan(static_cast<std::size_t>(r * columns), static_cast<std::size_t>(columns));
  }
};

// Error kInvalidArgument: options out of range, or a batch of 2^31 entries or more. No sequences: 0 rows.
PaddedBatch pad_batch(std::span<const std::vector<std::int32_t>> sequences, const PadOptions& options);

}  // namespace gov
