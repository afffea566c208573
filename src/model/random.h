#pragma once
// Random weights as a pure function of (seed, tensor name, position): the same bytes in memory, on disk, in any order
// and with any number of threads.

#include <cstdint>
#include <span>

#include "model/parameters.h"

namespace gov {

// Fills elements [begin, begin + count) of the tensor `spec` as stored in a file with element type `dtype` (F32, BF16,
// F16, or U8 for MXFP4 blocks and scales). kNormal is normal(0, config.initializer_range). MXFP4 blocks are uniform
// codes, whose root mean square is 2.93 scale units, and all scales equal 2^round(log2(initializer_range / 2.93)).
void fill_random(const ParameterSpec& spec, const Config& config, std::uint64_t seed, DType dtype, std::int64_t begin,
                 std::int64_t count, void* out);

// The Philox key of a tensor's values, and the scale that all MXFP4 blocks get.
std::uint64_t random_key(std::uint64_t seed, std::string_view tensor);
int random_scale(const Config& config);

}  // namespace gov
