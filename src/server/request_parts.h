#pragma once
// What the protocols' requests have in common: contents, functions, tool choices, output formats. Every error is an
// ApiError 400 that names the place, e.g. "messages[2].content[0].image_url: ...".

#include <map>
#include <string>

#include "server/chat_input.h"

namespace gov::server {

// A member of an object: of that kind, or absent or null. `field` is the object's own place.
const Json* find_member(const Json& object, std::string_view name, unsigned kinds, const std::string& field);
// A member that has to be there.
const Json& need_member(const Json& object, std::string_view name, unsigned kinds, const std::string& field);
std::string text_member(const Json& object, std::string_view name, const std::string& field);  // "" if absent
std::string need_text(const Json& object, std::string_view name, const std::string& field);
const Json& need_object(const Json& value, const std::string& field);

// 1 to 64 letters, digits, '_', '.', '-': what may stand in a header.
bool is_header_name(std::string_view text);
void check_name(std::string_view name, const std::string& field);

// Adds a content (a string, or parts of text and pictures in OpenAI's two forms) to a message; pictures go to `input`.
void read_content(const Json& content, const std::string& field, ChatInput& input, HarmonyMessage& message);
void add_text(HarmonyMessage& message, std::string text);
void add_image(HarmonyMessage& message, ChatInput& input, std::string url, const std::string& field);

// {name, description, parameters, strict}. Adds to input.tools; the same name twice is refused.
void add_function(const Json& function, const std::string& field, ChatInput& input);
void check_allowed(const ChatInput& input, const std::string& name, const std::string& field);
// {name, description, schema}: of response_format.json_schema and text.format.
ResponseFormat read_schema_format(const Json& object, const std::string& field);
// stream_options.include_usage, which goes with stream only.
bool read_include_usage(const Fields& fields);
// none, minimal, low, medium, high.
void check_effort(const std::string& effort, const std::string& field);

// The id of a call, which a client chooses: a text of at most 512 bytes, since it is kept.
std::string need_call_id(const Json& object, std::string_view name, const std::string& field);

// Which function a tool's result belongs to, by the id of the call.
class CallNames {
 public:
  void add(const std::string& id, const std::string& name) { names_[id] = name; }
  const std::string& find(const std::string& id, const std::string& field) const;
  std::size_t bytes() const;  // what it holds, about

 private:
  std::map<std::string, std::string> names_;
};

// An assistant's earlier call, and the result of one.
HarmonyMessage call_message(const std::string& name, std::string arguments);
HarmonyMessage result_message(const std::string& name);
HarmonyMessage assistant_message(std::string channel, std::string text);

}  // namespace gov::server
