#pragma once
// std::regex with the text's bytes, as another engine to compare with.

#include <string>

namespace gov::text_test {

bool std_regex_match(const std::string& text, const std::string& pattern);
bool std_regex_search(const std::string& text, const std::string& pattern);

}  // namespace gov::text_test
