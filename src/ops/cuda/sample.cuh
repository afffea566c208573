#pragma once
// The kernels of sample(): an exact selection without sorting.
//
// Probability is a 64-bit integer, the weight e^((logit - largest) / temperature) times 2^mass_shift: sums do not
// depend on their order, so that atomic additions give the same bits every time. A filter keeps the elements before
// some place of an order (by logit, by typicality, both with ties to the lower id). An element's place is one 64-bit
// number, `rank`, different for every element, and a histogram of masses over ranges of ranks, refined a few times,
// finds the last that is kept. The draw is the same search in the order of the ids.
//
// find_largest    P blocks a row: the largest finite logit. All that greedy rows need.
// weigh           P blocks a row: mass of each block's part; a histogram over logits, which bounds what filters can
// keep. collect         P blocks a row: what is inside that bound becomes a list of candidates, if it is short enough.
// finish          one block a row: filters and draw on the list, or on the whole row where it is too long.
//
// The first three read each logit once, the limit being memory; `finish` is bound by the latency of its passes.

#include <cmath>

#include "ops/cuda/vectors.cuh"

namespace gov::ops::cuda::sampling {

using Mass = unsigned long long;
using Rank = unsigned long long;

constexpr int kBuckets = 2048;           // of `weigh`
constexpr int kThreads = 256;            // of find_largest, weigh, collect
constexpr int kFinishThreads = 1024;     // one bucket of a refinement each
constexpr std::int64_t kListed = 16384;  // candidates that a list holds
constexpr int kMostTop = 20;

struct RowParameters {
  double u;            // the random number, in [0, 1)
  double temperature;  // at least the smallest normal float
  double top_p, typical_p;
  float inverse;  // 1 / temperature, 1 for greedy rows
  float min_p;
  float repetition, presence, frequency;
  int top_k;              // 0 = off
  int top_logprobs;       // -1 = no logprobs
  std::int32_t given;     // -1, or the token to take; then `greedy`
  bool greedy, filtered;  // filtered: any of top_k, typical, top_p, min_p
  // The row's entries: where they begin, in bytes behind the parameters of the first row, and how many they are.
  std::int64_t bias_at, counts_at, forbidden_at, allowed_at;
  std::int64_t bias, counts, forbidden, allowed;  // allowed: words of the mask, 0 = no mask
};

// What `finish` searches.
enum class Source : int {
  kRow,     // all of the row
  kList,    // a list of all that the filters can keep, and of the top_logprobs largest
  kBorders  // a list of the buckets in which a filter ends; draw_kept draws
};

struct RowState {
  float largest;
  std::int32_t best;  // -1: no finite logit
  Mass total;         // of all tokens
  Mass natural;       // of all tokens at temperature 1
  unsigned listed;    // candidates in the list so far
  Source source;
  // The list holds buckets up to `bound`, bucket `k_bucket` and buckets p_first .. p_last.
  int bound, k_bucket, p_first, p_last;
  // kBorders: what lies before k_bucket, and before p_first.
  std::uint32_t count_before_k;
  Mass mass_before_k, mass_before_p;
  // kBorders: the last token that is kept, as its logit's order and its id, and the least weight.
  std::uint32_t last_order;
  std::int32_t last_id;
  float least_weight;
};

struct Part {
  float value;
  std::int32_t index;
};

// One call: everything the kernels share.
struct Call {
  float* logits;                  // [R, V]
  std::int64_t vocabulary, part;  // part: elements a block
  int parts;
  int mass_shift;
  std::int64_t listed;        // capacity of a list
  const RowParameters* rows;  // null: greedy rows without logprobs
  std::uint32_t* tickets;     // [3 R]
  Part* largest;              // [R, P]
  Mass* part_mass;            // [R, P]
  RowState* states;           // [R]
  Mass* bucket_mass;          // [R, kBuckets]
  std::uint32_t* bucket_count;
  Part* lists;            // [R, listed]
  SampleResult* results;  // [R] or null
  std::int32_t* tokens;   // [R] or null
};

__device__ inline bool finite(float x) { return fabsf(x) <= 3.402823466e38f; }

__device__ inline Part better(Part a, Part b) {
  return b.value > a.value ||
                 (b.value == a.value && static_cast<std::uint32_t>(b.index) < static_cast<std::uint32_t>(a.index))
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
  float largest, inverse, unit;                                                         // unit = 2^mass_shift
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

// The mass at which the draw stops: u of the total, at least one unit, at most all.
__device__ inline Mass target_of(double u, Mass total) {
  return min(static_cast<Mass>(u * static_cast<double>(total)), total - 1) + 1;
}

// Ranks of small vocabularies begin with a bucket of `spread`, so that ranges of them split evenly.
constexpr int kIdBits = 21;
__device__ inline bool packed_ranks(const Call& c) { return c.vocabulary <= std::int64_t{1} << kIdBits; }

__device__ inline std::int64_t ceil_div_device(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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

// Bias, penalties, forbidden tokens and the mask, in this order. One block a row.
__global__ void __launch_bounds__(kThreads) adjust(Call c) {
  grid_dependency_wait();
  const RowParameters& p = c.rows[blockIdx.x];
  float* const logits = c.logits + blockIdx.x * c.vocabulary;
  const auto inside = [&](std::int32_t token) { return token >= 0 && token < c.vocabulary; };
  const char* const entries = reinterpret_cast<const char*>(c.rows);
  const LogitBias* const bias = reinterpret_cast<const LogitBias*>(entries + p.bias_at);  // sorted by token
  for (std::int64_t i = threadIdx.x; i < p.bias; i += kThreads) {
    const std::int32_t token = bias[i].token;
    if (!inside(token) || (i > 0 && bias[i - 1].token == token)) continue;
    float logit = logits[token];
    for (std::int64_t j = i; j < p.bias && bias[j].token == token; ++j) logit += bias[j].bias;
    logits[token] = logit;
  }
  __syncthreads();
  const TokenCount* const counts = reinterpret_cast<const TokenCount*>(entries + p.counts_at);
  for (std::int64_t i = threadIdx.x; i < p.counts; i += kThreads) {
    const TokenCount seen = counts[i];
    if (!inside(seen.token)) continue;
    float logit = logits[seen.token];
    logit = logit > 0 ? logit / p.repetition : logit * p.repetition;
    if (seen.in_output > 0) logit -= __fadd_rn(p.presence, __fmul_rn(p.frequency, static_cast<float>(seen.in_output)));
    logits[seen.token] = logit;
  }
  __syncthreads();
  const std::int32_t* const forbidden = reinterpret_cast<const std::int32_t*>(entries + p.forbidden_at);
  for (std::int64_t i = threadIdx.x; i < p.forbidden; i += kThreads) {
    if (inside(forbidden[i])) logits[forbidden[i]] = -INFINITY;
  }
  // A warp a word, a lane a bit: stores of neighbours go together.
  const std::uint32_t* const allowed = reinterpret_cast<const std::uint32_t*>(entries + p.allowed_at);
  const int lane = threadIdx.x % kWarp;
  for (std::int64_t i = threadIdx.x / kWarp; i < p.allowed; i += kThreads / kWarp) {
    const std::int64_t token = i * 32 + lane;
    if (token < c.vocabulary && (allowed[i] >> lane & 1) == 0) logits[token] = -INFINITY;
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
  if (c.states) {
    RowState state{};
    state.largest = best.value;
    state.best = best.index;
    state.bound = state.k_bucket = state.p_last = -1;
    c.states[at.row] = state;
  }
  if (c.results) {
    c.results[at.row].token = best.index;
    c.results[at.row].logprob = 0.f;
    c.results[at.row].top_count = 0;
  }
}

// Decides what becomes the row's list. `counts` and `masses` are sums up to and with each bucket.
__device__ inline void plan_list(const Call& c, const RowParameters& p, const Mass* masses, const std::uint32_t* counts,
                                 RowState& state) {
  const auto first = [&](auto&& reached) {  // the first bucket for which it is true, else the last
    int low = 0, high = kBuckets - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (reached(middle)) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  const std::uint32_t all = counts[kBuckets - 1], room = static_cast<std::uint32_t>(c.listed);
  const Mass total = masses[kBuckets - 1];
  const auto reach_count = [&](int n) {
    const std::uint32_t wanted = min(static_cast<std::uint32_t>(n), all);
    return first([&](int b) { return counts[b] >= wanted; });
  };
  const auto reach_share = [&](Mass of) {
    const Mass wanted = share_of(p.top_p, of);
    return first([&](int b) { return masses[b] >= wanted; });
  };
  const int tops = p.top_logprobs > 0 ? reach_count(p.top_logprobs) : -1;
  const int k_bucket = p.filtered && p.top_k > 0 ? reach_count(p.top_k) : -1;
  int bound = -1;
  if (p.filtered) {
    bound = kBuckets - 1;
    // The mass of what top_k leaves is summed in the list, so that it must hold all of that.
    if (k_bucket >= 0) {
      bound = k_bucket;
    } else if (p.typical_p >= 1) {
      if (p.top_p < 1) bound = reach_share(total);
      if (p.min_p > 0) bound = min(bound, spread(-logf(p.min_p) * 1.0001f + 0.001f));
    }
  }
  bound = max(bound, tops);
  if (counts[bound] <= room) {
    state.source = Source::kList;
    state.bound = bound;
    return;
  }
  if (!p.filtered || p.typical_p < 1 || !packed_ranks(c)) return;
  // Where top_p ends depends on what top_k leaves: between all of its last bucket and nothing of it.
  int p_first = 0, p_last = -1;
  if (p.top_p < 1) {
    const Mass least = k_bucket < 0 ? total : k_bucket > 0 ? masses[k_bucket - 1] : 0;
    p_first = reach_share(least);
    p_last = reach_share(k_bucket < 0 ? total : masses[k_bucket]);
  }
  const auto count_before = [&](int b) { return b > 0 ? counts[b - 1] : 0; };
  const auto mass_before = [&](int b) { return b > 0 ? masses[b - 1] : 0; };
  std::uint32_t size = tops >= 0 ? counts[tops] : 0;
  if (k_bucket >= 0) size += counts[k_bucket] - count_before(k_bucket);
  if (p_last >= 0) size += counts[p_last] - count_before(p_first);
  if (size > room) return;
  state.source = Source::kBorders;
  state.bound = tops;
  state.k_bucket = k_bucket;
  state.p_first = p_first;
  state.p_last = p_last;
  state.count_before_k = count_before(k_bucket);
  state.mass_before_k = mass_before(k_bucket);
  state.mass_before_p = mass_before(p_first);
}

// The token of a part at which the mass of what `keeps` is true for, added up by ids, reaches `wanted`; -1 if it does
// not. By all threads of a block of kThreads: each warp sums an eighth, one eighth is left, and so on.
template <class Keeps>
__device__ std::int32_t search_part(const Call& c, std::int64_t row, std::int64_t begin, std::int64_t end, Mass wanted,
                                    const Scale& scale, Mass* sums, Keeps&& keeps) {
  constexpr int kWarps = kThreads / kWarp;
  const float* const logits = c.logits + row * c.vocabulary;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const auto mass_at = [&](std::int64_t i, std::int64_t stop) {
    if (i >= stop) return Mass{0};
    const float x = logits[i];
    return keeps(x, static_cast<std::int32_t>(i)) ? scale.mass(x) : Mass{0};
  };
  while (end - begin > kWarp) {
    const std::int64_t piece = ceil_div_device(end - begin, kWarps * kWarp) * kWarp;
    const std::int64_t from = min(begin + warp * piece, end), stop = min(from + piece, end);
    Mass sum = 0;
#pragma unroll 4
    for (std::int64_t i = from + lane; i < stop; i += kWarp) sum += mass_at(i, stop);
    sum = warp_fold(sum, Add{});
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    int chosen = 0;
    for (; chosen + 1 < kWarps && sums[chosen] < wanted; ++chosen) wanted -= sums[chosen];
    begin = min(begin + chosen * piece, end);
    end = min(begin + piece, end);
    __syncthreads();
  }
  Mass sum = mass_at(begin + lane, end);
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const Mass other = __shfl_up_sync(kAllLanes, sum, offset);
    if (lane >= offset) sum += other;
  }
  const unsigned reached = __ballot_sync(kAllLanes, sum >= wanted);
  return reached ? static_cast<std::int32_t>(begin) + __ffs(static_cast<int>(reached)) - 1 : -1;
}

// The draw among what `keeps` is true for, once all parts' masses are known. By the last block.
template <class Keeps>
__device__ std::int32_t draw_by_parts(const Call& c, std::int64_t row, const RowParameters& p, const Scale& scale,
                                      Mass* sums, Keeps&& keeps) {
  const Mass* const masses = c.part_mass + row * c.parts;
  Mass total = 0;
  for (int i = 0; i < c.parts; ++i) total += __ldcg(masses + i);
  if (total == 0) return -1;
  Mass wanted = target_of(p.u, total);
  int part = 0;
  for (; part + 1 < c.parts; ++part) {
    const Mass mass = __ldcg(masses + part);
    if (mass >= wanted) break;
    wanted -= mass;
  }
  const std::int64_t begin = min(part * c.part, c.vocabulary), end = min(begin + c.part, c.vocabulary);
  return search_part(c, row, begin, end, wanted, scale, sums, keeps);
}

__device__ inline void write_token(const Call& c, std::int64_t row, std::int32_t token) {
  if (c.results) c.results[row].token = token;
  if (c.tokens) c.tokens[row] = token;
}

// Natural logarithm of a token's probability at temperature 1.
__device__ inline float log_probability(const Call& c, const RowState& state, float logit) {
  const double log_sum =
      log(ldexp(static_cast<double>(state.natural), -c.mass_shift)) + static_cast<double>(state.largest);
  return static_cast<float>(static_cast<double>(logit) - log_sum);
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
  const bool plain = !p.greedy && !p.filtered;
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
  for (int i = threadIdx.x; listing && i < kBuckets; i += kThreads) {
    if (histogram.count[i] == 0) continue;
    if (const Mass mass = histogram.mass(i)) atomicAdd(c.bucket_mass + at.row * kBuckets + i, mass);
    atomicAdd(c.bucket_count + at.row * kBuckets + i, histogram.count[i]);
  }
  if (!listing && !plain) return;
  if (!last_to_arrive(c.tickets + gridDim.x / c.parts + at.row, c.parts)) return;
  if (plain) {
    const std::int32_t token =
        draw_by_parts(c, at.row, p, scale, sums, [](float x, std::int32_t) { return finite(x); });
    if (threadIdx.x == 0 && token >= 0) write_token(c, at.row, token);
    __syncthreads();
  }
  if (!listing) return;
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
  if (threadIdx.x == 0) plan_list(c, p, masses, counts, state);
}

// The order of a list is left to chance; nothing that is made of it depends on it.
template <int kCount>
__global__ void __launch_bounds__(kThreads) collect(Call c) {
  grid_dependency_wait();
  grid_dependency_launch();
  const Place at = place_of(c);
  RowState& state = c.states[at.row];
  if (state.source == Source::kRow) return;
  const int bound = state.bound, k_bucket = state.k_bucket, p_first = state.p_first, p_last = state.p_last;
  const Scale scale = scale_of(c, state, c.rows[at.row].inverse);
  Part* const list = c.lists + at.row * c.listed;
  each_logit<kCount>(c, at, [&](bool valid, float x, std::int32_t id) {
    bool taken = valid && finite(x);
    if (taken) {
      const int bucket = spread(-scale.exponent(x));
      taken = bucket <= bound || bucket == k_bucket || (bucket >= p_first && bucket <= p_last);
    }
    const unsigned lanes = __ballot_sync(kAllLanes, taken);
    if (lanes == 0) return;
    const int lane = threadIdx.x % kWarp, leader = __ffs(static_cast<int>(lanes)) - 1;
    unsigned first = 0;
    if (lane == leader) first = atomicAdd(&state.listed, static_cast<unsigned>(__popc(lanes)));
    first = __shfl_sync(kAllLanes, first, leader);
    if (taken) list[first + static_cast<unsigned>(__popc(lanes & ((1u << lane) - 1)))] = {x, id};
  });
}

// Of rows whose filters keep more than a list holds.
template <int kCount>
__global__ void __launch_bounds__(kThreads) draw_kept(Call c) {
  __shared__ Mass sums[kThreads / kWarp];
  grid_dependency_wait();
  grid_dependency_launch();
  const Place at = place_of(c);
  const RowState& state = c.states[at.row];
  if (state.source != Source::kBorders) return;
  const RowParameters& p = c.rows[at.row];
  const Scale scale = scale_of(c, state, p.inverse);
  const std::uint32_t last_order = state.last_order;
  const std::int32_t last_id = state.last_id;
  const float least_weight = state.least_weight;
  const auto keeps = [&](float x, std::int32_t id) {
    if (!finite(x)) return false;
    const std::uint32_t order = order_of(x);
    if (order < last_order || (order == last_order && id > last_id)) return false;
    return least_weight <= 0 || scale.weight(x) >= least_weight;
  };
  Mass mine = 0;
  each_logit<kCount>(c, at, [&](bool valid, float x, std::int32_t id) {
    if (valid && keeps(x, id)) mine += scale.mass(x);
  });
  mine = block_fold(mine, sums, Add{});
  if (threadIdx.x == 0) c.part_mass[at.row * c.parts + at.part] = mine;
  if (!last_to_arrive(c.tickets + 2 * (gridDim.x / c.parts) + at.row, c.parts)) return;
  const std::int32_t drawn = draw_by_parts(c, at.row, p, scale, sums, keeps);
  const std::int32_t token = drawn < 0 ? state.best : drawn;
  if (threadIdx.x != 0) return;
  write_token(c, at.row, token);
  if (c.results && p.top_logprobs >= 0)
    c.results[at.row].logprob = log_probability(c, state, c.logits[at.row * c.vocabulary + token]);
}

}  // namespace gov::ops::cuda::sampling
