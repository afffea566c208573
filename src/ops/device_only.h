#pragma once
// What only a GPU needs beside the ops of ops.h: filling and unpacking weights where they lie, and feeding a decode
// step from the one before it without the host. There is no CPU counterpart; builds without CUDA throw Error
// kUnsupported.

#include <cstdint>

#include "tensor/context.h"

namespace gov::ops {

// Counter-based random values (Philox, key `key`, one counter for 16 bytes or for two numbers): F32, BF16, F16 and
// F8E4M3 become normal(0, deviation), U8 uniform bytes, which are those that model/random.h makes for MXFP4 blocks.
// Normal values differ from the host's in the last bits.
void fill_random(Context& ctx, const Tensor& out, float deviation, std::uint64_t key);
// Every element becomes `value`. F32, BF16, F16, U8.
void fill_value(Context& ctx, const Tensor& out, float value);

// out = the values of MXFP4 experts, which BF16 holds exactly for scales up to 249. blocks U8 [E, out, in/32, 16];
// scales U8 [E, out, in/32]; out BF16 [E, out, in].
void expand_mxfp4(Context& ctx, const Tensor& blocks, const Tensor& scales, const Tensor& out);

// The batch arrays of a decode step (model/batch.h), one row a sequence; rows of kv_lens 0 are padding and stay.
struct DecodeArrays {
  Tensor positions, kv_lens;           // I32 [R]
  Tensor full_slots, sliding_slots;    // I64 [R]
  Tensor full_tables, sliding_tables;  // I32 [R, max_blocks]
  std::int64_t block_size = 0;
};
// Moves every sequence on by one position. The block tables must reach that far already.
void advance_rows(Context& ctx, const DecodeArrays& arrays);

}  // namespace gov::ops
