#pragma once
// Drawing tokens on the GPU without waiting for it: the device-side parts of ops::sample(), so that a decode step can
// take its token from the step before it. Builds without CUDA throw Error kUnsupported.
//
//   DeviceSampler sampler;
//   sampler.upload(ctx, rows);             // parameters, penalties, random numbers: host -> device, at once
//   sampler.launch(ctx, logits, tokens);   // the next step may read tokens
//   ...
//   sampler.read(ctx, results);            // waits
//
// upload() and read() belong outside of a CUDA graph. launch() may be captured, once the workspace has its size and is
// compact (tensor/context.h): on replay it reads what was uploaded last. A captured launch fits other rows if there are
// as many, if generation() is the same, and if they need no kernel that was left out: see `everything`.

#include <memory>
#include <span>

#include "ops/ops.h"

namespace gov::ops {

// tokens[r] = the largest finite logit of row r, ties to the lowest id; -1 if there is none.
// logits F32 [R, V]; tokens I32 [R].
void sample_greedy_device(Context& ctx, const Tensor& logits, const Tensor& tokens);

class DeviceSampler {
 public:
  DeviceSampler();
  ~DeviceSampler();
  DeviceSampler(DeviceSampler&&) noexcept;
  DeviceSampler& operator=(DeviceSampler&&) noexcept;

  // Copies what the rows ask for to the device; the spans may go when it returns. Waits only until the upload before
  // the one before has arrived. `everything`: launch() starts all kernels, whatever these rows need.
  void upload(Context& ctx, std::span<const SampleRow> rows, bool everything = false);
  // Changes when a launch captured before holds addresses that are gone.
  std::int64_t generation() const;
  // Draws for the rows uploaded last, as ops::sample() does. logits F32 [R, V], used as scratch; tokens I32 [R] or
  // empty; a row without a finite logit gets -1.
  void launch(Context& ctx, const Tensor& logits, const Tensor& tokens);
  // The same inside of an op.
  void start(Context& ctx, const Tensor& logits, const Tensor& tokens);
  // Puts the way home of the last launch's results into the stream, so that read() need not wait for later work.
  void send(Context& ctx);
  // The results of the last launch, once it is done; send() first if that was not called.
  void read(Context& ctx, std::span<SampleResult> results);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gov::ops
