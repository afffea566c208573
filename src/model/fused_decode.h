#pragma once
// The decode step of one sequence in six kernels a layer (ops/fused.h). Batches of more rows take the composed ops.

#include "model/decode.h"

namespace gov {

// Whether the fused kernels can run this model on the GPU where it is: its sizes, and BF16 weights with MXFP4 experts.
bool fused_decode_supported(const Model& model);
// Device memory of the step's own vectors, and with eight_bit of its copies of the attention and head matrices.
std::uint64_t fused_decode_bytes(const Config& config, bool eight_bit);

// eight_bit: the attention and head matrices are read as int8 with a scale for each row, half the bytes; batches and
// prompts still read them in BF16. path() is "fused" or "fused-int8". Error kUnsupported unless
// fused_decode_supported().
std::unique_ptr<DecodeStep> make_fused_decode(const Model& model, const KvCache& cache, Activations& acts,
                                              bool eight_bit, std::unique_ptr<DecodeStep> batches);

}  // namespace gov
