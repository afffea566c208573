#pragma once
// Random attention problems, contiguous or paged, with their reference answers.

#include "ops/reference/math.h"
#include "tests/ops/harness.h"

namespace gov::test {

struct AttentionProblem {
  std::vector<std::int32_t> rows, keys;  // per sequence
  std::int64_t heads = 4, kv_heads = 2, dim = 64;
  DType cache = DType::kF32;  // F8E4M3 on CUDA
  std::int64_t block_size = 16;
  bool contiguous = false;  // then rows == keys
  bool causal = true, sinks = true;
  int window = 0;
  DType act = DType::kF32;  // of q, out, and contiguous k and v
};

// All tensors of a problem. Cache blocks are scattered, blocks before a window are unmapped, and cache rows that belong
// to no key hold NaN.
class AttentionSetup {
 public:
  AttentionSetup(Memory& memory, const AttentionProblem& problem);

  const AttentionProblem& problem() const { return problem_; }
  Tensor output() const { return memory_.make(problem_.act, args.q.shape); }
  reference::AttentionShape shape() const;
  Doubles reference(const reference::AttentionShape& shape, const Doubles& sinks) const;
  Doubles reference() const { return reference(shape(), problem_.sinks ? values(args.sinks) : Doubles{}); }
  // The last `count` query rows of every sequence, as a call of its own (chunked prefill, decode).
  ops::AttentionArgs last_rows(const std::vector<std::int32_t>& skip, const std::vector<std::int32_t>& count) const;
  Tolerance tolerance() const;

  ops::AttentionArgs args;

 private:
  void fill_cache(const std::vector<Doubles>& rows, const Tensor& cache) const;

  Memory& memory_;
  AttentionProblem problem_;
  std::vector<Doubles> k_, v_;  // per sequence [keys, kv_heads, dim], as the kernel sees them
};

}  // namespace gov::test
