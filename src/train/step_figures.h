#pragma once
// What is said of a step beside its loss: arithmetic, use of the experts; and the checks that find what silently goes
// wrong.

#include <set>
#include <string>
#include <vector>

#include "model/router_losses.h"
#include "train/packed_batch.h"
#include "train/trained_model.h"

namespace gov::train {

// Floating-point operations of forward and backward, multiply and add counted as two, for a batch:
//   2 for each weight that a row meets, forward; 2 more to bring the gradient down; 2 more where the weight is trained
// (6 N in a fully trained model). A row of text or picture meets everything of the layers but the experts it does not
// choose (K of E); a row with a target also the head; a row of the image encoder the encoder. Attention scores and what
// is computed twice are left out.
double training_flops(const Config& config, const ParameterPlan& plan, std::int64_t rows, std::int64_t loss_rows,
                      std::int64_t images);

// How evenly the routers of a layer spread rows of one kind: entropy of the experts' shares over that of equal shares,
// 0 to 1; and the largest share, 1 / E when balanced. Not finite without such rows.
struct ExpertUse {
  double entropy = 0, largest = 0;
};
ExpertUse expert_use(const RouterStatistics& s, std::int64_t layer, bool image);
// Adds the counts of another batch of the same model.
void add_statistics(RouterStatistics& to, const RouterStatistics& s);

// Every trained tensor is to receive a gradient. Tensors of the vision adapter and vision_bias are asked only in steps
// with images. Not asked: key biases of the vision transformer, whose gradient is zero by construction; with one expert
// a row the router, whose weights then are constant, unless there is a loss of its own.
class GradientGate {
 public:
  GradientGate(const ParameterSet& gradients, const LossConfig& losses);
  // Of a step's gradients, before they are used. Error kInvalidArgument naming tensors that received none.
  void check(const std::vector<double>& squares, bool with_images);
  bool done() const { return waiting_.empty(); }

 private:
  std::vector<std::string> names_;
  std::set<std::size_t> waiting_;  // indices of tensors that no step has shown to work
};

}  // namespace gov::train
