#include "train/draw_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "train/permutation.h"

namespace gov::train {
namespace {

constexpr std::uint64_t kChoiceStream = 0x6d69787475726500;  // keeps the choice of a source apart from the orders

std::int64_t min_used(const DataState& state) { return *std::min_element(state.used.begin(), state.used.end()); }

std::vector<std::int64_t> integers(const Json& object, const char* name) {
  const Json* value = object.find(name);
  if (!value || !value->is_array()) fail(ErrorCode::kCorrupt, "data state: '{}' must be an array", name);
  std::vector<std::int64_t> out;
  for (const Json& item : value->array()) {
    if (!item.is_integer() || item.integer() < 0)
      fail(ErrorCode::kCorrupt, "data state: '{}' must hold integers from 0 on", name);
    out.push_back(item.integer());
  }
  return out;
}

std::int64_t integer(const Json& object, const char* name) {
  const Json* value = object.find(name);
  if (!value || !value->is_integer()) fail(ErrorCode::kCorrupt, "data state: '{}' must be an integer", name);
  return value->integer();
}

Json array_of(const std::vector<std::int64_t>& values) { return Json::Array(values.begin(), values.end()); }

}  // namespace

std::int64_t DataState::samples_drawn() const {
  return start + static_cast<std::int64_t>(ahead.size()) + std::accumulate(used.begin(), used.end(), std::int64_t{0});
}

std::string DataState::json() const {
  Json out;
  out.set("seed", static_cast<std::int64_t>(seed)).set("start", start).set("positions", array_of(positions));
  return out.set("ahead", array_of(ahead)).set("used", array_of(used)).dump();
}

DataState DataState::from_json(std::string_view text) {
  Json object;
  try {
    object = Json::parse(text);
  } catch (const Error& e) {
    fail(ErrorCode::kCorrupt, "data state: {}", e.what());
  }
  DataState state;
  state.seed = static_cast<std::uint64_t>(integer(object, "seed"));
  state.start = integer(object, "start");
  state.positions = integers(object, "positions");
  state.ahead = integers(object, "ahead");
  state.used = integers(object, "used");
  if (state.start < 0) fail(ErrorCode::kCorrupt, "data state: 'start' is negative");
  if (state.used.empty()) fail(ErrorCode::kCorrupt, "data state: 'used' names no rank");
  const bool ascending =
      std::adjacent_find(state.ahead.begin(), state.ahead.end(), std::greater_equal<>()) == state.ahead.end();
  if (!ascending || (!state.ahead.empty() && state.ahead.front() < state.start))
    fail(ErrorCode::kCorrupt, "data state: 'ahead' must ascend from 'start' on");
  return state;
}

DrawSequence::DrawSequence(std::vector<SourceShape> sources, std::uint64_t seed)
    : sources_(std::move(sources)), seed_(seed), positions_(sources_.size(), 0) {
  if (sources_.empty()) fail(ErrorCode::kInvalidArgument, "training data: there is no source");
  double total = 0;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    SourceShape& source = sources_[i];
    if (source.size < 1) fail(ErrorCode::kInvalidArgument, "training data: source {} has no samples", i + 1);
    if (!(source.weight >= 0) || !std::isfinite(source.weight))
      fail(ErrorCode::kInvalidArgument, "training data: source {} has the weight {}", i + 1, source.weight);
    if (source.weight == 0) source.weight = static_cast<double>(source.size);
    total += source.weight;
    limits_.push_back(total);
  }
  for (double& limit : limits_) limit /= total;
  limits_.back() = 1;
}

DrawSequence::DrawSequence(std::vector<SourceShape> sources, const DataState& at)
    : DrawSequence(std::move(sources), at.seed) {
  if (at.positions.size() != sources_.size())
    fail(ErrorCode::kInvalidArgument, "training data: {} sources, but the saved state has {}", sources_.size(),
         at.positions.size());
  number_ = at.start;
  positions_ = at.positions;
}

std::size_t DrawSequence::choose(std::int64_t number) const {
  if (sources_.size() == 1) return 0;
  const auto words = Philox{seed_ ^ kChoiceStream}(static_cast<std::uint64_t>(number));
  const double u = (static_cast<double>(words[0]) * 0x1p21 + static_cast<double>(words[1] >> 11)) * 0x1p-53;
  std::size_t source = 0;
  while (source + 1 < limits_.size() && u >= limits_[source]) ++source;
  return source;
}

Draw DrawSequence::next() {
  Draw draw;
  draw.number = number_++;
  draw.source = choose(draw.number);
  const std::int64_t position = positions_[draw.source]++, size = sources_[draw.source].size;
  draw.epoch = position / size;
  const Permutation order(size, seed_, static_cast<std::uint64_t>(draw.epoch), static_cast<std::uint32_t>(draw.source));
  draw.index = order(position % size);
  return draw;
}

void DrawSequence::skip() { ++positions_[choose(number_++)]; }

RankDraws::RankDraws(std::vector<SourceShape> sources, const DataState& state, std::size_t rank)
    : sequence_(std::move(sources), state),
      ahead_(state.ahead),
      ranks_(static_cast<std::int64_t>(state.used.size())),
      rank_(static_cast<std::int64_t>(rank)) {
  GOV_DCHECK(rank < state.used.size());
  for (std::int64_t i = 0; i < state.used[rank]; ++i) next();
}

void RankDraws::skip_ahead() {
  while (next_ahead_ < ahead_.size() && ahead_[next_ahead_] == sequence_.number()) {
    sequence_.skip();
    ++next_ahead_;
  }
}

Draw RankDraws::next() {
  while (true) {
    skip_ahead();
    if (dealt_++ % ranks_ == rank_) return sequence_.next();
    sequence_.skip();
  }
}

DataState first_state(std::span<const SourceShape> sources, std::uint64_t seed, std::size_t ranks) {
  GOV_DCHECK(ranks > 0);
  DataState state;
  state.seed = seed;
  state.positions.assign(sources.size(), 0);
  state.used.assign(ranks, 0);
  return state;
}

DataState compact(const std::vector<SourceShape>& sources, DataState state) {
  // Whole rounds of dealing that every rank has used; a multiple of the ranks keeps the dealing as it was.
  const std::int64_t common = min_used(state);
  std::int64_t rounds = common * static_cast<std::int64_t>(state.used.size());
  for (std::int64_t& used : state.used) used -= common;
  DrawSequence sequence(sources, state);
  std::size_t next_ahead = 0;
  const auto is_ahead = [&] { return next_ahead < state.ahead.size() && state.ahead[next_ahead] == sequence.number(); };
  while (rounds > 0 || is_ahead()) {
    if (is_ahead()) ++next_ahead;
    else --rounds;
    sequence.skip();
  }
  state.start = sequence.number();
  state.positions = sequence.positions();
  state.ahead.erase(state.ahead.begin(), state.ahead.begin() + static_cast<std::ptrdiff_t>(next_ahead));
  return state;
}

DataState deal_again(const std::vector<SourceShape>& sources, const DataState& state, std::size_t ranks) {
  DataState out = compact(sources, state);
  DataState begin = out;
  begin.used.assign(out.used.size(), 0);
  for (std::size_t rank = 0; rank < out.used.size(); ++rank) {
    RankDraws draws(sources, begin, rank);
    for (std::int64_t i = 0; i < out.used[rank]; ++i) out.ahead.push_back(draws.next().number);
  }
  std::sort(out.ahead.begin(), out.ahead.end());
  out.used.assign(ranks, 0);
  return compact(sources, out);
}

}  // namespace gov::train
