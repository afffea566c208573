#pragma once
// The options that say how a conversation becomes a prompt, for every command that makes some.

#include <string>

#include "cli/common.h"
#include "text/chat.h"

namespace gov::cli {

struct PromptFormatOptions {
  std::string chat_format = "auto";         // auto, plain, harmony, hf-jinja
  std::string reasoning_effort = "medium";  // low, medium, high
  std::string date = "today";               // YYYY-MM-DD, today, none
};

void add_prompt_format_options(CLI::App& app, PromptFormatOptions& o, const char* group);
void add_date_option(CLI::App& app, PromptFormatOptions& o, const char* group);

// What the options come to with one model.
struct PromptFormat {
  ChatFormat format = ChatFormat::kPlain;
  HarmonyTemplate harmony_template = HarmonyTemplate::kHarmony;
  std::string effort = "medium";
  std::string date = {};  // YYYY-MM-DD; empty: none
};
// Error kUnsupported for harmony with a tokenizer that lacks its control tokens.
PromptFormat prompt_format(const PromptFormatOptions& o, const ModelPackage& package);

}  // namespace gov::cli
