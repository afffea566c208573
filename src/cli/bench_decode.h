#pragma once
// The decode row of bench on a GPU, without an engine.

#include "cli/common.h"

namespace gov::cli {

struct DecodeBench {
  std::int64_t batch = 1, context = 0;  // sequences, and the positions in the cache when they start
  std::int64_t steps = 64, repeat = 3;
  std::uint64_t seed = 0;
  DType dtype = DType::kBF16, kv_dtype = DType::kBF16;
  std::int64_t block_size = 64;
  std::string path = "auto";
};

struct DecodeTiming {
  double seconds = 0;                     // of one step: the median repetition's mean
  std::optional<double> experts_touched;  // distinct experts that a step's rows chose, mean over layers; if traced
  std::string path;                       // model/decode.h
};

// Every sequence draws its likeliest token `steps` times, fed back on the device. The cache of the first `context`
// positions holds random values instead of a prompt's keys and values: a step's time does not depend on what they are.
DecodeTiming time_decode(Workplace& place, const Model& model, const DecodeBench& o);

}  // namespace gov::cli
