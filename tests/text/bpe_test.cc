// The merge engine against the definition, on vocabularies no trainer would make, and its time.

#include "text/bpe.h"

#include <ctime>
#include <limits>

#include "base/philox.h"
#include "tests/text/text_test_data.h"

namespace gov {
namespace {

using namespace text_test;

// The definition: while a pair can be merged, the one of lowest rank, leftmost among equals.
std::vector<std::int32_t> merge_by_definition(const Bpe& bpe, std::string_view piece) {
  std::vector<std::int32_t> ids;
  for (const char c : piece) ids.push_back(bpe.byte_ids[static_cast<unsigned char>(c)]);
  for (;;) {
    const Merge* best = nullptr;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const Merge* m = bpe.merges.find(ids[i], ids[i + 1]);
      if (m && (!best || m->rank < best->rank)) best = m, at = i;
    }
    if (!best) return ids;
    ids[at] = best->id;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

struct Random {
  Philox philox;
  std::uint64_t counter = 0;
  std::uint32_t below(std::uint32_t n) { return philox(counter++)[0] % n; }
};

TEST(Bpe, RandomMergesInAnyOrderEqualTheDefinition) {
  Random random{{20240901}};
  std::size_t tokens_saved = 0;
  for (int round = 0; round < 150; ++round) {
    Vocabulary vocabulary;
    Bpe bpe;
    for (int b = 0; b < 256; ++b) {
      const char c = static_cast<char>(b);
      vocabulary.add(b, std::string_view(&c, 1), TokenKind::kBytes);
      bpe.byte_ids[static_cast<std::size_t>(b)] = b;
    }
    // Merges of any tokens over three letters; ranks are random, so a token can come up before its parts.
    std::vector<std::int32_t> pool{'a', 'b', 'c'};
    for (std::uint32_t n = 2 + random.below(40); n > 0; --n) {
      const auto left = pool[random.below(static_cast<std::uint32_t>(pool.size()))];
      const auto right = pool[random.below(static_cast<std::uint32_t>(pool.size()))];
      const std::string bytes = std::string(vocabulary.bytes(left)) + std::string(vocabulary.bytes(right));
      if (bytes.size() > 40) continue;
      std::int32_t joined = vocabulary.find(bytes);
      if (joined < 0) {
        joined = vocabulary.size();
        vocabulary.add(joined, bytes, TokenKind::kBytes);
        pool.push_back(joined);
      }
      bpe.merges.set(left, right, {random.below(60), joined});
    }
    for (const std::uint32_t length : {1u, 2u, 17u, 255u, 256u, 257u, 400u, 900u}) {
      std::string piece;
      const std::uint32_t letters = 1 + random.below(3);
      for (std::uint32_t i = 0; i < length; ++i) piece += static_cast<char>('a' + random.below(letters));
      std::vector<std::int32_t> ids;
      bpe_encode(bpe, vocabulary, piece, ids);
      ASSERT_EQ(ids, merge_by_definition(bpe, piece)) << "round " << round << " length " << length;
      tokens_saved += piece.size() - ids.size();
    }
  }
  EXPECT_GT(tokens_saved, 10000u);
}

TEST(Bpe, CancelStopsALongPiece) {
  Vocabulary vocabulary;
  Bpe bpe;
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    vocabulary.add(b, std::string_view(&c, 1), TokenKind::kBytes);
    bpe.byte_ids[static_cast<std::size_t>(b)] = b;
  }
  vocabulary.add(256, "aa", TokenKind::kBytes);
  bpe.merges.set('a', 'a', {0, 256});
  const std::atomic<bool> cancel{true};
  std::vector<std::int32_t> ids;
  error_of(ErrorCode::kCancelled, [&] { bpe_encode(bpe, vocabulary, std::string(1 << 20, 'a'), ids, &cancel); });
}

double cpu_seconds() {
  std::timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string text;
  text.reserve(bytes + unit.size());
  while (text.size() < bytes) text += unit;
  return text;
}

double time_of_encode(const Tokenizer& t, const std::string& text) {
  const double start = cpu_seconds();
  const auto ids = t.encode(text);
  const double seconds = cpu_seconds() - start;
  EXPECT_LE(ids.size(), text.size());
  return seconds;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
constexpr bool kIsTimed = false;  // the bounds are for the optimised build
#else
constexpr bool kIsTimed = true;
#endif

TEST(TokenizerTime, ThirtyTwoMebibytesOfOneByte) {
  const std::size_t bytes = kIsTimed ? 32u << 20 : 1u << 20;
  const std::string text(bytes, 'a');
  const double start = cpu_seconds();
  const auto ids = o200k().encode(text);
  const double seconds = cpu_seconds() - start;
  std::size_t decoded = 0;
  for (const std::int32_t id : ids) decoded += o200k().token_bytes(id).size();
  EXPECT_EQ(decoded, bytes);
  if (kIsTimed) {
    EXPECT_LE(seconds, 3.0);
  }
  RecordProperty("milliseconds", static_cast<int>(seconds * 1000));
}

TEST(TokenizerTime, TwelveRepeatedPatternsAreLinear) {
  if (!kIsTimed) GTEST_SKIP() << "timed in the optimised build only";
  const std::string_view patterns[] = {"a", " ",  "\n",   "ab",   "0",        "\xE3\x81\x82", "\xF0\x9F\x91\x8D",
                                       "=", "aA", " the", "\xFF", "e\xCC\x81"};
  // One doubling inside the processor's caches and one outside of them, both below the size (32 MiB for a block) from
  // which the C library asks the system for fresh pages at every call: across such a border the memory's share of the
  // time grows, whatever the algorithm.
  constexpr double kSecondsPerByte = 3.0 / (32 << 20);
  for (const auto& [name, t] : {NamedTokenizer{"o200k", o200k()}, NamedTokenizer{"nano", nano()}}) {
    for (const std::string_view unit : patterns) {
      for (const std::size_t bytes : {std::size_t{256} << 10, std::size_t{2} << 20}) {
        const std::string text = repeated(unit, bytes), doubled = text + text;
        const double limit = kSecondsPerByte * static_cast<double>(doubled.size());
        // Other work on the machine only ever adds time, so the smallest of several runs is the measure.
        double once = std::numeric_limits<double>::infinity(), twice = once;
        for (int tries = 0; tries < 60 && !(twice <= 2.3 * once && twice <= limit && tries > 0); ++tries) {
          once = std::min(once, time_of_encode(t, text));
          twice = std::min(twice, time_of_encode(t, doubled));
        }
        EXPECT_LE(twice / once, 2.3) << name << " \"" << unit << "\" " << bytes << ": " << once << " s, " << twice
                                     << " s";
        EXPECT_LE(twice, limit) << name << " \"" << unit << "\" " << bytes;
      }
    }
  }
}

}  // namespace
}  // namespace gov
