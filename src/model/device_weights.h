#pragma once
// Models on a GPU: every tensor of the parameter table in one allocation there, read from the mapped checkpoint or made
// of random values on the spot.

#include <functional>

#include "model/transformer.h"

namespace gov {

struct DeviceOptions {
  int ordinal = 0;
  // Besides MXFP4 experts the same values in BF16, four times as large, for products of large batches.
  bool expand_experts = false;
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes; called by one thread
};

// Bytes that to_device() will allocate for these weights, without expanded experts, and those of the expanded ones.
std::uint64_t device_weight_bytes(const Config& config, const Weights& host);
std::uint64_t expanded_expert_bytes(const Config& config);

// The model on the GPU, types as stored; the host's copy is given up. Query, key and value projections of a layer lie
// one behind the other. Weights::owned_bytes is what they take there.
Model to_device(Model host, const DeviceOptions& options, ThreadPool& pool);

// random_model() on the GPU, where its values are made: of the same distribution, and MXFP4 blocks and scales the same
// bytes, but normal values may differ from the host's in the last bits.
Model random_device_model(const Config& config, std::uint64_t seed, const DeviceOptions& options);

}  // namespace gov
