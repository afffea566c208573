#include "server/request_parts.h"

#include <algorithm>

#include "server/api_error.h"

namespace gov::server {
namespace {

constexpr const char* kFunctions = "functions.";

std::string place(const std::string& field, std::string_view name) {
  return field.empty() ? std::string(name) : fmt::format("{}.{}", field, name);
}

// "image_url" of chat is {"url", "detail"} or, as in responses, the URL itself.
void read_image(const Json& part, const std::string& field, ChatInput& input, HarmonyMessage& message) {
  const Json* value = find_member(part, "image_url", kString | kObject, field);
  if (!value) bad_field(place(field, "image_url"), "a picture needs a URL");
  const std::string where = place(field, "image_url");
  const std::string url = value->is_string() ? value->string() : need_text(*value, "url", where);
  add_image(message, input, url, where);
}

void read_part(const Json& part, const std::string& field, ChatInput& input, HarmonyMessage& message) {
  if (part.is_string()) {
    add_text(message, part.string());
    return;
  }
  need_object(part, field);
  const std::string type = need_text(part, "type", field);
  if (type == "text" || type == "input_text" || type == "output_text" || type == "summary_text" ||
      type == "reasoning_text") {
    add_text(message, need_text(part, "text", field));
  } else if (type == "refusal") {
    add_text(message, need_text(part, "refusal", field));
  } else if (type == "image_url" || type == "input_image") {
    read_image(part, field, input, message);
  } else {
    bad_field(place(field, "type"), "\"{}\" is not supported", printable(type, 60));
  }
}

}  // namespace

const Json* find_member(const Json& object, std::string_view name, unsigned kinds, const std::string& field) {
  const Json* value = object.find(name);
  if (!value || value->is_null()) return nullptr;
  if (!is_kind(*value, kinds)) {
    const std::string where = place(field, name);
    throw ApiError(400, "invalid_request_error",
                   fmt::format("{}: expected {}, but got {}", where, kind_words(kinds), value->kind_name()), where,
                   "invalid_type");
  }
  return value;
}

const Json& need_member(const Json& object, std::string_view name, unsigned kinds, const std::string& field) {
  const Json* value = find_member(object, name, kinds, field);
  if (!value) {
    const std::string where = place(field, name);
    throw ApiError(400, "invalid_request_error", fmt::format("{}: a required member is missing", where), where,
                   "missing_required_parameter");
  }
  return *value;
}

std::string text_member(const Json& object, std::string_view name, const std::string& field) {
  const Json* value = find_member(object, name, kString, field);
  return value ? value->string() : std::string();
}

std::string need_text(const Json& object, std::string_view name, const std::string& field) {
  return need_member(object, name, kString, field).string();
}

const Json& need_object(const Json& value, const std::string& field) {
  if (!value.is_object()) {
    throw ApiError(400, "invalid_request_error",
                   fmt::format("{}: expected an object, but got {}", field, value.kind_name()), field, "invalid_type");
  }
  return value;
}

bool is_header_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '-';
  });
}

void check_name(std::string_view name, const std::string& field) {
  if (!is_header_name(name)) bad_field(field, "a name has 1 to 64 letters, digits, '_', '.' or '-'");
}

void add_text(HarmonyMessage& message, std::string text) {
  message.content.push_back({ContentPart::Kind::kText, std::move(text)});
}

void add_image(HarmonyMessage& message, ChatInput& input, std::string url, const std::string& field) {
  if (message.role != HarmonyRole::kUser && message.role != HarmonyRole::kTool) {
    bad_field(field, "pictures belong into user and tool messages");
  }
  if (input.images.size() >= kMostImages) bad_field(field, "more than {} pictures in one request", kMostImages);
  message.content.push_back({ContentPart::Kind::kImage, ""});
  input.images.push_back({field, std::make_shared<const std::string>(std::move(url))});
}

void read_content(const Json& content, const std::string& field, ChatInput& input, HarmonyMessage& message) {
  if (content.is_string()) {
    add_text(message, content.string());
    return;
  }
  if (!content.is_array()) {
    throw ApiError(400, "invalid_request_error",
                   fmt::format("{}: expected a string or an array, but got {}", field, content.kind_name()), field,
                   "invalid_type");
  }
  for (std::size_t i = 0; i < content.array().size(); ++i) {
    read_part(content.array()[i], fmt::format("{}[{}]", field, i), input, message);
  }
}

void add_function(const Json& function, const std::string& field, ChatInput& input) {
  need_object(function, field);
  ToolSpec tool;
  tool.function.name = need_text(function, "name", field);
  check_name(tool.function.name, place(field, "name"));
  tool.function.description = text_member(function, "description", field);
  if (const Json* parameters = find_member(function, "parameters", kObject, field))
    tool.function.parameters = *parameters;
  if (const Json* strict = find_member(function, "strict", kBool, field)) tool.strict = strict->boolean();
  for (const ToolSpec& other : input.tools) {
    if (other.function.name == tool.function.name)
      bad_field(place(field, "name"), "\"{}\" is there twice", tool.function.name);
  }
  input.tools.push_back(std::move(tool));
}

void check_allowed(const ChatInput& input, const std::string& name, const std::string& field) {
  const auto is_it = [&](const ToolSpec& tool) { return tool.function.name == name; };
  if (std::none_of(input.tools.begin(), input.tools.end(), is_it)) {
    bad_field(field, "\"{}\" is not among the tools", printable(name, 64));
  }
}

ResponseFormat read_schema_format(const Json& object, const std::string& field) {
  ResponseFormat format;
  format.name = text_member(object, "name", field);
  if (format.name.empty()) format.name = "response";
  check_name(format.name, place(field, "name"));
  format.description = text_member(object, "description", field);
  format.schema = need_member(object, "schema", kObject, field);
  find_member(object, "strict", kBool, field);
  return format;
}

void check_effort(const std::string& effort, const std::string& field) {
  static constexpr std::string_view kEfforts[] = {"none", "minimal", "low", "medium", "high"};
  if (std::find(std::begin(kEfforts), std::end(kEfforts), effort) == std::end(kEfforts)) {
    bad_field(field, "must be one of none, minimal, low, medium, high, not \"{}\"", printable(effort, 40));
  }
}

bool read_include_usage(const Fields& fields) {
  const Json* options = fields.get("stream_options");
  if (!options) return false;
  if (!fields.flag("stream")) bad_field("stream_options", "only with stream: true");
  const Json* usage = find_member(*options, "include_usage", kBool, "stream_options");
  return usage && usage->boolean();
}

std::string need_call_id(const Json& object, std::string_view name, const std::string& field) {
  constexpr std::size_t kLongest = 512;
  std::string id = need_text(object, name, field);
  if (id.size() > kLongest) bad_field(place(field, name), "the id of a call has at most {} bytes", kLongest);
  return id;
}

std::size_t CallNames::bytes() const {
  constexpr std::size_t kNode = 64;  // of the map, beside its texts
  std::size_t total = 0;
  for (const auto& [id, name] : names_) total += kNode + sizeof(id) + sizeof(name) + id.size() + name.size();
  return total;
}

const std::string& CallNames::find(const std::string& id, const std::string& field) const {
  const auto it = names_.find(id);
  if (it == names_.end()) bad_field(field, "no earlier call has the id \"{}\"", printable(id, 64));
  return it->second;
}

HarmonyMessage call_message(const std::string& name, std::string arguments) {
  HarmonyMessage message = assistant_message("commentary", std::move(arguments));
  message.recipient = kFunctions + name;
  message.content_type = "json";
  return message;
}

HarmonyMessage result_message(const std::string& name) {
  HarmonyMessage message;
  message.role = HarmonyRole::kTool;
  message.name = kFunctions + name;
  message.recipient = "assistant";
  message.channel = "commentary";
  return message;
}

HarmonyMessage assistant_message(std::string channel, std::string text) {
  HarmonyMessage message;
  message.role = HarmonyRole::kAssistant;
  message.channel = std::move(channel);
  add_text(message, std::move(text));
  return message;
}

}  // namespace gov::server
