#pragma once
// What an engine counts about itself, as a server shows it.

#include <array>
#include <cstdint>
#include <string>

#include "engine/draft.h"
#include "engine/prefix_stats.h"
#include "model/decode.h"
#include "model/expert_load.h"

namespace gov {

// How many values were at most each bound, as Prometheus wants it (there `counts` added up).
struct Histogram {
  // Seconds: of single tokens on a GPU up to long prompts on a CPU.
  static constexpr std::array<double, 18> kBounds{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                                  1,     2,     5,     10,   20,   40,   80,  160, 320};
  std::array<std::int64_t, kBounds.size() + 1> counts{};  // the last: above all bounds
  std::int64_t count = 0;
  double sum = 0;

  void add(double value) {
    std::size_t i = 0;
    while (i < kBounds.size() && !(value <= kBounds[i])) ++i;
    ++counts[i];
    ++count;
    sum += value;
  }
};

struct EngineStats {
  // Rows computed, those computed again after a preemption included: of prompts, and of answers (guesses too).
  std::int64_t prompt_rows = 0, decode_rows = 0;
  std::int64_t steps = 0, images = 0;
  double prefill_seconds = 0, decode_seconds = 0, encode_seconds = 0;  // mixed steps count as prefill
  std::int64_t preemptions = 0;  // sequences that gave their blocks back, for lack of blocks or to a larger priority
  std::int64_t full_blocks = 0, sliding_blocks = 0;            // of the cache
  std::int64_t free_full_blocks = 0, free_sliding_blocks = 0;  // now; what only the prefix cache keeps is free
  PrefixStats prefix;
  DraftStats draft;
  // Requests now: no row computed yet; started and not finished.
  std::int64_t waiting = 0, running = 0;
  // Requests so far. rejected: refused at submission, by their contents or by a full queue.
  std::int64_t submitted = 0, finished = 0, cancelled = 0, failed = 0, rejected = 0;
  std::int64_t tokens = 0;         // generated, those that ended a text included
  std::int64_t forced_tokens = 0;  // of these, written without a draw because nothing else was allowed
  double mask_seconds = 0;         // spent on what constraints allow
  Histogram first_token_seconds;   // from submission, of each request
  Histogram token_seconds;         // between the tokens of a choice
  // On a GPU: the path that decode steps take, and how many were run from graphs.
  std::string decode_path;
  DecodeStats decode;
  ExpertLoad experts;        // up to date when nothing runs, else a quarter of a second old at most
  bool device_lost = false;  // the accelerator failed: nothing more will work
};

}  // namespace gov
