#include "server/chat_input.h"

#include <algorithm>

#include "base/timer.h"
#include "server/api_error.h"

namespace gov::server {
namespace {

constexpr const char* kFunctions = "functions";

bool is_instructions(const HarmonyMessage& m) {
  return m.role == HarmonyRole::kSystem || m.role == HarmonyRole::kDeveloper;
}

bool uses_tools(const ChatInput& input) {
  return !input.tools.empty() || std::any_of(input.messages.begin(), input.messages.end(), [](const HarmonyMessage& m) {
    return m.role == HarmonyRole::kTool || !m.recipient.empty();
  });
}

std::vector<HarmonyMessage> with_system(const PromptRules& rules, const ChatInput& input) {
  SystemContent system;
  system.current_date = rules.date;
  const std::string effort = input.effort.empty() ? rules.default_effort : input.effort;
  system.reasoning_effort = effort == "none" || effort == "minimal" ? "low" : effort;
  DeveloperContent developer;
  std::size_t next = 0;
  for (; next < input.messages.size() && is_instructions(input.messages[next]); ++next) {
    const std::string text = input.messages[next].text();
    if (!developer.instructions.empty() && !text.empty()) developer.instructions += "\n\n";
    developer.instructions += text;
  }
  if (!input.tools.empty()) {
    ToolNamespace tools{kFunctions, std::nullopt, {}};
    for (const ToolSpec& tool : input.tools) tools.functions.push_back(tool.function);
    developer.tools.push_back(std::move(tools));
  }
  developer.response_format = input.format;

  std::vector<HarmonyMessage> messages;
  const auto add = [&](HarmonyRole role, std::string text) {
    HarmonyMessage message;
    message.role = role;
    message.content = {{ContentPart::Kind::kText, std::move(text)}};
    messages.push_back(std::move(message));
  };
  add(HarmonyRole::kSystem, system_text(system, !input.tools.empty()));
  if (std::string text = developer_text(developer, rules.harmony.format); !text.empty())
    add(HarmonyRole::kDeveloper, std::move(text));
  for (; next < input.messages.size(); ++next) {
    const HarmonyMessage& message = input.messages[next];
    if (is_instructions(message)) {
      DeveloperContent later;
      later.instructions = message.text();
      if (std::string text = developer_text(later, rules.harmony.format); !text.empty())
        add(HarmonyRole::kDeveloper, std::move(text));
    } else {
      messages.push_back(message);
    }
  }
  return messages;
}

// Reasoning of the past is not told to a model that does not reason.
std::vector<ChatMessage> plain_messages(const ChatInput& input) {
  std::vector<ChatMessage> messages;
  for (const HarmonyMessage& message : input.messages) {
    if (message.channel == "analysis") continue;
    messages.push_back({harmony_role_name(message.role), message.content});
  }
  return messages;
}

// The schemas of one request, which have a second together.
class RequestSchemas {
 public:
  explicit RequestSchemas(SchemaCache& cache) : cache_(cache) {}
  std::shared_ptr<const Grammar> schema(const Json& schema) {
    try {
      return cache_.schema(schema, kSeconds - timer_.seconds());
    } catch (const Error&) {
      if (timer_.seconds() < kSeconds) throw;
      fail(ErrorCode::kInvalidArgument, "the request's schemas take more than {} s to compile", kSeconds);
    }
  }
  std::shared_ptr<const Grammar> json_object() { return cache_.json_object(); }

 private:
  static constexpr double kSeconds = 1;
  SchemaCache& cache_;
  Timer timer_;
};

std::shared_ptr<const Grammar> final_format(RequestSchemas& schemas, const ChatInput& input) {
  if (input.json_object) return schemas.json_object();
  if (!input.format) return nullptr;
  try {
    return schemas.schema(input.format->schema);
  } catch (const Error& error) {
    throw ApiError(400, "invalid_request_error", fmt::format("response_format: {}", printable(error.what(), 400)),
                   "response_format", "invalid_schema");
  }
}

// A schema that asks for nothing in particular, or one that is not strict and has something that cannot be enforced,
// gives any JSON object.
std::shared_ptr<const Grammar> arguments_grammar(RequestSchemas& schemas, const ToolSpec& tool) {
  if (!tool.function.parameters) return schemas.json_object();
  try {
    return schemas.schema(*tool.function.parameters);
  } catch (const Error& error) {
    if (!tool.strict) return schemas.json_object();
    throw ApiError(400, "invalid_request_error",
                   fmt::format("tools: function {}: {}", tool.function.name, printable(error.what(), 400)), "tools",
                   "invalid_schema");
  }
}

std::vector<ToolRule> tool_rules(RequestSchemas& schemas, const ChatInput& input) {
  std::vector<ToolRule> rules;
  const std::vector<std::string>& names = input.tool_choice.names;
  for (const ToolSpec& tool : input.tools) {
    if (!names.empty() && std::find(names.begin(), names.end(), tool.function.name) == names.end()) continue;
    rules.push_back({fmt::format("{}.{}", kFunctions, tool.function.name), arguments_grammar(schemas, tool)});
  }
  return rules;
}

void harmony_rules(RequestSchemas schemas, const ChatInput& input, ChatPrompt& prompt) {
  OutputRules rules;
  rules.tools = tool_rules(schemas, input);
  rules.tool_choice = input.tools.empty() ? OutputRules::ToolChoice::kNone : input.tool_choice.kind;
  rules.preamble = rules.tool_choice != OutputRules::ToolChoice::kRequired;  // it could take all the tokens there are
  rules.analysis = input.effort != "none";
  rules.max_reasoning_tokens = input.max_reasoning;
  rules.final_format = final_format(schemas, input);
  if (!input.tools.empty() || rules.final_format || !rules.analysis || rules.max_reasoning_tokens >= 0) {
    prompt.rules = std::move(rules);
  }
}

void plain_rules(RequestSchemas schemas, const ChatInput& input, ChatPrompt& prompt) {
  OutputRules rules;
  rules.in_header = false;
  rules.tool_choice = OutputRules::ToolChoice::kNone;
  rules.final_format = final_format(schemas, input);
  if (rules.final_format) prompt.rules = std::move(rules);
}

void add_stop(std::vector<std::int32_t>& stops, std::int32_t id) {
  if (std::find(stops.begin(), stops.end(), id) == stops.end()) stops.push_back(id);
}

}  // namespace

ChatPrompt make_prompt(const Tokenizer& tokenizer, const PromptRules& rules, const ChatInput& input) {
  ChatPrompt prompt;
  prompt.harmony = rules.format == PromptRules::Format::kHarmony || (rules.tokens && uses_tools(input));
  if (prompt.harmony) {
    for (const ToolSpec& tool : input.tools)
      prompt.tool_names.push_back(fmt::format("{}.{}", kFunctions, tool.function.name));
    HarmonyRenderOptions options = rules.harmony;
    options.preserve_thinking = input.preserve_thinking;
    prompt.ids = render_harmony(tokenizer, *rules.tokens, with_system(rules, input), options);
    prompt.stop_tokens = {rules.tokens->return_token, rules.tokens->call};  // also where a model's files do not say so
    harmony_rules(RequestSchemas(*rules.schemas), input, prompt);
    return prompt;
  }
  if (uses_tools(input)) {
    throw ApiError(400, "invalid_request_error", "tools: this model's tokenizer has no tokens for tool calls", "tools",
                   "unsupported_parameter");
  }
  ChatOptions options;
  options.format = ChatFormat::kPlain;
  prompt.ids = render_chat(tokenizer, plain_messages(input), options);
  if (const auto end = tokenizer.find_special("<|end|>")) add_stop(prompt.stop_tokens, *end);
  plain_rules(RequestSchemas(*rules.schemas), input, prompt);
  return prompt;
}

}  // namespace gov::server
