#pragma once
// ONE table of the model's tensors: Hugging Face name, shape, storage, initial value, weight decay. Loading, counting,
// initialising and writing walk it; nothing else knows a tensor's name.

#include <functional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/weights.h"

namespace gov {

enum class Part { kEmbedding, kAttention, kRouter, kExperts, kNorm, kHead, kVision };
const char* part_name(Part part);

enum class Storage {
  kFloat,         // F32, BF16 or F16, used as stored
  kExpertMatrix,  // the same, stored [E, in, out], used [E, out, in]
  kU8,            // MXFP4 blocks or scales
};

enum class Init { kNormal, kZero, kOne, kMxfp4Blocks, kMxfp4Scales };

struct ParameterSpec {
  std::string name;   // as written by Hugging Face transformers
  std::string alias;  // another accepted name, or empty
  Shape shape;        // as stored in the file
  Storage storage = Storage::kFloat;
  Part part = Part::kNorm;
  std::int64_t layer = -1;  // of the text model; -1: of none
  Init init = Init::kNormal;
  bool decay = true;            // weight decay by convention: matrices yes; biases, norms, sinks no
  bool optional = false;        // may be missing: zero (vision_bias)
  std::int64_t values() const;  // parameters that it holds: for MXFP4 blocks two per byte, for scales none
};

// Calls visit for every tensor of the model in checkpoint order, with the field of `weights` that views it; sizes the
// layer vectors of `weights` first.
void for_each_parameter(const Config& config, Weights& weights,
                        const std::function<void(const ParameterSpec&, Tensor&)>& visit);

// The same as a list, without weights.
std::vector<ParameterSpec> parameter_table(const Config& config);

// Parameters in total, and active for one text token: everything but the embedding table (a look-up) and the experts
// that are not chosen, vision left out.
struct ParameterCount {
  std::int64_t total = 0;
  std::int64_t active = 0;
  std::int64_t by_part[7] = {};  // indexed by Part
};
ParameterCount count_parameters(const Config& config);

}  // namespace gov
