#include "text/padding.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"

namespace gov {

PaddedBatch pad_batch(std::span<const std::vector<std::int32_t>> sequences, const PadOptions& options) {
  const std::int64_t multiple = options.pad_to_multiple_of;
  constexpr std::int64_t kLimit = std::int64_t{1} << 31;
  if (options.max_length && (*options.max_length < 1 || *options.max_length >= kLimit)) {
    fail(ErrorCode::kInvalidArgument, "padding: max_length {} is not in 1..2^31-1", *options.max_length);
  }
  if (options.pad_to_max_length && !options.max_length) {
    fail(ErrorCode::kInvalidArgument, "padding: pad_to_max_length needs max_length");
  }
  if (multiple < 1 || multiple >= kLimit) {
    fail(ErrorCode::kInvalidArgument, "padding: pad_to_multiple_of {} is not in 1..2^31-1", multiple);
  }
  PaddedBatch batch;
  batch.rows = static_cast<std::int64_t>(sequences.size());
  if (batch.rows == 0) return batch;
  std::int64_t columns = options.pad_to_max_length ? *options.max_length : 0;
  for (const auto& sequence : sequences) {
    std::int64_t length = static_cast<std::int64_t>(sequence.size());
    if (options.max_length && length > *options.max_length) {
      if (!options.truncate) {
        fail(ErrorCode::kContextLength, "padding: a sequence of {} tokens, at most {} fit", length,
             *options.max_length);
      }
      length = *options.max_length;
    }
    batch.lengths.push_back(length);
    columns = std::max(columns, length);
  }
  columns = (columns + multiple - 1) / multiple * multiple;
  const auto cells = (CheckedSize(static_cast<std::uint64_t>(columns)) * sequences.size()).value();
  if (!cells || *cells >= static_cast<std::uint64_t>(kLimit)) {
    fail(ErrorCode::kInvalidArgument, "padding: a batch of {} x {} tokens is too large", batch.rows, columns);
  }
  batch.columns = columns;
  batch.ids.assign(static_cast<std::size_t>(*cells), options.pad_id);
  batch.mask.assign(static_cast<std::size_t>(*cells), 0);
  for (std::size_t r = 0; r < sequences.size(); ++r) {
    const auto& sequence = sequences[r];
    const std::int64_t length = batch.lengths[r];
    const std::int64_t size = static_cast<std::int64_t>(sequence.size());
    const std::int64_t from = options.truncation_side == Side::kLeft ? size - length : 0;
    const std::int64_t to =
        static_cast<std::int64_t>(r) * columns + (options.pad_side == Side::kLeft ? columns - length : 0);
    std::copy_n(sequence.begin() + from, length, batch.ids.begin() + to);
    std::fill_n(batch.mask.begin() + to, length, std::uint8_t{1});
  }
  return batch;
}

}  // namespace gov
