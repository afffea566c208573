#pragma once
// Engine: requests in, tokens out. Each step schedules rows of many sequences (chunks of prompts and single decode rows)
// under a token budget, runs the model once, and draws the next tokens. The text of a request does not depend on what else
// is in the batch.

#include <memory>

#include "engine/request.h"
#include "model/memory_plan.h"
#include "model/transformer.h"
#include "text/tokenizer.h"

namespace gov {

struct EngineOptions {
  std::int64_t context = 0;          // most positions of one sequence; 0: the model's maximum, less if memory is short
  std::int64_t max_sequences = 8;    // running at once; more wait
  std::int64_t chunk = 512;          // most rows of one step
  std::int64_t block_size = 16;
  DType kv_dtype = DType::kF32;      // F32 or BF16
  std::uint64_t memory_limit = 0;    // bytes; 0: what the machine has available
};

struct EngineStats {
  std::int64_t steps = 0, prompt_rows = 0, decode_rows = 0, images = 0;
  double prefill_seconds = 0, decode_seconds = 0, encode_seconds = 0;  // mixed steps count as prefill
};

using RequestId = std::int64_t;

class Engine {
 public:
  // Plans the memory first and throws Error kOutOfMemory, with the plan in one line, when it cannot fit. stop_ids: the eos
  // ids. `model`, `tokenizer` and `pool` must outlive the engine. tokenizer may be null: no text, no stop strings.
  Engine(const Model& model, const Tokenizer* tokenizer, std::vector<std::int32_t> stop_ids, const EngineOptions& options,
         ThreadPool& pool, const Log& log = {});
  ~Engine();

  // Checks the request (Error kInvalidArgument or kContextLength: nothing was queued) and queues it.
  RequestId submit(Request request);
  // Runs one step; false when nothing is queued or running. An error inside one request fails that request only.
  bool step();
  // The result once all its choices are done, then forgets the request; throws the request's error if it failed.
  bool finished(RequestId id) const;
  RequestResult take(RequestId id);
  // Ends a request; its completions so far are kept with finish reason cancelled.
  void cancel(RequestId id);

  const MemoryPlan& plan() const;
  const EngineStats& stats() const;
  const EngineOptions& options() const;  // with the defaults filled in
  Context& context();                    // to trace, to force an instruction set, to read the counters

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Submits all requests, runs until all are done, and returns the results in order. The first error is thrown.
std::vector<RequestResult> generate(Engine& engine, std::vector<Request> requests);

}  // namespace gov
