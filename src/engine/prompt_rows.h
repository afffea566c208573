#pragma once
// What a request may want of its prompt's rows besides the next token: the log-probability of every token of the prompt
// (options.prompt_logprobs) and the mean of the hidden states (Request::embed). Rows are read in pieces of at most
// acts.max_logits_rows, so that the logits of a whole prompt are never in memory.

#include "engine/scheduler.h"
#include "model/activations.h"
#include "model/transformer.h"

namespace gov {

// After forward(): reads those of `rows` that were not read before; `first` is the place of rows.begin in the batch.
// Leaves acts.last, last_normed and logits undefined. On the CPU the numbers depend neither on the batch nor on the
// pieces, and are those of drawn tokens. Numbers that are not finite end the request (Error kDevice).
void read_prompt_rows(Context& ctx, const Model& model, Activations& acts, const ScheduledRows& rows,
                      std::int64_t first);

}  // namespace gov
