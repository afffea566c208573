// The validator against generated files: malformed ones are refused with the right rule at the right place, valid ones
// in every spelling are accepted, within bounds of time and memory.

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <set>

#include "base/timer.h"
#include "tests/io/allocation_peak.h"
#include "tests/io/hostile_safetensors.h"
#include "tests/io/temp_folder.h"

namespace gov::test {
namespace {

using Rule = SafetensorsRule;

double thread_seconds() {  // of this thread's own work: other load on the machine does not count
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The limits in seconds are the product's; a build with sanitizers runs several times slower and gets four times as
// long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSlowdown = 4;
#else
constexpr double kSlowdown = 1;
#endif
constexpr double kMaxSecondsPerFile = 0.005 * kSlowdown, kMaxSecondsPerBomb = 2.0 * kSlowdown;

struct Verdict {
  std::string rule = "accepted";
  std::uint64_t offset = 0;
  std::string message;
};

Verdict verdict(std::string_view file) {
  try {
    parse_safetensors(as_bytes(file));
    return {};
  } catch (const SafetensorsError& error) {
    return {safetensors_rule_name(error.rule()), error.offset(), error.what()};
  }
}

TEST(SafetensorsHostile, TenThousandMalformedFilesAreRefusedByRule) {
  constexpr std::size_t kFiles = 10000;
  ASSERT_GE(malformed_classes(), 40u);
  Random random(20260801);
  std::set<std::string> rules;
  double slowest = 0;
  std::size_t most_memory = 0, refused = 0;
  for (std::size_t i = 0; i < kFiles; ++i) {
    const MalformedCase bad = make_malformed(i % malformed_classes(), random);
    const std::size_t header = std::min<std::size_t>(bad.file.size(), kMaxSafetensorsHeader);
    start_allocation_peak();
    const double begin = thread_seconds();
    const Verdict result = verdict(bad.file);
    slowest = std::max(slowest, thread_seconds() - begin);
    const std::size_t memory = allocation_peak();
    most_memory = std::max(most_memory, memory > header ? memory - header : 0);
    rules.insert(result.rule);
    const bool right = result.rule == safetensors_rule_name(bad.rule) && result.offset >= bad.where.first &&
                       result.offset <= bad.where.second && result.message.find('\n') == std::string::npos;
    refused += right;
    ASSERT_TRUE(right) << "class '" << bad.class_name << "' #" << i << ": got " << result.rule << " at "
                       << result.offset << ", expected " << safetensors_rule_name(bad.rule) << " in ["
                       << bad.where.first << ", " << bad.where.second << "]: " << result.message << "\n"
                       << bad.file.substr(0, 600);
  }
  EXPECT_EQ(refused, kFiles);
  EXPECT_LE(slowest, kMaxSecondsPerFile);
  EXPECT_LE(most_memory, std::size_t{1} << 20);
  EXPECT_EQ(rules.size(), 18u) << "every rule but too_many_tensors, which has its own test, must occur";
  RecordProperty("classes", static_cast<int>(malformed_classes()));
  RecordProperty("slowest_us", static_cast<int>(slowest * 1e6));
  RecordProperty("memory_beyond_header", static_cast<int>(most_memory));
}

TEST(SafetensorsHostile, TwoThousandValidFilesAreAccepted) {
  Random random(7);
  double slowest = 0;
  std::size_t tensors = 0;
  for (int i = 0; i < 2000; ++i) {
    const ValidCase good = make_valid(random);
    const double begin = thread_seconds();
    std::vector<SafetensorsEntry> entries;
    ASSERT_NO_THROW(entries = parse_safetensors(as_bytes(good.file))) << good.file;
    slowest = std::max(slowest, thread_seconds() - begin);
    ASSERT_EQ(entries.size(), good.entries.size());
    const auto by_name = [](const SafetensorsEntry& a, const SafetensorsEntry& b) { return a.name < b.name; };
    std::vector<SafetensorsEntry> expected = good.entries;
    EXPECT_TRUE(
        std::is_sorted(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; }));
    std::sort(entries.begin(), entries.end(), by_name);
    std::sort(expected.begin(), expected.end(), by_name);
    for (std::size_t t = 0; t < entries.size(); ++t, ++tensors) {
      ASSERT_EQ(entries[t].name, expected[t].name);
      ASSERT_EQ(entries[t].stored_dtype, expected[t].stored_dtype);
      ASSERT_EQ(entries[t].shape, expected[t].shape);
      ASSERT_EQ(entries[t].begin, expected[t].begin);
      ASSERT_EQ(entries[t].end, expected[t].end);
    }
  }
  EXPECT_GT(tensors, 4000u);
  EXPECT_LE(slowest, kMaxSecondsPerFile);
}

TEST(SafetensorsHostile, RandomDamageNeverDoesMoreThanThrow) {
  Random random(99);
  std::size_t refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string file = make_valid(random).file;
    for (std::uint64_t edits = 1 + random.below(3); edits > 0 && !file.empty(); --edits) {
      const auto at = static_cast<std::size_t>(random.below(file.size()));
      switch (random.below(4)) {
        case 0: file[at] = static_cast<char>(random.below(256)); break;
        case 1: file[at] = static_cast<char>(file[at] ^ (1 << random.below(8))); break;
        case 2: file.erase(at, 1 + static_cast<std::size_t>(random.below(4))); break;
        default: file.insert(at, 1, "{}[]\",:0\\-"[random.below(10)]);
      }
    }
    refused += verdict(file).rule != "accepted";
  }
  EXPECT_GT(refused, 15000u);  // the rest hit names, data or padding
}

std::string entry(std::size_t i, std::uint64_t begin, std::uint64_t end) {
  return fmt::format(R"("t{}":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}})", i, end - begin, begin, end);
}

// Fills a header with `piece(i)` up to `limit` bytes or `count` pieces.
template <class Piece>
std::string fill(std::string header, std::size_t limit, std::size_t count, Piece&& piece) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::string next = piece(i);
    if (header.size() + next.size() + 2 > limit) break;
    if (i > 0) header += ',';
    header += next;
  }
  return header + '}';
}

void expect_bomb_refused(const std::string& header, std::string_view rule, std::size_t data_bytes = 0) {
  const std::string file = file_of(header, std::string(data_bytes, '\0'));
  start_allocation_peak();
  const double begin = thread_seconds();
  const Verdict result = verdict(file);
  const double seconds = thread_seconds() - begin;
  const std::size_t memory = allocation_peak();
  EXPECT_EQ(result.rule, rule) << result.message.substr(0, 300);
  EXPECT_LE(seconds, kMaxSecondsPerBomb) << rule;
  EXPECT_LE(memory, header.size() + (std::size_t{1} << 20)) << rule;
  ::testing::Test::RecordProperty(fmt::format("{}_{}_ms", rule, header.size()), static_cast<int>(seconds * 1000));
  EXPECT_LE(result.message.size(), 1000u);
}

constexpr std::size_t kTenMillion = 10'000'000;
constexpr std::size_t kLimit = kMaxSafetensorsHeader;

TEST(SafetensorsBombs, TenMillionEntries) {
  // Whole entries: 10 M of them exceed the header limit, so the length alone refuses them, before any is read.
  const std::string prefix = file_of("{}", "").replace(0, 8, std::string("\x00\x65\xCD\x1D\x00\x00\x00\x00", 8));
  EXPECT_EQ(verdict(prefix).rule, "header_too_large");
  // As many as fit: the tensor limit.
  expect_bomb_refused(fill("{", kLimit, kTenMillion, [](std::size_t i) { return entry(i, 0, 0); }), "too_many_tensors");
  // Ten million of the shortest members, in each place where a list can stand.
  expect_bomb_refused(fill("{", kLimit, kTenMillion, [](std::size_t) { return "\"\":{}"; }), "bad_entry");
  expect_bomb_refused(
      fill("{\"__metadata__\":{", kLimit, kTenMillion, [](std::size_t i) { return fmt::format("\"{:x}\":\"\"", i); }) +
          "}",
      "bad_metadata");
  expect_bomb_refused(fill("{\"a\":{\"shape\":[", kLimit, kTenMillion, [](std::size_t) { return "1"; }),
                      "too_many_axes");
  expect_bomb_refused(fill("{\"a\":{\"data_offsets\":[", kLimit, kTenMillion, [](std::size_t) { return "0"; }),
                      "bad_offsets");
}

TEST(SafetensorsBombs, LargestHeaders) {
  expect_bomb_refused(std::string(kLimit, '['), "header_not_json");
  expect_bomb_refused("{\"" + std::string(kLimit - 2, 'a'), "header_not_json");
  expect_bomb_refused("{" + std::string(kLimit - 1, ' '), "header_not_json");
  expect_bomb_refused("{\"a\":{\"shape\":[" + std::string(kLimit - 100, '9') + "]}}", "shape_overflow");
  // One name of 16 million escapes: compared and hashed without being decoded.
  std::string escapes = "{\"";
  while (escapes.size() < kLimit - 200) escapes += "\\u0061";
  expect_bomb_refused(escapes + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", "trailing_bytes", 1);
}

TEST(SafetensorsBombs, ValidationOfManyTensorsStaysWithinItsMemory) {
  // Everything is valid but one byte behind the data, which is found last: the whole working state has been built by
  // then.
  const std::size_t count = 1'000'000;
  const std::string empty = fill("{", kLimit, count, [](std::size_t i) { return entry(i, 0, 0); });
  expect_bomb_refused(empty, "trailing_bytes", 1);
  const std::string same = fill("{", kLimit, 900'000, [](std::size_t i) { return entry(i % 899'999, 0, 0); });
  expect_bomb_refused(same, "duplicate_key");
  const std::string metadata = fill("{\"__metadata__\":{", kLimit, kMaxSafetensorsMetadata,
                                    [](std::size_t i) { return fmt::format("\"{}\":\"\"", i); });
  expect_bomb_refused(metadata + "}", "trailing_bytes", 1);
}

TEST(SafetensorsBombs, AMillionTensorsAreAccepted) {
  const std::string file =
      file_of(fill("{", kLimit, kMaxSafetensorsTensors, [](std::size_t i) { return entry(i, i, i + 1); }),
              std::string(kMaxSafetensorsTensors, '\1'));
  const Timer timer;
  const auto entries = parse_safetensors(as_bytes(file));
  EXPECT_EQ(entries.size(), kMaxSafetensorsTensors);
  EXPECT_EQ(entries.back().name, "t999999");
  RecordProperty("ms", static_cast<int>(timer.seconds() * 1000));
}

TEST(SafetensorsHostile, MessagesNameTheTensorAndAreOneSafeLine) {
  const std::string file = file_of(R"({"bad\u001b[31m\nname":{"dtype":"F9","shape":[],"data_offsets":[0,0]}})", "");
  const Verdict result = verdict(file);
  EXPECT_EQ(result.rule, "bad_dtype");
  EXPECT_NE(result.message.find("unknown dtype 'F9'"), std::string::npos) << result.message;
  EXPECT_TRUE(std::all_of(result.message.begin(), result.message.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
}

}  // namespace
}  // namespace gov::test
