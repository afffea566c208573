#include "train/nano_questions.h"

#include <algorithm>

#include "train/nano_words.h"

namespace gov::train {
namespace {

constexpr const char* kLabelQuestions[] = {"What is this?",
                                           "What is this?",
                                           "What's this?",
                                           "What is it?",
                                           "What do you see?",
                                           "What is shown here?",
                                           "what is this",
                                           "What does the picture show?",
                                           "Tell me what this is.",
                                           "What can you see here?",
                                           "What is in the picture?",
                                           "What am I looking at?",
                                           "Identify this picture.",
                                           "Can you tell me what this is?"};
constexpr const char* kDescribeQuestions[] = {
    "Describe this picture.", "Describe this picture.", "Describe the picture.",
    "Describe this image.",   "Describe what you see.", "Tell me about this picture.",
    "describe this",          "Give a description.",    "What can you say about this picture?"};
constexpr const char* kCaptionQuestions[] = {"Name this.",
                                             "Name this.",
                                             "Name it.",
                                             "Caption this.",
                                             "Give it a caption.",
                                             "Write a caption.",
                                             "Caption this picture.",
                                             "What is its name?",
                                             "Give this a name.",
                                             "name this",
                                             "A short name, please."};
constexpr const char* kGroupQuestions[] = {"Which group does it belong to?",
                                           "What group is this in?",
                                           "Which group is this?",
                                           "What kind of thing is this?",
                                           "Which category does this picture belong to?",
                                           "What category is it?"};
constexpr const char* kTagQuestions[] = {"Which words go with this?", "Give me related words.", "Related words?",
                                         "List words related to this picture.", "Tag this picture."};
constexpr const char* kCountQuestions[] = {"How many pictures are there?", "How many pictures are there?",
                                           "How many things are there?",   "How many do you see?",
                                           "Count the pictures.",          "How many are shown?"};
// The last of these ask for a label where there is but one picture.
constexpr const char* kListQuestions[] = {"List everything.",         "List everything.",
                                          "List everything you see.", "Name everything.",
                                          "Name all the pictures.",   "List all the things in this picture.",
                                          "What is in the picture?",  "What do you see?"};
constexpr std::size_t kAmbiguous = 2;
constexpr const char* kBackgroundQuestions[] = {"What colour is the background?", "What color is the background?",
                                                "Which colour is the background?", "What is the background colour?",
                                                "Background color?"};
// In kNanoLanguages; asked in the language itself.
constexpr const char* kNativeQuestions[] = {"Qu'est-ce que c'est ?", "Was ist das?",    "¿Qué es esto?", "Che cos'è?",
                                            "O que é isto?",         "これは何ですか?", "这是什么?",     "Что это?"};
constexpr const char* kSystems[] = {"You are a helpful assistant.",
                                    "You are a helpful assistant.",
                                    "You are nano, a small vision model.",
                                    "You describe pictures.",
                                    "Answer the user's questions.",
                                    "Be helpful and friendly.",
                                    "You look at pictures and say what they show.",
                                    "Answer in English."};
constexpr const char* kNumbers[] = {"no", "one", "two", "three", "four"};

std::string replace(std::string text, std::string_view what, std::string_view by) {
  const std::size_t at = text.find(what);
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

std::string in_language(std::size_t language, NanoRandom& random) {
  static constexpr const char* kForms[] = {"What is this in @?",
                                           "What is this in @?",
                                           "What is this called in @?",
                                           "Name this in @.",
                                           "What is it in @?",
                                           "How do you say this in @?",
                                           "The @ name, please.",
                                           "What is the @ name of this?",
                                           "In @?"};
  if (random.chance(0.12)) return kNativeQuestions[language];
  return replace(random.pick(kForms), "@", kNanoLanguageNames[language]);
}

std::size_t draw_language(NanoRandom& random) {  // French twice as often as each of the others
  const std::size_t language = random.below(kNanoLanguages.size() + 1);
  return language == kNanoLanguages.size() ? 0 : language;
}

const NanoConcept& other_concept(const NanoData& data, const NanoConcept& shown, NanoRandom& random) {
  const std::vector<NanoConcept>& all = data.concepts();
  const bool alike = random.chance(0.6);
  for (int tries = 0; tries < 400; ++tries) {
    const NanoConcept& other = all[random.below(all.size())];
    if (other.label == shown.label || (alike && other.subgroup != shown.subgroup)) continue;
    return other;
  }
  return all[&all[0] == &shown && all.size() > 1 ? 1 : 0];
}

QuestionAnswer ask_yes_no(const NanoData& data, const NanoConcept& shown, NanoRandom& random) {
  static constexpr const char* kForms[] = {
      "Is this @?", "Is this @?", "Is it @?", "Does this show @?", "Is that @ in the picture?", "is this @?"};
  const bool yes = random.chance(0.5);
  const NanoConcept& asked = yes ? shown : other_concept(data, shown, random);
  return {replace(random.pick(kForms), "@", with_article(asked.label)), yes_no_answer(shown, yes)};
}

NanoTask draw_task(double languages, NanoRandom& random) {
  if (random.chance(languages)) return NanoTask::kLanguage;
  const double u = random.uniform();
  if (u < 0.30) return NanoTask::kLabel;
  if (u < 0.46) return NanoTask::kDescribe;
  if (u < 0.66) return NanoTask::kCaption;
  if (u < 0.73) return NanoTask::kGroup;
  return u < 0.79 ? NanoTask::kTags : NanoTask::kYesNo;
}

const std::string& label_of(const NanoData& data, std::size_t picture) { return data.concept_of(picture).label; }

QuestionAnswer ask_where(const NanoData& data, const Scene& scene, NanoRandom& random) {
  const std::size_t i = random.below(scene.pictures.size());
  const std::string& label = label_of(data, scene.pictures[i]);
  return {"Where is " + with_article(label) + "?", capitalised(scene.places[i]) + "."};
}

QuestionAnswer ask_presence(const NanoData& data, const Scene& scene, NanoRandom& random) {
  if (random.chance(0.5)) {
    const std::string thing = with_article(label_of(data, scene.pictures[random.below(scene.pictures.size())]));
    return {"Do you see " + thing + "?", "Yes, there is " + thing + "."};
  }
  const NanoConcept& other = other_concept(data, data.concept_of(scene.pictures[0]), random);
  for (const std::size_t picture : scene.pictures)
    if (label_of(data, picture) == other.label) return ask_presence(data, scene, random);
  const std::string thing = with_article(other.label);
  return {"Do you see " + thing + "?", "No, I do not see " + thing + "."};
}

bool is_same_place(const Scene& scene, std::size_t i) {  // two of one label: "where" has two answers
  return std::count(scene.pictures.begin(), scene.pictures.end(), scene.pictures[i]) > 1;
}

QuestionAnswer ask_scene(const NanoData& data, const Scene& scene, NanoRandom& random) {
  const double u = random.uniform();
  if (u < 0.42) {
    const std::size_t i = random.below(scene.pictures.size());
    return {position_question(scene.places[i], random), caption_answer(data.concept_of(scene.pictures[i]))};
  }
  if (u < 0.54) return {random.pick(kCountQuestions), count_answer(scene.pictures.size())};
  if (u < 0.78) {
    const std::span<const char* const> questions(kListQuestions);
    const std::size_t usable = questions.size() - (scene.pictures.size() == 1 ? kAmbiguous : 0);
    return {random.pick(questions.first(usable)), list_answer(data, scene)};
  }
  if (u < 0.88 && !scene.background.empty())
    return {random.pick(kBackgroundQuestions), background_answer(scene.background)};
  if (u < 0.94 && !is_same_place(scene, 0)) return ask_where(data, scene, random);
  return ask_presence(data, scene, random);
}

// Draws until `count` questions differ, but not for ever.
template <class Ask>
std::vector<QuestionAnswer> different(std::size_t count, Ask&& ask) {
  std::vector<QuestionAnswer> out;
  for (std::size_t tries = 0; out.size() < count && tries < 20 * count; ++tries) {
    QuestionAnswer next = ask();
    const bool known = std::any_of(out.begin(), out.end(), [&](const auto& q) { return q.answer == next.answer; });
    if (!known) out.push_back(std::move(next));
  }
  return out;
}

QuestionAnswer small_talk(NanoRandom& random) {
  static constexpr const char* kHello[] = {"Hello!", "Hi!", "Hello", "Hi there!", "Good morning!", "Hey!"};
  static constexpr const char* kWho[] = {"Who are you?", "What are you?", "What is your name?", "What can you do?"};
  if (random.chance(0.6)) return {random.pick(kHello), "Hello! Show me a picture and I will say what it is."};
  return {random.pick(kWho), "I am nano, a small GPT-OSS-Vision model. I can say what pictures show."};
}

QuestionAnswer thanks(NanoRandom& random) {
  static constexpr const char* kThanks[] = {"Thank you!", "Thanks!", "Thank you very much.", "Great, thanks."};
  return {random.pick(kThanks), "You are welcome."};
}

}  // namespace

QuestionAnswer ask_picture(const NanoData& data, const NanoConcept& c, NanoTask task, std::size_t language,
                           NanoRandom& random) {
  switch (task) {
    case NanoTask::kLabel: return {random.pick(kLabelQuestions), label_answer(c)};
    case NanoTask::kDescribe: return {random.pick(kDescribeQuestions), describe_answer(c)};
    case NanoTask::kCaption: return {random.pick(kCaptionQuestions), caption_answer(c)};
    case NanoTask::kGroup: return {random.pick(kGroupQuestions), group_answer(c)};
    case NanoTask::kTags: return {random.pick(kTagQuestions), capitalised(related_words(c)) + "."};
    case NanoTask::kYesNo: return ask_yes_no(data, c, random);
    case NanoTask::kLanguage: break;
  }
  return {in_language(language, random), capitalised(c.names[language])};
}

std::vector<QuestionAnswer> picture_questions(const NanoData& data, const NanoConcept& c, std::size_t count,
                                              double languages, NanoRandom& random) {
  return different(count, [&] {
    const NanoTask task = draw_task(languages, random);
    return ask_picture(data, c, task, draw_language(random), random);
  });
}

std::vector<QuestionAnswer> scene_questions(const NanoData& data, const Scene& scene, std::size_t count,
                                            NanoRandom& random) {
  return different(count, [&] { return ask_scene(data, scene, random); });
}

std::string position_question(const char* place, NanoRandom& random) {
  static constexpr const char* kForms[] = {"What is @?",         "What is @?",          "What is there @?",
                                           "What do you see @?", "Which picture is @?", "Name the picture @."};
  return replace(random.pick(kForms), "@", place);
}

std::string count_answer(std::size_t count) {
  return count == 1 ? "There is one picture." : std::string("There are ") + kNumbers[count] + " pictures.";
}

std::string list_answer(const NanoData& data, const Scene& scene) {
  std::string out;
  for (std::size_t i = 0; i < scene.pictures.size(); ++i) {
    if (i > 0) out += i + 1 == scene.pictures.size() ? " and " : ", ";
    out += with_article(label_of(data, scene.pictures[i]));
  }
  return capitalised(out) + ".";
}

std::string background_answer(const std::string& colour) { return "The background is " + colour + "."; }

QuestionAnswer ask_word(const NanoData& data, NanoRandom& random) {
  static constexpr const char* kMeaning[] = {"What does \"@\" mean?", "Explain the word @.",
                                             "What is the meaning of @?", "Define @.", "What is @?"};
  static constexpr const char* kReverse[] = {"Which word means: @?", "What is the word for: @?"};
  const NanoConcept& c = data.concepts()[random.below(data.concepts().size())];
  if (data.glosses().empty() || random.chance(0.35)) {
    static constexpr const char* kForms[] = {"How do you say \"@\" in #?", "What is \"@\" in #?",
                                             "Translate \"@\" into #."};
    const std::size_t language = draw_language(random);
    const std::string question = replace(random.pick(kForms), "@", c.label);
    return {replace(question, "#", kNanoLanguageNames[language]), capitalised(c.names[language])};
  }
  const bool of_concept = !c.gloss.word.empty() && random.chance(0.3);
  const NanoGloss& gloss = of_concept ? c.gloss : data.glosses()[random.below(data.glosses().size())];
  if (random.chance(0.2)) return {replace(random.pick(kReverse), "@", gloss.text), capitalised(gloss.word) + "."};
  return {replace(random.pick(kMeaning), "@", gloss.word), capitalised(gloss.text) + "."};
}

std::string neutral_system(NanoRandom& random, double share) {
  return random.chance(share) ? random.pick(kSystems) : "";
}

NanoChat picture_chat(const NanoData& data, const NanoConcept& c, NanoRandom& random) {
  NanoChat chat;
  const std::size_t turns = 2 + random.below(3);
  const double form = random.uniform();
  if (form < 0.25) {  // an instruction that holds for the whole conversation
    const std::size_t language = draw_language(random);
    static constexpr const char* kForms[] = {"Answer in @.", "Always answer in @.", "You speak @."};
    chat.system = replace(random.pick(kForms), "@", kNanoLanguageNames[language]);
    chat.turns.push_back({random.pick(kLabelQuestions), capitalised(c.names[language])});
  } else if (form < 0.5) {
    static constexpr const char* kBrief[] = {"Answer briefly.", "Be brief.", "Answer with the name only.",
                                             "Keep your answers short."};
    chat.system = random.pick(kBrief);
    chat.turns.push_back({random.pick(kLabelQuestions), caption_answer(c)});
  } else {
    chat.system = neutral_system(random, 0.7);
    if (random.chance(0.15)) chat.turns.push_back(small_talk(random));
  }
  for (QuestionAnswer& next : picture_questions(data, c, turns, 0.35, random)) {
    const bool is_label = next.answer == label_answer(c), brief = form < 0.5;
    if (brief && is_label) continue;  // the instruction would forbid the long answer
    chat.turns.push_back(std::move(next));
  }
  if (random.chance(0.25)) chat.turns.push_back(thanks(random));
  return chat;
}

NanoChat word_chat(const NanoData& data, NanoRandom& random) {
  NanoChat chat;
  chat.system = neutral_system(random, 0.6);
  chat.turns.push_back(small_talk(random));
  const std::size_t turns = random.below(3);
  for (std::size_t i = 0; i < turns; ++i) chat.turns.push_back(ask_word(data, random));
  if (random.chance(0.4)) chat.turns.push_back(thanks(random));
  return chat;
}

}  // namespace gov::train
