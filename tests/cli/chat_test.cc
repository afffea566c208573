// `chat` in a pipe, with nano. A terminal's side is tested by chat_pty.py.

#include <fmt/format.h>

#include "tests/cli/run_program.h"

namespace gov::test {
namespace {

constexpr const char* kAnswer = "This is a dog face. Related words: adorbs, animal, dog.\n";

Ran chat(const std::string& input, std::vector<std::string> arguments = {}) {
  arguments.insert(arguments.begin(), "chat");
  RunOptions options;
  options.input = input;
  return run(arguments, options);
}

TEST(Chat, AnswersWithoutControlCodes) {
  const Ran ran = chat("/image " + dog_picture() + "\nWhat is this?\n/quit\nnever read\n");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, kAnswer);
  EXPECT_EQ(ran.err, "gpt-oss-vision: the next message has 1 picture, 258 tokens: dog_face.png (PNG, 96 x 96)\n");
  EXPECT_EQ(chat("What is this?", {"--image", dog_picture(), "--quiet"}).out, kAnswer);
}

TEST(Chat, TheFirstAnswerIsThatOfGenerate) {
  EXPECT_EQ(chat("What is a dog?\n").out, run({"generate", "--prompt", "What is a dog?"}).out);
}

TEST(Chat, LaterMessagesSeeTheEarlierOnes) {
  // Greedy: the same question again, after another one, is another prompt.
  const Ran ran = chat("What is this?\nWhat is this?\n/reset\nWhat is this?\n");
  EXPECT_EQ(ran.status, 0) << ran.err;
  const auto lines = lines_of(ran.out);
  ASSERT_EQ(lines.size(), 3u) << ran.out;
  EXPECT_EQ(lines[0], lines[2]);
  EXPECT_NE(lines[0], lines[1]);
}

TEST(Chat, UndoRetryAndDrop) {
  const auto out = lines_of(chat("What is this?\nWhat is a dog?\n/undo\n/retry\n/drop\n").out);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[0], out[2]);
  const Ran nothing = chat("/undo\n/retry\n/drop\n/drop x\n");
  EXPECT_EQ(nothing.status, 1);
  EXPECT_EQ(lines_of(nothing.err).size(), 4u) << nothing.err;
}

TEST(Chat, UndoForgetsTheMessageThatFailed) {
  std::string words;
  for (int i = 0; i < 400; ++i) words += "dog ";
  const Ran ran = chat("What is this?\n" + words + "\n/undo\n/retry\n", {"--context", "256"});
  const auto out = lines_of(ran.out);
  ASSERT_EQ(out.size(), 2u) << ran.out << ran.err;
  EXPECT_EQ(out[0], out[1]);
  EXPECT_NE(ran.err.find("forgot: dog dog"), std::string::npos) << ran.err;
}

TEST(Chat, GivenInstructionsGoOverThoseOfAFile) {
  const TempFolder folder;
  const std::string file = folder / "talk.json";
  ASSERT_EQ(chat("What is this?\n/save " + file + "\n", {"--system", "First."}).status, 0);
  EXPECT_EQ(chat("/system\n", {"--load", file}).out, "First.\n");
  EXPECT_EQ(chat("/system\n", {"--load", file, "--system", "Second."}).out, "Second.\n");
}

TEST(Chat, SaveAndLoadGoOnAsBefore) {
  const TempFolder folder;
  const std::string file = folder / "my talk.json";
  const Ran first = chat(fmt::format("/image {}\nWhat is this?\n/save '{}'\nName this.\n", dog_picture(), file));
  ASSERT_EQ(first.status, 0) << first.err;
  const Ran second = chat("Name this.\n", {"--load", file});
  EXPECT_EQ(lines_of(first.out).at(1) + "\n", second.out) << second.err;
  const Ran third = chat(fmt::format("/load \"{}\"\n/save {}/talk.md\n", file, folder.path().string()));
  EXPECT_EQ(third.status, 0) << third.err;
  EXPECT_NE(read_file(folder / "talk.md").find("This is a dog face."), std::string::npos);
}

TEST(Chat, ErrorsAreOneLineAndTheConversationGoesOn) {
  const TempFolder folder;
  write_file(folder / "text.png", "no picture");
  const Ran ran = chat(fmt::format("/nope\n/image {0}/absent.png\n/image {0}/text.png\n/load {0}\n/save {0}/x.txt\n"
                                   "/set temperature hot\n/set heat 1\n/effort high\n\xff\n/image {1}\nWhat is this?\n",
                                   folder.path().string(), dog_picture()),
                       {"--quiet"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.out, kAnswer);
  const auto lines = lines_of(ran.err);
  ASSERT_EQ(lines.size(), 9u) << ran.err;
  for (const std::string& line : lines) EXPECT_TRUE(line.starts_with("gpt-oss-vision: error: ")) << line;
}

TEST(Chat, SettingsReachTheModel) {
  const Ran ran = chat(
      "/set temperature 1.5\n/set seed 7\n/set max_tokens 6\nWhat is a dog?\n/reset\nWhat is a dog?\n"
      "/reset\n/set seed 8\nWhat is a dog?\n",
      {"--json"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  std::vector<std::string> texts;
  for (const std::string& line : lines_of(ran.out)) {
    const Json json(line);
    if (json.text("/event") != "answer") continue;
    texts.push_back(json.text("/text"));
    EXPECT_LE(json.integer("/usage/completion_tokens"), 6);
    EXPECT_EQ(json.integer("/seed"), texts.size() < 3 ? 7 : 8);
  }
  ASSERT_EQ(texts.size(), 3u) << ran.out;
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_NE(texts[0], texts[2]);
}

TEST(Chat, JsonLinesInAndOut) {
  const Ran ran =
      chat(fmt::format("{{\"text\": \"What is this?\", \"images\": [\"{}\"]}}\n\"two\\nlines\"\n{{\"txt\": 1}}\n",
                       dog_picture()),
           {"--json", "--stream"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.err, "");
  std::string streamed;
  std::vector<std::string> events;
  for (const std::string& line : lines_of(ran.out)) {
    const Json json(line);
    events.push_back(json.text("/event"));
    if (events.back() == "delta" && std::count(events.begin(), events.end(), "answer") == 0)
      streamed += json.text("/text");
    if (events.back() != "answer" || std::count(events.begin(), events.end(), "answer") != 1) continue;
    EXPECT_EQ(json.text("/text") + "\n", kAnswer);
    EXPECT_EQ(json.text("/finish_reason"), "stop");
    EXPECT_EQ(json.integer("/usage/total_tokens"),
              json.integer("/usage/prompt_tokens") + json.integer("/usage/completion_tokens"));
    EXPECT_GT(json.integer("/usage/prompt_tokens"), 258);
    EXPECT_EQ(json.integer("/usage/context"), 131072);
  }
  EXPECT_EQ(streamed + "\n", kAnswer);
  EXPECT_EQ(std::count(events.begin(), events.end(), "answer"), 2);
  EXPECT_EQ(events.back(), "error");
}

TEST(Chat, PicturesOfALineThatFailsAreNotSent) {
  const Ran ran = chat(fmt::format("{{\"text\": \"x\", \"images\": [\"{0}\", \"/nowhere.png\"]}}\n\"What is this?\"\n"
                                   "/image '{0}' /nowhere.png\n\"And this?\"\n",
                                   dog_picture()),
                       {"--json"});
  EXPECT_EQ(ran.status, 1);
  int answers = 0;
  for (const std::string& line : lines_of(ran.out)) {
    const Json json(line);
    if (json.text("/event") != "answer") continue;
    ++answers;
    EXPECT_LT(json.integer("/usage/prompt_tokens"), 258) << line;
  }
  EXPECT_EQ(answers, 2) << ran.out;
}

TEST(Chat, AFullContextIsSaidAndNothingIsDroppedUnasked) {
  std::string words;
  for (int i = 0; i < 60; ++i) words += "dog cat ";
  const Ran ran = chat(words + "\n" + words + "\n/drop\n" + "/retry\n", {"--context", "256", "--max-new-tokens", "4"});
  EXPECT_EQ(ran.status, 1);
  ASSERT_EQ(lines_of(ran.err).size(), 2u) << ran.err;
  EXPECT_NE(ran.err.find("/drop 1 forgets the oldest; /retry sends the message again"), std::string::npos) << ran.err;
  EXPECT_EQ(lines_of(ran.out).size(), 2u) << ran.out;
  const Ran alone = chat(words + words + words + "\n", {"--context", "256"});
  EXPECT_NE(alone.err.find("too many for the context of 256"), std::string::npos) << alone.err;
}

TEST(Chat, HarmonyModelsHaveEffortAndChannels) {
  const Ran ran = chat("/effort\n/effort high\n/effort\nWhat is a dog?\n",
                       {"--chat-format", "harmony", "--max-new-tokens", "8", "--quiet"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_TRUE(ran.out.starts_with("medium\nhigh\n")) << ran.out;
  EXPECT_EQ(ran.out.find("<|"), std::string::npos) << ran.out;
}

TEST(Chat, WrongOptionsAreRefused) {
  EXPECT_EQ(chat("", {"--reasoning-effort", "huge"}).status, 2);
  EXPECT_EQ(chat("", {"--max-new-tokens", "0"}).status, 2);
  EXPECT_EQ(chat("", {"--hide-reasoning", "--show-reasoning"}).status, 2);
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"--load", "/nowhere.json"}, {"--image", "/nowhere.png"}, {"--model", "/nowhere"}}) {
    const Ran ran = chat("hello\n", arguments);
    EXPECT_EQ(ran.status, 1) << arguments[0];
    EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
  }
  EXPECT_EQ(chat("").status, 0);  // nothing to say
}

TEST(Chat, InterruptEndsItInAPipe) {
  RunOptions options;
  options.input = "What is a dog?\n/set max_tokens 100\nWhat is a dog?\n";
  options.interrupt_after = 1.0;
  const Ran ran = run({"chat", "--max-new-tokens", "100000", "--logit-bias", "4088=-100", "--logit-bias", "4094=-100",
                       "--logit-bias", "4087=-100"},
                      options);
  EXPECT_EQ(ran.status, 130) << ran.err;
  EXPECT_EQ(lines_of(ran.err).size(), 1u) << ran.err;
  EXPECT_TRUE(ran.err.starts_with("gpt-oss-vision: interrupted: ")) << ran.err;
  EXPECT_GT(ran.out.size(), 10u);
}

}  // namespace
}  // namespace gov::test
