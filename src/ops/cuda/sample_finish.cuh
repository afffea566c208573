#pragma once
// The last kernel of sample(): filters, draw and log-probabilities of a row by one block. See sample.cuh.

#include "ops/cuda/sample.cuh"

namespace gov::ops::cuda::sampling {

// What a block searches: a list of candidates, or a piece of the row itself.
struct Elements {
  const Part* list;
  const float* row;
  std::int64_t begin, count;
  __device__ Part operator[](std::int64_t i) const {
    if (list) return list[i];
    return {row[begin + i], static_cast<std::int32_t>(begin + i)};
  }
};

// What is left of them, and the orders in which filters look at them.
struct Filter {
  Scale scale;
  bool packed;                                   // packed_ranks
  int first_bucket = 0, last_bucket = kBuckets;  // of `spread`
  Rank least_rank = 0;                           // by logit
  bool typical = false;
  double inverse = 0, mean = 0;  // 1 / temperature; mean of the distances to the largest
  Rank least_typical = 0;
  float least_weight = 0;

  __device__ Rank compose(float distance, std::uint32_t order, std::int32_t id) const {
    if (!packed) return static_cast<Rank>(order) << 32 | ~static_cast<std::uint32_t>(id);
    return static_cast<Rank>(kBuckets - 1 - spread(distance)) << 53 | static_cast<Rank>(order) << kIdBits |
           ((1u << kIdBits) - 1 - static_cast<std::uint32_t>(id));
  }
  __device__ Rank rank(Part e) const { return compose(-scale.exponent(e.value), order_of(e.value), e.index); }
  // How much likelier or less likely than the mean of their logarithms: -log p - entropy.
  __device__ Rank typical_rank(Part e) const {
    const double far = (static_cast<double>(scale.largest) - static_cast<double>(e.value)) * inverse;
    const float distance = static_cast<float>(fabs(far - mean));
    return compose(distance, ~__float_as_uint(distance), e.index);
  }
  __device__ bool keeps(Part e) const {
    if (!finite(e.value)) return false;
    if (last_bucket < kBuckets) {
      const int bucket = spread(-scale.exponent(e.value));
      if (bucket < first_bucket || bucket > last_bucket) return false;
    }
    if (least_rank != 0 && rank(e) < least_rank) return false;
    if (typical && typical_rank(e) < least_typical) return false;
    return least_weight <= 0 || scale.weight(e.value) >= least_weight;
  }
  __device__ Mass mass(Part e) const { return scale.mass(e.value); }
};

struct FinishMemory {
  Histogram<kFinishThreads> histogram;
  Mass sums[kFinishThreads / kWarp];
  float floats[kFinishThreads / kWarp];
  Mass before;
  int bucket;
  unsigned tops;
  Part top[kMostTop];
  Rank top_rank[kMostTop];
};

// The rank of the element at which the mass, added up from the highest rank down, reaches `wanted`; 0 if it never does.
// Unless kExact, any number between this rank and the next lower one.
template <bool kExact, class RankOf, class MassOf>
__device__ Rank find_rank(const Elements& elements, const Filter& filter, Mass wanted, FinishMemory& memory,
                          RankOf&& rank_of, MassOf&& mass_of) {
  Rank low = ~Rank{0}, high = 0;
  for (std::int64_t i = threadIdx.x; i < elements.count; i += kFinishThreads) {
    const Part e = elements[i];
    if (!filter.keeps(e)) continue;
    const Rank r = rank_of(e);
    low = min(low, r);
    high = max(high, r);
  }
  low = block_fold(low, memory.sums, [](Rank a, Rank b) { return min(a, b); });
  high = block_fold(high, memory.sums, [](Rank a, Rank b) { return max(a, b); });
  if (low > high) return 0;
  Mass above = 0;
  for (;;) {
    const Rank span = high - low;
    const int shift = span < kFinishThreads ? 0 : 64 - __clzll(static_cast<long long>(span)) - 10;
    memory.histogram.clear();
    if (threadIdx.x == 0) memory.bucket = -1;
    __syncthreads();
    for (std::int64_t base = 0; base < elements.count; base += kFinishThreads) {
      const std::int64_t i = base + threadIdx.x;
      Part e{0, 0};
      bool valid = i < elements.count;
      if (valid) {
        e = elements[i];
        valid = filter.keeps(e);
      }
      const Rank r = valid ? rank_of(e) : 0;
      valid = valid && r >= low && r <= high;
      memory.histogram.add_warp(valid, valid ? static_cast<int>((high - r) >> shift) : 0, valid ? mass_of(e) : 0);
    }
    __syncthreads();
    // Sum up to this thread's bucket: within the warp, then over the warps before.
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const Mass own = memory.histogram.mass(threadIdx.x);
    Mass sum = own;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const Mass other = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= offset) sum += other;
    }
    if (lane == kWarp - 1) memory.sums[warp] = sum;
    __syncthreads();
    for (int i = 0; i < warp; ++i) sum += memory.sums[i];
    if (above + sum >= wanted && above + sum - own < wanted) {
      memory.bucket = threadIdx.x;
      memory.before = sum - own;
    }
    __syncthreads();
    const int bucket = memory.bucket;
    if (bucket < 0) return 0;
    above += memory.before;
    const unsigned count = memory.histogram.count[bucket];
    high -= static_cast<Rank>(bucket) << shift;
    const Rank width = (Rank{1} << shift) - 1;
    low = high - low > width ? high - width : low;
    __syncthreads();
    if (shift == 0) return high;
    if (!kExact && count == 1) return low;
  }
}

__device__ inline Mass total_mass(const Elements& elements, const Filter& filter, FinishMemory& memory) {
  Mass sum = 0;
  for (std::int64_t i = threadIdx.x; i < elements.count; i += kFinishThreads) {
    const Part e = elements[i];
    if (filter.keeps(e)) sum += filter.mass(e);
  }
  return block_fold(sum, memory.sums, Add{});
}

// Locally typical: what is nearest the mean, until it holds typical_p of the probability.
__device__ inline void keep_typical(const RowParameters& p, const Elements& elements, Filter& filter,
                                    FinishMemory& memory) {
  const Mass total = total_mass(elements, filter, memory);
  filter.inverse = 1 / p.temperature;
  // The weighted distances are at most 1/e: the same fixed point holds their sum.
  Mass sum = 0;
  for (std::int64_t i = threadIdx.x; i < elements.count; i += kFinishThreads) {
    const Part e = elements[i];
    if (!filter.keeps(e)) continue;
    const float exponent = filter.scale.exponent(e.value), weight = expf(exponent);
    if (weight > 0) sum += __double2ull_rn(static_cast<double>(weight) * -exponent * filter.scale.unit);
  }
  sum = block_fold(sum, memory.sums, Add{});
  filter.mean = static_cast<double>(sum) / static_cast<double>(total);
  const Rank least = find_rank<false>(
      elements, filter, share_of(p.typical_p, total), memory, [&](Part e) { return filter.typical_rank(e); },
      [&](Part e) { return filter.mass(e); });
  filter.least_typical = least;
  filter.typical = true;
}

__device__ inline void apply_filters(const RowParameters& p, const RowState& state, const Elements& elements,
                                     Filter& filter, FinishMemory& memory) {
  const auto rank = [&](Part e) { return filter.rank(e); };
  const auto mass = [&](Part e) { return filter.mass(e); };
  if (p.top_k > 0) {
    filter.least_rank =
        find_rank<false>(elements, filter, static_cast<Mass>(p.top_k), memory, rank, [](Part) { return Mass{1}; });
  }
  if (p.typical_p < 1) keep_typical(p, elements, filter, memory);
  if (p.top_p < 1) {
    // Without filters before it the total is known, and a list need not hold all of it.
    const bool first = p.top_k == 0 && p.typical_p >= 1;
    const Mass total = first ? state.total : total_mass(elements, filter, memory);
    const Rank least = find_rank<false>(elements, filter, share_of(p.top_p, total), memory, rank, mass);
    filter.least_rank = max(filter.least_rank, least);
  }
  if (p.min_p > 0) {
    float heaviest = 0;
    for (std::int64_t i = threadIdx.x; i < elements.count; i += kFinishThreads) {
      const Part e = elements[i];
      if (filter.keeps(e)) heaviest = fmaxf(heaviest, filter.scale.weight(e.value));
    }
    heaviest = block_fold(heaviest, memory.floats, [](float a, float b) { return fmaxf(a, b); });
    filter.least_weight = p.min_p * heaviest;
  }
}

// One token of what is left, in the order of the ids. -1 if nothing has a mass.
__device__ inline std::int32_t draw(const Elements& elements, const Filter& filter, Mass wanted, FinishMemory& memory) {
  constexpr Rank kTop = Rank{1} << 32;
  const Rank found = find_rank<true>(
      elements, filter, wanted, memory, [&](Part e) { return kTop - static_cast<Rank>(e.index); },
      [&](Part e) { return filter.mass(e); });
  return found == 0 ? -1 : static_cast<std::int32_t>(kTop - found);
}

// The filters where the list holds only the buckets in which one ends: for draw_kept, where in the order by logits the
// kept tokens end. top_k, top_p and min_p alone; the likeliest token is always kept, so that the heaviest weight is 1.
__device__ inline void find_borders(const RowParameters& p, RowState& state, const Elements& elements, Filter filter,
                                    FinishMemory& memory) {
  const auto rank = [&](Part e) { return filter.rank(e); };
  const auto mass = [&](Part e) { return filter.mass(e); };
  Mass total = state.total;
  if (p.top_k > 0) {
    filter.first_bucket = filter.last_bucket = state.k_bucket;
    filter.least_rank = find_rank<true>(elements, filter, static_cast<Mass>(p.top_k) - state.count_before_k, memory,
                                        rank, [](Part) { return Mass{1}; });
    total = state.mass_before_k + total_mass(elements, filter, memory);
  }
  if (p.top_p < 1) {
    filter.first_bucket = state.p_first;
    filter.last_bucket = state.p_last;
    const Rank least =
        find_rank<true>(elements, filter, share_of(p.top_p, total) - state.mass_before_p, memory, rank, mass);
    filter.least_rank = max(filter.least_rank, least);
  }
  if (threadIdx.x != 0) return;
  const Rank last = filter.least_rank;
  state.last_order = static_cast<std::uint32_t>(last >> kIdBits);
  state.last_id =
      static_cast<std::int32_t>((1u << kIdBits) - 1 - (static_cast<std::uint32_t>(last) & ((1u << kIdBits) - 1)));
  state.least_weight = p.min_p;
}

// The likeliest tokens, in order.
__device__ inline void write_top(const Call& c, std::int64_t row, const RowParameters& p, const RowState& state,
                                 const Elements& elements, const Filter& all, FinishMemory& memory) {
  SampleResult& result = c.results[row];
  const Rank least = find_rank<false>(
      elements, all, static_cast<Mass>(p.top_logprobs), memory, [&](Part e) { return all.rank(e); },
      [](Part) { return Mass{1}; });
  if (threadIdx.x == 0) memory.tops = 0;
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < elements.count; i += kFinishThreads) {
    const Part e = elements[i];
    if (!all.keeps(e) || all.rank(e) < least) continue;
    const unsigned at = atomicAdd(&memory.tops, 1u);
    if (at >= kMostTop) continue;
    memory.top[at] = e;
    memory.top_rank[at] = all.rank(e);
  }
  __syncthreads();
  const int count = min(static_cast<int>(memory.tops), kMostTop);
  if (static_cast<int>(threadIdx.x) < count) {  // its place is the number of those above it
    int place = 0;
    for (int i = 0; i < count; ++i) place += memory.top_rank[i] > memory.top_rank[threadIdx.x] ? 1 : 0;
    result.top_tokens[place] = memory.top[threadIdx.x].index;
    result.top_logprobs[place] = log_probability(c, state, memory.top[threadIdx.x].value);
  }
  if (threadIdx.x == 0) result.top_count = count;
}

__global__ void __launch_bounds__(kFinishThreads) finish(Call c) {
  __shared__ FinishMemory memory;
  grid_dependency_wait();
  grid_dependency_launch();
  const std::int64_t row = blockIdx.x;
  const RowParameters& p = c.rows[row];
  RowState& state = c.states[row];
  if (state.best < 0 || (!p.filtered && p.top_logprobs < 0)) return;
  const bool listed = state.source != Source::kRow;
  const Elements elements{listed ? c.lists + row * c.listed : nullptr, c.logits + row * c.vocabulary, 0,
                          listed ? static_cast<std::int64_t>(state.listed) : c.vocabulary};
  Filter filter{scale_of(c, state, p.inverse), packed_ranks(c)};
  if (c.results && p.top_logprobs > 0) {
    Filter all = filter;
    // A list of borders holds more than the likeliest.
    if (state.source == Source::kBorders) all.last_bucket = state.bound;
    write_top(c, row, p, state, elements, all, memory);
  }
  if (state.source == Source::kBorders) {
    find_borders(p, state, elements, filter, memory);
    return;
  }
  std::int32_t token = state.best;
  if (p.filtered) {
    apply_filters(p, state, elements, filter, memory);
    const Mass total = total_mass(elements, filter, memory);
    if (total > 0) token = draw(elements, filter, target_of(p.u, total), memory);
    if (token < 0) token = state.best;
    if (threadIdx.x == 0) write_token(c, row, token);
  } else if (p.given >= 0) {
    token = p.given;
    if (threadIdx.x == 0) write_token(c, row, token);
  } else if (c.results) {
    token = c.results[row].token;  // greedy, or drawn by `weigh`
  }
  if (threadIdx.x == 0 && c.results && p.top_logprobs >= 0) {
    const float logit = c.logits[row * c.vocabulary + token];
    c.results[row].logprob = log_probability(c, state, finite(logit) ? logit : -INFINITY);
  }
}

}  // namespace gov::ops::cuda::sampling
