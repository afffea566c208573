// The reference templates are analytic: a complex step gives the directional derivative, which central differences
// confirm. Points lie away from kinks (clamps, ties).
#include <complex>

#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {
namespace {

using reference::Complex;
using Complexes = std::vector<Complex>;

// A weighted sum of the outputs, as one scalar to differentiate.
template <class T>
T weighted(const std::vector<T>& out) {
  T sum(0);
  for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * (0.3 + 0.1 * double(i % 7));
  return sum;
}

// f(vector<T>) -> T for T = double and Complex, at `at` in a random direction.
template <class F>
void check_direction(const char* what, const Doubles& at, F&& f) {
  Random random{77};
  Doubles direction;
  for (std::size_t i = 0; i < at.size(); ++i) direction.push_back(random.normal());
  constexpr double kStep = 1e-50, kDifference = 1e-6;
  Complexes moved;
  Doubles up, down;
  for (std::size_t i = 0; i < at.size(); ++i) {
    moved.emplace_back(at[i], kStep * direction[i]);
    up.push_back(at[i] + kDifference * direction[i]);
    down.push_back(at[i] - kDifference * direction[i]);
  }
  const Complex value = f(moved);
  const double exact = value.imag() / kStep, difference = (f(up) - f(down)) / (2 * kDifference);
  EXPECT_NEAR(value.real(), f(at), 1e-12 * (1 + std::fabs(value.real()))) << what;
  EXPECT_NE(exact, 0) << what;
  EXPECT_NEAR(exact, difference, 1e-7 * (1 + std::fabs(exact))) << what;
}

Doubles random_values(std::size_t n, double scale, std::uint64_t seed) {
  Random random{seed};
  Doubles v;
  for (std::size_t i = 0; i < n; ++i) v.push_back(scale * random.normal());
  return v;
}

template <class T>
std::vector<T> part(const std::vector<T>& all, std::size_t begin, std::size_t count) {
  return std::vector<T>(all.begin() + std::ptrdiff_t(begin), all.begin() + std::ptrdiff_t(begin + count));
}

TEST(ReferenceGradient, Norms) {
  check_direction("rms_norm", random_values(15, 1, 1),
                  [](const auto& v) { return weighted(reference::rms_norm(part(v, 0, 10), part(v, 10, 5), 1e-5)); });
  check_direction("layer_norm", random_values(20, 1, 2), [](const auto& v) {
    return weighted(reference::layer_norm(part(v, 0, 10), part(v, 10, 5), part(v, 15, 5), 1e-5));
  });
}

TEST(ReferenceGradient, LinearAndRope) {
  check_direction("linear", random_values(23, 1, 3), [](const auto& v) {
    return weighted(reference::linear(part(v, 0, 8), part(v, 8, 12), part(v, 20, 3), 4));
  });
  const reference::RopeTable table = reference::rope_table({3, 90}, {1, 0.1}, 1.3);
  check_direction("rope", random_values(16, 1, 4),
                  [&](const auto& v) { return weighted(reference::rope(v, table.cos, table.sin, 2, 4)); });
}

TEST(ReferenceGradient, Attention) {
  for (const std::size_t window : {0u, 3u}) {
    const reference::AttentionShape shape{4, 2, 4, 0.5, true, window};
    // 3 queries of 4 heads, 5 keys and values of 2 heads, 4 sinks.
    check_direction("attention", random_values(48 + 40 + 40 + 4, 1, 5), [&](const auto& v) {
      return weighted(reference::attention(part(v, 0, 48), part(v, 48, 40), part(v, 88, 40), part(v, 128, 4), shape));
    });
  }
}

TEST(ReferenceGradient, Experts) {
  check_direction("swiglu", {0.5, 1, -3, 2, 9, -1, 1, 9, -2, -9},
                  [](const auto& v) { return weighted(reference::swiglu(v, 1.702, 7)); });
  check_direction("router", random_values(6 + 15 + 5 + 5, 1, 6), [](const auto& v) {
    return weighted(
        reference::router(part(v, 0, 6), part(v, 6, 15), part(v, 21, 5), part(v, 26, 5), {0, 1}, 3, 2).weights);
  });
  check_direction("moe", random_values(6 + 4 + 48 + 8 + 24 + 6 + 6, 0.7, 7), [](const auto& v) {
    using T = typename std::decay_t<decltype(v)>::value_type;
    const reference::Experts<T> e{part(v, 10, 48), part(v, 58, 16), part(v, 66, 24), part(v, 90, 6), 2, 3, 4};
    return weighted(reference::moe(part(v, 0, 6), {0, 1, 1, 0}, part(v, 6, 4), e, 1.702, 7));
  });
}

TEST(ReferenceGradient, VisionAndLoss) {
  for (const auto kind : {reference::Gelu::kErf, reference::Gelu::kTanh, reference::Gelu::kQuick}) {
    check_direction("gelu", random_values(9, 2, 8), [&](const auto& v) { return weighted(reference::gelu(v, kind)); });
  }
  const reference::PatchShape shape{1, 2, 4, 5, 2, 3};
  check_direction("patch_embed", random_values(40 + 24 + 3, 1, 9), [&](const auto& v) {
    return weighted(reference::patch_embed(part(v, 0, 40), part(v, 40, 24), part(v, 64, 3), shape));
  });
  check_direction("cross_entropy", random_values(15, 2, 10), [](const auto& v) {
    return weighted(reference::cross_entropy(v, {1, -1, 4}));
  });
}

}  // namespace
}  // namespace gov::test
