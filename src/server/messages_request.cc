#include "server/messages_request.h"

#include <limits>
#include <random>

#include "server/api_error.h"
#include "server/request_parts.h"

namespace gov::server {
namespace {

using Choice = OutputRules::ToolChoice;

// {"type":"base64","media_type","data"} or {"type":"url","url"}.
void read_image(const Json& block, const std::string& field, ChatInput& input, HarmonyMessage& message) {
  const std::string where = field + ".source";
  const Json& source = need_member(block, "source", kObject, field);
  const std::string type = need_text(source, "type", where);
  if (type == "base64") {
    add_image(message, input,
              "data:" + need_text(source, "media_type", where) + ";base64," + need_text(source, "data", where), where);
  } else if (type == "url") {
    add_image(message, input, need_text(source, "url", where), where);
  } else {
    bad_field(where + ".type", "\"{}\" is not supported", printable(type, 60));
  }
}

// Text and picture blocks.
void read_blocks(const Json& content, const std::string& field, ChatInput& input, HarmonyMessage& message) {
  if (content.is_string()) {
    add_text(message, content.string());
    return;
  }
  for (std::size_t i = 0; i < content.array().size(); ++i) {
    const std::string where = fmt::format("{}[{}]", field, i);
    const Json& block = need_object(content.array()[i], where);
    const std::string type = need_text(block, "type", where);
    if (type == "text") add_text(message, need_text(block, "text", where));
    else if (type == "image") read_image(block, where, input, message);
    else bad_field(where + ".type", "\"{}\" is not supported", printable(type, 60));
  }
}

// What a user says: results of calls come first, each as a message of its own.
void read_user(const Json& content, const std::string& field, ChatInput& input, const CallNames& calls) {
  HarmonyMessage message;
  if (content.is_string()) {
    add_text(message, content.string());
    input.messages.push_back(std::move(message));
    return;
  }
  const auto flush = [&] {
    if (!message.content.empty()) input.messages.push_back(std::move(message));
    message = {};
  };
  for (std::size_t i = 0; i < content.array().size(); ++i) {
    const std::string where = fmt::format("{}[{}]", field, i);
    const Json& block = need_object(content.array()[i], where);
    const std::string type = need_text(block, "type", where);
    if (type == "tool_result") {
      flush();
      HarmonyMessage result =
          result_message(calls.find(need_text(block, "tool_use_id", where), where + ".tool_use_id"));
      if (const Json* inner = find_member(block, "content", kString | kArray, where)) {
        read_blocks(*inner, where + ".content", input, result);
      }
      input.messages.push_back(std::move(result));
    } else if (type == "text") {
      add_text(message, need_text(block, "text", where));
    } else if (type == "image") {
      read_image(block, where, input, message);
    } else {
      bad_field(where + ".type", "\"{}\" is not supported", printable(type, 60));
    }
  }
  flush();
}

void read_assistant(const Json& content, const std::string& field, ChatInput& input, CallNames& calls) {
  if (content.is_string()) {
    input.messages.push_back(assistant_message("final", content.string()));
    return;
  }
  for (std::size_t i = 0; i < content.array().size(); ++i) {
    const std::string where = fmt::format("{}[{}]", field, i);
    const Json& block = need_object(content.array()[i], where);
    const std::string type = need_text(block, "type", where);
    if (type == "text") {
      input.messages.push_back(assistant_message("final", need_text(block, "text", where)));
    } else if (type == "thinking") {
      input.messages.push_back(assistant_message("analysis", need_text(block, "thinking", where)));
    } else if (type == "tool_use") {
      const std::string name = need_text(block, "name", where);
      check_name(name, where + ".name");
      calls.add(need_call_id(block, "id", where), name);
      if (!input.messages.empty() && input.messages.back().channel == "final")
        input.messages.back().channel = "commentary";
      input.messages.push_back(call_message(name, need_member(block, "input", kObject, where).dump()));
    } else if (type != "redacted_thinking") {
      bad_field(where + ".type", "\"{}\" is not supported", printable(type, 60));
    }
  }
}

void read_tools(const Fields& fields, ChatInput& input) {
  const Json* tools = fields.get("tools");
  for (std::size_t i = 0; tools && i < tools->array().size(); ++i) {
    const std::string field = fmt::format("tools[{}]", i);
    const Json& tool = need_object(tools->array()[i], field);
    const std::string type = text_member(tool, "type", field);
    if (!type.empty() && type != "custom") bad_field(field + ".type", "\"{}\" is not supported", printable(type, 60));
    Json function;
    function.set("name", need_text(tool, "name", field)).set("description", text_member(tool, "description", field));
    function.set("parameters", need_member(tool, "input_schema", kObject, field));
    if (const Json* strict = find_member(tool, "strict", kBool, field)) function.set("strict", *strict);
    add_function(function, field, input);
  }
  const Json* choice = fields.get("tool_choice");
  if (!choice) return;
  const std::string type = need_text(*choice, "type", "tool_choice");
  if (type == "tool") {
    const std::string name = need_text(*choice, "name", "tool_choice");
    check_allowed(input, name, "tool_choice.name");
    input.tool_choice = {Choice::kRequired, {name}};
  } else if (type == "auto" || type == "any" || type == "none") {
    input.tool_choice.kind = type == "auto" ? Choice::kAuto : type == "any" ? Choice::kRequired : Choice::kNone;
  } else {
    bad_field("tool_choice.type", "must be one of auto, any, tool, none, not \"{}\"", printable(type, 40));
  }
  if (input.tool_choice.kind == Choice::kRequired && input.tools.empty())
    bad_field("tool_choice", "there are no tools");
  const Json* single = find_member(*choice, "disable_parallel_tool_use", kBool, "tool_choice");
  input.parallel_calls = !(single && single->boolean());
}

void read_thinking(const Fields& fields, MessagesRequest& request) {
  ChatInput& input = request.input;
  if (const Json* thinking = fields.get("thinking")) {
    const std::string type = need_text(*thinking, "type", "thinking");
    if (type != "enabled" && type != "adaptive" && type != "disabled") {
      bad_field("thinking.type", "must be one of enabled, adaptive, disabled, not \"{}\"", printable(type, 40));
    }
    request.thinking = type != "disabled";
    if (!request.thinking) input.effort = "none";
    if (const Json* budget = find_member(*thinking, "budget_tokens", kInt, "thinking")) {
      if (budget->integer() < 1) bad_field("thinking.budget_tokens", "must be 1 or more");
      input.max_reasoning = budget->integer();
    }
  }
  const Json* config = fields.get("output_config");
  if (!config) return;
  if (const std::string effort = text_member(*config, "effort", "output_config"); !effort.empty()) {
    check_effort(effort, "output_config.effort");
    input.effort = effort;
  }
  const Json* format = find_member(*config, "format", kObject, "output_config");
  if (!format) return;
  const std::string type = need_text(*format, "type", "output_config.format");
  if (type != "json_schema")
    bad_field("output_config.format.type", "must be json_schema, not \"{}\"", printable(type, 40));
  input.format = read_schema_format(*format, "output_config.format");
}

void read_generation(const Fields& fields, const ops::SamplingParams& defaults, MessagesRequest& request) {
  GenerationOptions& options = request.input.generation;
  ops::SamplingParams& p = options.sampling;
  p = defaults;
  options.max_new_tokens = fields.integer("max_tokens");
  if (fields.has("temperature")) p.temperature = static_cast<float>(fields.number("temperature"));
  if (fields.has("top_p"))
    p.top_p = std::max(static_cast<float>(fields.number("top_p")), std::numeric_limits<float>::min());
  if (fields.has("top_k")) p.top_k = static_cast<int>(fields.integer("top_k"));
  p.seed = std::random_device()();
  options.stop = read_stops(fields, "stop_sequences");
  request.stream = fields.flag("stream");
}

}  // namespace

MessagesRequest read_messages_request(const Json& body, const ParamTable& table, const ops::SamplingParams& defaults) {
  const Fields fields(table, body);
  MessagesRequest request;
  ChatInput& input = request.input;
  request.model = fields.text("model");
  if (table.id == "messages") read_generation(fields, defaults, request);
  read_tools(fields, input);
  read_thinking(fields, request);
  if (const Json* system = fields.get("system")) {
    HarmonyMessage message;
    message.role = HarmonyRole::kSystem;
    read_blocks(*system, "system", input, message);
    input.messages.push_back(std::move(message));
  }
  CallNames calls;
  const Json::Array& messages = fields.get("messages")->array();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string field = fmt::format("messages[{}]", i);
    const Json& message = need_object(messages[i], field);
    const std::string role = need_text(message, "role", field);
    const Json& content = need_member(message, "content", kString | kArray, field);
    if (role == "user") read_user(content, field + ".content", input, calls);
    else if (role == "assistant") read_assistant(content, field + ".content", input, calls);
    else bad_field(field + ".role", "must be user or assistant, not \"{}\"", printable(role, 40));
  }
  if (messages.back().find("role")->string() == "assistant") {
    bad_field("messages", "the last message must be the user's: answers are not continued");
  }
  return request;
}

}  // namespace gov::server
