// The training passes against PyTorch: gradients of every tensor and five AdamW steps of the case train-vision-f32. The
// gradients are kept as sketches (sketch.py).

#include <cmath>

#include "io/safetensors.h"
#include "tests/cli/run_program.h"
#include "tests/test_device.h"

namespace gov::test {
namespace {

constexpr int kSums = 64;

std::string case_file(const char* name) {
  return (std::filesystem::path(GOV_UNPACKED_DIR) / "tests/golden/data/train-vision-f32" / name).string();
}

std::uint64_t signs(std::uint64_t index) {  // splitmix64
  std::uint64_t x = (index + 1) * 0x9E3779B97F4A7C15ull;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ x >> 27) * 0x94D049BB133111EBull;
  return x ^ x >> 31;
}

// The norm of what a gradient differs from the one of this sketch.
double distance(const Tensor& gradient, const Tensor& sketch) {
  double sums[kSums] = {}, squares = 0;
  for (std::int64_t i = 0; i < gradient.elements(); ++i) {
    const double value = double(gradient.as<float>()[i]);
    const std::uint64_t row = signs(std::uint64_t(i));
    for (int j = 0; j < kSums; ++j) sums[j] += (row >> j & 1) != 0 ? value : -value;
  }
  for (int j = 0; j < kSums; ++j) {
    const double error = sums[j] - double(sketch.as<float>()[1 + j]);
    squares += error * error;
  }
  return std::sqrt(squares / kSums);
}

Tensor tensor(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsEntry* entry = file.find(name);
  if (entry == nullptr) throw std::runtime_error(name);
  return file.tensor(*entry);
}

std::string run_debug(const TempFolder& temp, const char* command, const std::vector<std::string>& more) {
  const std::string output = temp / (std::string(command) + ".safetensors");
  std::vector<std::string> arguments = {"debug",    command,
                                        "--model",  std::filesystem::path(case_file("")).string(),
                                        "--inputs", case_file("inputs.safetensors"),
                                        "--output", output};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Ran ran = run(arguments);
  EXPECT_EQ(ran.status, 0) << ran.err;
  return output;
}

void compare_gradients(const std::string& output) {
  const SafetensorsFile expected = SafetensorsFile::open(case_file("expected.safetensors"));
  const SafetensorsFile actual = SafetensorsFile::open(output);
  for (const char* name : {"loss", "aux_loss"})
    EXPECT_NEAR(tensor(actual, name).as<float>()[0] / tensor(expected, name).as<float>()[0], 1, 1e-5) << name;
  double all = 0;
  int count = 0;
  for (const SafetensorsEntry& entry : expected.entries()) {
    if (!entry.name.starts_with("sketch.")) continue;
    const double norm = double(expected.tensor(entry).as<float>()[0]);
    all += norm * norm;
    ++count;
  }
  EXPECT_EQ(count, 82);
  for (const SafetensorsEntry& entry : expected.entries()) {
    if (!entry.name.starts_with("sketch.")) continue;
    const Tensor sketch = expected.tensor(entry);
    const double error = distance(tensor(actual, "grad." + entry.name.substr(7)), sketch);
    // Rounding is all there is of the image encoder's key biases, whose gradient is zero.
    EXPECT_LE(error, std::max(1e-4 * double(sketch.as<float>()[0]), 1e-7 * std::sqrt(all))) << entry.name;
  }
}

void compare_steps(const std::string& output) {
  const SafetensorsFile expected = SafetensorsFile::open(case_file("expected.safetensors"));
  const SafetensorsFile actual = SafetensorsFile::open(output);
  const auto ratio = [&](const char* name, int i) {
    const Tensor want = tensor(expected, name), got = tensor(actual, name);
    EXPECT_EQ(got.shape, want.shape);
    return double(got.as<float>()[i]) / double(want.as<float>()[i]);
  };
  for (int step = 0; step < 5; ++step) {
    EXPECT_NEAR(ratio("train.losses", 2 * step), 1, 1e-3) << "step " << step;
    EXPECT_NEAR(ratio("train.losses", 2 * step + 1), 1, 5e-3) << "step " << step;
    // The reference run itself is 1e-3 away from one in float64.
    EXPECT_NEAR(ratio("train.grad_norms", step), 1, 2e-3) << "step " << step;
  }
}

TEST(GoldenTraining, Gradients) {
  const TempFolder temp;
  for (const char* isa : {"baseline", "auto"})
    compare_gradients(run_debug(temp, "gradients", {"--device", "cpu", "--isa", isa}));
}

TEST(GoldenTraining, GradientsOfEveryPolicyAreTheSame) {
  const TempFolder temp;
  const std::string kept = read_file(run_debug(temp, "gradients", {"--device", "cpu"}));
  for (const char* policy : {"moe", "block"})
    EXPECT_EQ(read_file(run_debug(temp, "gradients", {"--device", "cpu", "--recompute", policy})), kept) << policy;
}

TEST(GoldenTraining, Steps) {
  const TempFolder temp;
  compare_steps(run_debug(temp, "train-steps", {"--device", "cpu"}));
}

TEST(GoldenTraining, OnDevice) {
  GOV_NEEDS_TEST_DEVICE();
  const TempFolder temp;
  const std::vector<std::string> device = {"--device", test_device(), "--dtype", "f32"};
  compare_gradients(run_debug(temp, "gradients", device));
  compare_steps(run_debug(temp, "train-steps", device));
}

// The sketch notices a change of a part in a thousand.
TEST(GoldenTraining, SketchNoticesASmallError) {
  std::vector<float> a(500), sketch(1 + kSums);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = float(i % 17) - 8;
    for (std::size_t j = 0; j < kSums; ++j) sketch[1 + j] += (signs(i) >> j & 1) != 0 ? a[i] : -a[i];
  }
  const Tensor of_a = Tensor::of(sketch.data(), {1 + kSums});
  EXPECT_LT(distance(Tensor::of(a.data(), {500}), of_a), 1e-3);
  a[123] += 0.1f;
  EXPECT_NEAR(distance(Tensor::of(a.data(), {500}), of_a), 0.1, 1e-3);
}

}  // namespace
}  // namespace gov::test
