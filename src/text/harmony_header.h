#pragma once
// A generated header, read with all repairs. Models write headers almost always right; what they write otherwise has
// been seen in reports about other servers, and each form has its rule here.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/harmony.h"

namespace gov {

// The text of a header up to the next special token, and which one stands before it.
struct HeaderPiece {
  enum class Before { kNothing, kChannel, kConstrain, kOther };
  Before before = Before::kNothing;
  std::string text = {};
};

struct HeaderRules {
  bool has_role = false;    // the first word is the role; else it was in the prompt, or is assumed
  bool has_message = true;  // ended by <|message|>; else all from the first word on that is no header is content
  std::string_view fallback = "final";  // the channel when neither <|channel|> nor a recipient is there
  std::span<const std::string> tools = {};
};

struct ParsedHeader {
  HarmonyMessage message = {};
  bool unknown_tool = false;
  bool is_empty = true;   // nothing of a header was found
  std::string rest = {};  // content, when there is no <|message|>; may begin or end inside a character
};

ParsedHeader parse_header(std::span<const HeaderPiece> pieces, const HeaderRules& rules, HarmonyRepairs& repairs);

}  // namespace gov
