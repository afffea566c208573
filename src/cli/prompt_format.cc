#include "cli/prompt_format.h"

#include <ctime>

#include "text/harmony.h"

namespace gov::cli {
namespace {

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", &parts);
  return text;
}

}  // namespace

void add_prompt_format_options(CLI::App& app, PromptFormatOptions& o, const char* group) {
  app.add_option("--chat-format,--chat-template", o.chat_format,
                 "plain, harmony, hf-jinja (harmony as OpenAI's template for Hugging Face writes it), or auto by the "
                 "model's vocabulary")
      ->check(CLI::IsMember({"auto", "plain", "harmony", "hf-jinja"}))
      ->type_name("FORM")
      ->capture_default_str()
      ->group(group);
  app.add_option("--reasoning-effort", o.reasoning_effort, "Reasoning effort of harmony models")
      ->check(CLI::IsMember({"low", "medium", "high"}))
      ->type_name("EFFORT")
      ->capture_default_str()
      ->group(group);
}

void add_date_option(CLI::App& app, PromptFormatOptions& o, const char* group) {
  app.add_option("--date", o.date, "Date told to harmony models: YYYY-MM-DD, today or none")
      ->type_name("DATE")
      ->capture_default_str()
      ->group(group);
}

PromptFormat prompt_format(const PromptFormatOptions& o, const ModelPackage& package) {
  PromptFormat out;
  out.format = package.chat_format;
  if (o.chat_format != "auto") out.format = o.chat_format == "plain" ? ChatFormat::kPlain : ChatFormat::kHarmony;
  if (out.format == ChatFormat::kHarmony && !HarmonyTokens::find(package.tokenizer))
    fail(ErrorCode::kUnsupported, "--chat-format {}: the model's tokenizer lacks harmony's control tokens",
         o.chat_format);
  if (o.chat_format == "hf-jinja") out.harmony_template = HarmonyTemplate::kHfJinja;
  out.effort = o.reasoning_effort;
  out.date = o.date == "today" ? today() : o.date == "none" ? "" : o.date;
  return out;
}

}  // namespace gov::cli
