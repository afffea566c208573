// Steps, runs and checkpoints of the trainer on a small model.

#include <cmath>
#include <limits>

#include "io/checkpoint.h"
#include "tests/train/trainer_support.h"

namespace gov::train::test {
namespace {

namespace fs = std::filesystem;

// The losses of a run from its log.
std::vector<std::pair<std::int64_t, double>> losses_of(const fs::path& folder) {
  std::vector<std::pair<std::int64_t, double>> losses;
  std::ifstream file(folder / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const Json record = Json::parse(line);
    if (const Json* loss = record.find("loss")) losses.emplace_back(record.find("step")->integer(), loss->number());
  }
  return losses;
}

std::string paragraphs(int count, int words) {
  std::string text;
  for (int p = 0; p < count; ++p) {
    for (int i = 0; i < words + p; ++i) text += fmt::format("{} ", (p * 7 + i * 3) % 10);
    text += "\n\n";
  }
  return text;
}

TEST(Trainer, ResumedRunIsTheSameBitForBit) {
  const fs::path whole = fresh_folder("whole"), cut = fresh_folder("cut");
  const auto config = [](const fs::path& folder) { return shapes_config(folder, {"checkpoint.every=2"}); };
  TestRun straight(config(whole));
  EXPECT_EQ(straight->run({}).steps, 6);
  {
    TestRun first(config(cut));
    std::atomic<bool> stop{false};
    RunHooks hooks;
    hooks.stop = &stop;
    hooks.on_record = [&](const StepReport& report, std::span<const Metric>) { stop = report.step == 3; };
    const RunResult result = first->run(hooks);
    EXPECT_TRUE(result.stopped);
    EXPECT_EQ(result.steps, 3);
  }
  TestRun second(config(cut));
  second->resume();
  EXPECT_EQ(second->state().step, 3);
  EXPECT_EQ(second->run({}).steps, 6);
  EXPECT_EQ(losses_of(whole).size(), 6u);
  EXPECT_EQ(losses_of(whole), losses_of(cut));
  EXPECT_TRUE(same_bits(values(straight->model().masters()), values(second->model().masters())));
  EXPECT_TRUE(same_bits(values(straight->model().second_moments()), values(second->model().second_moments())));
  EXPECT_EQ(straight->state().data, second->state().data);
  EXPECT_EQ(straight->state().rows, second->state().rows);
}

TEST(Trainer, StateReadsBackEqual) {
  RunState state;
  state.step = 12;
  state.updates = 11;
  state.skipped = 1;
  state.seconds = 0.1;
  state.best_eval = 1.0 / 3;
  state.data = {7, 3, {2, 1}, {4, 6}, {2}};
  EXPECT_EQ(RunState::from_json(state.json()), state);
  EXPECT_EQ(error_of([] { RunState::from_json("{\"format\": \"gov-train-state-1\"}"); }),
            "state.json: step is missing or of the wrong kind");
}

// Text documents of 43 to 64 rows, each of another length: one in a batch of 64 rows, two in one of 128.
TEST(Trainer, UnevenMicroBatchesAreOneBatch) {
  const fs::path folder = fresh_folder("uneven");
  const std::string text = write(folder / "text.txt", paragraphs(9, 22));
  const auto config = [&](const char* rows, const char* accumulation) {
    return shapes_config(folder / rows, {fmt::format("data.tokens_per_batch={}", rows), "data.max_length=64",
                                         fmt::format("run.accumulation={}", accumulation), "data.source.0.kind=text",
                                         "data.source.0.path=" + text, "losses.aux=none", "losses.z_coef=0.01"});
  };
  TestRun one(config("128", "1")), two(config("64", "2"));
  const StepReport a = one->step(), b = two->step();
  ASSERT_EQ(a.samples, 2);
  ASSERT_EQ(b.samples, 2);
  ASSERT_EQ(a.rows, b.rows);
  const RunPlan& plan = two->plan();
  Loader loader(plan.sources, plan.rules, loader_options(plan.config.data, 0),
                first_state(shapes_of(plan.sources), 1, 1));
  ASSERT_NE(loader.next()->rows(), loader.next()->rows()) << "the micro-batches are of one size, which proves nothing";
  EXPECT_NEAR(a.loss / b.loss, 1, 1e-6);
  EXPECT_NEAR(a.z / b.z, 1, 1e-6);
  std::vector<float> difference = values(one->model().gradients());
  const std::vector<float> other = values(two->model().gradients());
  for (std::size_t i = 0; i < difference.size(); ++i) difference[i] -= other[i];
  EXPECT_LT(norm(difference), 1e-6 * norm(other));
}

TEST(Trainer, FrozenWeightsStay) {
  const fs::path folder = fresh_folder("frozen");
  TrainConfig config = shapes_config(folder, {"run.steps=3"});
  config.groups.push_back({{"model.vision_adapter.*", "*.mlp.experts.*", "model.embed_tokens.weight"}, 1, -1, true});
  TestRun run(config);
  const ParameterSet& masters = run->model().masters();
  for (const ParameterSet::Entry& entry : masters.entries())
    EXPECT_EQ(entry.spec.name.find("experts"), std::string::npos);
  const std::string before = run->model().frozen_hash(run.ctx, run.pool);
  EXPECT_EQ(before.size(), 64u);
  const std::vector<float> trained = values(masters);
  EXPECT_EQ(run->run({}).steps, 3);
  EXPECT_EQ(run->model().frozen_hash(run.ctx, run.pool), before);
  EXPECT_FALSE(same_bits(values(masters), trained));
  // The exported model has the frozen weights as they were drawn.
  const Checkpoint exported = Checkpoint::open(folder / "step-00000003/model");
  const Model drawn = start_weights(config, run->plan().files, run.pool, {});
  const auto embedding = exported.find("model.embed_tokens.weight");
  ASSERT_TRUE(embedding);
  EXPECT_EQ(std::memcmp(embedding->data, drawn.weights.embed.data, embedding->bytes()), 0);
}

TEST(Trainer, GradientIsClipped) {
  TestRun run(shapes_config(fresh_folder("clip"), {"optimizer.clip=0.01"}));
  const StepReport report = run->step();
  EXPECT_GT(report.grad_norm, 0.1);
  EXPECT_NEAR(norm(values(run->model().first_moments())), 0.01 * (1 - 0.9), 1e-6);
  TestRun loose(shapes_config(fresh_folder("clip"), {"optimizer.clip=0"}));
  EXPECT_EQ(loose->step().grad_norm, report.grad_norm);
  EXPECT_NEAR(norm(values(loose->model().first_moments())) / (0.1 * report.grad_norm), 1, 1e-5);
}

TEST(Trainer, NoStepIsTakenOnNan) {
  const fs::path folder = fresh_folder("nan");
  TestRun run(shapes_config(folder, {"run.steps=40", "checkpoint.every=2"}));
  EXPECT_TRUE(run->step().taken);
  EXPECT_TRUE(run->step().taken);
  run->save();
  run->wait();
  float& weight = *tensor_of(run->model().masters(), "model.norm.weight").as<float>();
  const float good = weight;
  weight = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> before = values(run->model().second_moments());
  EXPECT_FALSE(run->step().taken);
  EXPECT_TRUE(same_bits(values(run->model().second_moments()), before));
  EXPECT_EQ(run->state().step, 3);
  EXPECT_EQ(run->state().updates, 2);
  EXPECT_EQ(run->state().skipped, 1);
  weight = good;
  EXPECT_TRUE(run->step().taken);
  EXPECT_EQ(run->state().skipped_in_a_row, 0);
  weight = std::numeric_limits<float>::quiet_NaN();
  for (int i = 1; i < Trainer::kMostSkipped; ++i) EXPECT_FALSE(run->step().taken);
  EXPECT_EQ(error_of([&] { run->step(); }),
            "10 steps in a row, up to step 14, had a loss or a gradient that is not finite");
  EXPECT_TRUE(fs::exists(folder / "step-00000002/manifest.json"));
}

TEST(Trainer, StopsWithoutProgress) {
  const fs::path folder = fresh_folder("patience");
  TestRun run(shapes_config(folder, {"run.steps=20", "optimizer.lr=0", "eval.every=2", "eval.patience=2"}));
  std::vector<double> losses;
  RunHooks hooks;
  hooks.on_eval = [&](std::int64_t, const EvalReport& report) { losses.push_back(report.loss); };
  const RunResult result = run->run(hooks);
  EXPECT_TRUE(result.early);
  EXPECT_EQ(result.steps, 6);
  ASSERT_EQ(losses.size(), 3u);
  EXPECT_EQ(losses[0], losses[2]);
  EXPECT_TRUE(fs::exists(folder / "step-00000006/model/config.json"));
}

TEST(Trainer, RecomputePoliciesGiveTheSameBits) {
  std::vector<std::vector<float>> weights;
  for (const char* policy : {"none", "moe", "block"}) {
    TestRun run(shapes_config(fresh_folder("recompute"), {std::string("run.recompute=") + policy}));
    for (int i = 0; i < 3; ++i) run->step();
    weights.push_back(values(run->model().masters()));
  }
  EXPECT_TRUE(same_bits(weights[0], weights[1]));
  EXPECT_TRUE(same_bits(weights[0], weights[2]));
}

TEST(Trainer, ExportedModelHasTheSameLoss) {
  const fs::path folder = fresh_folder("export");
  TestRun run(shapes_config(folder, {"eval.every=6"}));
  EXPECT_EQ(run->run({}).steps, 6);
  const double loss = run->evaluate().loss;
  const std::string exported = (folder / "step-00000006/model").string();
  TestRun again(shapes_config(fresh_folder("export_again"),
                              {"eval.every=6", "model.config=\"\"", "model.base=" + exported, "model.tokenizer=\"\""}));
  EXPECT_EQ(again->evaluate().loss, loss);
}

// What is computed with in the run is what the packed checkpoint holds.
TEST(Trainer, QuantisationAwareTrainingLosesNothing) {
  const fs::path folder = fresh_folder("qat");
  TestRun run(shapes_config(folder, {"qat.kind=mxfp4", "qat.start=0.5"}));
  for (int i = 0; i < 3; ++i) run->step();
  EXPECT_FALSE(run->model().packs_experts());
  EXPECT_EQ(run->run({}).steps, 6);
  EXPECT_TRUE(run->model().packs_experts());
  const Checkpoint exported = Checkpoint::open(folder / "step-00000006/model");
  for (const char* part : {"blocks", "scales"}) {
    const auto stored = exported.find(fmt::format("model.layers.1.mlp.experts.gate_up_proj_{}", part));
    ASSERT_TRUE(stored);
    const ops::ExpertProjection& used = run->model().model().weights.layers[1].moe.gate_up;
    const Tensor& tensor = std::string_view(part) == "blocks" ? used.blocks : used.scales;
    ASSERT_EQ(stored->bytes(), tensor.bytes());
    EXPECT_EQ(std::memcmp(stored->data, tensor.data, tensor.bytes()), 0);
  }
}

TEST(Trainer, TensorWithoutGradientIsNamed) {
  TestRun run(shapes_config(fresh_folder("gate")));
  const Tensor& down = tensor_of(run->model().masters(), "model.layers.1.mlp.experts.down_proj");
  std::memset(down.data, 0, down.bytes());
  EXPECT_EQ(error_of([&] { run->step(); }),
            "2 trained tensors receive no gradient: model.layers.1.mlp.experts.gate_up_proj, "
            "model.layers.1.mlp.experts.gate_up_proj_bias; freeze them with a [[group]]");
}

TEST(Trainer, RefusalsNameTheKey) {
  const fs::path folder = fresh_folder("refusals");
  const auto error = [&](std::vector<std::string> overrides) {
    return error_of([&] { make_run_plan(shapes_config(folder, overrides), DeviceKind::kCpu, {}); });
  };
  EXPECT_EQ(error({"optimizer.kind=adamw8bit"}), "optimizer.kind adamw8bit is not supported yet");
  EXPECT_EQ(error({"losses.bias_rate=0.001"}), "losses.bias_rate is not supported yet");
  EXPECT_EQ(error({"checkpoint.ema=0.9"}), "checkpoint.ema is not supported yet");
  EXPECT_EQ(error({"model.config=/nowhere"}), "model.config: no '/nowhere'");
  EXPECT_EQ(error({"data.max_length=1024", "data.tokens_per_batch=1024"}),
            "data.max_length 1024 is above the model's 512 positions");
  TestRun fresh(shapes_config(folder));
  EXPECT_EQ(error_of([&] { fresh->resume(); }), "--resume: no checkpoint in '" + folder.string() + "'");
  TestRun first(shapes_config(folder, {"run.steps=1"}));
  first->run({});
  EXPECT_EQ(error_of([&] { fresh->run({}); }),
            "'" + folder.string() + "' holds checkpoints of another run: use --resume, or another folder");
}

TEST(Trainer, EpochsBecomeSteps) {
  const fs::path folder = fresh_folder("epochs");
  const auto steps = [&](std::vector<std::string> overrides) {
    overrides.push_back("run.steps=0");
    return make_run_plan(shapes_config(folder, overrides), DeviceKind::kCpu, {}).steps;
  };
  const std::int64_t one = steps({"run.epochs=1"});
  EXPECT_GT(one, 5);
  EXPECT_NEAR(double(steps({"run.epochs=4"})), 4.0 * double(one), 4);
  EXPECT_NEAR(double(steps({"run.epochs=4", "run.accumulation=2"})), 2.0 * double(one), 4);
}

TEST(StepFigures, ExpertUse) {
  RouterStatistics s;
  s.layers = 1;
  s.experts = 4;
  s.counts = {5, 5, 5, 5, 8, 0, 0, 0};
  EXPECT_NEAR(expert_use(s, 0, false).entropy, 1, 1e-12);
  EXPECT_EQ(expert_use(s, 0, false).largest, 0.25);
  EXPECT_EQ(expert_use(s, 0, true).entropy, 0);
  EXPECT_EQ(expert_use(s, 0, true).largest, 1);
  s.counts = {1, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_TRUE(std::isnan(expert_use(s, 0, true).largest));
}

TEST(StepFigures, SixOperationsForEachTrainedWeight) {
  Config config = preset("mini");
  config.use_vision = false;
  const ParameterPlan all = plan_parameters(TrainConfig{}, config);
  const ParameterCount count = count_parameters(config);
  EXPECT_NEAR(training_flops(config, all, 100, 100, 0) / (600.0 * double(count.active)), 1, 1e-12);
  TrainConfig frozen;
  frozen.groups.push_back({{"*"}, 1, -1, true});
  frozen.groups.push_back({{"*.sinks"}, 1, -1, false});
  EXPECT_NEAR(training_flops(config, plan_parameters(frozen, config), 100, 100, 0) / (400.0 * double(count.active)), 1,
              1e-3);
}

}  // namespace
}  // namespace gov::train::test
