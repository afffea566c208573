#pragma once
// What /set changes.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"

namespace gov::cli {

struct ChatSettings {
  ops::SamplingParams sampling;       // its seed is not used
  std::optional<std::uint64_t> seed;  // empty: a new one for each answer
  std::int64_t max_tokens = 8192;     // of an answer; less where the context ends
};

std::vector<std::string> chat_setting_names();
// Error kInvalidArgument: an unknown name, a value that is none or out of range.
void set_chat_setting(ChatSettings& settings, std::string_view name, std::string_view value);
std::string chat_setting_text(const ChatSettings& settings, std::string_view name);

}  // namespace gov::cli
