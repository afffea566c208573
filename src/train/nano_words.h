#pragma once
// English around nano's labels.

#include <string>
#include <string_view>

#include "train/nano_data.h"

namespace gov::train {

// "a dog face", "an owl", "grapes", "six o'clock", "Sagittarius": what stands behind "This is".
std::string with_article(std::string_view label);
// The first letter as a capital: Latin with its accents, Cyrillic; other scripts as they are.
std::string capitalised(std::string_view text);
// "adorbs, animal, dog": the first three tags.
std::string related_words(const NanoConcept& c);

std::string label_answer(const NanoConcept& c);     // This is a dog face. Related words: adorbs, animal, dog.
std::string describe_answer(const NanoConcept& c);  // A dog face. It belongs to animals & nature (mammals). Related ...
std::string caption_answer(const NanoConcept& c);   // A dog face
std::string group_answer(const NanoConcept& c);     // It belongs to animals & nature (mammals).
// Yes, it is a dog face. / No, it is a cat face.
std::string yes_no_answer(const NanoConcept& shown, bool yes);

}  // namespace gov::train
