// `generate` with nano.

#include <fmt/format.h>

#include <chrono>

#include "tensor/device.h"
#include "tests/cli/run_program.h"

namespace gov::test {
namespace {

constexpr const char* kAnswer = "This is a dog face. Related words: adorbs, animal, dog.\n";

TEST(Generate, NanoNamesThePicture) {
  const Ran ran = run({"generate", "--image", dog_picture(), "--prompt", "What is this?"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, kAnswer);
  EXPECT_EQ(ran.err, "");
}

TEST(Generate, TheDefaultPromptForAPictureAlone) {
  const Ran ran = run({"generate", "--image", dog_picture()});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, kAnswer);
}

TEST(Generate, PromptFromStandardInputAndFile) {
  const TempFolder folder;
  write_file(folder / "prompt.txt", "What is this?\r\n");
  const Ran from_file = run({"generate", "-i", dog_picture(), "-f", folder / "prompt.txt"});
  EXPECT_EQ(from_file.out, kAnswer) << from_file.err;
  RunOptions piped;
  piped.input = "What is this?\n";
  const Ran from_stdin = run({"generate", "-i", dog_picture(), "--prompt-file", "-"}, piped);
  EXPECT_EQ(from_stdin.out, kAnswer) << from_stdin.err;
  piped.input = "Name this.\n";  // a question that is piped in is asked, also about a picture
  const Ran about_picture = run({"generate", "-i", dog_picture()}, piped);
  EXPECT_EQ(about_picture.out, run({"generate", "-i", dog_picture(), "--prompt", "Name this."}).out);
  EXPECT_NE(about_picture.out, kAnswer);
  piped.input = "What is this?\n";
  const Ran text_only = run({"generate"}, piped);
  EXPECT_EQ(text_only.status, 0) << text_only.err;
  EXPECT_GT(text_only.out.size(), 1u);
  EXPECT_EQ(text_only.out, run({"generate", "--prompt", "What is this?"}).out);
}

TEST(Generate, ModelByOptionOrEnvironment) {
  RunOptions with_model;
  with_model.environment = {"GPT_OSS_VISION_MODEL=" + nano()};
  EXPECT_EQ(run({"generate", "-i", dog_picture()}, with_model).out, kAnswer);
  EXPECT_EQ(run({"generate", "-i", dog_picture(), "--model", nano()}).out, kAnswer);
  with_model.environment = {"GPT_OSS_VISION_MODEL=/nowhere/at/all"};
  const Ran ran = run({"generate", "-i", dog_picture()}, with_model);
  EXPECT_EQ(ran.status, 1);
  EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
}

TEST(Generate, TheSameTextWhateverThreadsAndCache) {
  for (const std::vector<std::string>& extra : std::vector<std::vector<std::string>>{{"--threads", "1"},
                                                                                     {"--threads", "3"},
                                                                                     {"--isa", "baseline"},
                                                                                     {"--kv-dtype", "bf16"},
                                                                                     {"--context", "400"},
                                                                                     {"--device", "cpu"}}) {
    std::vector<std::string> arguments = {"generate", "--image", dog_picture()};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    EXPECT_EQ(run(arguments).out, kAnswer) << extra[0];
  }
}

TEST(Generate, JsonHasTextTokensUsageAndTimes) {
  const Ran ran = run({"generate", "-i", dog_picture(), "--json", "--logprobs", "2"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  ASSERT_EQ(lines_of(ran.out).size(), 1u);
  const Json json(ran.out);
  EXPECT_EQ(json.text("/text") + "\n", kAnswer);
  EXPECT_EQ(json.text("/finish_reason"), "stop");
  const std::int64_t tokens = json.integer("/usage/completion_tokens");
  EXPECT_GT(tokens, 5);
  EXPECT_GT(json.integer("/usage/prompt_tokens"), 258);  // the picture's rows and the text
  EXPECT_EQ(json.integer("/usage/total_tokens"), tokens + json.integer("/usage/prompt_tokens"));
  EXPECT_TRUE(json.has(fmt::format("/tokens/{}", tokens - 1)));
  EXPECT_FALSE(json.has(fmt::format("/tokens/{}", tokens)));
  EXPECT_LE(json.number(fmt::format("/logprobs/{}/logprob", tokens - 1)), 0.0);
  EXPECT_EQ(json.integer("/logprobs/0/top/0/token"), json.integer("/tokens/0"));  // greedy: the likeliest
  EXPECT_TRUE(json.has("/logprobs/0/top/1"));
  EXPECT_FALSE(json.has("/logprobs/0/top/2"));
  EXPECT_GT(json.number("/timings/first_token_seconds"), 0.0);
  EXPECT_GT(json.number("/timings/tokens_per_second"), 0.0);
}

TEST(Generate, StreamedJsonLinesJoinToTheText) {
  const Ran ran = run({"generate", "-i", dog_picture(), "--json", "--stream"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const auto lines = lines_of(ran.out);
  ASSERT_GT(lines.size(), 5u);
  std::string joined;
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) joined += Json(lines[i]).text("/text");
  EXPECT_EQ(joined + "\n", kAnswer);
  EXPECT_EQ(Json(lines.back()).text("/text") + "\n", kAnswer);
}

TEST(Generate, StopTextsTokensAndLengths) {
  EXPECT_EQ(run({"generate", "-i", dog_picture(), "--stop", " Related", "--stop", "zzz"}).out, "This is a dog face.\n");
  const Ran stopped = run({"generate", "-i", dog_picture(), "--stop", "dog", "--json"});
  EXPECT_EQ(Json(stopped.out).text("/text"), "This is a ");
  EXPECT_EQ(Json(stopped.out).text("/stop_match"), "dog");
  const Ran first = run({"generate", "-i", dog_picture(), "--json", "--max-new-tokens", "2"});
  const Json two(first.out);
  EXPECT_EQ(two.text("/finish_reason"), "length");
  EXPECT_EQ(two.integer("/usage/completion_tokens"), 2);
  const std::string second = std::to_string(two.integer("/tokens/1"));
  const Json by_token(run({"generate", "-i", dog_picture(), "--json", "--stop-token", second}).out);
  EXPECT_EQ(by_token.integer("/usage/completion_tokens"), 1);
  EXPECT_EQ(by_token.integer("/stop_token"), two.integer("/tokens/1"));
  const Json longer(run({"generate", "-i", dog_picture(), "--json", "--ignore-eos", "--max-new-tokens", "40"}).out);
  EXPECT_EQ(longer.integer("/usage/completion_tokens"), 40);
  const Json at_least(
      run({"generate", "-i", dog_picture(), "--json", "--min-new-tokens", "30", "--max-new-tokens", "40"}).out);
  EXPECT_GE(at_least.integer("/usage/completion_tokens"), 30);
}

TEST(Generate, LogitBiasForbidsAToken) {
  const Json plain(run({"generate", "-i", dog_picture(), "--json", "--max-new-tokens", "1"}).out);
  const std::int64_t token = plain.integer("/tokens/0");
  const Json biased(run({"generate", "-i", dog_picture(), "--json", "--max-new-tokens", "1", "--logit-bias",
                         fmt::format("{}=-100", token)})
                        .out);
  EXPECT_NE(biased.integer("/tokens/0"), token);
}

TEST(Generate, ChoicesFollowTheSeed) {
  const std::vector<std::string> arguments = {"generate",      "--prompt", "What is a dog?",   "--n", "3",
                                              "--temperature", "1.5",      "--max-new-tokens", "12",  "--json",
                                              "--seed"};
  const auto with_seed = [&](const char* seed) {
    auto all = arguments;
    all.push_back(seed);
    const Ran ran = run(all);
    EXPECT_EQ(ran.status, 0) << ran.err;
    std::vector<std::string> texts;
    for (const std::string& line : lines_of(ran.out)) texts.push_back(Json(line).text("/text"));
    return texts;
  };
  const auto a = with_seed("7"), b = with_seed("7"), c = with_seed("8");
  ASSERT_EQ(a.size(), 3u);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  EXPECT_TRUE(a[0] != a[1] || a[1] != a[2]);
}

TEST(Generate, SeveralPromptsAreABatchWithHeadings) {
  const Ran ran = run({"generate", "-i", dog_picture(), "-p", "What is this?", "-p", "What is this?"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, fmt::format("--- prompt 1 ---\n{}\n--- prompt 2 ---\n{}", kAnswer, kAnswer));
}

TEST(Generate, RawFormatTakesSpecialTokensOnlyWhenAsked) {
  const std::string prompt =
      "<|start|>user<|message|>What is this?<|end|><|start|>assistant<|channel|>final<|message|>";
  const Ran special = run({"generate", "-i", dog_picture(), "--format", "raw", "--special", "-p", prompt});
  EXPECT_EQ(special.out, kAnswer) << special.err;
  const Json as_text(run({"generate", "--format", "raw", "-p", prompt, "--json", "--max-new-tokens", "1"}).out);
  const Json as_ids(
      run({"generate", "--format", "raw", "--special", "-p", prompt, "--json", "--max-new-tokens", "1"}).out);
  EXPECT_GT(as_text.integer("/usage/prompt_tokens"), as_ids.integer("/usage/prompt_tokens"));
}

TEST(Generate, StatisticsGoToStandardErrorOnly) {
  const Ran ran = run({"generate", "-i", dog_picture(), "--stats"});
  EXPECT_EQ(ran.out, kAnswer);
  EXPECT_NE(ran.err.find("tok/s"), std::string::npos);
}

// The header of a PNG of 50,000 x 50,000 pixels; nothing follows.
std::string png_bomb() {
  const unsigned char bytes[] = {0x89, 'P',  'N',  'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I',  'H',  'D',  'R', 0,
                                 0,    0xc3, 0x50, 0,   0,    0xc3, 0x50, 8,    2, 0, 0, 0,  0x5b, 0x12, 0x08, 0xb4};
  return {reinterpret_cast<const char*>(bytes), sizeof bytes};
}

// A red BMP of one pixel.
std::string one_pixel() {
  std::string bmp("BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0", 30);
  bmp += std::string(24, '\0');
  bmp += std::string("\0\0\xff\0", 4);
  return bmp;
}

TEST(Generate, OnePixelIsAPicture) {
  const TempFolder folder;
  write_file(folder / "dot.bmp", one_pixel());
  const Ran ran = run({"generate", "-i", folder / "dot.bmp"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_GT(ran.out.size(), 5u);
}

TEST(Generate, RefusalsAreStatus1AndOneLine) {
  const TempFolder folder;
  write_file(folder / "bomb.png", png_bomb());
  write_file(folder / "text.png", "this is no picture\n");
  write_file(folder / "latin1.txt", "caf\xe9");
  write_file(folder / "empty.txt", "");
  std::string words;
  for (int i = 0; i < 2000; ++i) words += "dog cat ";
  write_file(folder / "long.txt", words);
  std::filesystem::create_directory(folder / "empty");
  std::filesystem::create_directory(folder / "broken");
  write_file(folder / "broken/config.json", "{\"model_type\": \"gpt_oss\", \"hidden_size\": 0}");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"-p", "x", "--model", folder / "absent"}, "absent"},
      {{"-p", "x", "--model", folder / "text.png"}, "not a model folder"},
      {{"-p", "x", "--model", folder / "empty"}, "config.json"},
      {{"-p", "x", "--model", folder / "broken"}, "hidden_size"},
      {{"-p", "x", "--model", "two\nlines"}, "two"},
      {{"-p", "x", "-i", folder / "absent.png"}, "absent.png"},
      {{"-p", "x", "-i", folder / "bomb.png"}, ""},
      {{"-p", "x", "-i", folder / "text.png"}, ""},
      {{"-p", "x", "-i", folder.path().string()}, ""},
      {{"-p", ""}, "empty"},
      {{"-f", folder / "empty.txt"}, "empty"},
      {{"-f", folder / "absent.txt"}, "absent.txt"},
      {{"-f", folder / "latin1.txt"}, "UTF-8"},
      {{"-f", folder / "long.txt", "--context", "256"}, "256"},
      {{"-p", "x", "--context", "16777216"}, ""},
      {{"-p", "x", "--memory-limit", "1MiB"}, ""},
      {{"-p", "x", "--device", "cuda:99"}, built_with_cuda() ? "no CUDA device 99" : "built without CUDA"},
      {{"-p", "x", "--device", "cuda:x"}, "--device"},
      {{"-p", "x", "--device", "tpu"}, "--device"},
      {{"-p", "x", "--dtype", "bf16", "--device", "cpu"}, "bf16"},
      {{"-p", "x", "--kv-dtype", "fp8", "--device", "cpu"}, "fp8"},
      {{"-p", "x", "--decode-path", "fused", "--device", "cpu"}, "one way of decoding"},
      {{"-p", "x", "--temperature", "-1"}, "temperature"},
      {{"-p", "x", "--temperature", "nan"}, "temperature"},
      {{"-p", "x", "--top-p", "0"}, "top_p"},
      {{"-p", "x", "--repetition-penalty", "0"}, "repetition_penalty"},
      {{"-p", "x", "--min-new-tokens", "9", "--max-new-tokens", "3"}, "min"},
      {{"-p", "x", "--stop", ""}, "stop"},
      {{"-p", "x", "--logit-bias", "99999=1"}, "logit_bias"},
  };
  for (const auto& [rest, part] : cases) {
    std::vector<std::string> arguments = {"generate"};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const auto start = std::chrono::steady_clock::now();
    const Ran ran = run(arguments);
    const std::string line = fmt::format("{}: {}", fmt::join(rest, " "), ran.err);
    EXPECT_EQ(ran.status, 1) << line;
    EXPECT_TRUE(ran.failed_cleanly()) << line;
    EXPECT_NE(ran.err.find(part), std::string::npos) << line;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << line;
  }
}

TEST(Generate, EmptyStandardInputIsAnEmptyPrompt) {
  const Ran ran = run({"generate"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
}

TEST(Generate, InterruptEndsALongGenerationWithOneLine) {
  RunOptions interrupt;
  interrupt.interrupt_after = 1.0;
  const Ran ran = run({"generate", "-p", "What is a dog?", "--ignore-eos", "--max-new-tokens", "100000"}, interrupt);
  EXPECT_EQ(ran.status, 130) << ran.err;
  EXPECT_EQ(lines_of(ran.err).size(), 1u) << ran.err;
  EXPECT_TRUE(ran.err.starts_with("gpt-oss-vision: interrupted: ")) << ran.err;
  EXPECT_GT(ran.out.size(), 10u);  // what was said so far is there
}

}  // namespace
}  // namespace gov::test
