#pragma once
// What nano is measured by: fixed questions about pictures that are not trained on, and the score of the answers. The
// sets and figures are those of the reference model, so that both can stand in one table.

#include <map>
#include <string>
#include <vector>

#include "train/nano_source.h"

namespace gov::train {

enum class NanoQuestionKind { kLabel, kCaption, kDescribe, kFrench, kYesNo, kPosition, kCount, kList, kBackground };

struct NanoQuestion {
  NanoQuestionKind kind;
  std::string question, answer;  // the answer in full, as it is taught
  std::string place;             // kPosition
};

// One image and what is asked about it.
struct NanoItem {
  Scene scene;
  std::vector<NanoQuestion> questions;
};

class NanoEvaluation {
 public:
  // `side` in pixels, of the model's images.
  NanoEvaluation(const NanoData& data, int side) : data_(data), side_(side) {}

  // held_style, held_style_design_unseen, held_twemoji, held_flat, train_pictures, compositions_held_style.
  static std::vector<std::string> sets();
  std::size_t size(const std::string& set) const;
  // Item i of a set; the same on every machine. Error kInvalidArgument for an unknown set.
  NanoItem item(const std::string& set, std::size_t i) const;

 private:
  NanoItem picture_item(std::size_t picture, std::size_t i) const;
  NanoItem composed_item(const std::vector<std::size_t>& pictures, std::size_t i) const;
  std::vector<std::size_t> pictures(const std::string& set) const;

  const NanoData& data_;
  int side_;
};

// The mean of each figure over the answers given: label_exact, caption_exact, top_tag_hit, any_tag_hit, subgroup_hit,
// french_exact, yes_no, yes_no_with_label; of compositions position_all, left_right_of_two, count, list_exact_1 to _4,
// list_item_recall, background. White space at the ends does not count.
class NanoScores {
 public:
  explicit NanoScores(const NanoData& data) : data_(data) {}
  void add(const NanoItem& item, const NanoQuestion& question, std::string_view answer);
  struct Figure {
    double sum = 0;
    std::int64_t count = 0;
    double mean() const { return count > 0 ? sum / static_cast<double>(count) : 0; }
  };
  const std::map<std::string, Figure>& figures() const { return figures_; }

 private:
  void add_figure(const std::string& name, double value);
  void add_label(const NanoConcept& c, std::string_view answer);
  void add_list(const Scene& scene, const NanoQuestion& question, std::string_view answer);

  const NanoData& data_;
  std::map<std::string, Figure> figures_;
};

}  // namespace gov::train
