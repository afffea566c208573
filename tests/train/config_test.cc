// Training files: every key, every refusal with its line, overrides.

#include "train/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "io/mapped_file.h"
#include "train/groups.h"

namespace gov::train {
namespace {

constexpr const char* kSmall = R"(
[model]
base = "models/nano"
[run]
steps = 10
[[data.source]]
path = "a.jsonl"
)";

TrainConfig parse(const std::string& text, std::vector<std::string> overrides = {}) {
  return parse_train_config(text, overrides);
}
std::string refusal(const std::string& text, std::vector<std::string> overrides = {}) {
  try {
    parse(text, std::move(overrides));
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
  return "";
}

TEST(TrainConfig, DefaultsAndValues) {
  const TrainConfig c = parse(std::string(kSmall) + R"(
weight = 2
kind = "nano"
nano = {questions = 3, layout = "turns"}
[optimizer]
kind = "adamw8bit"
lr = 1
[[group]]
match = ["*.vit.*"]
frozen = true
)");
  EXPECT_EQ(c.model.base, "models/nano");
  EXPECT_EQ(c.run.steps, 10);
  EXPECT_EQ(c.data.max_length, 4096);
  ASSERT_EQ(c.data.sources.size(), 1u);
  EXPECT_EQ(c.data.sources[0].kind, SourceConfig::Kind::kNano);
  EXPECT_EQ(c.data.sources[0].weight, 2);
  EXPECT_EQ(c.data.sources[0].nano.questions, 3);
  EXPECT_EQ(c.data.sources[0].nano.layout, NanoConfig::Layout::kTurns);
  EXPECT_EQ(c.optimizer.kind, OptimizerConfig::Kind::kAdamw8bit);
  EXPECT_EQ(c.optimizer.lr, 1);
  ASSERT_EQ(c.groups.size(), 1u);
  EXPECT_TRUE(c.groups[0].frozen);
}

TEST(TrainConfig, RefusalsNameKeyAndLine) {
  const std::string s = kSmall;
  EXPECT_EQ(refusal(s + "wieght = 2"), "train.toml:8: unknown key 'data.source.0.wieght'");
  EXPECT_EQ(refusal(s + "[optimiser]"), "train.toml:8: unknown key 'optimiser'");
  EXPECT_EQ(refusal(s + "[optimizer]\nlr = 101"), "train.toml:9: 'optimizer.lr' is 101, expected 0..100");
  EXPECT_EQ(refusal(s + "[optimizer]\nlr = nan"), "train.toml:9: 'optimizer.lr' is nan, expected 0..100");
  EXPECT_EQ(refusal(s + "[optimizer]\nlr = \"1\""), "train.toml:9: 'optimizer.lr' must be a number");
  EXPECT_EQ(refusal(s + "[optimizer]\nkind = \"sgd\""),
            "train.toml:9: 'optimizer.kind' is \"sgd\", expected one of adamw, adamw8bit");
  EXPECT_EQ(refusal(s + "[checkpoint]\nkeep = 0"), "train.toml:9: 'checkpoint.keep' is 0, expected 1..1048576");
  EXPECT_EQ(refusal(s + "[checkpoint]\nkeep = 1.5"), "train.toml:9: 'checkpoint.keep' must be a whole number");
  EXPECT_EQ(refusal(s + "[log]\nplot = 1"), "train.toml:9: 'log.plot' must be true or false");
  EXPECT_EQ(refusal(s + "[lora]\ntargets = [1]"), "train.toml:9: 'lora.targets' must be a text");
  EXPECT_EQ(refusal(s + "[run]\nseed = 5").substr(0, 13), "train.toml:8:");
  EXPECT_EQ(refusal("[run]\nsteps = 1\nsteps = 2").substr(0, 13), "train.toml:3:");
  EXPECT_EQ(refusal("[model"), "train.toml:1: expected ']' behind the name of a table");
}

TEST(TrainConfig, ContradictionsAreRefused) {
  EXPECT_EQ(refusal(""), "train.toml: give either model.base or model.config");
  EXPECT_EQ(refusal(kSmall, {"model.config=c.json"}), "train.toml: give either model.base or model.config");
  EXPECT_EQ(refusal(kSmall, {"run.epochs=1"}), "train.toml: give either run.steps or run.epochs");
  EXPECT_EQ(refusal(kSmall, {"data.max_length=9000"}), "train.toml: data.max_length is above data.tokens_per_batch");
  EXPECT_EQ(refusal(kSmall, {"eval.every=5"}), "train.toml: eval.every needs an [[eval.source]]");
  EXPECT_EQ(refusal(kSmall, {"lora.dora=true"}), "train.toml: lora.dora needs lora.rank");
  EXPECT_EQ(refusal(kSmall, {"data.source.0.kind=nano", "data.source.0.nano.split=held_style"}),
            "train.toml: pictures that are held out are not trained on: nano.split of a data.source must be \"train\"");
  EXPECT_EQ(refusal("model.base=\"b\"\nrun.steps=1"), "train.toml: there is no [[data.source]]");
}

TEST(TrainConfig, Overrides) {
  const TrainConfig c =
      parse(kSmall, {"optimizer.lr=2e-3", "schedule.kind=wsd", "data.source.0.path=b c.jsonl", "lora.rank=4",
                     "lora.targets=[\"*.q_proj.weight\"]", "log.plot=false", "run.precision=\"f32\""});
  EXPECT_EQ(c.optimizer.lr, 2e-3);
  EXPECT_EQ(c.schedule.kind, ScheduleKind::kWsd);
  EXPECT_EQ(c.data.sources[0].path, "b c.jsonl");
  EXPECT_EQ(c.lora.targets, std::vector<std::string>{"*.q_proj.weight"});
  EXPECT_FALSE(c.log.plot);
  EXPECT_EQ(c.run.precision, RunConfig::Precision::kF32);
  EXPECT_EQ(refusal(kSmall, {"optimizer.lr=-1"}), "--set optimizer.lr: 'optimizer.lr' is -1, expected 0..100");
  EXPECT_EQ(refusal(kSmall, {"optimizer.rl=1"}), "--set: unknown key 'optimizer.rl'");
  EXPECT_EQ(refusal(kSmall, {"nonsense"}), "--set nonsense: expected section.key=value");
  EXPECT_EQ(refusal(kSmall, {"data.source.1.path=x"}), "--set data.source.1.path=x: there is no '1'");
  EXPECT_EQ(refusal(kSmall, {"run.steps.x=1"}), "--set run.steps.x=1: expected section.key=value");
}

TEST(TrainConfig, WrittenFormReadsBackEqual) {
  TrainConfig c = parse(kSmall, {"optimizer.lr=3e-5", "run.recompute=block", "optimizer.eps=1e-12"});
  c.eval.sources.push_back(c.data.sources[0]);
  c.eval.sources[0].path = "quote \" and \\ and ü";
  c.groups.push_back({{"a*", "b?"}, 0.1, 0.5, false});
  const std::string text = train_config_toml(c);
  const TrainConfig back = parse(text);
  EXPECT_EQ(train_config_toml(back), text);
  EXPECT_EQ(back.eval.sources[0].path, c.eval.sources[0].path);
  EXPECT_EQ(back.groups[0].match, c.groups[0].match);
  EXPECT_EQ(back.optimizer.eps, 1e-12);
  EXPECT_NE(text.find("recompute = \"block\"  # none | moe | block; "), std::string::npos);
}

// docs/training_keys.toml is written by this test when GOV_WRITE_DOCS is set.
TEST(TrainConfig, DocumentedKeys) {
  const std::filesystem::path path = std::filesystem::path(GOV_SOURCE_DIR) / "docs/training_keys.toml";
  TrainConfig config;
  config.data.sources.emplace_back();
  config.eval.sources.emplace_back();
  config.groups.emplace_back();
  const std::string want =
      "# Every key of a training file with its default and meaning. Generated from src/train/config_fields.h.\n\n" +
      train_config_toml(config);
  if (std::getenv("GOV_WRITE_DOCS") != nullptr) write_file_atomic(path, std::as_bytes(std::span(want)));
  EXPECT_EQ(read_text_file(path, 1 << 20), want);
}

TEST(TrainConfig, PathsAreRelativeToTheFile) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "gov_config";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "run.toml") << kSmall;
  const std::vector<std::string> overrides{"model.tokenizer=tok"};
  const TrainConfig c = load_train_config(folder / "run.toml", overrides);
  EXPECT_EQ(c.data.sources[0].path, (folder / "a.jsonl").string());
  EXPECT_EQ(c.model.tokenizer, "tok");  // an override is relative to where the user is
}

TEST(TrainConfig, Schedule) {
  TrainConfig c = parse(kSmall);
  EXPECT_EQ(c.schedule_for(1000).warmup, 30);
  c.schedule.warmup = 5;
  EXPECT_EQ(c.schedule_for(1000).warmup, 5);
  EXPECT_EQ(c.schedule_for(3).warmup, 3);
}

TEST(Groups, Glob) {
  EXPECT_TRUE(glob_match("*", ""));
  EXPECT_TRUE(glob_match("a*c", "abbc"));
  EXPECT_TRUE(glob_match("a*b*c", "axbxbxc"));
  EXPECT_TRUE(glob_match("model.layers.?.mlp.*", "model.layers.3.mlp.router.bias"));
  EXPECT_FALSE(glob_match("model.layers.?.mlp.*", "model.layers.13.mlp.router.bias"));
  EXPECT_FALSE(glob_match("a", "ab"));
  EXPECT_FALSE(glob_match("a?", "a"));
  EXPECT_FALSE(glob_match("", "a"));
}

TEST(Groups, Rules) {
  const std::vector<std::string> names = {"model.embed_tokens.weight",
                                          "model.layers.0.self_attn.q_proj.weight",
                                          "model.layers.0.self_attn.q_proj.bias",
                                          "model.layers.0.self_attn.sinks",
                                          "model.layers.0.input_layernorm.weight",
                                          "model.layers.0.mlp.router.vision_bias",
                                          "model.vision_adapter.vit.embeddings.cls_token",
                                          "model.vision_adapter.proj.weight",
                                          "lm_head.weight"};
  TrainConfig c = parse(kSmall, {"optimizer.decay=0.1"});
  std::vector<double> decay;
  for (const ParameterRule& r : parameter_rules(c, names)) decay.push_back(r.decay);
  EXPECT_EQ(decay, (std::vector<double>{0, 0.1, 0, 0, 0, 0, 0, 0.1, 0.1}));

  c.groups = {{{"model.*"}, 1, -1, true}, {{"*.proj.weight", "*vision_bias"}, 0.5, 0.3, false}};
  const auto rules = parameter_rules(c, names);
  EXPECT_TRUE(rules[1].frozen);
  EXPECT_FALSE(rules[8].frozen);
  EXPECT_FALSE(rules[7].frozen);
  EXPECT_EQ(rules[7].lr_multiplier, 0.5);
  EXPECT_EQ(rules[7].decay, 0.3);
  EXPECT_EQ(rules[5].decay, 0.3);

  c.groups = {{{"*.nothing"}, 1, -1, true}};
  EXPECT_THROW(parameter_rules(c, names), Error);
  c.groups = {{{"*"}, 1, -1, true}};
  EXPECT_THROW(parameter_rules(c, names), Error);
  c.lora.rank = 8;
  c.groups = {{{"*vision_bias"}, 1, -1, false}};
  const auto lora = parameter_rules(c, names);
  EXPECT_TRUE(lora[1].frozen);
  EXPECT_FALSE(lora[5].frozen);
}

}  // namespace
}  // namespace gov::train
