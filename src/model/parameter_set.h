#pragma once
// ParameterSet: one tensor for each parameter of the table that is wanted: gradients, masters, moments in F32, weights
// to compute with in BF16. Experts are held as they are used, [E, out, in], and dense even where the model's are MXFP4:
// the file's form and names are made at the border.

#include <functional>

#include "model/parameters.h"

namespace gov {

class ParameterSet {
 public:
  struct Entry {
    ParameterSpec spec;  // of the dense form
    Tensor tensor;       // shape as used
  };
  using Wanted = std::function<bool(const ParameterSpec&)>;

  // Contents are zero. wanted: which parameters have a tensor; empty: all. dtype: F32 or BF16.
  ParameterSet(const Config& config, DeviceKind device, std::string_view purpose, const Wanted& wanted = {},
               DType dtype = DType::kF32);

  const std::vector<Entry>& entries() const { return entries_; }
  // The tensors in their places; parameters that are not wanted are empty. A tied lm_head is the embedding's tensor.
  const Weights& views() const { return views_; }
  const Config& config() const { return config_; }  // the model's, with dense experts
  void zero(void* stream);
  std::uint64_t bytes() const { return memory_.bytes(); }
  // What would be allocated.
  static std::uint64_t bytes(const Config& config, const Wanted& wanted = {}, DType dtype = DType::kF32);

 private:
  Config config_;  // dense
  std::vector<Entry> entries_;
  Weights views_;
  Buffer memory_;
};

// Points a model's weights to the set's tensors, where it has one; the set keeps the memory. Experts that it has become
// dense. Empty weights become those of a model of the set's configuration.
void use_parameters(const ParameterSet& set, Weights& weights);

// Widens a model's weights into the set's F32 tensors, exactly; both in the host's memory.
void read_parameters(const Config& config, const Weights& from, const ParameterSet& to);

// Calls visit(spec, values [the file's shape, element type F32]) in the file's order, one tensor at a time: experts are
// turned. `set`: F32, in the host's memory.
void for_each_stored(const ParameterSet& set,
                     const std::function<void(const ParameterSpec&, std::span<const float>)>& visit);

}  // namespace gov
