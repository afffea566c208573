// sample() on the GPU: parameters go there in one copy, four kernels draw, results come back in one copy.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "base/philox.h"
#include "ops/cuda/library.cuh"
#include "ops/cuda/sample_finish.cuh"
#include "ops/sample_device.h"

namespace gov::ops {
namespace {

using namespace cuda;
using namespace cuda::sampling;

constexpr int kMostParts = 64;

RowParameters parameters_of(const SampleRow& row) {
  const SamplingParams& p = row.params;
  RowParameters r{};
  r.greedy = p.temperature == 0 || row.given >= 0;
  // Below the smallest normal number 1 / temperature is infinite, and 0 times that is not a number.
  const float temperature = std::max(p.temperature, std::numeric_limits<float>::min());
  r.u = Philox{p.seed}.uniform_double(row.draw, row.stream);
  r.temperature = r.greedy ? 1.0 : static_cast<double>(temperature);
  r.inverse = r.greedy ? 1.f : 1.f / temperature;
  r.top_p = static_cast<double>(p.top_p);
  r.typical_p = static_cast<double>(p.typical_p);
  r.min_p = p.min_p;
  r.top_k = p.top_k;
  r.repetition = p.repetition_penalty;
  r.presence = p.presence_penalty;
  r.frequency = p.frequency_penalty;
  r.top_logprobs = row.top_logprobs;
  r.given = row.given;
  r.filtered = !r.greedy && (p.top_k > 0 || p.typical_p < 1 || p.top_p < 1 || p.min_p > 0);
  return r;
}

// Which kernels a batch needs.
struct Needs {
  bool adjust = false, weigh = false, list = false, finish = false, filter = false;
};

std::int64_t parts_of(const Context& ctx, std::int64_t rows, std::int64_t vocabulary) {
  // Blocks for all multiprocessors, and parts short enough for one block to find the token in.
  const std::int64_t fill = std::max<std::int64_t>(ceil_div(4 * device_of(ctx).multiprocessors, rows), 8);
  return std::clamp<std::int64_t>(std::min(fill, ceil_div(vocabulary, 1024)), 1, kMostParts);
}

// The parts of a call that follow from the logits alone.
Call begin_call(Context& ctx, const Tensor& logits) {
  const std::int64_t rows = logits.shape[0], vocabulary = logits.shape[1];
  Call c{};
  c.logits = logits.as<float>();
  c.vocabulary = vocabulary;
  c.parts = static_cast<int>(parts_of(ctx, rows, vocabulary));
  c.part = ceil_div(ceil_div(vocabulary, c.parts), 8) * 8;
  c.mass_shift = 62 - std::bit_width(static_cast<std::uint64_t>(vocabulary));
  c.tickets = counters(ctx, 3 * rows);
  c.largest = ctx.workspace.take<Part>(rows * c.parts);
  return c;
}

bool by_vectors(const Tensor& logits) { return logits.shape[1] % 4 == 0 && aligned16(logits); }

// Calls f(integral_constant<int, 4 or 1>{}).
template <class F>
void dispatch_vectors(bool vectors, F&& f) {
  if (vectors) f(std::integral_constant<int, 4>{});
  else f(std::integral_constant<int, 1>{});
}

Launch on_parts(const Call& c, std::int64_t rows) {
  return {dim3(static_cast<unsigned>(rows * c.parts)), dim3(kThreads), 0, true};
}

}  // namespace

void sample_greedy_device(Context& ctx, const Tensor& logits, const Tensor& tokens) {
  ctx.begin_op(static_cast<double>(logits.bytes() + tokens.bytes()), 0);
  if (logits.shape[0] == 0) return;
  Call c = begin_call(ctx, logits);
  c.tokens = tokens.as<std::int32_t>();
  dispatch_vectors(by_vectors(logits), [&](auto count) {
    cuda::launch(ctx, "sample", find_largest<decltype(count)::value>, on_parts(c, logits.shape[0]), c);
  });
}

struct DeviceSampler::State {
  // Two, so that one can be filled while the other is still on its way.
  struct Staging {
    PinnedBuffer memory;
    Event sent = Event::create();
  };
  Staging staging[2];
  int turn = 0;
  Buffer parameters, results;  // on the device
  PinnedBuffer returned;
  Event arrived = Event::create();  // of the results in `returned`
  bool is_sent = false;
  std::int64_t rows = 0;
  Needs needs;
  std::int64_t generation = 0;  // of the addresses of `parameters` and `results`

  void send_parameters(Context& ctx, const std::vector<RowParameters>& parameters,
                       const std::vector<std::byte>& entries);
};

DeviceSampler::DeviceSampler() = default;
DeviceSampler::~DeviceSampler() = default;
DeviceSampler::DeviceSampler(DeviceSampler&&) noexcept = default;
DeviceSampler& DeviceSampler::operator=(DeviceSampler&&) noexcept = default;

void DeviceSampler::upload(Context& ctx, std::span<const SampleRow> rows, bool everything) {
  if (!state_) state_ = std::make_unique<State>();
  State& s = *state_;
  s.rows = static_cast<std::int64_t>(rows.size());
  s.needs = {everything, everything, everything, everything, everything};
  if (rows.empty()) return;

  std::vector<RowParameters> parameters;
  std::vector<std::byte> entries;
  const std::size_t head = rows.size() * sizeof(RowParameters);
  const auto append = [&](const auto& list) {  // where it begins; multiples of 8 bytes
    const std::size_t at = entries.size(), bytes = list.size() * sizeof list[0];
    entries.resize(at + (bytes + 7) / 8 * 8);
    if (bytes > 0) std::memcpy(entries.data() + at, list.data(), bytes);
    return static_cast<std::int64_t>(head + at);
  };
  for (const SampleRow& row : rows) {
    RowParameters p = parameters_of(row);
    // Entries of one token stay in their order and become neighbours: one thread adds them.
    std::vector<LogitBias> bias(row.bias.begin(), row.bias.end());
    std::stable_sort(bias.begin(), bias.end(),
                     [](const LogitBias& a, const LogitBias& b) { return a.token < b.token; });
    p.bias_at = append(bias);
    p.counts_at = append(row.counts);
    p.forbidden_at = append(row.forbidden);
    p.allowed_at = append(row.allowed);
    p.bias = static_cast<std::int64_t>(bias.size());
    p.counts = static_cast<std::int64_t>(row.counts.size());
    p.forbidden = static_cast<std::int64_t>(row.forbidden.size());
    p.allowed = static_cast<std::int64_t>(row.allowed.size());
    s.needs.weigh = s.needs.weigh || !p.greedy || p.top_logprobs >= 0;
    s.needs.list = s.needs.list || p.filtered || p.top_logprobs > 0;
    s.needs.finish = s.needs.finish || p.filtered || p.top_logprobs >= 0;
    s.needs.filter = s.needs.filter || p.filtered;
    parameters.push_back(p);
  }
  s.needs.adjust = s.needs.adjust || !entries.empty();
  s.send_parameters(ctx, parameters, entries);
}

void DeviceSampler::State::send_parameters(Context& ctx, const std::vector<RowParameters>& parameters,
                                           const std::vector<std::byte>& entries) {
  const std::size_t head = parameters.size() * sizeof(RowParameters), bytes = head + entries.size();
  Staging& next = staging[turn ^= 1];
  next.sent.wait();
  if (next.memory.bytes() < bytes) next.memory = PinnedBuffer(bytes + bytes / 2, "sampling parameters");
  if (this->parameters.bytes() < bytes) {
    synchronize(ctx.stream);  // what runs may still read the old ones
    this->parameters = Buffer(bytes + bytes / 2, DeviceKind::kCuda, "sampling parameters");
    ++generation;
  }
  std::memcpy(next.memory.data(), parameters.data(), head);
  if (!entries.empty()) std::memcpy(static_cast<std::byte*>(next.memory.data()) + head, entries.data(), entries.size());
  copy_bytes(this->parameters.data(), DeviceKind::kCuda, next.memory.data(), DeviceKind::kCpu, bytes, ctx.stream);
  next.sent.record(ctx.stream);
}

std::int64_t DeviceSampler::generation() const { return state_ ? state_->generation : 0; }

void DeviceSampler::launch(Context& ctx, const Tensor& logits, const Tensor& tokens) {
  ctx.begin_op(static_cast<double>(logits.bytes()), 0);
  start(ctx, logits, tokens);
}

void DeviceSampler::start(Context& ctx, const Tensor& logits, const Tensor& tokens) {
  State& s = *state_;
  s.is_sent = false;
  if (s.rows == 0) return;
  const std::size_t bytes = static_cast<std::size_t>(s.rows) * sizeof(SampleResult);
  if (s.results.bytes() < bytes) {
    synchronize(ctx.stream);
    s.results = Buffer(bytes, DeviceKind::kCuda, "sampling results");
    ++s.generation;
  }
  Call c = begin_call(ctx, logits);
  c.rows = static_cast<const RowParameters*>(s.parameters.data());
  c.results = static_cast<SampleResult*>(s.results.data());
  c.tokens = tokens ? tokens.as<std::int32_t>() : nullptr;
  c.listed = std::min(c.vocabulary, kListed);
  if (s.needs.weigh) {
    c.states = ctx.workspace.take<RowState>(s.rows);
    c.part_mass = ctx.workspace.take<Mass>(s.rows * c.parts);
  }
  if (s.needs.list) {
    c.bucket_mass = ctx.workspace.take<Mass>(s.rows * kBuckets);
    c.bucket_count = ctx.workspace.take<std::uint32_t>(s.rows * kBuckets);
    c.lists = ctx.workspace.take<Part>(s.rows * c.listed);
  }
  const Launch by_row{dim3(static_cast<unsigned>(s.rows)), dim3(kThreads), 0, true};
  const Launch to_finish{dim3(static_cast<unsigned>(s.rows)), dim3(kFinishThreads), 0, true};
  if (s.needs.adjust) cuda::launch(ctx, "sample", adjust, by_row, c);
  dispatch_vectors(by_vectors(logits), [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    cuda::launch(ctx, "sample", find_largest<kCount>, on_parts(c, s.rows), c);
    if (s.needs.weigh) cuda::launch(ctx, "sample", weigh<kCount>, on_parts(c, s.rows), c);
    if (s.needs.list) cuda::launch(ctx, "sample", collect<kCount>, on_parts(c, s.rows), c);
    if (s.needs.finish) cuda::launch(ctx, "sample", finish, to_finish, c);
    if (s.needs.filter) cuda::launch(ctx, "sample", draw_kept<kCount>, on_parts(c, s.rows), c);
  });
}

void DeviceSampler::send(Context& ctx) {
  State& s = *state_;
  const std::size_t bytes = static_cast<std::size_t>(s.rows) * sizeof(SampleResult);
  if (s.returned.bytes() < bytes) s.returned = PinnedBuffer(bytes, "sampling results");
  copy_bytes(s.returned.data(), DeviceKind::kCpu, s.results.data(), DeviceKind::kCuda, bytes, ctx.stream);
  s.arrived.record(ctx.stream);
  s.is_sent = true;
}

void DeviceSampler::read(Context& ctx, std::span<SampleResult> results) {
  State& s = *state_;
  if (results.size() != static_cast<std::size_t>(s.rows))
    fail(ErrorCode::kInvalidArgument, "sample: {} results for {} rows", results.size(), s.rows);
  if (s.rows == 0) return;
  if (!s.is_sent) send(ctx);
  s.is_sent = false;
  s.arrived.wait();
  std::memcpy(results.data(), s.returned.data(), results.size_bytes());
}

void cuda::sample(Context& ctx, const Tensor& logits, std::span<const SampleRow> rows,
                  std::span<SampleResult> results) {
  std::shared_ptr<void>& kept = library(ctx).sampler;
  if (!kept) kept = std::make_shared<DeviceSampler>();
  DeviceSampler& sampler = *static_cast<DeviceSampler*>(kept.get());
  sampler.upload(ctx, rows);
  sampler.start(ctx, logits, {});
  sampler.read(ctx, results);
}

}  // namespace gov::ops
