#pragma once
// Engine: requests in, tokens out. Each step schedules rows of many sequences (chunks of prompts and single decode
// rows) under a token budget, runs the model once, and draws the next tokens. On the CPU the text of a request does not
// depend on what else is in the batch; on a GPU only rounding does (ARCHITECTURE.md, Determinism).

#include <memory>

#include "base/timer.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "model/memory_plan.h"
#include "model/transformer.h"
#include "text/tokenizer.h"

namespace gov {

struct EngineOptions {
  std::int64_t context = 0;        // most positions of one sequence; 0: the model's maximum, less if memory is short
  std::int64_t max_sequences = 8;  // running at once; more wait
  // Most rows of one step (more only if more sequences than that decode at once). On a GPU it is halved, down to 512,
  // while the memory does not suffice for the context.
  std::int64_t chunk = 512;
  std::int64_t block_size = 16;    // positions of a cache block, a multiple of 8
  DType dtype = DType::kF32;       // of activations: F32 or, on a GPU, BF16
  DType kv_dtype = DType::kF32;    // F32, BF16 or, on a GPU, F8E4M3
  std::uint64_t memory_limit = 0;  // bytes; 0: what the machine or the model's GPU has available
  // On a GPU: the path of decode steps (model/decode.h).
  std::string decode_path = "auto";
  // Rows that several requests begin with are computed once (engine/prefix_cache.h). Memory for it in the sliding
  // layers, beside what the sequences need: of the memory that is left for the cache, at most this share; in the full
  // layers it uses what no sequence needs.
  bool prefix_cache = true;
  double snapshot_share = 0.1;
  // Guesses up to so many tokens of each sequence and step (engine/draft.h); 0: none.
  std::int64_t draft_tokens = 0;
  // For tests: before each step checks who owns which block and fills all free blocks with NaN.
  bool check_blocks = false;
};

using RequestId = std::int64_t;

// Not thread-safe: one thread calls it. From another thread a request is ended through Request::cancel. A callback may
// call submit(), cancel() and take(), but not step().
class Engine {
 public:
  // Plans the memory first and throws Error kOutOfMemory, with the plan in one line, when it cannot fit. The cache
  // holds max_sequences of full length if that fits, otherwise as many blocks as fit, at least one sequence's. An
  // option out of range is Error kInvalidArgument. stop_ids: the eos ids; one outside the vocabulary is never drawn and
  // has no effect. `model`, `tokenizer` and `pool` must outlive the engine. tokenizer may be null: no text, no stop
  // strings.
  Engine(const Model& model, const Tokenizer* tokenizer, std::vector<std::int32_t> stop_ids,
         const EngineOptions& options, ThreadPool& pool, const Log& log = {});
  ~Engine();

  // Checks the request (Error kInvalidArgument or kContextLength: nothing was queued) and queues it. since: when the
  // client submitted it, if that was earlier.
  RequestId submit(Request request, Timer since = {});
  // Runs one step; false when nothing is queued or running. An error inside one request fails that request only.
  bool step();
  // Whether all its choices are done, or it failed. An unknown id is Error kNotFound here and below.
  bool finished(RequestId id) const;
  // The result, then forgets the request; throws the request's error if it failed, kInvalidArgument if it is not
  // finished.
  RequestResult take(RequestId id);
  // Ends a request; its completions so far are kept with finish reason cancelled. The callback is not called any more.
  void cancel(RequestId id);

  // Forgets all prefixes.
  void reset_prefix_cache();

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
