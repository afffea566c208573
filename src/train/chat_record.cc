#include "train/chat_record.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace gov::train {
namespace {

constexpr const char* kFunctions = "functions.";
constexpr std::size_t kMostImages = 4096;

template <class... Args>
[[noreturn]] void refuse(const std::string& field, fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorCode::kInvalidArgument, "{}: {}", field, fmt::format(format, std::forward<Args>(args)...));
}

// The member, or null where it is absent or null.
const Json* member(const Json& object, std::string_view name) {
  const Json* value = object.find(name);
  return value && !value->is_null() ? value : nullptr;
}

const Json::Array& array_of(const Json& value, const std::string& field) {
  if (!value.is_array()) refuse(field, "expected an array, but got {}", value.kind_name());
  return value.array();
}

std::string text_of(const Json& value, const std::string& field) {
  if (!value.is_string()) refuse(field, "expected a text, but got {}", value.kind_name());
  return value.string();
}

std::string need_text(const Json& object, std::string_view name, const std::string& field) {
  if (!object.is_object()) refuse(field, "expected an object, but got {}", object.kind_name());
  const std::string where = field.empty() ? std::string(name) : fmt::format("{}.{}", field, name);
  const Json* value = member(object, name);
  if (!value) refuse(where, "is missing");
  return text_of(*value, where);
}

void add_text(HarmonyMessage& message, std::string text) {
  message.content.push_back({ContentPart::Kind::kText, std::move(text)});
}

class OpenAiReader {
 public:
  explicit OpenAiReader(const Json& record) : record_(record) {}

  ChatRecord read() {
    read_tools();
    const Json* messages = member(record_, "messages");
    if (!messages) refuse("messages", "is missing");
    const Json::Array& list = array_of(*messages, "messages");
    for (std::size_t i = 0; i < list.size(); ++i) read_message(list[i], fmt::format("messages[{}]", i));
    return std::move(out_);
  }

 private:
  void read_tools() {
    const Json* tools = member(record_, "tools");
    if (!tools) return;
    const Json::Array& list = array_of(*tools, "tools");
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string field = fmt::format("tools[{}]", i);
      const Json* nested = list[i].find("function");
      const Json& function = nested ? *nested : list[i];
      ToolFunction tool{need_text(function, "name", field)};
      if (const Json* text = member(function, "description")) tool.description = text_of(*text, field + ".description");
      if (const Json* parameters = member(function, "parameters")) {
        if (!parameters->is_object()) refuse(field + ".parameters", "expected an object");
        tool.parameters = *parameters;
      }
      out_.tools.push_back(std::move(tool));
    }
  }

  void read_message(const Json& json, const std::string& field) {
    const std::string role = need_text(json, "role", field);
    weight_ = 1;
    if (const Json* weight = member(json, "weight")) {
      if (!weight->is_number() || !(weight->number() >= 0 && weight->number() <= 1000))
        refuse(field + ".weight", "expected a number in 0..1000");
      weight_ = weight->number();
    }
    if (role == "assistant") return read_assistant(json, field);
    HarmonyMessage message;
    if (role == "user") {
      message.role = HarmonyRole::kUser;
    } else if (role == "system" || role == "developer") {
      message.role = role == "system" ? HarmonyRole::kSystem : HarmonyRole::kDeveloper;
    } else if (role == "tool") {
      const std::string id = need_text(json, "tool_call_id", field);
      const auto call = calls_.find(id);
      if (call == calls_.end()) refuse(field + ".tool_call_id", "no earlier call has the id \"{}\"", printable(id, 64));
      message = {.role = HarmonyRole::kTool, .name = kFunctions + call->second};
      message.recipient = "assistant";
      message.channel = "commentary";
    } else {
      refuse(field + ".role", "\"{}\" is not system, developer, user, assistant or tool", printable(role, 40));
    }
    read_content(json, field, message);
    add(std::move(message));
  }

  void read_assistant(const Json& json, const std::string& field) {
    for (const char* name : {"reasoning_content", "reasoning", "thinking"}) {
      const Json* thought = member(json, name);
      if (!thought) continue;
      HarmonyMessage message{.role = HarmonyRole::kAssistant};
      message.channel = "analysis";
      add_text(message, text_of(*thought, fmt::format("{}.{}", field, name)));
      if (!message.content.front().text.empty()) add(std::move(message));
      break;
    }
    const Json* calls = member(json, "tool_calls");
    const bool has_calls = calls && !array_of(*calls, field + ".tool_calls").empty();
    HarmonyMessage message{.role = HarmonyRole::kAssistant};
    message.channel = has_calls ? "commentary" : "final";
    read_content(json, field, message);
    const bool is_empty = message.text().empty();
    if (!has_calls && is_empty) refuse(field, "an assistant's message has neither content nor calls");
    if (!is_empty) add(std::move(message));
    if (!has_calls) return;
    for (std::size_t i = 0; i < calls->array().size(); ++i)
      read_call(calls->array()[i], fmt::format("{}.tool_calls[{}]", field, i));
  }

  void read_call(const Json& json, const std::string& field) {
    const Json* function = json.find("function");
    if (!function) refuse(field + ".function", "is missing");
    const std::string name = need_text(*function, "name", field + ".function");
    const Json* arguments = member(*function, "arguments");
    HarmonyMessage message{.role = HarmonyRole::kAssistant};
    message.recipient = kFunctions + name;
    message.channel = "commentary";
    message.content_type = "json";
    add_text(message, !arguments ? "{}" : arguments->is_string() ? arguments->string() : arguments->dump());
    add(std::move(message));
    if (const Json* id = member(json, "id")) calls_[text_of(*id, field + ".id")] = name;
  }

  void read_content(const Json& json, const std::string& field, HarmonyMessage& message) {
    const Json* content = member(json, "content");
    if (!content) return;
    if (content->is_string()) return add_text(message, content->string());
    const std::string where = field + ".content";
    const Json::Array& parts = array_of(*content, where);
    for (std::size_t i = 0; i < parts.size(); ++i) read_part(parts[i], fmt::format("{}[{}]", where, i), message);
  }

  void read_part(const Json& part, const std::string& field, HarmonyMessage& message) {
    const std::string type = need_text(part, "type", field);
    if (type == "text" || type == "input_text" || type == "output_text") {
      add_text(message, need_text(part, "text", field));
    } else if (type == "image_url" || type == "input_image") {
      const Json* url = member(part, "image_url");
      if (!url) refuse(field + ".image_url", "is missing");
      add_image(message, url->is_string() ? url->string() : need_text(*url, "url", field + ".image_url"), field);
    } else if (type == "image") {
      for (const char* name : {"image", "path", "url"})
        if (const Json* own = member(part, name)) return add_image(message, text_of(*own, field), field);
      const Json* images = member(record_, "images");
      if (!images || next_image_ >= array_of(*images, "images").size()) refuse(field, "\"images\" has no entry for it");
      const std::string where = fmt::format("images[{}]", next_image_);
      add_image(message, text_of(images->array()[next_image_++], where), field);
    } else {
      refuse(field + ".type", "\"{}\" is not text, image_url or image", printable(type, 40));
    }
  }

  void add_image(HarmonyMessage& message, std::string reference, const std::string& field) {
    if (message.role != HarmonyRole::kUser && message.role != HarmonyRole::kTool)
      refuse(field, "images belong into user and tool messages");
    if (out_.images.size() >= kMostImages) refuse(field, "more than {} images", kMostImages);
    message.content.push_back({ContentPart::Kind::kImage, ""});
    out_.images.push_back(std::move(reference));
  }

  void add(HarmonyMessage message) {
    out_.messages.push_back(std::move(message));
    out_.weights.push_back(weight_);
  }

  const Json& record_;
  ChatRecord out_;
  double weight_ = 1;
  std::size_t next_image_ = 0;
  std::map<std::string, std::string> calls_;  // name by id
};

std::vector<std::string> llava_images(const Json& record) {
  std::vector<std::string> out;
  const Json* image = member(record, "image");
  if (!image) image = member(record, "images");
  if (!image) return out;
  if (image->is_string()) return {image->string()};
  const Json::Array& list = array_of(*image, "image");
  if (list.size() > kMostImages) refuse("image", "more than {} images", kMostImages);
  for (const Json& item : list) out.push_back(text_of(item, "image"));
  return out;
}

// The text in pieces, an image part for each "<image>". One line break at a marker's side belongs to the marker.
std::size_t add_with_markers(HarmonyMessage& message, std::string_view text) {
  constexpr std::string_view kMarker = "<image>";
  std::size_t count = 0;
  for (std::size_t at; (at = text.find(kMarker)) != std::string_view::npos; ++count) {
    std::string_view before = text.substr(0, at);
    text.remove_prefix(at + kMarker.size());
    if (text.starts_with('\n')) text.remove_prefix(1);
    else if (before.ends_with('\n')) before.remove_suffix(1);
    if (!before.empty()) add_text(message, std::string(before));
    message.content.push_back({ContentPart::Kind::kImage, ""});
  }
  if (!text.empty()) add_text(message, std::string(text));
  return count;
}

}  // namespace

ChatRecord parse_openai_record(const Json& record) {
  if (!record.is_object()) refuse("record", "expected an object, but got {}", record.kind_name());
  return OpenAiReader(record).read();
}

ChatRecord parse_llava_record(const Json& record) {
  if (!record.is_object()) refuse("record", "expected an object, but got {}", record.kind_name());
  ChatRecord out;
  out.images = llava_images(record);
  const Json* turns = member(record, "conversations");
  if (!turns) refuse("conversations", "is missing");
  const Json::Array& list = array_of(*turns, "conversations");
  std::size_t markers = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string field = fmt::format("conversations[{}]", i), from = need_text(list[i], "from", field);
    const std::string value = need_text(list[i], "value", field);
    HarmonyMessage message;
    if (from == "human" || from == "user") {
      markers += add_with_markers(message, value);
    } else if (from == "gpt" || from == "assistant") {
      message = {.role = HarmonyRole::kAssistant, .channel = "final"};
      add_text(message, value);
    } else if (from == "system") {
      message.role = HarmonyRole::kSystem;
      add_text(message, value);
    } else {
      refuse(field + ".from", "\"{}\" is not human, gpt or system", printable(from, 40));
    }
    out.messages.push_back(std::move(message));
  }
  out.weights.assign(out.messages.size(), 1);
  if (markers == 0 && !out.images.empty()) {
    const auto first = std::find_if(out.messages.begin(), out.messages.end(),
                                    [](const HarmonyMessage& m) { return m.role == HarmonyRole::kUser; });
    if (first == out.messages.end()) refuse("conversations", "no human text for the images");
    first->content.insert(first->content.begin(), out.images.size(), {ContentPart::Kind::kImage, ""});
  } else if (markers != out.images.size()) {
    refuse("image", "{} images for {} markers", out.images.size(), markers);
  }
  return out;
}

}  // namespace gov::train
