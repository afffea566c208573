// Draws one token per row. Filters work on a list of candidates and are exact: they keep what a full sort would keep,
// but sort only as far down as the kept set reaches.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/philox.h"
#include "ops/cpu_support.h"
#include "ops/ops_list.h"

namespace gov::ops::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();  // the logit of a token that must not be drawn

struct Candidate {
  float logit;
  float weight;  // exp((logit - largest) / temperature): the probability up to a common factor
  std::int32_t token;
};

// Likely tokens first, ties to the lower id.
bool more_likely(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// A row's candidates while filters cut them down: [first, first + count).
struct Candidates {
  Candidate* first;
  std::int64_t count;

  double total() const {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(first[i].weight);
    return sum;
  }
  // Keeps the shortest prefix in the order of `before` whose weight reaches `share` of the total; at least one
  // candidate.
  template <class Before>
  void keep_share(double share, Before before) {
    const double wanted = share * total();
    double sum = 0;
    std::int64_t sorted = 0;
    for (std::int64_t step = 256; sorted < count; step *= 8) {
      const std::int64_t end = std::min(count, sorted + step);
      if (end < count) std::nth_element(first + sorted, first + end, first + count, before);
      std::sort(first + sorted, first + end, before);
      for (; sorted < end; ++sorted) {
        sum += static_cast<double>(first[sorted].weight);
        if (sum >= wanted) {
          count = sorted + 1;
          return;
        }
      }
    }
  }
};

void set_never(float* logits, std::int64_t vocabulary, std::int32_t token) {
  if (token >= 0 && token < vocabulary) logits[token] = kNever;
}

void keep_allowed(std::span<const std::uint32_t> allowed, float* logits, std::int64_t vocabulary) {
  for (std::int64_t begin = 0; begin < vocabulary; begin += 32) {
    const std::uint32_t word = allowed[static_cast<std::size_t>(begin / 32)];
    if (word == ~std::uint32_t{0}) continue;
    const std::int64_t end = std::min(vocabulary, begin + 32);
    for (std::int64_t i = begin; i < end; ++i) {
      if ((word >> (i - begin) & 1) == 0) logits[i] = kNever;
    }
  }
}

// Logit bias, penalties, forbidden tokens and the mask, in this order. Entries outside the vocabulary have no effect.
void adjust_logits(const SampleRow& row, float* logits, std::int64_t vocabulary) {
  const SamplingParams& p = row.params;
  for (const LogitBias& entry : row.bias) {
    if (entry.token >= 0 && entry.token < vocabulary) logits[entry.token] += entry.bias;
  }
  for (const TokenCount& seen : row.counts) {
    if (seen.token < 0 || seen.token >= vocabulary) continue;
    float& logit = logits[seen.token];
    logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
    if (seen.in_output > 0) logit -= p.presence_penalty + p.frequency_penalty * static_cast<float>(seen.in_output);
  }
  for (const std::int32_t token : row.forbidden) set_never(logits, vocabulary, token);
  if (!row.allowed.empty()) keep_allowed(row.allowed, logits, vocabulary);
}

// The largest finite logit, ties to the lowest id; -1 if there is none. Logits that are not finite become kNever.
std::int64_t find_largest(float* logits, std::int64_t vocabulary) {
  std::int64_t best = -1;
  float largest = kNever;
  for (std::int64_t i = 0; i < vocabulary; ++i) {
    if (logits[i] > largest && logits[i] <= std::numeric_limits<float>::max()) {
      largest = logits[i];
      best = i;
    } else if (!(std::fabs(logits[i]) <= std::numeric_limits<float>::max())) {
      logits[i] = kNever;
    }
  }
  return best;
}

// The n most likely tokens with their log-probabilities.
void fill_top_logprobs(const float* logits, std::int64_t vocabulary, int n, double log_sum, SampleResult& result) {
  std::int32_t* top = result.top_tokens;
  int count = 0;
  for (std::int64_t i = 0; i < vocabulary && n > 0; ++i) {
    if (logits[i] == kNever || (count == n && logits[i] <= logits[top[count - 1]])) continue;
    int place = count < n ? count++ : n - 1;  // insertion from below; an equal logit with a lower id stays above
    for (; place > 0 && logits[i] > logits[top[place - 1]]; --place) top[place] = top[place - 1];
    top[place] = static_cast<std::int32_t>(i);
  }
  result.top_count = count;
  for (int i = 0; i < count; ++i) {
    result.top_logprobs[i] = static_cast<float>(static_cast<double>(logits[top[i]]) - log_sum);
  }
}

// Locally typical: candidates whose surprise -log p is nearest the entropy, until they hold typical_p of the
// probability.
void keep_typical(Candidates& c, float typical_p, float largest, float temperature) {
  const double log_total = std::log(c.total());
  // -log p = log_total - (logit - largest) / temperature; entropy is its mean.
  const auto surprise = [&](const Candidate& x) {
    return log_total - (static_cast<double>(x.logit) - static_cast<double>(largest)) / static_cast<double>(temperature);
  };
  double entropy = 0;
  for (std::int64_t i = 0; i < c.count; ++i) {
    if (c.first[i].weight > 0) entropy += static_cast<double>(c.first[i].weight) * surprise(c.first[i]);
  }
  entropy /= std::exp(log_total);
  c.keep_share(static_cast<double>(typical_p), [&](const Candidate& a, const Candidate& b) {
    const double da = std::fabs(surprise(a) - entropy), db = std::fabs(surprise(b) - entropy);
    return da < db || (da == db && a.token < b.token);
  });
}

void apply_filters(const SamplingParams& p, std::int64_t vocabulary, float largest, Candidates& c) {
  if (p.top_k > 0 && p.top_k < c.count) {
    std::nth_element(c.first, c.first + p.top_k, c.first + c.count, more_likely);
    c.count = p.top_k;
  }
  if (p.typical_p < 1) keep_typical(c, p.typical_p, largest, p.temperature);
  if (p.top_p < 1) c.keep_share(static_cast<double>(p.top_p), more_likely);
  if (p.min_p > 0) {
    float heaviest = 0;
    for (std::int64_t i = 0; i < c.count; ++i) heaviest = std::max(heaviest, c.first[i].weight);
    const float least = p.min_p * heaviest;
    c.count =
        std::remove_if(c.first, c.first + c.count, [&](const Candidate& x) { return x.weight < least; }) - c.first;
  }
  // Draws go through the tokens in the order of their ids, whatever the filters did to the list.
  if (c.count < vocabulary)
    std::sort(c.first, c.first + c.count, [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
}

// The index whose share of the cumulative weight holds u in [0, 1).
template <class Weight>
std::int64_t draw_index(std::int64_t count, double total, double u, Weight&& weight) {
  const double target = u * total;
  double sum = 0;
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float w = weight(i);
    if (!(w > 0)) continue;
    sum += static_cast<double>(w);
    last = i;
    if (sum > target) return i;
  }
  return last;  // rounding left the sum a little short of the total
}

struct RowScratch {
  float* weights;         // [V]
  Candidate* candidates;  // [V]
};

std::int64_t draw_token(const Kernels& table, const SampleRow& row, const float* logits, std::int64_t vocabulary,
                        float largest, RowScratch scratch) {
  const SamplingParams& p = row.params;
  // Below the smallest normal number 1 / temperature is infinite, and 0 times that is not a number.
  const float inverse = 1.f / std::max(p.temperature, std::numeric_limits<float>::min());
  const double total = table.exp_sum(logits, vocabulary, largest, inverse, scratch.weights);
  const double u = Philox{p.seed}.uniform_double(row.draw, row.stream);
  if (p.top_k == 0 && p.typical_p >= 1 && p.top_p >= 1 && p.min_p <= 0) {
    return draw_index(vocabulary, total, u, [&](std::int64_t i) { return scratch.weights[i]; });
  }
  Candidates c{scratch.candidates, 0};
  for (std::int64_t i = 0; i < vocabulary; ++i) {
    if (logits[i] != kNever) c.first[c.count++] = {logits[i], scratch.weights[i], static_cast<std::int32_t>(i)};
  }
  apply_filters(p, vocabulary, largest, c);
  return c.first[draw_index(c.count, c.total(), u, [&](std::int64_t i) { return c.first[i].weight; })].token;
}

void sample_row(const Kernels& table, const SampleRow& row, float* logits, std::int64_t vocabulary, RowScratch scratch,
                SampleResult& result) {
  result = SampleResult{};
  adjust_logits(row, logits, vocabulary);
  const std::int64_t best = find_largest(logits, vocabulary);
  if (best < 0) {
    result.token = -1;
    return;
  }
  const float largest = logits[best];
  const std::int64_t token = row.given >= 0 ? row.given
                             : row.params.temperature == 0
                                 ? best
                                 : draw_token(table, row, logits, vocabulary, largest, scratch);
  result.token = static_cast<std::int32_t>(token);
  if (row.top_logprobs >= 0) {
    const double log_sum =
        std::log(table.exp_sum(logits, vocabulary, largest, 1.f, nullptr)) + static_cast<double>(largest);
    result.logprob = static_cast<float>(static_cast<double>(logits[token]) - log_sum);
    fill_top_logprobs(logits, vocabulary, row.top_logprobs, log_sum, result);
  }
}

}  // namespace

void sample(Context& ctx, const Tensor& logits, std::span<const SampleRow> rows, std::span<SampleResult> results) {
  const Kernels& table = kernels(ctx.isa);
  const std::int64_t vocabulary = logits.shape[1], count = static_cast<std::int64_t>(rows.size()),
                     threads = ctx.pool->size();
  const bool greedy = std::all_of(rows.begin(), rows.end(),
                                  [](const SampleRow& r) { return r.params.temperature == 0 || r.given >= 0; });
  float* weights = greedy ? nullptr : ctx.workspace.take<float>(threads * vocabulary);
  Candidate* candidates = greedy ? nullptr : ctx.workspace.take<Candidate>(threads * vocabulary);
  ctx.pool->parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    const std::int64_t offset = greedy ? 0 : thread * vocabulary;
    for (std::int64_t r = begin; r < end; ++r) {
      const std::size_t i = static_cast<std::size_t>(r);
      const RowScratch scratch{weights + offset, candidates + offset};
      sample_row(table, rows[i], logits.as<float>() + r * vocabulary, vocabulary, scratch, results[i]);
    }
  });
}

}  // namespace gov::ops::cpu
