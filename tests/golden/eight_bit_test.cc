// What attention and head weights of 8 bits cost on the golden models, which are too narrow for the fused step that has
// them: the weights of a copy are put to the values that int8 with a scale for each row can hold (ops/fused.h,
// quantise_rows), and to those of bf16 beside it; then the ordinary forward pass.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>

#include "base/half.h"
#include "io/safetensors.h"
#include "tests/cli/run_program.h"

namespace gov::test {
namespace {

void to_int8(std::span<float> row) {
  float largest = 0;
  for (const float x : row) largest = std::max(largest, std::fabs(x));
  const float scale = largest / 127.f;
  for (float& x : row) x = scale > 0 ? std::nearbyint(x / scale) * scale : 0.f;
}
void to_bf16_values(std::span<float> row) {
  for (float& x : row) x = to_f32(to_bf16(x));
}

bool is_rounded(std::string_view name) {
  return name == "lm_head.weight" || name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") ||
         name.ends_with("v_proj.weight") || name.ends_with("o_proj.weight");
}

// Rounds the matrices of the decoder in place. Returns how many.
int round_weights(const std::filesystem::path& file, void (*round)(std::span<float> row)) {
  const SafetensorsFile source = SafetensorsFile::open(file);
  std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
  int count = 0;
  for (const SafetensorsEntry& entry : source.entries()) {
    if (!is_rounded(entry.name) || entry.name.find("vision") != std::string::npos) continue;
    const Tensor weight = source.tensor(entry);
    std::vector<float> values(weight.as<float>(), weight.as<float>() + weight.elements());
    const auto columns = static_cast<std::size_t>(weight.shape.back());
    for (std::size_t at = 0; at < values.size(); at += columns) round(std::span(values).subspan(at, columns));
    out.seekp(static_cast<std::streamoff>(entry.begin));
    out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(entry.bytes()));
    ++count;
  }
  return count;
}

// Logits of the case with its decoder's matrices rounded.
SafetensorsFile rounded_logits(const std::filesystem::path& folder, const TempFolder& temp, const char* name,
                               void (*round)(std::span<float> row)) {
  const std::filesystem::path copy = temp / name;
  std::filesystem::copy(folder, copy, std::filesystem::copy_options::recursive);
  EXPECT_GE(round_weights(copy / "model.safetensors", round), 9);  // two layers and the head
  const std::string output = temp / (std::string(name) + ".safetensors");
  const Ran ran = run({"debug", "forward", "--model", copy.string(), "--inputs",
                       (folder / "inputs.safetensors").string(), "--output", output, "--device", "cpu"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  return SafetensorsFile::open(output);
}

std::vector<double> log_softmax(const float* logits, std::int64_t count) {
  const double largest = *std::max_element(logits, logits + count);
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += std::exp(logits[i] - largest);
  std::vector<double> logs;
  for (std::int64_t i = 0; i < count; ++i) logs.push_back(logits[i] - largest - std::log(sum));
  return logs;
}

struct Cost {
  double divergence = 0;  // mean Kullback-Leibler divergence from the exact weights' distribution, nats a token
  double agreement = 0;   // share of rows with the same likeliest token
};

Cost cost(const Tensor& exact, const Tensor& other) {
  const std::int64_t columns = exact.shape.back(), rows = exact.elements() / columns;
  Cost c;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto p = log_softmax(exact.as<float>() + r * columns, columns);
    const auto q = log_softmax(other.as<float>() + r * columns, columns);
    for (std::size_t i = 0; i < p.size(); ++i)
      c.divergence += std::exp(p[i]) * (p[i] - q[i]) / static_cast<double>(rows);
    const auto best = [](const std::vector<double>& v) { return std::max_element(v.begin(), v.end()) - v.begin(); };
    c.agreement += (best(p) == best(q)) / static_cast<double>(rows);
  }
  return c;
}

TEST(EightBit, QualityOnGoldenModels) {
  for (const char* name : {"text-f32", "nope-f32", "vision-f32", "long-window128"}) {
    SCOPED_TRACE(name);
    const std::filesystem::path folder = std::filesystem::path(GOV_UNPACKED_DIR) / "tests/golden/data" / name;
    TempFolder temp;
    const SafetensorsFile expected = SafetensorsFile::open(folder / "expected.safetensors");
    const SafetensorsFile int8 = rounded_logits(folder, temp, "int8", to_int8);
    const SafetensorsFile bf16 = rounded_logits(folder, temp, "bf16", to_bf16_values);
    const auto logits = [](const SafetensorsFile& file) { return file.tensor(*file.find("logits")); };
    const Cost eight = cost(logits(expected), logits(int8)), half = cost(logits(expected), logits(bf16));
    std::printf("%-16s int8: divergence %.2e nats a token, same likeliest token %.1f %%; bf16: %.2e, %.1f %%\n", name,
                eight.divergence, 100 * eight.agreement, half.divergence, 100 * half.agreement);
    EXPECT_LT(eight.divergence, 5e-3);
    EXPECT_GT(eight.agreement, 0.92);
    EXPECT_LT(half.divergence, eight.divergence);
  }
}

}  // namespace
}  // namespace gov::test
