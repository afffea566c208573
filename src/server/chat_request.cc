#include "server/chat_request.h"

#include "server/api_error.h"
#include "server/request_parts.h"

namespace gov::server {
namespace {

using Choice = OutputRules::ToolChoice;

// Clients send the same text under both names.
std::string reasoning_of(const Json& message, const std::string& field) {
  for (const char* name : {"reasoning", "reasoning_content", "thinking"}) {
    const std::string text = text_member(message, name, field);
    if (!text.empty()) return text;
  }
  return {};
}

void read_assistant(const Json& message, const std::string& field, ChatInput& input, CallNames& calls) {
  if (std::string text = reasoning_of(message, field); !text.empty()) {
    input.messages.push_back(assistant_message("analysis", std::move(text)));
  }
  const Json* list = find_member(message, "tool_calls", kArray, field);
  const bool has_calls = list && !list->array().empty();
  HarmonyMessage answer;
  answer.role = HarmonyRole::kAssistant;
  answer.channel = has_calls ? "commentary" : "final";
  if (const Json* content = find_member(message, "content", kString | kArray, field)) {
    read_content(*content, field + ".content", input, answer);
  }
  if (std::string refusal = text_member(message, "refusal", field); !refusal.empty())
    add_text(answer, std::move(refusal));
  bool empty = true;
  for (const ContentPart& part : answer.content) empty = empty && part.text.empty();
  if (!empty) input.messages.push_back(std::move(answer));
  if (message.find("function_call") && !message.find("function_call")->is_null()) {
    bad_field(field + ".function_call", "use tool_calls");
  }
  for (std::size_t i = 0; has_calls && i < list->array().size(); ++i) {
    const std::string where = fmt::format("{}.tool_calls[{}]", field, i);
    const Json& call = need_object(list->array()[i], where);
    const std::string type = text_member(call, "type", where);
    if (!type.empty() && type != "function") bad_field(where + ".type", "\"{}\" is not supported", printable(type, 60));
    const Json& function = need_member(call, "function", kObject, where);
    const std::string name = need_text(function, "name", where + ".function");
    check_name(name, where + ".function.name");
    calls.add(need_call_id(call, "id", where), name);
    input.messages.push_back(call_message(name, text_member(function, "arguments", where + ".function")));
  }
}

void read_message(const Json& message, const std::string& field, ChatInput& input, CallNames& calls) {
  need_object(message, field);
  const std::string role = need_text(message, "role", field);
  if (role == "assistant") {
    read_assistant(message, field, input, calls);
    return;
  }
  HarmonyMessage out;
  if (role == "tool") {
    out = result_message(calls.find(need_text(message, "tool_call_id", field), field + ".tool_call_id"));
  } else if (role == "system" || role == "developer" || role == "user") {
    out.role = role == "user" ? HarmonyRole::kUser : role == "system" ? HarmonyRole::kSystem : HarmonyRole::kDeveloper;
    out.name = text_member(message, "name", field);
    if (!out.name.empty()) check_name(out.name, field + ".name");
  } else {
    bad_field(field + ".role", "must be one of system, developer, user, assistant, tool, not \"{}\"",
              printable(role, 40));
  }
  read_content(need_member(message, "content", kString | kArray, field), field + ".content", input, out);
  input.messages.push_back(std::move(out));
}

void read_tools(const Fields& fields, ChatInput& input) {
  const Json* tools = fields.get("tools");
  for (std::size_t i = 0; tools && i < tools->array().size(); ++i) {
    const std::string field = fmt::format("tools[{}]", i);
    const Json& tool = need_object(tools->array()[i], field);
    const std::string type = need_text(tool, "type", field);
    if (type != "function") bad_field(field + ".type", "\"{}\" is not supported", printable(type, 60));
    add_function(need_member(tool, "function", kObject, field), field + ".function", input);
  }
  input.parallel_calls = fields.flag("parallel_tool_calls");
}

void read_allowed(const Json& choice, ChatInput& input) {
  const std::string field = "tool_choice.allowed_tools";
  const Json& allowed = need_member(choice, "allowed_tools", kObject, "tool_choice");
  const std::string mode = need_text(allowed, "mode", field);
  if (mode != "auto" && mode != "required") bad_field(field + ".mode", "must be auto or required");
  input.tool_choice.kind = mode == "auto" ? Choice::kAuto : Choice::kRequired;
  for (const Json& tool : need_member(allowed, "tools", kArray, field).array()) {
    const std::string name =
        need_text(need_member(need_object(tool, field), "function", kObject, field), "name", field);
    check_allowed(input, name, field + ".tools");
    input.tool_choice.names.push_back(name);
  }
  if (input.tool_choice.names.empty()) bad_field(field + ".tools", "names no tool");
}

void read_tool_choice(const Fields& fields, ChatInput& input) {
  const Json* choice = fields.get("tool_choice");
  if (!choice) return;
  if (choice->is_string()) {
    const std::string& word = choice->string();
    if (word != "none" && word != "auto" && word != "required") {
      bad_field("tool_choice", "must be none, auto, required or an object, not \"{}\"", printable(word, 40));
    }
    input.tool_choice.kind = word == "none" ? Choice::kNone : word == "auto" ? Choice::kAuto : Choice::kRequired;
  } else {
    const std::string type = need_text(*choice, "type", "tool_choice");
    if (type == "function") {
      const std::string name =
          need_text(need_member(*choice, "function", kObject, "tool_choice"), "name", "tool_choice.function");
      check_allowed(input, name, "tool_choice");
      input.tool_choice = {Choice::kRequired, {name}};
    } else if (type == "allowed_tools") {
      read_allowed(*choice, input);
    } else {
      bad_field("tool_choice.type", "\"{}\" is not supported", printable(type, 60));
    }
  }
  if (input.tool_choice.kind == Choice::kRequired && input.tools.empty())
    bad_field("tool_choice", "there are no tools");
}

void read_response_format(const Fields& fields, ChatInput& input) {
  const Json* format = fields.get("response_format");
  if (!format) return;
  const std::string type = need_text(*format, "type", "response_format");
  if (type == "json_object") {
    input.json_object = true;
  } else if (type == "json_schema") {
    input.format = read_schema_format(need_member(*format, "json_schema", kObject, "response_format"),
                                      "response_format.json_schema");
  } else if (type != "text") {
    bad_field("response_format.type", "must be one of text, json_object, json_schema, not \"{}\"", printable(type, 40));
  }
}

void read_reasoning(const Fields& fields, ChatRequest& request) {
  ChatInput& input = request.input;
  input.effort = fields.text("reasoning_effort");
  request.include_reasoning = fields.flag("include_reasoning");
  if (fields.has("max_reasoning_tokens")) input.max_reasoning = fields.integer("max_reasoning_tokens");
  input.preserve_thinking = fields.flag("preserve_thinking");
  const Json* object = fields.get("reasoning");
  if (!object) return;
  if (const std::string effort = text_member(*object, "effort", "reasoning"); !effort.empty()) {
    check_effort(effort, "reasoning.effort");
    input.effort = effort;
  }
  if (const Json* most = find_member(*object, "max_tokens", kInt, "reasoning")) {
    if (most->integer() < 0) bad_field("reasoning.max_tokens", "must be 0 or more");
    input.max_reasoning = most->integer();
  }
  if (const Json* exclude = find_member(*object, "exclude", kBool, "reasoning")) {
    request.include_reasoning = request.include_reasoning && !exclude->boolean();
  }
}

void read_limits(const Fields& fields, ChatRequest& request) {
  GenerationOptions& options = request.input.generation;
  options.max_new_tokens = kAllTokens;
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    if (fields.has(name)) options.max_new_tokens = fields.integer(name);
  }
  if (options.min_new_tokens > options.max_new_tokens) bad_field("min_tokens", "must be at most max_completion_tokens");
  request.logprobs = fields.flag("logprobs");
  if (fields.integer("top_logprobs") > 0 && !request.logprobs) bad_field("top_logprobs", "needs logprobs: true");
  if (request.logprobs) options.logprobs = static_cast<int>(fields.integer("top_logprobs"));
}

}  // namespace

ChatRequest read_chat_request(const Json& body, const ParamTable& table, const ops::SamplingParams& defaults) {
  const Fields fields(table, body);
  ChatRequest request;
  ChatInput& input = request.input;
  input.generation = read_sampling(fields, defaults);
  read_limits(fields, request);
  request.model = fields.text("model");
  request.stream = fields.flag("stream");
  request.include_usage = read_include_usage(fields);
  input.n = static_cast<int>(fields.integer("n"));
  input.cache_salt = fields.text("cache_salt");
  input.priority = read_priority(fields);
  read_reasoning(fields, request);
  read_tools(fields, input);
  read_tool_choice(fields, input);
  read_response_format(fields, input);
  CallNames calls;
  const Json::Array& messages = fields.get("messages")->array();
  for (std::size_t i = 0; i < messages.size(); ++i)
    read_message(messages[i], fmt::format("messages[{}]", i), input, calls);
  return request;
}

}  // namespace gov::server
