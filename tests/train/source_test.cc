// Files as sources: indexes, text, shards and their making.

#include "train/source.h"

#include <gtest/gtest.h>

#include "io/safetensors.h"
#include "tests/train/train_support.h"
#include "train/record_index.h"
#include "train/shard.h"

namespace gov::train {
namespace {

using test::error_of;
using test::fresh_folder;
using test::nano_rules;
using test::shown;
using test::write;

std::vector<std::string> pieces(std::string_view text, const std::vector<Record>& records) {
  std::vector<std::string> out;
  for (const Record& r : records) out.emplace_back(text.substr(r.begin, r.end - r.begin));
  return out;
}

TEST(RecordIndex, Lines) {
  constexpr std::string_view kText = "a\r\n\n  \nbc\nd";
  EXPECT_EQ(pieces(kText, index_lines(kText)), (std::vector<std::string>{"a", "bc", "d"}));
  EXPECT_TRUE(index_lines("").empty());
  EXPECT_TRUE(index_lines("\n\r\n").empty());
}

TEST(RecordIndex, Paragraphs) {
  constexpr std::string_view kText = "\n\na\nb\n \nc\r\n\r\nd\n";
  EXPECT_EQ(pieces(kText, index_paragraphs(kText)), (std::vector<std::string>{"a\nb", "c", "d"}));
}

TEST(RecordIndex, JsonArray) {
  constexpr std::string_view kText = R"( [ {"a": "}]\"{"}, {"b": [1, {"c": {}}]} ] )";
  EXPECT_EQ(pieces(kText, index_json_array(kText)),
            (std::vector<std::string>{R"({"a": "}]\"{"})", R"({"b": [1, {"c": {}}]})"}));
  EXPECT_TRUE(index_json_array("[]").empty());
  for (const char* broken : {"", "[", "[{}", "[{},", "[{},]", "[1]", "[{} {}]", "[{}] x", "[{\"a]}"})
    EXPECT_THROW(index_json_array(broken), Error) << broken;
}

std::shared_ptr<const SampleRules> shared_rules() { return std::make_shared<const SampleRules>(nano_rules()); }

TEST(Source, LinesOfChats) {
  const auto folder = fresh_folder("lines");
  const std::string line = R"({"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]})";
  SourceConfig config;
  config.path = write(folder / "a.jsonl", "\n" + line + "\n\nnot json\n");
  const auto rules = shared_rules();
  const Source source = open_source(config, rules, 1);
  EXPECT_EQ(source.size, 2);
  EXPECT_EQ(shown(*rules, source.make(0, 0)[0]).substr(0, 28), "<|start|>user<|message|>A<|e");
  EXPECT_THROW(source.make(1, 0), Error);
  EXPECT_TRUE(source.where(1).ends_with("a.jsonl:4")) << source.where(1);
  config.limit = 1;
  EXPECT_EQ(open_source(config, rules, 1).size, 1);
  config.path = write(folder / "b.json", "[" + line + ",\n" + line + "]");
  config.limit = 0;
  EXPECT_EQ(open_source(config, rules, 1).size, 2);
  config.path = write(folder / "empty.jsonl", "");
  EXPECT_NE(error_of([&] { open_source(config, rules, 1); }).find("empty.jsonl holds no samples"), std::string::npos);
}

TEST(Source, ImagesArePathsBesideTheFile) {
  const auto folder = fresh_folder("images");
  std::filesystem::create_directories(folder / "sub");
  std::filesystem::copy(test::kPictures / "pizza.jpg", folder / "sub/p.jpg");
  SourceConfig config;
  config.kind = SourceConfig::Kind::kLlava;
  config.path = write(folder / "a.json", R"([{"image": "sub/p.jpg", "conversations": [
      {"from": "human", "value": "<image>\nA"}, {"from": "gpt", "value": "B"}]}])");
  const auto rules = shared_rules();
  const Sample sample = open_source(config, rules, 1).make(0, 0)[0];
  ASSERT_EQ(sample.images.size(), 1u);
  std::vector<float> want(rules->pixels());
  rules->preprocessor.apply(load_image(test::kPictures / "pizza.jpg", rules->preprocessor.decode_options()),
                            want.data());
  EXPECT_EQ(*sample.images[0], want);
  config.image_root = test::kPictures.string();
  EXPECT_THROW(open_source(config, rules, 1).make(0, 0), Error);
}

TEST(Source, PlainText) {
  const auto folder = fresh_folder("text");
  SourceConfig config;
  config.kind = SourceConfig::Kind::kText;
  const auto rules = shared_rules();
  config.path = write(folder / "a.txt", "One\ntwo\n\nThree");
  const Source text = open_source(config, rules, 1);
  EXPECT_EQ(text.size, 2);
  EXPECT_EQ(shown(*rules, text.make(0, 0)[0]), "[One\ntwo<|endoftext|>]");
  EXPECT_TRUE(text.where(1).ends_with("a.txt:4"));
  config.path = write(folder / "a.jsonl", "{\"text\": \"One\\n\\ntwo\"}\n{}\n");
  const Source lines = open_source(config, rules, 1);
  EXPECT_EQ(shown(*rules, lines.make(0, 0)[0]), "[One\n\ntwo<|endoftext|>]");
  EXPECT_EQ(error_of([&] { lines.make(1, 0); }), "text: a text is missing");
}

TEST(Shard, PreparedIsEqualToTheSource) {
  const auto folder = fresh_folder("prepare");
  std::filesystem::copy(test::kPictures / "pizza.jpg", folder / "p.jpg");
  std::string text;
  for (int i = 0; i < 7; ++i)
    text += fmt::format(R"({{"messages": [{{"role": "user", "content": [{}{{"type": "text", "text": "Q{}"}}]}},)"
                        R"({{"role": "assistant", "content": "A{}"}}]}})",
                        i == 3 ? R"({"type": "image_url", "image_url": "p.jpg"},)" : "", i, i) +
            "\n";
  text += "{\"messages\": 5}\n";
  SourceConfig config;
  config.path = write(folder / "a.jsonl", text);
  const auto rules = shared_rules();
  const PrepareReport report = prepare_shards(config, *rules, folder, "shard", 60);
  EXPECT_EQ(report.documents, 7);
  EXPECT_EQ(report.bad, 1);
  EXPECT_TRUE(report.first_bad.ends_with("a.jsonl:8: messages: expected an array, but got a number"))
      << report.first_bad;
  EXPECT_GT(report.shards, 1);

  const Source original = open_source(config, rules, 1);
  SourceConfig shards;
  shards.kind = SourceConfig::Kind::kShard;
  shards.path = folder.string();
  shards.weight = 2;
  const std::vector<Source> sources = open_sources({shards}, rules, 1);
  EXPECT_EQ(static_cast<std::int64_t>(sources.size()), report.shards);
  std::int64_t n = 0;
  double weight = 0;
  for (const Source& source : sources) {
    weight += source.weight;
    for (std::int64_t i = 0; i < source.size; ++i, ++n) {
      const Sample want = original.make(n, 0)[0], got = source.make(i, 0)[0];
      EXPECT_EQ(got.tokens, want.tokens);
      EXPECT_EQ(got.labels, want.labels);
      EXPECT_EQ(got.weights, want.weights);
      ASSERT_EQ(got.images.size(), want.images.size());
      if (n == 3) {
        EXPECT_EQ(*got.images[0], *want.images[0]);
      }
    }
  }
  EXPECT_EQ(n, 7);
  EXPECT_NEAR(weight, 2, 1e-12);
}

std::vector<std::byte> bytes_of(const std::filesystem::path& path) {
  const std::string text = read_text_file(path, 1 << 20);
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

// A shard of other arrays than its own writer would make.
std::string parse_made(const std::vector<std::int32_t>& tokens, const std::vector<std::uint8_t>& mask,
                       const std::vector<std::int64_t>& documents, const std::string& end_token = "5",
                       std::int64_t read = -1) {
  const auto path = fresh_folder("made") / "s.safetensors";
  const auto size = [](const auto& v) { return Shape{static_cast<std::int64_t>(v.size())}; };
  SafetensorsWriter writer(path,
                           {{"documents", DType::kI64, size(documents)},
                            {"tokens", DType::kI32, size(tokens)},
                            {"mask", DType::kU8, size(mask)}},
                           {{"format", "gov-token-shard-1"}, {"vocab_size", "10"}, {"end_token", end_token}});
  writer.write(std::as_bytes(std::span(documents)));
  writer.write(std::as_bytes(std::span(tokens)));
  writer.write(std::as_bytes(std::span(mask)));
  writer.finish();
  return error_of([&] {
    const ShardFile file(path);
    if (read >= 0) shard_document(file.view(), read);
  });
}

TEST(Shard, BrokenOnesAreRefused) {
  const auto ends_with = [](const std::string& text, const char* end) { return text.ends_with(end) ? "" : text; };
  EXPECT_EQ(parse_made({1, 2, 3}, {0, 1, 2}, {0, 1, 3}, "5", 1), "");
  EXPECT_EQ(ends_with(parse_made({1, 2}, {0}, {0, 2}), "token shard: 2 tokens, but 1 masks"), std::string());
  for (const std::vector<std::int64_t>& documents :
       {std::vector<std::int64_t>{}, {0}, {0, 2}, {0, 4}, {1, 3}, {0, 2, 2, 3}, {0, 2, 1, 3}})
    EXPECT_EQ(ends_with(parse_made({1, 2, 3}, {0, 0, 0}, documents), "'documents' must ascend from 0 to 3"),
              std::string());
  EXPECT_EQ(parse_made({1, 10}, {0, 0}, {0, 2}, "5", 0), "token 10 is outside 0..9");
  EXPECT_EQ(parse_made({1, -2}, {0, 0}, {0, 2}, "5", 0), "token -2 is outside 0..9");
  EXPECT_EQ(parse_made({1, -1}, {0, 0}, {0, 2}, "5", 0), "0 images for 1 places of images");
  EXPECT_EQ(parse_made({1, 2}, {0, 3}, {0, 2}, "5", 0), "the mask 3 has no meaning");
  EXPECT_EQ(parse_made({1, 2}, {0, 2}, {0, 2}, "-1", 0), "the mask 2 has no meaning");
  EXPECT_EQ(ends_with(parse_made({1}, {0}, {0, 1}, "10"), "'end_token' must be a number in -1..9"), std::string());
  EXPECT_EQ(ends_with(parse_made({1}, {0}, {0, 1}, "x"), "'end_token' must be a number in -1..9"), std::string());
  EXPECT_THROW(parse_shard({}), Error);
}

TEST(Shard, WriterRefusesWhatTheFormatCannotHold) {
  ShardWriter writer(10, 5);
  Sample sample;
  EXPECT_THROW(writer.add(sample), Error);
  sample.add(3, 1);
  sample.add(4, 5, 1);
  EXPECT_NO_THROW(writer.add(sample));
  Sample other = sample;
  other.labels[1] = 6;
  EXPECT_THROW(writer.add(other), Error);
  other = sample;
  other.weights[0] = 0.5f;
  EXPECT_THROW(writer.add(other), Error);
  const std::vector<std::string> images{"a.png"};
  EXPECT_THROW(writer.add(sample, images), Error);
  EXPECT_EQ(writer.documents(), 1);
  EXPECT_THROW(ShardWriter(10, 5).write("x"), Error);
}

TEST(Shard, AnyCutOfAFileIsRefused) {
  const auto folder = fresh_folder("cut");
  ShardWriter writer(10, 5);
  Sample sample;
  sample.add(3, 1);
  sample.add(kImageRow, 0);
  sample.labels[1] = kNoTarget;
  const std::vector<std::string> images{"a.png"};
  writer.add(sample, images);
  writer.write(folder / "s.safetensors");
  const std::vector<std::byte> whole = bytes_of(folder / "s.safetensors");
  EXPECT_EQ(shard_document(parse_shard(whole), 0).images, std::vector<std::string_view>{"a.png"});
  for (std::size_t n = 0; n < whole.size(); ++n) EXPECT_THROW(parse_shard(std::span(whole).first(n)), Error) << n;
}

}  // namespace
}  // namespace gov::train
