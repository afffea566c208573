// gpt-oss-vision train as a user runs it: a model from random weights that then answers.

#include "tests/cli/run_program.h"

namespace gov::test {
namespace {

const std::string kShapes = GOV_SOURCE_DIR "/tests/train/data/shapes/";

std::vector<std::string> train(const TempFolder& temp, std::vector<std::string> more) {
  std::vector<std::string> arguments = {
      "train", kShapes + "train.toml", "--set", "checkpoint.folder=" + (temp / "run"), "--threads", "2"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string last_line(const std::string& text) { return lines_of(text).back(); }

TEST(TrainCommand, ModelFromRandomWeightsAnswers) {
  const TempFolder temp;
  const Ran ran = run(train(temp, {"--json"}));
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json end(last_line(ran.out));
  EXPECT_LT(end.number("/loss"), 0.1);
  EXPECT_EQ(end.integer("/skipped"), 0);
  EXPECT_EQ(end.integer("/bad_samples"), 0);
  const std::string model = temp / "run/step-00000250/model";
  const auto answer = [&](std::vector<std::string> question) {
    question.insert(question.begin(), {"generate", "--model", model, "--device", "cpu", "--quiet"});
    const Ran answered = run(question);
    EXPECT_EQ(answered.status, 0) << answered.err;
    return answered.out;
  };
  EXPECT_EQ(answer({"--prompt", "What has three corners?"}), "A triangle.\n");
  // Pictures that were not trained on.
  EXPECT_EQ(answer({"--prompt", "What is this?", "--image", kShapes + "red_circle.png"}), "A red circle.\n");
  EXPECT_EQ(answer({"--prompt", "Which colour is it?", "--image", kShapes + "yellow_triangle.png"}), "It is yellow.\n");
}

TEST(TrainCommand, InterruptedRunGoesOn) {
  const TempFolder temp;
  RunOptions options;
  options.interrupt_after = 3;
  const std::vector<std::string> many = {"--json", "--set", "run.steps=100000", "--set", "eval.every=0"};
  const Ran first = run(train(temp, many), options);
  ASSERT_EQ(first.status, 0) << first.err;
  const Json end(last_line(first.out));
  const std::int64_t steps = end.integer("/steps");
  ASSERT_GT(steps, 0);
  ASSERT_LT(steps, 100000);
  const Ran refused = run(train(temp, many));
  EXPECT_EQ(refused.status, 1);
  EXPECT_TRUE(refused.failed_cleanly()) << refused.err;
  const std::string more = "run.steps=" + std::to_string(steps + 2);
  const Ran second = run(train(temp, {"--json", "--resume", "--set", more, "--set", "eval.every=0"}));
  ASSERT_EQ(second.status, 0) << second.err;
  EXPECT_EQ(Json(lines_of(second.out).front()).integer("/step"), steps + 1);
  EXPECT_EQ(Json(last_line(second.out)).integer("/steps"), steps + 2);
}

TEST(TrainCommand, DryRunTrainsNothing) {
  const TempFolder temp;
  const Ran ran = run(train(temp, {"--dry-run", "--json"}));
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json plan(ran.out);
  EXPECT_EQ(plan.integer("/steps"), 250);
  EXPECT_EQ(plan.integer("/frozen"), 0);
  EXPECT_EQ(plan.integer("/memory/moments"), 2 * plan.integer("/memory/gradients"));
  EXPECT_GT(plan.number("/seconds"), 0);
  EXPECT_FALSE(std::filesystem::exists(temp / "run"));
  const Ran text = run(train(temp, {"--dry-run"}));
  EXPECT_NE(text.out.find("activations"), std::string::npos);
}

TEST(TrainCommand, PrintedConfigurationReadsBack) {
  const TempFolder temp;
  const Ran ran = run(train(temp, {"--print-config", "--set", "optimizer.lr=0.25"}));
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_NE(ran.out.find("lr = 0.25"), std::string::npos);
  write_file(temp / "all.toml", ran.out);
  const Ran again = run({"train", temp / "all.toml", "--print-config"});
  EXPECT_EQ(again.out, ran.out);
}

TEST(TrainCommand, WrongUseIsOneLine) {
  const TempFolder temp;
  for (const char* override : {"run.stepz=1", "run.steps=-1", "lora.rank=8", "data.source.0.path=/nowhere"}) {
    const Ran ran = run(train(temp, {"--set", override}));
    EXPECT_EQ(ran.status, 1) << override;
    EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
  }
  EXPECT_EQ(run({"train"}).status, 2);
}

}  // namespace
}  // namespace gov::test
