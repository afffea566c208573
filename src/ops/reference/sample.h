#pragma once
// Sampling as its definition says it, with full sorts in double precision.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace gov::reference {

// The logits after bias, penalties, forbidden tokens and the mask.
inline std::vector<double> adjusted_logits(std::span<const float> raw, const ops::SampleRow& row) {
  std::vector<double> logits(raw.begin(), raw.end());
  for (const auto& [token, bias] : row.bias) logits[std::size_t(token)] += double(bias);
  for (const auto& [token, in_output] : row.counts) {
    double& l = logits[std::size_t(token)];
    l = l > 0 ? l / double(row.params.repetition_penalty) : l * double(row.params.repetition_penalty);
    if (in_output > 0) l -= double(row.params.presence_penalty) + double(row.params.frequency_penalty) * in_output;
  }
  for (const auto token : row.forbidden) logits[std::size_t(token)] = -std::numeric_limits<double>::infinity();
  for (std::size_t token = 0; token < logits.size() && !row.allowed.empty(); ++token) {
    if ((row.allowed[token / 32] >> token % 32 & 1) == 0) logits[token] = -std::numeric_limits<double>::infinity();
  }
  return logits;
}

inline void normalise(std::vector<double>& p) {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
}

inline std::vector<double> softmax(const std::vector<double>& logits, double temperature = 1) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p;
  for (const double l : logits) p.push_back(std::exp((l - largest) / temperature));
  normalise(p);
  return p;
}

// Keeps the shortest prefix of `order` whose probability reaches `share`; the rest becomes 0.
inline void keep_share(std::vector<double>& p, const std::vector<std::size_t>& order, double share) {
  double sum = 0;
  bool full = false;
  for (const std::size_t i : order) {
    if (full) p[i] = 0;
    sum += p[i];
    full = full || sum >= share;
  }
  normalise(p);
}

// The probability of every token after all filters.
inline std::vector<double> sampling_distribution(std::span<const float> raw, const ops::SampleRow& row) {
  const std::vector<double> logits = adjusted_logits(raw, row);
  const ops::SamplingParams& params = row.params;
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  if (params.temperature == 0) {
    std::vector<double> p(logits.size(), 0.0);
    p[order[0]] = 1;
    return p;
  }
  std::vector<double> p = softmax(logits, double(params.temperature));
  if (params.top_k > 0) {
    for (std::size_t i = std::size_t(params.top_k); i < order.size(); ++i) p[order[i]] = 0;
    normalise(p);
  }
  if (params.typical_p < 1) {
    double entropy = 0;
    for (const double x : p) entropy -= x > 0 ? x * std::log(x) : 0;
    std::vector<std::size_t> typical;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] > 0) typical.push_back(i);
    }
    const auto distance = [&](std::size_t i) { return std::fabs(-std::log(p[i]) - entropy); };
    std::stable_sort(typical.begin(), typical.end(), [&](auto a, auto b) { return distance(a) < distance(b); });
    keep_share(p, typical, double(params.typical_p));
  }
  if (params.top_p < 1) keep_share(p, order, double(params.top_p));
  if (params.min_p > 0) {
    const double least = double(params.min_p) * *std::max_element(p.begin(), p.end());
    for (double& x : p) x = x < least ? 0 : x;
    normalise(p);
  }
  return p;
}

}  // namespace gov::reference
