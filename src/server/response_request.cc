#include "server/response_request.h"

#include "server/api_error.h"
#include "server/output.h"

namespace gov::server {
namespace {

using Choice = OutputRules::ToolChoice;

constexpr std::size_t kLongestLabel = 512;

void read_message_item(const Json& item, const std::string& field, ChatInput& input) {
  const std::string role = need_text(item, "role", field);
  HarmonyMessage message;
  if (role == "assistant") {
    message.role = HarmonyRole::kAssistant;
    message.channel = text_member(item, "phase", field) == "commentary" ? "commentary" : "final";
  } else if (role == "user" || role == "system" || role == "developer") {
    message.role = role == "user"     ? HarmonyRole::kUser
                   : role == "system" ? HarmonyRole::kSystem
                                      : HarmonyRole::kDeveloper;
  } else {
    bad_field(field + ".role", "must be one of system, developer, user, assistant, not \"{}\"", printable(role, 40));
  }
  read_content(need_member(item, "content", kString | kArray, field), field + ".content", input, message);
  input.messages.push_back(std::move(message));
}

// Its own text; a summary or an encrypted form says nothing to the model.
void read_reasoning_item(const Json& item, const std::string& field, ChatInput& input) {
  const Json* content = find_member(item, "content", kArray, field);
  if (!content) return;
  HarmonyMessage message = assistant_message("analysis", "");
  read_content(*content, field + ".content", input, message);
  if (!message.text().empty()) input.messages.push_back(std::move(message));
}

void read_item(const Json& item, const std::string& field, ChatInput& input, CallNames& calls) {
  need_object(item, field);
  const std::string type = text_member(item, "type", field);
  if (type.empty() || type == "message") {
    read_message_item(item, field, input);
  } else if (type == "reasoning") {
    read_reasoning_item(item, field, input);
  } else if (type == "function_call") {
    const std::string name = need_text(item, "name", field);
    check_name(name, field + ".name");
    calls.add(need_call_id(item, "call_id", field), name);
    // Text right before a call was said along with it.
    if (!input.messages.empty() && input.messages.back().channel == "final")
      input.messages.back().channel = "commentary";
    input.messages.push_back(call_message(name, need_text(item, "arguments", field)));
  } else if (type == "function_call_output") {
    HarmonyMessage message = result_message(calls.find(need_text(item, "call_id", field), field + ".call_id"));
    read_content(need_member(item, "output", kString | kArray, field), field + ".output", input, message);
    input.messages.push_back(std::move(message));
  } else {
    bad_field(field + ".type", "\"{}\" is not supported", printable(type, 60));
  }
}

void read_input(const Fields& fields, ResponseRequest& request) {
  const Json* input = fields.get("input");
  Json::Array items;
  if (input->is_string()) {
    HarmonyMessage message;
    add_text(message, input->string());
    request.input.messages.push_back(std::move(message));
    Json part, item;
    part.set("type", "input_text").set("text", input->string());
    item.set("id", new_id("msg_")).set("type", "message").set("role", "user");
    item.set("content", Json::Array{part});
    items.push_back(std::move(item));
  } else {
    if (input->array().empty() && request.input.messages.empty()) bad_field("input", "is empty");
    items = input->array();
    for (std::size_t i = 0; i < items.size(); ++i) {
      read_item(items[i], fmt::format("input[{}]", i), request.input, request.calls);
      if (!items[i].find("id")) items[i].set("id", new_id("item_"));
    }
  }
  request.input_items = Json(std::move(items)).dump();
}

void read_tools(const Fields& fields, bool ignore_unknown, ChatInput& input) {
  const Json* tools = fields.get("tools");
  for (std::size_t i = 0; tools && i < tools->array().size(); ++i) {
    const std::string field = fmt::format("tools[{}]", i);
    const std::string type = need_text(need_object(tools->array()[i], field), "type", field);
    if (type == "function") add_function(tools->array()[i], field, input);
    else if (!ignore_unknown) bad_field(field + ".type", "\"{}\" is not supported", printable(type, 60));
  }
  input.parallel_calls = fields.flag("parallel_tool_calls");
}

void read_tool_choice(const Fields& fields, ChatInput& input) {
  const Json* choice = fields.get("tool_choice");
  if (!choice) return;
  const auto kind_of = [](const std::string& word, const std::string& field) {
    if (word == "none") return Choice::kNone;
    if (word == "auto") return Choice::kAuto;
    if (word == "required") return Choice::kRequired;
    bad_field(field, "must be none, auto, required or an object, not \"{}\"", printable(word, 40));
  };
  if (choice->is_string()) {
    input.tool_choice.kind = kind_of(choice->string(), "tool_choice");
  } else {
    const std::string type = need_text(*choice, "type", "tool_choice");
    const auto allow = [&](const Json& tool) {
      const std::string name = need_text(tool, "name", "tool_choice");
      check_allowed(input, name, "tool_choice");
      input.tool_choice.names.push_back(name);
    };
    if (type == "function") {
      input.tool_choice.kind = Choice::kRequired;
      allow(*choice);
    } else if (type == "allowed_tools") {
      input.tool_choice.kind = kind_of(need_text(*choice, "mode", "tool_choice"), "tool_choice.mode");
      for (const Json& tool : need_member(*choice, "tools", kArray, "tool_choice").array())
        allow(need_object(tool, "tool_choice.tools"));
    } else {
      bad_field("tool_choice.type", "\"{}\" is not supported", printable(type, 60));
    }
  }
  if (input.tool_choice.kind == Choice::kRequired && input.tools.empty())
    bad_field("tool_choice", "there are no tools");
}

void read_text(const Fields& fields, ChatInput& input) {
  const Json* text = fields.get("text");
  if (!text) return;
  const std::string verbosity = text_member(*text, "verbosity", "text");
  if (!verbosity.empty() && verbosity != "medium") bad_field("text.verbosity", "this server does not support it");
  const Json* format = find_member(*text, "format", kObject, "text");
  if (!format) return;
  const std::string type = need_text(*format, "type", "text.format");
  if (type == "json_object") input.json_object = true;
  else if (type == "json_schema") input.format = read_schema_format(*format, "text.format");
  else if (type != "text")
    bad_field("text.format.type", "must be one of text, json_object, json_schema, not \"{}\"", printable(type, 40));
}

void read_reasoning(const Fields& fields, ChatInput& input) {
  const Json* reasoning = fields.get("reasoning");
  if (!reasoning) return;
  input.effort = text_member(*reasoning, "effort", "reasoning");
  if (!input.effort.empty()) check_effort(input.effort, "reasoning.effort");
}

void read_include(const Fields& fields, ResponseRequest& request) {
  const Json* include = fields.get("include");
  for (std::size_t i = 0; include && i < include->array().size(); ++i) {
    const Json& item = include->array()[i];
    const std::string name = item.is_string() ? item.string() : "";
    if (name == "message.output_text.logprobs") request.logprobs = true;
    else if (name != "reasoning.encrypted_content") {
      bad_field("include", "\"{}\" is not supported", printable(name, 60));
    }
  }
}

void check_metadata(const Fields& fields) {
  const Json* metadata = fields.get("metadata");
  if (!metadata) return;
  for (const auto& [name, value] : metadata->object()) {
    if (!value.is_string() || value.string().size() > kLongestLabel || name.size() > 64) {
      bad_field("metadata", "labels are texts of at most {} bytes, their names have at most 64", kLongestLabel);
    }
  }
}

// What only POST /v1/responses has.
void read_generation(const Fields& fields, const ops::SamplingParams& defaults, ResponseRequest& request) {
  ChatInput& input = request.input;
  input.generation = read_sampling(fields, defaults);
  input.generation.max_new_tokens = fields.has("max_output_tokens") ? fields.integer("max_output_tokens") : kAllTokens;
  if (input.generation.min_new_tokens > input.generation.max_new_tokens)
    bad_field("min_tokens", "must be at most max_output_tokens");
  if (fields.has("max_reasoning_tokens")) input.max_reasoning = fields.integer("max_reasoning_tokens");
  input.preserve_thinking = fields.flag("preserve_thinking");
  input.cache_salt = fields.text("cache_salt");
  input.priority = read_priority(fields);
  read_include(fields, request);
  if (fields.has("top_logprobs") && fields.integer("top_logprobs") > 0) request.logprobs = true;
  if (request.logprobs) input.generation.logprobs = static_cast<int>(fields.integer("top_logprobs"));
  request.store = fields.flag("store");
  request.background = fields.flag("background");
  request.stream = fields.flag("stream");
  if (request.background && !request.store) bad_field("background", "needs store: true");
  if (fields.has("stream_options") && !request.stream) bad_field("stream_options", "only with stream: true");
  check_metadata(fields);
}

Json echo_of(const Fields& fields, const ResponseRequest& request) {
  Json echo;
  const auto copy = [&](const char* name, Json missing) {
    const Json* value = fields.get(name);
    echo.set(name, value ? *value : std::move(missing));
  };
  const ops::SamplingParams& p = request.input.generation.sampling;
  Json format, text, reasoning;
  format.set("type", "text");
  text.set("format", format);
  reasoning.set("effort", request.input.effort.empty() ? Json() : Json(request.input.effort)).set("summary", Json());
  copy("instructions", Json());
  copy("max_output_tokens", Json());
  copy("metadata", Json(Json::Object{}));
  copy("parallel_tool_calls", true);
  copy("previous_response_id", Json());
  echo.set("reasoning", std::move(reasoning));
  echo.set("store", request.store).set("background", request.background);
  echo.set("temperature", static_cast<double>(p.temperature)).set("top_p", static_cast<double>(p.top_p));
  copy("text", std::move(text));
  copy("tool_choice", "auto");
  copy("tools", Json(Json::Array{}));
  copy("top_logprobs", 0);
  echo.set("truncation", "disabled");
  copy("user", Json());
  return echo;
}

}  // namespace

ResponseRequest read_response_request(const Json& body, const ParamTable& table, const ops::SamplingParams& defaults,
                                      bool ignore_unknown_tools, ResponseStore& store, const std::string& tenant) {
  const Fields fields(table, body);
  ResponseRequest request;
  ChatInput& input = request.input;
  request.model = fields.text("model");
  if (table.id == "responses") read_generation(fields, defaults, request);
  request.previous_response_id = fields.text("previous_response_id");
  if (!request.previous_response_id.empty()) {
    const StoredPtr previous = store.find(tenant, request.previous_response_id);
    if (!previous) {
      throw ApiError(
          404, "invalid_request_error",
          fmt::format("previous_response_id: there is no response \"{}\"", printable(request.previous_response_id, 64)),
          "previous_response_id", "previous_response_not_found");
    }
    if (previous->running) bad_field("previous_response_id", "that response is not complete");
    input.messages = previous->messages;
    input.images = previous->images;
    request.calls = previous->calls;
  }
  read_reasoning(fields, input);
  read_tools(fields, ignore_unknown_tools || fields.flag("ignore_unknown_tools"), input);
  read_tool_choice(fields, input);
  read_text(fields, input);
  read_input(fields, request);
  if (const std::string instructions = fields.text("instructions"); !instructions.empty()) {
    HarmonyMessage message;
    message.role = HarmonyRole::kDeveloper;
    add_text(message, instructions);
    input.messages.insert(input.messages.begin(), std::move(message));
    request.instruction_messages = 1;
  }
  request.echo = echo_of(fields, request);
  return request;
}

}  // namespace gov::server
