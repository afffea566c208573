// gpt-oss-vision train as a user runs it: a model from random weights that then answers.

#include "io/safetensors.h"
#include "tests/cli/run_program.h"
#include "train/shard.h"

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
  const std::vector<std::string> lines = lines_of(ran.out);
  EXPECT_LT(Json(lines[lines.size() - 2]).number("/eval~1loss"), 0.1);
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
  for (const auto& [picture, shown] : {std::pair{"red_ring", "A red ring.\n"},
                                       {"blue_cross", "A blue cross.\n"},
                                       {"yellow_triangle", "A yellow triangle.\n"}})
    EXPECT_EQ(answer({"--prompt", "What is this?", "--image", kShapes + picture + ".png"}), shown);
  EXPECT_EQ(answer({"--prompt", "Which colour is it?", "--image", kShapes + "blue_cross.png"}), "It is blue.\n");
}

// The steps are those of debug train-steps, which tests/golden compares with PyTorch.
TEST(TrainCommand, StepsAreThoseOfTheGoldenCase) {
  constexpr std::int64_t kDocuments = 3, kTokens = 20, kSteps = 4;
  const TempFolder temp;
  const Ran made = run({"synth",
                        temp / "model",
                        "--preset",
                        "mini",
                        "--hidden-size",
                        "32",
                        "--intermediate-size",
                        "32",
                        "--layers",
                        "2",
                        "--experts",
                        "4",
                        "--experts-per-token",
                        "2",
                        "--heads",
                        "4",
                        "--kv-heads",
                        "2",
                        "--head-dim",
                        "8",
                        "--vocab-size",
                        "4096",
                        "--no-mxfp4",
                        "--dtype",
                        "f32",
                        "--tokenizer",
                        nano() + "/tokenizer.json"});
  ASSERT_EQ(made.status, 0) << made.err;
  train::ShardWriter shard(4096, -1);
  std::vector<std::int64_t> ids;
  for (std::int64_t d = 0; d < kDocuments; ++d) {
    train::Sample document;
    for (std::int64_t t = 0; t < kTokens; ++t) {
      ids.push_back(100 + (d * 31 + t * t * 7) % 900);
      document.add(static_cast<std::int32_t>(ids.back()), 1);
    }
    shard.add(document);
  }
  shard.write(temp / "documents.safetensors");
  SafetensorsWriter inputs(temp / "inputs.safetensors", {{"input_ids", DType::kI64, Shape{kDocuments, kTokens}}});
  inputs.write(std::as_bytes(std::span(ids)));
  inputs.finish();
  const Ran golden = run({"debug", "train-steps", "--model", temp / "model", "--inputs", temp / "inputs.safetensors",
                          "--output", temp / "steps.safetensors", "--steps", std::to_string(kSteps), "--lr", "0.01",
                          "--decay", "0", "--aux-coefficient", "0.1", "--device", "cpu"});
  ASSERT_EQ(golden.status, 0) << golden.err;
  write_file(temp / "run.toml",
             "[model]\nbase = \"model\"\n[run]\nsteps = 4\nprecision = \"f32\"\n"
             "[data]\ntokens_per_batch = 60\nmax_length = 20\n"
             "[[data.source]]\nkind = \"shard\"\npath = \"documents.safetensors\"\n"
             "[optimizer]\nlr = 0.01\ndecay = 0.0\n[schedule]\nkind = \"constant\"\nwarmup = 1\n"
             "[losses]\naux = \"hf\"\naux_coef = 0.1\n[checkpoint]\nfolder = \"out\"\n");
  const Ran trained = run({"train", temp / "run.toml", "--json", "--device", "cpu"});
  ASSERT_EQ(trained.status, 0) << trained.err;
  const SafetensorsFile steps = SafetensorsFile::open(temp / "steps.safetensors");
  const float* losses = steps.tensor(*steps.find("train.losses")).as<float>();
  const float* norms = steps.tensor(*steps.find("train.grad_norms")).as<float>();
  const std::vector<std::string> lines = lines_of(trained.out);
  for (std::int64_t i = 0; i < kSteps; ++i) {
    const Json record(lines[static_cast<std::size_t>(i)]);
    EXPECT_NEAR(record.number("/loss") / double(losses[2 * i]), 1, 1e-5) << i;
    EXPECT_NEAR(record.number("/aux_loss") / double(losses[2 * i + 1]), 1, 1e-5) << i;
    EXPECT_NEAR(record.number("/grad_norm") / double(norms[i]), 1, 1e-4) << i;
  }
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
