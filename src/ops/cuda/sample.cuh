#pragma once
// The kernels of sample(): an exact selection without sorting.
//
// Probability is a 64-bit integer, the weight e^((logit - largest) / temperature) times 2^mass_shift: sums do not depend
// on their order, so that atomic additions give the same bits every time. A filter keeps the elements before some place
// of an order (by logit, by typicality, both with ties to the lower id). An element's place is one 64-bit number, `rank`,
// different for every element, and a histogram of masses over ranges of ranks, refined a few times, finds the last that
// is kept. The draw is the same search in the order of the ids.
//
// find_largest    P blocks a row: the largest finite logit. All that greedy rows need.
// weigh           P blocks a row: mass of each block's part; a histogram over logits, which bounds what filters can keep.
// collect         P blocks a row: what is inside that bound becomes a list of candidates, if it is short enough.
// finish          one block a row: filters and draw on the list, or on the whole row where it is too long.
//
// The first three read each logit once, the limit being memory; `finish` is bound by the latency of its passes.

#include <cmath>

#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda::sampling {

using Mass = unsigned long long;
using Rank = unsigned long long;

constexpr int kBuckets = 2048;          // of `weigh`
constexpr int kThreads = 256;           // of find_largest, weigh, collect
constexpr int kFinishThreads = 1024;    // one bucket of a refinement each
constexpr std::int64_t kListed = 16384;  // candidates that a list holds
constexpr int kMostTop = 20;

struct RowParameters {
  double u;              // the random number, in [0, 1)
  double temperature;    // at least the smallest normal float
  double top_p, typical_p;
  float inverse;         // 1 / temperature, 1 for greedy rows
  float min_p;
  float repetition, presence, frequency;
  int top_k;             // 0 = off
  int top_logprobs;      // -1 = no logprobs
  bool greedy, filtered;  // filtered: any of top_k, typical, top_p, min_p
  // Ranges of the entries that belong to the row.
  std::int64_t bias, bias_end, counts, counts_end, forbidden, forbidden_end;
};

struct RowState {
  float largest;
  std::int32_t best;     // -1: no finite logit
  Mass total;            // of all tokens
  Mass natural;          // of all tokens at temperature 1
  unsigned listed;       // candidates in the list so far
  int bound;             // last bucket of the list; -1: no list, the row is searched
};

struct Part {
  float value;
  std::int32_t index;
};

// One call: everything the kernels share.
struct Call {
  float* logits;  // [R, V]
  std::int64_t vocabulary, part;  // part: elements a block
  int parts;
  int mass_shift;
  std::int64_t listed;  // capacity of a list
  const RowParameters* rows;  // null: greedy rows without logprobs
  const LogitBias* bias;      // sorted by token within a row
  const TokenCount* counts;
  const std::int32_t* forbidden;
  std::uint32_t* tickets;  // [2 R]
  Part* largest;           // [R, P]
  Mass* part_mass;         // [R, P]
  RowState* states;        // [R]
  Mass* bucket_mass;       // [R, kBuckets]
  std::uint32_t* bucket_count;
  Part* lists;             // [R, listed]
  SampleResult* results;   // [R] or null
  std::int32_t* tokens;    // [R] or null
};

__device__ inline bool finite(float x) { return fabsf(x) <= 3.402823466e38f; }

__device__ inline Part better(Part a, Part b) {
  return b.value > a.value || (b.value == a.value && static_cast<std::uint32_t>(b.index) < static_cast<std::uint32_t>(a.index))
             ? b
             : a;
}

// --- small block-wide helpers ------------------------------------------------------------------------------------

template <class T, class F>
__device__ T warp_fold(T x, F&& f) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x = f(x, __shfl_xor_sync(kAllLanes, x, offset));
  return x;
}

// In every thread; `scratch` holds one T a warp. Ends with a barrier.
template <class T, class F>
__device__ T block_fold(T x, T* scratch, F&& f) {
  x = warp_fold(x, f);
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = scratch[0];
  for (int i = 1; i < static_cast<int>(blockDim.x) / kWarp; ++i) x = f(x, scratch[i]);
  __syncthreads();
  return x;
}

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// The block that is last to arrive at a ticket goes on alone, and sees what the others wrote before.
__device__ inline bool last_to_arrive(std::uint32_t* ticket, int blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(ticket, 1u) == static_cast<std::uint32_t>(blocks) - 1;
    if (last) *ticket = 0;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// A histogram of masses in shared memory. Shared memory adds 32-bit numbers natively, 64-bit ones in a loop of
// compare-and-swap: hence two halves with a carry.
template <int kCount>
struct Histogram {
  std::uint32_t low[kCount], high[kCount], count[kCount];

  __device__ void clear() {
    for (int i = threadIdx.x; i < kCount; i += blockDim.x) low[i] = high[i] = count[i] = 0;
  }
  __device__ void add(int bucket, Mass mass, unsigned n) {
    const std::uint32_t part = static_cast<std::uint32_t>(mass), old = atomicAdd(low + bucket, part);
    const std::uint32_t upper = static_cast<std::uint32_t>(mass >> 32) + (old + part < old ? 1 : 0);
    if (upper) atomicAdd(high + bucket, upper);
    atomicAdd(count + bucket, n);
  }
  // By all lanes of a warp: those of one bucket, the usual case where neighbours are alike, add once.
  __device__ void add_warp(bool valid, int bucket, Mass mass) {
    const unsigned lanes = __ballot_sync(kAllLanes, valid);
    if (lanes == 0) return;
    const int leader = __ffs(static_cast<int>(lanes)) - 1;
    const int common = __shfl_sync(kAllLanes, bucket, leader);
    if (__all_sync(kAllLanes, !valid || bucket == common)) {
      const Mass sum = warp_fold(valid ? mass : Mass{0}, Add{});
      if (static_cast<int>(threadIdx.x) % kWarp == leader) add(common, sum, static_cast<unsigned>(__popc(lanes)));
    } else if (valid) {
      add(bucket, mass, 1);
    }
  }
  __device__ Mass mass(int bucket) const { return static_cast<Mass>(high[bucket]) << 32 | low[bucket]; }
};

// --- elements ----------------------------------------------------------------------------------------------------

// Larger logits have larger numbers; -0 is 0.
__device__ inline std::uint32_t order_of(float x) {
  const std::uint32_t bits = __float_as_uint(x + 0.f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Monotone map of [0, inf] onto buckets: linear below 16, then 128 an octave.
__device__ inline int spread(float distance) {
  if (distance < 16.f) return static_cast<int>(distance * 64.f);
  return min(kBuckets - 1, 1024 + static_cast<int>((__float_as_uint(distance) - 0x41800000u) >> 16));
}

// One row's arithmetic.
struct Scale {
  float largest, inverse, unit;  // unit = 2^mass_shift
  __device__ float exponent(float logit) const { return (logit - largest) * inverse; }  // <= 0
  __device__ float weight(float logit) const { return expf(exponent(logit)); }
  __device__ Mass mass_of(float weight) const { return __float2ull_rn(weight * unit); }
  __device__ Mass mass(float logit) const { return mass_of(weight(logit)); }
};

__device__ inline Scale scale_of(const Call& c, const RowState& state, float inverse) {
  return {state.largest, inverse, ldexpf(1.f, c.mass_shift)};
}

// ceil(share * total), at least 1.
__device__ inline Mass share_of(double share, Mass total) {
  const double wanted = ceil(share * static_cast<double>(total));
  return wanted < 1 ? 1 : wanted >= static_cast<double>(total) ? total : static_cast<Mass>(wanted);
}

// --- kernels of many blocks a row ---------------------------------------------------------------------------------

struct Place {
  std::int64_t row, begin, end;
  int part;
};
__device__ inline Place place_of(const Call& c) {
  const std::int64_t row = blockIdx.x / c.parts;
  const int part = static_cast<int>(blockIdx.x % c.parts);
  const std::int64_t begin = min(part * c.part, c.vocabulary);
  return {row, begin, min(begin + c.part, c.vocabulary), part};
}

// Calls body(logit, id) for all of a part, by whole warps: `valid` is false for lanes beyond its end.
template <int kCount, class Body>
__device__ void each_logit(const Call& c, const Place& at, Body&& body) {
  const float* const row = c.logits + at.row * c.vocabulary;
  for (std::int64_t base = at.begin; base < at.end; base += kThreads * kCount) {
    const std::int64_t i = base + static_cast<std::int64_t>(threadIdx.x) * kCount;
    float x[kCount] = {};
    const bool valid = i < at.end;
    if (valid) load_row(row + i, x);
#pragma unroll
    for (int j = 0; j < kCount; ++j) body(valid, x[j], static_cast<std::int32_t>(i + j));
  }
}

// Bias, penalties and forbidden tokens, in this order. One block a row.
__global__ void __launch_bounds__(kThreads) adjust(Call c) {
  grid_dependency_wait();
  const RowParameters& p = c.rows[blockIdx.x];
  float* const logits = c.logits + blockIdx.x * c.vocabulary;
  const auto inside = [&](std::int32_t token) { return token >= 0 && token < c.vocabulary; };
  for (std::int64_t i = p.bias + threadIdx.x; i < p.bias_end; i += kThreads) {
    const std::int32_t token = c.bias[i].token;
    if (!inside(token) || (i > p.bias && c.bias[i - 1].token == token)) continue;
    float logit = logits[token];
    for (std::int64_t j = i; j < p.bias_end && c.bias[j].token == token; ++j) logit += c.bias[j].bias;
    logits[token] = logit;
  }
  __syncthreads();
  for (std::int64_t i = p.counts + threadIdx.x; i < p.counts_end; i += kThreads) {
    const TokenCount seen = c.counts[i];
    if (!inside(seen.token)) continue;
    float logit = logits[seen.token];
    logit = logit > 0 ? logit / p.repetition : logit * p.repetition;
    if (seen.in_output > 0)
      logit -= __fadd_rn(p.presence, __fmul_rn(p.frequency, static_cast<float>(seen.in_output)));
    logits[seen.token] = logit;
  }
  __syncthreads();
  for (std::int64_t i = p.forbidden + threadIdx.x; i < p.forbidden_end; i += kThreads) {
    if (inside(c.forbidden[i])) logits[c.forbidden[i]] = -INFINITY;
  }
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) find_largest(Call c) {
  __shared__ Part warps[kThreads / kWarp];
  grid_dependency_wait();
  grid_dependency_launch();
  const Place at = place_of(c);
  Part best{-INFINITY, -1};
  each_logit<kCount>(c, at, [&](bool valid, float x, std::int32_t id) {
    if (valid && finite(x)) best = better(best, {x, id});
  });
  if (c.bucket_mass) {  // this part's share of the histogram, for the next kernel
    for (int i = at.part * kThreads + threadIdx.x; i < kBuckets; i += c.parts * kThreads) {
      c.bucket_mass[at.row * kBuckets + i] = 0;
      c.bucket_count[at.row * kBuckets + i] = 0;
    }
  }
  const auto block_best = [&](Part x) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      x = better(x, {__shfl_xor_sync(kAllLanes, x.value, offset), __shfl_xor_sync(kAllLanes, x.index, offset)});
    }
    if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
    __syncthreads();
    for (int i = 0; i < kThreads / kWarp; ++i) x = better(x, warps[i]);
    __syncthreads();
    return x;
  };
  best = block_best(best);
  if (threadIdx.x == 0) c.largest[at.row * c.parts + at.part] = best;
  if (!last_to_arrive(c.tickets + at.row, c.parts)) return;
  best = {-INFINITY, -1};
  if (static_cast<int>(threadIdx.x) < c.parts) {
    const Part* const other = c.largest + at.row * c.parts + threadIdx.x;
    best = {__ldcg(&other->value), __ldcg(&other->index)};
  }
  best = block_best(best);
  if (threadIdx.x != 0) return;
  if (c.tokens) c.tokens[at.row] = best.index;
  if (c.states) c.states[at.row] = {best.value, best.index, 0, 0, 0, -1};
  if (c.results) {
    c.results[at.row].token = best.index;
    c.results[at.row].logprob = 0.f;
    c.results[at.row].top_count = 0;
  }
}

// The last bucket that a filter of this row can keep a token of, or that the top_logprobs largest reach into. `counts` and
// `masses` are sums up to and with each bucket.
__device__ inline int list_bound(const RowParameters& p, const Mass* masses, const std::uint32_t* counts) {
  const auto first = [&](auto&& reached) {  // the first bucket for which it is true, else the last
    int low = 0, high = kBuckets - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (reached(middle)) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  const std::uint32_t all = counts[kBuckets - 1];
  const auto reach = [&](int n) {
    const std::uint32_t wanted = min(static_cast<std::uint32_t>(n), all);
    return first([&](int b) { return counts[b] >= wanted; });
  };
  int bound = -1;
  if (p.filtered) {
    bound = kBuckets - 1;
    // The masses of what top_k leaves are summed in the list, so that it must hold all of them.
    if (p.top_k > 0) {
      bound = reach(p.top_k);
    } else if (p.typical_p >= 1) {
      if (p.top_p < 1) {
        const Mass wanted = share_of(p.top_p, masses[kBuckets - 1]);
        bound = first([&](int b) { return masses[b] >= wanted; });
      }
      if (p.min_p > 0) bound = min(bound, spread(-logf(p.min_p) * 1.0001f + 0.001f));
    }
  }
  return p.top_logprobs > 0 ? max(bound, reach(p.top_logprobs)) : bound;
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) weigh(Call c) {
  __shared__ Histogram<kBuckets> histogram;
  __shared__ Mass sums[kThreads / kWarp];
  __shared__ Mass masses[kBuckets];
  grid_dependency_wait();
  grid_dependency_launch();
  const Place at = place_of(c);
  const RowParameters& p = c.rows[at.row];
  RowState& state = c.states[at.row];
  const bool listing = p.filtered || p.top_logprobs > 0, natural = p.top_logprobs >= 0;
  if (state.best < 0 || (p.greedy && !natural)) return;
  const Scale scale = scale_of(c, state, p.inverse);
  if (listing) histogram.clear();
  __syncthreads();
  Mass mine = 0, mine_natural = 0;
  each_logit<kCount>(c, at, [&](bool valid, float x, std::int32_t) {
    valid = valid && finite(x);
    const float exponent = valid ? scale.exponent(x) : 0.f;
    const Mass mass = valid ? scale.mass_of(expf(exponent)) : 0;
    mine += mass;
    if (natural && valid) mine_natural += scale.mass_of(expf(x - scale.largest));
    if (listing) histogram.add_warp(valid, spread(-exponent), mass);
  });
  mine = block_fold(mine, sums, Add{});
  mine_natural = block_fold(mine_natural, sums, Add{});
  if (threadIdx.x == 0) {
    c.part_mass[at.row * c.parts + at.part] = mine;
    atomicAdd(&state.total, mine);
    atomicAdd(&state.natural, mine_natural);
  }
  if (!listing) return;
  for (int i = threadIdx.x; i < kBuckets; i += kThreads) {
    if (histogram.count[i] == 0) continue;
    if (const Mass mass = histogram.mass(i)) atomicAdd(c.bucket_mass + at.row * kBuckets + i, mass);
    atomicAdd(c.bucket_count + at.row * kBuckets + i, histogram.count[i]);
  }
  if (!last_to_arrive(c.tickets + gridDim.x / c.parts + at.row, c.parts)) return;
  // Sums up to each bucket: eight neighbours a thread, then one thread over all threads' sums.
  constexpr int kEach = kBuckets / kThreads;
  std::uint32_t* const counts = histogram.count;
  Mass mass = 0;
  std::uint32_t count = 0;
  for (int i = 0; i < kEach; ++i) {
    const int b = threadIdx.x * kEach + i;
    mass += __ldcg(c.bucket_mass + at.row * kBuckets + b);
    count += __ldcg(c.bucket_count + at.row * kBuckets + b);
    masses[b] = mass;
    counts[b] = count;
  }
  __shared__ Mass before_mass[kThreads];
  __shared__ std::uint32_t before_count[kThreads];
  before_mass[threadIdx.x] = mass;
  before_count[threadIdx.x] = count;
  __syncthreads();
  for (int step = 1; step < kThreads; step *= 2) {
    const bool has = static_cast<int>(threadIdx.x) >= step;
    const Mass other_mass = has ? before_mass[threadIdx.x - step] : 0;
    const std::uint32_t other_count = has ? before_count[threadIdx.x - step] : 0;
    __syncthreads();
    before_mass[threadIdx.x] += other_mass;
    before_count[threadIdx.x] += other_count;
    __syncthreads();
  }
  for (int i = 0; i < kEach; ++i) {
    masses[threadIdx.x * kEach + i] += before_mass[threadIdx.x] - mass;
    counts[threadIdx.x * kEach + i] += before_count[threadIdx.x] - count;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int bound = list_bound(p, masses, counts);
  state.bound = counts[bound] <= static_cast<std::uint32_t>(c.listed) ? bound : -1;
}

// The order of a list is left to chance; nothing that is made of it depends on it.
template <int kCount>
__global__ void __launch_bounds__(kThreads) collect(Call c) {
  grid_dependency_wait();
  grid_dependency_launch();
  const Place at = place_of(c);
  RowState& state = c.states[at.row];
  const int bound = state.bound;
  if (bound < 0) return;
  const Scale scale = scale_of(c, state, c.rows[at.row].inverse);
  Part* const list = c.lists + at.row * c.listed;
  each_logit<kCount>(c, at, [&](bool valid, float x, std::int32_t id) {
    const bool taken = valid && finite(x) && spread(-scale.exponent(x)) <= bound;
    const unsigned lanes = __ballot_sync(kAllLanes, taken);
    if (lanes == 0) return;
    const int lane = threadIdx.x % kWarp, leader = __ffs(static_cast<int>(lanes)) - 1;
    unsigned first = 0;
    if (lane == leader) first = atomicAdd(&state.listed, static_cast<unsigned>(__popc(lanes)));
    first = __shfl_sync(kAllLanes, first, leader);
    if (taken) list[first + static_cast<unsigned>(__popc(lanes & ((1u << lane) - 1)))] = {x, id};
  });
}

}  // namespace gov::ops::cuda::sampling
