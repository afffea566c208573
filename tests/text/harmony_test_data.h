#pragma once
// What the harmony tests share: token sequences from texts, and the messages of a parse in one readable line.

#include <string>
#include <string_view>
#include <vector>

#include "base/utf8.h"
#include "tests/text/text_test_data.h"
#include "text/harmony.h"

namespace gov::harmony_test {

using Ids = std::vector<std::int32_t>;

inline Ids ids_of_text(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, SpecialTokens::kAllow);
}

inline HarmonyMessage text_message(HarmonyRole role, std::string text, std::string channel = "") {
  return {.role = role, .channel = std::move(channel), .content = {{ContentPart::Kind::kText, std::move(text)}}};
}

inline HarmonyMessage call_message(std::string recipient, std::string arguments, std::string channel = "commentary") {
  return {.role = HarmonyRole::kAssistant,
          .recipient = std::move(recipient),
          .channel = std::move(channel),
          .content_type = "json",
          .content = {{ContentPart::Kind::kText, std::move(arguments)}}};
}

inline HarmonyMessage tool_message(std::string name, std::string output) {
  return {.role = HarmonyRole::kTool,
          .name = std::move(name),
          .recipient = "assistant",
          .channel = "commentary",
          .content = {{ContentPart::Kind::kText, std::move(output)}}};
}

// The events of one parse, checked: every message starts, has deltas and ends before the next one starts; texts are
// valid UTF-8 and joined give the content.
struct Parse {
  std::vector<HarmonyMessage> messages;
  std::vector<std::int32_t> ends;
  std::vector<bool> unknown_tools;
  std::vector<std::string> deltas;  // of the last message
  HarmonyRepairs repairs{};
  bool is_well_formed = true;

  std::int32_t count(HarmonyRepair repair) const { return repairs[static_cast<std::size_t>(repair)]; }
  void add(const HarmonyEvent& event) {
    const auto require = [&](bool holds) { is_well_formed &= holds; };
    require(event.message == static_cast<std::int32_t>(messages.size()));
    switch (event.kind) {
      case HarmonyEvent::Kind::kMessageStart:
        require(!is_open && event.header.content.empty());
        is_open = true;
        header = event.header;
        deltas.clear();
        joined.clear();
        unknown_tools.push_back(event.unknown_tool);
        break;
      case HarmonyEvent::Kind::kDelta:
        require(is_open && !event.text.empty() && utf8_valid(event.text));
        deltas.push_back(event.text);
        joined += event.text;
        break;
      case HarmonyEvent::Kind::kMessageEnd:
        require(is_open && event.header.text() == joined && event.header.content.size() == 1);
        require(event.header.role == header.role && event.header.name == header.name &&
                event.header.recipient == header.recipient && event.header.channel == header.channel &&
                event.header.content_type == header.content_type);
        is_open = false;
        messages.push_back(event.header);
        ends.push_back(event.end_token);
        break;
    }
  }

  bool is_open = false;
  HarmonyMessage header;
  std::string joined;
};

inline Parse parse(const Tokenizer& tokenizer, const Ids& ids, HarmonyParser::Options options = {}) {
  HarmonyParser parser(tokenizer, HarmonyTokens::find(tokenizer).value_or(HarmonyTokens{}), std::move(options));
  Parse out;
  std::vector<HarmonyEvent> events;
  for (const std::int32_t id : ids) parser.append(id, events);
  parser.finish(events);
  for (const HarmonyEvent& event : events) out.add(event);
  out.is_well_formed &= !out.is_open;
  out.repairs = parser.repairs();
  return out;
}

// "role[:name][>recipient] channel [type] |content|" of each message.
inline std::string summary(const Parse& parse) {
  std::string out;
  for (std::size_t i = 0; i < parse.messages.size(); ++i) {
    const HarmonyMessage& m = parse.messages[i];
    if (i > 0) out += ' ';
    out += harmony_role_name(m.role);
    if (!m.name.empty()) out += ":" + m.name;
    if (!m.recipient.empty()) out += ">" + m.recipient + (parse.unknown_tools[i] ? "?" : "");
    if (!m.channel.empty()) out += " " + m.channel;
    if (!m.content_type.empty()) out += " " + m.content_type;
    out += " |" + m.text() + "|";
  }
  return out;
}

}  // namespace gov::harmony_test
