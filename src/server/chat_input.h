#pragma once
// A conversation and what is asked of the answer, the same for all protocols (chat completions, responses, Anthropic's
// messages), and the prompt that comes of it.

#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/images.h"
#include "server/params.h"
#include "server/schema_cache.h"
#include "text/harmony.h"
#include "text/token_constraint.h"

namespace gov::server {

inline constexpr std::int64_t kAllTokens = std::int64_t{1} << 30;  // as many as the context has room for

struct ToolSpec {
  ToolFunction function;
  bool strict = false;
};

struct ToolChoice {
  OutputRules::ToolChoice kind = OutputRules::ToolChoice::kAuto;
  std::vector<std::string> names;  // only these may be called; empty: all
};

struct ChatInput {
  // In order. API texts of the roles system and developer are kSystem and kDeveloper; both are developer messages in
  // harmony. Image parts stand for `images`, in order.
  std::vector<HarmonyMessage> messages;
  std::vector<ImageSource> images;
  std::vector<ToolSpec> tools;
  ToolChoice tool_choice;
  bool parallel_calls = true;
  bool json_object = false;
  std::optional<ResponseFormat> format;
  std::string effort;  // "": the server's default; none, minimal, low, medium, high
  std::int64_t max_reasoning = -1;
  bool preserve_thinking = false;

  GenerationOptions generation;  // stop: acts on the answer's text only
  int n = 1;
  std::string cache_salt;
  int priority = 0;
};

// How this server renders conversations.
struct PromptRules {
  enum class Format { kPlain, kHarmony };
  Format format = Format::kPlain;
  HarmonyRenderOptions harmony;         // template, order, image token
  std::optional<HarmonyTokens> tokens;  // of the tokenizer, if it has them
  std::vector<std::int32_t> end_ids;    // the model's eos ids
  std::string default_effort = "medium";
  std::string date;  // YYYY-MM-DD or ""
  SchemaCache* schemas = nullptr;
};

struct ChatPrompt {
  std::vector<std::int32_t> ids;
  bool harmony = false;                   // the output is harmony's messages, else plain text
  std::vector<std::string> tool_names;    // full names, for the parser
  std::vector<std::int32_t> stop_tokens;  // besides the model's eos ids
  std::optional<OutputRules> rules;       // something is enforced
};

// Renders the conversation and compiles what has to be enforced. Models whose vocabulary has harmony's control tokens
// but that were trained on plain chats (PromptRules::Format::kPlain) get harmony's form only when tools are involved.
// ApiError 400 naming the field: a schema that cannot be enforced, tools without control tokens, bad names.
ChatPrompt make_prompt(const Tokenizer& tokenizer, const PromptRules& rules, const ChatInput& input);

// The sampling parameters that all generating routes share (params.h), over the model's defaults.
GenerationOptions read_sampling(const Fields& fields, const ops::SamplingParams& defaults);
// A text or a list of them, within the engine's limits.
std::vector<std::string> read_stops(const Fields& fields, std::string_view name);
int read_priority(const Fields& fields);

}  // namespace gov::server
