#include "train/nano_words.h"

#include <algorithm>
#include <iterator>

#include "base/utf8.h"

namespace gov::train {
namespace {

template <std::size_t N>
bool is_one_of(std::string_view text, const char* const (&words)[N]) {
  return std::find(std::begin(words), std::end(words), text) != std::end(words);
}

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }

std::string_view first_word(std::string_view text) { return text.substr(0, text.find(' ')); }

// What comes before "with", "in" and the like: the word there says whether it is a plural.
std::string_view head_word(std::string_view label) {
  for (const char* joint : {" with ", " in ", " of ", " on ", " behind ", " showing ", " over ", " under ", " wearing ",
                            " holding ", ":", " and ", " from "}) {
    label = label.substr(0, label.find(joint));
  }
  const std::size_t space = label.rfind(' ');
  return space == std::string_view::npos ? label : label.substr(space + 1);
}

bool is_plural(std::string_view label) {
  static constexpr const char* kSingular[] = {
      "bus",      "trolleybus", "minibus", "cactus", "octopus",      "lotus",      "hibiscus",    "abacus", "compass",
      "Claus",    "princess",   "glass",   "dress",  "cross",        "kiss",       "minus",       "plus",   "address",
      "wireless", "news",       "virus",   "canvas", "fleur-de-lis", "rhinoceros", "hippopotamus"};
  static constexpr const char* kOne[] = {"person", "man", "woman", "child"};
  static constexpr const char* kPlural[] = {"people", "men", "women", "children", "teeth", "dice", "feet"};
  if (is_one_of(first_word(label), kPlural)) return true;
  if (is_one_of(first_word(label), kOne)) return false;  // "person lifting weights"
  if (label.starts_with("two ") || label.starts_with("hundred ")) return true;
  const std::string_view head = head_word(label);
  return is_one_of(head, kPlural) || (head.ends_with('s') && !is_one_of(head, kSingular));
}

bool takes_no_article(std::string_view label) {
  static constexpr const char* kMass[] = {"dna",
                                          "infinity",
                                          "sake",
                                          "ZZZ",
                                          "bread",
                                          "wood",
                                          "butter",
                                          "salt",
                                          "fire",
                                          "soap",
                                          "cooked rice",
                                          "curry rice",
                                          "meat on bone",
                                          "cut of meat",
                                          "tennis",
                                          "badminton",
                                          "lacrosse",
                                          "ice hockey",
                                          "field hockey",
                                          "bowling",
                                          "baseball",
                                          "softball",
                                          "fog",
                                          "spaghetti",
                                          "falafel",
                                          "sushi",
                                          "ice",
                                          "broccoli",
                                          "garlic",
                                          "bacon",
                                          "coral",
                                          "popcorn",
                                          "camping",
                                          "oden",
                                          "construction",
                                          "multiply",
                                          "plus",
                                          "minus",
                                          "divide",
                                          "wireless",
                                          "baggage claim",
                                          "left luggage",
                                          "passport control",
                                          "American football",
                                          "rugby football",
                                          "thread",
                                          "yarn",
                                          "toilet paper",
                                          "canned food",
                                          "green salad",
                                          "shaved ice",
                                          "soft ice cream",
                                          "flamenco",
                                          "wind",
                                          "bubble tea"};
  const bool is_name = is_upper(label[0]) && label.size() > 1 && is_lower(label[1]) &&
                       !label.starts_with("Japanese ") && !label.starts_with("Christmas ");
  return is_name || is_one_of(label, kMass) || is_plural(label) || label.starts_with("no ") ||
         label.starts_with("input ") || label.starts_with("keycap") || label.ends_with("o'clock") ||
         label.ends_with("-thirty") || label.ends_with("hockey") || label.ends_with("phobia");
}

bool starts_with_vowel_sound(std::string_view label) {
  const std::string_view word = first_word(label);
  if (std::none_of(word.begin(), word.end(), is_lower) && is_upper(word[0])) {  // spelt, unless it is a word
    static constexpr const char* kRead[] = {"NEW", "SOON", "FREE"};
    return std::string_view("AEFHILMNORSX").find(word[0]) != std::string_view::npos && !is_one_of(word, kRead);
  }
  if (word.starts_with("hour")) return true;
  if (word.starts_with("uni") || word.starts_with("use") || word.starts_with("eu") || word.starts_with("one"))
    return false;
  return std::string_view("aeiouAEIOU").find(word[0]) != std::string_view::npos;
}

char32_t capital(char32_t c) {
  if (c >= U'a' && c <= U'z') return c - 0x20;
  if (c >= 0xe0 && c <= 0xfe && c != 0xf7) return c - 0x20;  // Latin-1
  if (c == 0x153) return 0x152;                              // oe
  if (c >= 0x430 && c <= 0x44f) return c - 0x20;             // Cyrillic
  if (c >= 0x450 && c <= 0x45f) return c - 0x50;
  return c;
}

}  // namespace

std::string with_article(std::string_view label) {
  if (takes_no_article(label)) return std::string(label);
  return (starts_with_vowel_sound(label) ? "an " : "a ") + std::string(label);
}

std::string capitalised(std::string_view text) {
  if (text.empty()) return {};
  const Utf8Char first = utf8_next(text);
  std::string out;
  utf8_append(out, capital(first.code_point));
  return out.append(text.substr(first.length));
}

std::string related_words(const NanoConcept& c) {
  std::string out;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, c.tags.size()); ++i) out += (i > 0 ? ", " : "") + c.tags[i];
  return out;
}

std::string label_answer(const NanoConcept& c) {
  return "This is " + with_article(c.label) + ". Related words: " + related_words(c) + ".";
}

std::string describe_answer(const NanoConcept& c) {
  return caption_answer(c) + ". " + group_answer(c) + " Related words: " + related_words(c) + ".";
}

std::string caption_answer(const NanoConcept& c) { return capitalised(with_article(c.label)); }

std::string group_answer(const NanoConcept& c) { return "It belongs to " + c.group + " (" + c.subgroup + ")."; }

std::string yes_no_answer(const NanoConcept& shown, bool yes) {
  return (yes ? "Yes, it is " : "No, it is ") + with_article(shown.label) + ".";
}

}  // namespace gov::train
