#pragma once
// The order in which samples are drawn from several sources: one global sequence, endless, that depends on the seed,
// the sizes and the weights only; and its division among data-parallel ranks. All of it is computed, nothing is stored.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gov::train {

struct SourceShape {
  std::int64_t size = 0;  // samples of one epoch
  double weight = 0;      // share of the draws; 0: its size
};

struct Draw {
  std::int64_t number = 0;  // in the global sequence, from 0
  std::size_t source = 0;
  std::int64_t epoch = 0;  // of that source
  std::int64_t index = 0;  // of the sample in the source
};

// Where in the sequence a run stands, small enough for a checkpoint. Draws from `start` on that are not in `ahead` are
// dealt to the ranks in turn; rank r has used the first used[r] of its own.
struct DataState {
  std::uint64_t seed = 0;
  std::int64_t start = 0;
  std::vector<std::int64_t> positions;  // of each source at `start`: samples drawn from it
  std::vector<std::int64_t> ahead;      // draws from `start` on that are used already, ascending
  std::vector<std::int64_t> used;       // by each rank; its size is the number of ranks

  std::int64_t samples_drawn() const;  // used draws of all ranks since the beginning
  std::string json() const;
  // Error kCorrupt naming the member.
  static DataState from_json(std::string_view text);
  friend bool operator==(const DataState&, const DataState&) = default;
};

// The global sequence from some draw on.
class DrawSequence {
 public:
  // Error kInvalidArgument: no source, a source without samples, a weight that is negative or not finite.
  DrawSequence(std::vector<SourceShape> sources, std::uint64_t seed);
  DrawSequence(std::vector<SourceShape> sources, const DataState& at);
  Draw next();
  void skip();                                     // the same without the work of finding the sample
  std::int64_t number() const { return number_; }  // of the draw that next() gives
  const std::vector<std::int64_t>& positions() const { return positions_; }

 private:
  std::size_t choose(std::int64_t number) const;

  std::vector<SourceShape> sources_;
  std::uint64_t seed_;
  std::vector<double> limits_;  // cumulative shares, the last is 1
  std::int64_t number_ = 0;
  std::vector<std::int64_t> positions_;
};

// The draws of one rank, from where it stands.
class RankDraws {
 public:
  RankDraws(std::vector<SourceShape> sources, const DataState& state, std::size_t rank);
  Draw next();

 private:
  void skip_ahead();
  DrawSequence sequence_;
  std::vector<std::int64_t> ahead_;
  std::size_t next_ahead_ = 0;
  std::int64_t dealt_ = 0;  // draws passed that belong to any rank
  std::int64_t ranks_, rank_;
};

// The beginning, for `ranks` ranks.
DataState first_state(std::span<const SourceShape> sources, std::uint64_t seed, std::size_t ranks);
// The same point with everything behind `start` forgotten that can be. Ranks get the same draws as before.
DataState compact(const std::vector<SourceShape>& sources, DataState state);
// The same point for another number of ranks: no draw is lost or repeated, and the rest keeps its order.
DataState deal_again(const std::vector<SourceShape>& sources, const DataState& state, std::size_t ranks);

}  // namespace gov::train
