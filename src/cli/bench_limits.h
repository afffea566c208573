#pragma once
// The least work a model must do on any implementation, and the time that this machine needs for it at least: the
// denominators of bench's percentages. The formulas count each weight byte once per step and each product once.

#include <optional>

#include "model/transformer.h"
#include "ops/device_limits.h"

namespace gov::cli {

struct Cost {
  double bytes = 0;  // read from memory
  double flops = 0;  // multiply and add counted as two
};

// One step that adds one token to each of `batch` sequences of `context` cached positions. With uniform routing a layer
// touches experts * (1 - (1 - k/experts)^batch) experts.
// Where the number of experts is known it is given. eight_bit: attention and head matrices are read as int8 with a
// scale for each row.
Cost decode_cost(const Model& model, std::int64_t batch, std::int64_t context, DType kv_dtype,
                 std::optional<double> touched = {}, bool eight_bit = false);
// The prompts of `batch` sequences of `tokens` positions each, logits of the last one only.
Cost prefill_cost(const Model& model, std::int64_t batch, std::int64_t tokens);
// One picture through the encoder and the projection.
Cost encode_cost(const Model& model);

// Seconds that the slower of memory and arithmetic needs.
double least_seconds(const Cost& cost, const ops::DeviceLimits& limits);

}  // namespace gov::cli
