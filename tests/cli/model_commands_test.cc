// inspect, tokenize, synth, bench, doctor.

#include <fmt/format.h>

#include <cmath>

#include "io/checkpoint.h"
#include "tests/cli/run_program.h"

namespace gov::test {
namespace {

TEST(Inspect, NanoInTextAndJson) {
  const Ran text = run({"inspect"});
  EXPECT_EQ(text.status, 0) << text.err;
  for (const char* part : {"16,441,360", "sliding 128", "full", "NoPE", "experts", "on disk"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << part;
  }
  const Ran ran = run({"inspect", "--model", nano(), "--context", "1000", "--json"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json json(ran.out);
  EXPECT_EQ(json.integer("/parameters/total"), 16441360);
  EXPECT_EQ(json.text("/layers/1/attention"), "full");
  EXPECT_EQ(json.integer("/layers/1/kv_bytes"), 1000 * 2 * 2 * 64 * 4);
  EXPECT_EQ(json.integer("/layers/0/kv_bytes"), 128 * 2 * 2 * 64 * 4);
  EXPECT_EQ(json.text("/layers/3/position"), "none (NoPE)");
  std::int64_t disk = 0;
  for (const auto& entry : std::filesystem::directory_iterator(nano())) {
    if (entry.path().extension() == ".safetensors") disk += static_cast<std::int64_t>(entry.file_size());
  }
  EXPECT_EQ(json.integer("/stored/file_bytes"), disk);
  EXPECT_GT(json.integer("/memory/kv_cache"), 3 * json.integer("/layers/1/kv_bytes"));
}

// The figures of the model card's shapes.
TEST(Inspect, Presets) {
  const std::vector<std::pair<std::string, std::int64_t>> presets = {{"gpt_oss_20b", 20914757184},
                                                                     {"gpt_oss_120b", 116829156672},
                                                                     {"gpt_oss_vision_20b", 21220891776},
                                                                     {"gpt_oss_vision_120b", 117135295104}};
  for (const auto& [name, parameters] : presets) {
    const Ran ran = run({"inspect", name, "--json"});
    ASSERT_EQ(ran.status, 0) << ran.err;
    EXPECT_EQ(Json(ran.out).integer("/parameters/total"), parameters) << name;
  }
  const Json json(run({"inspect", "gpt_oss_20b", "--json", "--kv-dtype", "bf16", "--context", "131072"}).out);
  EXPECT_NEAR(static_cast<double>(json.integer("/stored/tensor_bytes")), 13.761e9, 5e6);
  EXPECT_NEAR(static_cast<double>(json.integer("/parameters/active")), 3.608e9, 1e6);
  EXPECT_EQ(json.integer("/layers/1/kv_bytes"), std::int64_t{2048} * 131072);
}

TEST(Inspect, Refusals) {
  for (const std::vector<std::string>& rest :
       std::vector<std::vector<std::string>>{{"no_such_preset"}, {"gpt_oss_20b", "--context", "200000"}}) {
    std::vector<std::string> arguments = {"inspect"};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const Ran ran = run(arguments);
    EXPECT_EQ(ran.status, 1);
    EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
  }
}

TEST(Tokenize, RoundTripOffsetsAndCount) {
  const std::string text = "What is this? [a, b] caf\xc3\xa9 \xe7\x8a\xac";
  const Ran ids = run({"tokenize", text});
  ASSERT_EQ(ids.status, 0) << ids.err;
  EXPECT_EQ(run({"tokenize", "--decode", lines_of(ids.out).at(0)}).out, text + "\n");
  RunOptions piped;
  piped.input = text + "\n";
  EXPECT_EQ(run({"tokenize"}, piped).out, ids.out);
  piped.input = ids.out;
  EXPECT_EQ(run({"tokenize", "-d"}, piped).out, text + "\n");
  const TempFolder folder;
  write_file(folder / "text.txt", text);
  EXPECT_EQ(run({"tokenize", "--file", folder / "text.txt", "--tokenizer", nano() + "/tokenizer.json"}).out, ids.out);
  const Ran with_offsets = run({"tokenize", "--offsets", "--json", text});
  const Json json(with_offsets.out);
  const std::string count = lines_of(run({"tokenize", "--count", text}).out).at(0);
  EXPECT_EQ(json.integer("/offsets/0/0"), 0);
  EXPECT_EQ(json.integer(fmt::format("/offsets/{}/1", std::stoi(count) - 1)), static_cast<std::int64_t>(text.size()));
  EXPECT_EQ(lines_of(run({"tokenize", "--offsets", text}).out).size(), static_cast<std::size_t>(std::stoi(count)));
}

TEST(Tokenize, SpecialTextIsOrdinaryUnlessAsked) {
  const Ran ordinary = run({"tokenize", "--count", "<|start|>"}),
            special = run({"tokenize", "--count", "--special", "<|start|>"});
  EXPECT_GT(std::stoi(ordinary.out), 1);
  EXPECT_EQ(special.out, "1\n");
}

TEST(Tokenize, Refusals) {
  for (const std::vector<std::string>& rest : std::vector<std::vector<std::string>>{{"--decode", "1 two 3"},
                                                                                    {"--decode", "99999999"},
                                                                                    {"--decode", "-1"},
                                                                                    {"--file", "/nowhere.txt"},
                                                                                    {"x", "--tokenizer", "/nowhere"}}) {
    std::vector<std::string> arguments = {"tokenize"};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const Ran ran = run(arguments);
    EXPECT_TRUE(ran.status == 1 || (ran.status == 2 && rest[1] == "-1")) << rest[0] << rest[1] << ran.status;
    EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
  }
}

std::vector<std::string> tiny_synth(const std::string& folder) {
  return {"synth",
          folder,
          "--hidden-size",
          "64",
          "--intermediate-size",
          "32",
          "--layers",
          "3",
          "--experts",
          "4",
          "--experts-per-token",
          "2",
          "--heads",
          "4",
          "--kv-heads",
          "2",
          "--head-dim",
          "16",
          "--vocab-size",
          "4096",
          "--window",
          "16",
          "--vision",
          "--vision-size",
          "28",
          "--vision-dim",
          "32",
          "--vision-layers",
          "2",
          "--vision-heads",
          "2",
          "--nope",
          "2",
          "--tokenizer",
          nano(),
          "--seed",
          "5",
          "--quiet"};
}

TEST(Synth, TinyModelCanBeInspectedAndRun) {
  const TempFolder folder;
  const std::string model = folder / "tiny";
  const Ran made = run(tiny_synth(model));
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_EQ(made.out + made.err, "");
  EXPECT_TRUE(std::filesystem::exists(model + "/model.safetensors"));
  const Json info(run({"inspect", model, "--json"}).out);
  EXPECT_EQ(info.integer("/config/num_hidden_layers"), 3);
  EXPECT_EQ(info.text("/layers/1/position"), "none (NoPE)");
  const Ran answer =
      run({"generate", "--model", model, "-i", dog_picture(), "--json", "--ignore-eos", "--max-new-tokens", "30"});
  ASSERT_EQ(answer.status, 0) << answer.err;
  EXPECT_EQ(Json(answer.out).integer("/usage/completion_tokens"), 30);

  // The same seed gives the same bytes whatever the threads and shards; an existing folder is refused and left alone.
  auto again = tiny_synth(folder / "again");
  again.insert(again.end(), {"--threads", "1", "--max-shard-size", "200kB"});
  ASSERT_EQ(run(again).status, 0);
  EXPECT_TRUE(std::filesystem::exists(folder / "again/model.safetensors.index.json"));
  const Checkpoint a = Checkpoint::open(model), b = Checkpoint::open(folder / "again");
  ASSERT_EQ(a.names(), b.names());
  for (const std::string_view name : a.names()) {
    const Tensor x = *a.find(name), y = *b.find(name);
    ASSERT_EQ(x.bytes(), y.bytes());
    EXPECT_EQ(std::memcmp(x.data, y.data, x.bytes()), 0) << name;
  }
  const Ran refused = run(tiny_synth(model));
  EXPECT_EQ(refused.status, 1);
  EXPECT_TRUE(refused.failed_cleanly()) << refused.err;
  EXPECT_TRUE(std::filesystem::exists(model + "/model.safetensors"));
}

// The spread of the values is initializer_range for every storage, MXFP4 within the factor that a power of two allows.
TEST(Synth, ValuesHaveTheInitialSpread) {
  const TempFolder folder;
  auto floats = tiny_synth(folder / "floats");
  floats.insert(floats.end(), {"--no-mxfp4", "--dtype", "f32"});
  ASSERT_EQ(run(floats).status, 0);
  const Checkpoint model = Checkpoint::open(folder / "floats");
  const Tensor experts = *model.find("model.layers.0.mlp.experts.gate_up_proj");
  ASSERT_EQ(experts.dtype, DType::kF32);
  double sum = 0;
  for (std::int64_t i = 0; i < experts.elements(); ++i) sum += std::pow(experts.as<float>()[i], 2);
  EXPECT_NEAR(std::sqrt(sum / static_cast<double>(experts.elements())), 0.02, 0.001);
  ASSERT_EQ(run(tiny_synth(folder / "mxfp4")).status, 0);
  const Checkpoint quantised = Checkpoint::open(folder / "mxfp4");
  const Tensor blocks = *quantised.find("model.layers.0.mlp.experts.gate_up_proj_blocks");
  const Tensor scales = *quantised.find("model.layers.0.mlp.experts.gate_up_proj_scales");
  static constexpr double kValues[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  sum = 0;
  for (std::int64_t i = 0; i < blocks.elements(); ++i) {
    const int byte = blocks.as<std::uint8_t>()[i];
    const double scale = std::ldexp(1.0, scales.as<std::uint8_t>()[i / 16] - 127);
    sum += std::pow(kValues[byte & 7] * scale, 2) + std::pow(kValues[(byte >> 4) & 7] * scale, 2);
  }
  const double spread = std::sqrt(sum / static_cast<double>(2 * blocks.elements()));
  EXPECT_GT(spread, 0.02 / std::sqrt(2.1));
  EXPECT_LT(spread, 0.02 * std::sqrt(2.1));
}

TEST(Synth, Refusals) {
  const TempFolder folder;
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{folder / "a", "--preset", "huge"}, "huge"},
      {{folder / "a", "--heads", "6", "--kv-heads", "4"}, "num_attention_heads"},
      {{folder / "a", "--hidden-size", "70"}, "hidden_size"},
      {{folder / "a", "--layers", "0"}, "num_hidden_layers"},
      {{folder / "missing/a"}, ""},
      {{folder / "a", "--tokenizer", nano(), "--vocab-size", "100"}, "vocab-size"},
      {{folder / "a", "--preset", "gpt_oss_120b", "--layers", "1024", "--no-mxfp4"}, "free"},  // 7 TB
  };
  for (const auto& [rest, part] : cases) {
    std::vector<std::string> arguments = {"synth"};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const Ran ran = run(arguments);
    EXPECT_EQ(ran.status, 1) << ran.err;
    EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
    EXPECT_NE(ran.err.find(part), std::string::npos) << ran.err;
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Synth, InterruptLeavesNothing) {
  const TempFolder folder;
  RunOptions interrupt;
  interrupt.interrupt_after = 0.5;
  const Ran ran = run({"synth", folder / "mini", "--preset", "mini", "--no-mxfp4"}, interrupt);
  EXPECT_EQ(ran.status, 130) << ran.err;
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Bench, JsonRowsHaveAllKeys) {
  const Ran ran = run({"bench", "--model", nano(), "--prompt", "32", "--generate", "4", "--batch", "2", "--images", "1",
                       "--repeat", "1", "--json"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const auto lines = lines_of(ran.out);
  ASSERT_EQ(lines.size(), 4u);
  const std::vector<std::string> works = {"load", "prefill", "decode", "encode"};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Json row(lines[i]);
    EXPECT_EQ(row.text("/work"), works[i]);
    EXPECT_EQ(row.text("/model"), "nano");
    EXPECT_EQ(row.text("/rest"), "bf16");
    for (const char* key : {"/device", "/unit", "/commit", "/date", "/isa"}) EXPECT_FALSE(row.text(key).empty()) << key;
    for (const char* key : {"/value", "/limit", "/percent"}) EXPECT_GT(row.number(key), 0.0) << key << lines[i];
    for (const char* key : {"/batch", "/context", "/threads"}) EXPECT_GE(row.integer(key), 0) << key;
    EXPECT_TRUE(row.has("/gbps") && row.has("/gflops"));
  }
  EXPECT_EQ(Json(lines[2]).integer("/batch"), 2);
}

TEST(Bench, LimitsAndTable) {
  const Ran limits = run({"bench", "--device-limits", "--json"});
  ASSERT_EQ(limits.status, 0) << limits.err;
  EXPECT_GT(Json(limits.out).number("/read_gbps"), 0.0);
  EXPECT_GT(Json(limits.out).number("/fma_gflops"), 0.0);
  const Ran table = run({"bench", "--prompt", "16", "--generate", "2", "--images", "0", "--repeat", "1", "--isa",
                         "baseline", "--device", "cpu"});
  EXPECT_EQ(table.status, 0) << table.err;
  EXPECT_NE(table.out.find("decode"), std::string::npos);
  EXPECT_NE(table.out.find("percent"), std::string::npos);
}

TEST(Bench, RefusesWhatDoesNotFit) {
  for (const std::vector<std::string>& rest :
       std::vector<std::vector<std::string>>{{"--synthetic", "gpt_oss_120b", "--memory-limit", "1GiB"},
                                             {"--synthetic", "nothing"},
                                             {"--model", "/nowhere"},
                                             {"--device", "cuda:99"}}) {
    std::vector<std::string> arguments = {"bench"};
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const Ran ran = run(arguments);
    EXPECT_EQ(ran.status, 1) << ran.err;
    EXPECT_TRUE(ran.failed_cleanly()) << ran.err;
  }
}

TEST(Doctor, AllIsWellHere) {
  const Ran ran = run({"doctor", "--quick"});
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  EXPECT_NE(ran.out.find("This is a dog face"), std::string::npos) << ran.out;
  EXPECT_EQ(ran.out.find("FAIL"), std::string::npos) << ran.out;
  const Json json(run({"doctor", "--quick", "--json", "--threads", "1"}).out);
  bool ok = false;
  EXPECT_EQ(json["/ok"].get(ok), simdjson::SUCCESS);
  EXPECT_TRUE(ok);
}

}  // namespace
}  // namespace gov::test
