#pragma once
// Questions about nano's scenes and words, with the answers, in many wordings.

#include <string>
#include <vector>

#include "train/nano_scene.h"

namespace gov::train {

struct QuestionAnswer {
  std::string question, answer;
};

enum class NanoTask { kLabel, kDescribe, kCaption, kGroup, kTags, kYesNo, kLanguage };

// A question of that kind about a picture of the concept. kLanguage: of the given language. kYesNo: about the concept
// itself or, as often, another, mostly one that is like it.
QuestionAnswer ask_picture(const NanoData& data, const NanoConcept& shown, NanoTask task, std::size_t language,
                           NanoRandom& random);
// `count` different questions about a scene of one picture; `languages` of them, as a share, ask for another language.
std::vector<QuestionAnswer> picture_questions(const NanoData& data, const NanoConcept& shown, std::size_t count,
                                              double languages, NanoRandom& random);
// About position, number, all that is there, background, presence.
std::vector<QuestionAnswer> scene_questions(const NanoData& data, const Scene& scene, std::size_t count,
                                            NanoRandom& random);
std::string position_question(const char* place, NanoRandom& random);
std::string count_answer(std::size_t count);                        // There are two pictures.
std::string list_answer(const NanoData& data, const Scene& scene);  // A dog face and a pizza.
std::string background_answer(const std::string& colour);           // The background is light blue.

// Without a picture: what a word means, which word is meant, a label in another language.
QuestionAnswer ask_word(const NanoData& data, NanoRandom& random);

// A conversation of a few turns about a picture, or about nothing; `system` may be empty.
struct NanoChat {
  std::string system;
  std::vector<QuestionAnswer> turns;
};
NanoChat picture_chat(const NanoData& data, const NanoConcept& shown, NanoRandom& random);
NanoChat word_chat(const NanoData& data, NanoRandom& random);
// A system message that changes nothing, or none.
std::string neutral_system(NanoRandom& random, double share);

}  // namespace gov::train
