#include "text/padding.h"

#include "tests/text/text_test_data.h"

namespace gov {
namespace {

using namespace text_test;

std::vector<std::vector<std::int32_t>> rows_of(simdjson::dom::array rows) {
  std::vector<std::vector<std::int32_t>> out;
  for (const simdjson::dom::element row : rows) out.push_back(ids_of(row.get_array()));
  return out;
}

TEST(Padding, AsTheReferencePadsAndTruncates) {
  const int rows = for_each_row("padding_vectors.jsonl", [](simdjson::dom::object row) {
    PadOptions options{.pad_id = 3};
    options.pad_side = row["pad_left"].get_bool() ? Side::kLeft : Side::kRight;
    options.truncation_side = row["cut_left"].get_bool() ? Side::kLeft : Side::kRight;
    if (const std::int64_t max = row["max_length"].get_int64(); max > 0) options.max_length = max;
    options.pad_to_max_length = row["fixed"].get_bool();
    options.pad_to_multiple_of = row["multiple"].get_int64();
    const PaddedBatch batch = pad_batch(rows_of(row["plain"].get_array()), options);
    const auto ids = rows_of(row["ids"].get_array()), mask = rows_of(row["mask"].get_array());
    ASSERT_EQ(batch.rows, static_cast<std::int64_t>(ids.size()));
    for (std::int64_t r = 0; r < batch.rows; ++r) {
      const auto got = batch.row(r);
      const auto& want = ids[static_cast<std::size_t>(r)];
      ASSERT_EQ(std::vector<std::int32_t>(got.begin(), got.end()), want) << simdjson::minify(row);
      std::int64_t length = 0;
      for (std::size_t c = 0; c < want.size(); ++c) {
        const std::int32_t is_token = mask[static_cast<std::size_t>(r)][c];
        EXPECT_EQ(batch.mask[static_cast<std::size_t>(r * batch.columns) + c], is_token);
        length += is_token;
      }
      EXPECT_EQ(batch.lengths[static_cast<std::size_t>(r)], length);
    }
  });
  EXPECT_EQ(rows, 56);
}

TEST(Padding, RefusesWhatDoesNotFit) {
  const std::vector<std::vector<std::int32_t>> rows{{1, 2, 3}, {4}};
  const auto pad = [&](PadOptions options) { return [&rows, options] { (void)pad_batch(rows, options); }; };
  EXPECT_EQ(error_of(ErrorCode::kContextLength, pad({.max_length = 2, .truncate = false})),
            "padding: a sequence of 3 tokens, at most 2 fit");
  error_of(ErrorCode::kInvalidArgument, pad({.max_length = 0}));
  error_of(ErrorCode::kInvalidArgument, pad({.pad_to_max_length = true}));
  error_of(ErrorCode::kInvalidArgument, pad({.pad_to_multiple_of = 0}));
  error_of(ErrorCode::kInvalidArgument, pad({.max_length = (std::int64_t{1} << 31) - 1, .pad_to_max_length = true}));
  EXPECT_EQ(pad_batch({}, {}).rows, 0);
}

}  // namespace
}  // namespace gov
