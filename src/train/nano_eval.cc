#include "train/nano_eval.h"

#include <algorithm>

#include "base/error.h"
#include "train/nano_words.h"

namespace gov::train {
namespace {

constexpr std::uint64_t kSeed = 20260101;
constexpr std::size_t kCompositions = 512, kTrainPictures = 256;
constexpr const char* kComposed = "compositions_held_style";
constexpr const char* kTrained = "train_pictures";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> out;
  for (std::size_t at; (at = text.find(separator)) != std::string_view::npos; text.remove_prefix(at + separator.size()))
    out.emplace_back(text.substr(0, at));
  out.emplace_back(text);
  return out;
}

// The words behind "Related words: ".
std::vector<std::string> words_of(std::string_view answer) {
  constexpr std::string_view kMark = "Related words: ";
  const std::size_t at = answer.find(kMark);
  if (at == std::string_view::npos) return {};
  answer.remove_prefix(at + kMark.size());
  if (answer.ends_with('.')) answer.remove_suffix(1);
  return split(answer, ", ");
}

// Whether a list has the item, as a whole: items themselves may hold commas and "and".
bool lists(std::string_view answer, const std::string& item) {
  const std::string capital = capitalised(item);
  if (answer.starts_with(capital) || answer.starts_with(item)) {
    const std::string_view rest = answer.substr(item.size());
    if (rest.empty() || rest.starts_with(", ") || rest.starts_with(" and ")) return true;
  }
  for (std::size_t at = answer.find(item); at != std::string_view::npos; at = answer.find(item, at + 1)) {
    const std::string_view before = answer.substr(0, at), rest = answer.substr(at + item.size());
    if ((before.ends_with(", ") || before.ends_with(" and ")) &&
        (rest.empty() || rest.starts_with(", ") || rest.starts_with(" and ")))
      return true;
  }
  return false;
}

bool has(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

}  // namespace

std::vector<std::string> NanoEvaluation::sets() {
  return {"held_style", "held_style_design_unseen", "held_twemoji", "held_flat", kTrained, kComposed};
}

std::vector<std::size_t> NanoEvaluation::pictures(const std::string& set) const {
  if (set != kTrained) return data_.set(set == kComposed ? "held_style" : set);
  std::vector<std::size_t> out = data_.set("train");
  NanoRandom random(kSeed, 0);
  random.shuffle(out);
  out.resize(std::min(out.size(), kTrainPictures));
  return out;
}

std::size_t NanoEvaluation::size(const std::string& set) const {
  return set == kComposed ? kCompositions : pictures(set).size();
}

NanoItem NanoEvaluation::item(const std::string& set, std::size_t i) const {
  const std::vector<std::size_t> all = pictures(set);
  if (i >= size(set) || all.empty()) fail(ErrorCode::kInvalidArgument, "nano: {} has no item {}", printable(set), i);
  return set == kComposed ? composed_item(all, i) : picture_item(all[i], i);
}

NanoItem NanoEvaluation::picture_item(std::size_t picture, std::size_t i) const {
  NanoRandom random(kSeed + 1, picture);
  const NanoConcept& c = data_.concept_of(picture);
  NanoItem item{single_scene(data_, picture, side_, false, random), {}};
  using Kind = NanoQuestionKind;
  item.questions = {{Kind::kLabel, "What is this?", label_answer(c), ""},
                    {Kind::kCaption, "Name this.", caption_answer(c), ""},
                    {Kind::kDescribe, "Describe this picture.", describe_answer(c), ""},
                    {Kind::kFrench, "What is this in French?", capitalised(c.names[0]), ""}};
  const bool yes = i % 2 == 0;
  std::size_t other = random.below(data_.concepts().size());
  if (data_.concepts()[other].label == c.label) other = (other + 1) % data_.concepts().size();
  const std::string asked = with_article(yes ? c.label : data_.concepts()[other].label);
  item.questions.push_back({Kind::kYesNo, "Is this " + asked + "?", yes_no_answer(c, yes), ""});
  return item;
}

NanoItem NanoEvaluation::composed_item(const std::vector<std::size_t>& all, std::size_t i) const {
  NanoRandom random(kSeed + 2, i);
  const std::size_t wanted = draw_picture_count(random);
  std::vector<std::size_t> chosen;
  for (int tries = 0; chosen.size() < wanted && tries < 100; ++tries) {
    const std::size_t next = all[random.below(all.size())];
    if (std::find(chosen.begin(), chosen.end(), next) == chosen.end()) chosen.push_back(next);
  }
  NanoItem item{composed_scene(data_, std::move(chosen), side_, false, random), {}};
  const Scene& scene = item.scene;
  using Kind = NanoQuestionKind;
  if (scene.pictures.size() > 1) {
    const std::size_t at = random.below(scene.pictures.size());
    item.questions.push_back({Kind::kPosition, std::string("What is ") + scene.places[at] + "?",
                              caption_answer(data_.concept_of(scene.pictures[at])), scene.places[at]});
  }
  item.questions.push_back({Kind::kCount, "How many pictures are there?", count_answer(scene.pictures.size()), ""});
  item.questions.push_back({Kind::kList, "List everything.", list_answer(data_, scene), ""});
  if (!scene.background.empty())
    item.questions.push_back(
        {Kind::kBackground, "What colour is the background?", background_answer(scene.background), ""});
  return item;
}

void NanoScores::add_figure(const std::string& name, double value) {
  Figure& figure = figures_[name];
  figure.sum += value;
  ++figure.count;
}

void NanoScores::add_label(const NanoConcept& c, std::string_view answer) {
  const std::string sentence = "This is " + with_article(c.label);
  const bool exact =
      answer.starts_with(sentence) && (answer.size() == sentence.size() || answer[sentence.size()] == '.');
  const std::vector<std::string> words = words_of(answer);
  add_figure("label_exact", exact ? 1 : 0);
  add_figure("top_tag_hit", !words.empty() && has(c.tags, words[0]) ? 1 : 0);
  add_figure("any_tag_hit",
             std::any_of(words.begin(), words.end(), [&](const std::string& w) { return has(c.tags, w); }) ? 1 : 0);
}

void NanoScores::add_list(const Scene& scene, const NanoQuestion& question, std::string_view answer) {
  add_figure(fmt::format("list_exact_{}", scene.pictures.size()), answer == question.answer ? 1 : 0);
  if (answer.ends_with('.')) answer.remove_suffix(1);
  double found = 0;
  for (const std::size_t picture : scene.pictures)
    found += lists(answer, with_article(data_.concept_of(picture).label)) ? 1 : 0;
  add_figure("list_item_recall", found / static_cast<double>(scene.pictures.size()));
}

void NanoScores::add(const NanoItem& item, const NanoQuestion& question, std::string_view answer) {
  answer = trimmed(answer);
  const NanoConcept& c = data_.concept_of(item.scene.pictures[0]);
  const double exact = answer == question.answer ? 1 : 0;
  switch (question.kind) {
    case NanoQuestionKind::kLabel: return add_label(c, answer);
    case NanoQuestionKind::kCaption: return add_figure("caption_exact", exact);
    case NanoQuestionKind::kDescribe:
      return add_figure("subgroup_hit", answer.find("(" + c.subgroup + ")") != std::string_view::npos ? 1 : 0);
    case NanoQuestionKind::kFrench: return add_figure("french_exact", exact);
    case NanoQuestionKind::kYesNo:
      add_figure("yes_no", answer.substr(0, answer.find(',')) ==
                                   std::string_view(question.answer).substr(0, question.answer.find(','))
                               ? 1
                               : 0);
      return add_figure("yes_no_with_label", exact);
    case NanoQuestionKind::kPosition:
      add_figure("position_all", exact);
      if (item.scene.pictures.size() == 2) add_figure("left_right_of_two", exact);
      return;
    case NanoQuestionKind::kCount: return add_figure("count", exact);
    case NanoQuestionKind::kList: return add_list(item.scene, question, answer);
    case NanoQuestionKind::kBackground: return add_figure("background", exact);
  }
}

}  // namespace gov::train
