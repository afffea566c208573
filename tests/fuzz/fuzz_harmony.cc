// Any bytes as a stream of generated tokens: the parser never throws, its events are well-formed, the same bytes give
// the same events, and every message it makes can be rendered and is read again as it was.
#include <cstdlib>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "text/harmony.h"

namespace {

using gov::HarmonyEvent;

void check(bool holds) {
  if (!holds) std::abort();
}

// The 256 bytes, words of headers, and the control tokens.
gov::Tokenizer make_tokenizer() {
  std::string vocab, added;
  const auto add = [](std::string& list, const std::string& entry) { list += (list.empty() ? "" : ",") + entry; };
  int id = 0;
  // ByteLevel's alphabet: printable characters are themselves, the others follow from U+0100 on.
  int other = 0;
  for (int b = 0; b < 256; ++b, ++id) {
    const bool is_printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    std::string symbol;
    gov::utf8_append(symbol, static_cast<char32_t>(is_printable ? b : 256 + other++));
    if (symbol == "\"" || symbol == "\\") symbol.insert(0, "\\");
    add(vocab, "\"" + symbol + "\":" + std::to_string(id));
  }
  for (const char* text : {"<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>",
                           "<|call|>", "<|reserved|>"}) {
    add(added, "{\"id\":" + std::to_string(id++) + ",\"content\":\"" + text +
                   "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}");
  }
  return gov::Tokenizer::from_json(
      "{\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
      "\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"added_tokens\":[" +
      added + "],\"model\":{\"type\":\"BPE\",\"vocab\":{" + vocab + "},\"merges\":[]}}");
}

// Bytes above 0xDF stand for what matters here: control tokens, words, an id without token.
std::vector<std::int32_t> tokens_of(const gov::Tokenizer& tokenizer, const std::uint8_t* data, std::size_t size) {
  constexpr const char* kWords[] = {"assistant", "analysis", "commentary",  "final",       " to=functions.f", " to=g",
                                    "json",      "user",     "functions.f", "<|channel|>", "python",          " "};
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < size; ++i) {
    const int byte = data[i];
    if (byte < 0xE0) {
      ids.push_back(byte);
    } else if (byte < 0xE8) {
      ids.push_back(256 + byte - 0xE0);
    } else if (byte < 0xF4) {
      for (const std::int32_t id : tokenizer.encode(kWords[byte - 0xE8])) ids.push_back(id);
    } else {
      ids.push_back(byte < 0xFE ? 0xE0 + byte - 0xF4 : byte == 0xFE ? -1 : 100'000);
    }
  }
  return ids;
}

struct Message {
  gov::HarmonyMessage header;
  std::string content;
};

std::vector<Message> parse(const gov::Tokenizer& tokenizer, const gov::HarmonyTokens& tokens,
                           const std::vector<std::int32_t>& ids, bool in_header, const std::string& tool) {
  gov::HarmonyParser parser(tokenizer, tokens, {.in_header = in_header, .tools = {"functions.f", tool}});
  std::vector<HarmonyEvent> events;
  for (const std::int32_t id : ids) parser.append(id, events);
  parser.finish(events);
  std::vector<Message> messages;
  bool is_open = false;
  for (const HarmonyEvent& event : events) {
    if (event.kind == HarmonyEvent::Kind::kMessageStart) {
      check(!is_open && event.message == static_cast<std::int32_t>(messages.size()));
      messages.push_back({event.header, {}});
      is_open = true;
      continue;
    }
    check(is_open && event.message + 1 == static_cast<std::int32_t>(messages.size()));
    if (event.kind == HarmonyEvent::Kind::kDelta) {
      check(!event.text.empty() && gov::utf8_valid(event.text));
      messages.back().content += event.text;
    } else {
      check(event.header.text() == messages.back().content);
      messages.back().header = event.header;
      is_open = false;
    }
  }
  check(!is_open);
  return messages;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const gov::Tokenizer tokenizer = make_tokenizer();
  static const gov::HarmonyTokens tokens = gov::HarmonyTokens::find(tokenizer).value();
  if (size == 0) return 0;
  const std::vector<std::int32_t> ids = tokens_of(tokenizer, data + 1, size - 1);
  const std::vector<Message> messages = parse(tokenizer, tokens, ids, data[0] % 2 == 0, "python");
  for (const Message& message : messages) {
    gov::HarmonyMessage header = message.header;
    for (const bool anew : {false, true}) {
      if (anew) header.generated.clear();
      std::vector<std::int32_t> prompt =
          gov::render_harmony(tokenizer, tokens, {&header, 1}, {.add_generation_prompt = false});
      if (header.role != gov::HarmonyRole::kAssistant) continue;
      prompt.erase(prompt.begin(), prompt.begin() + 1 + std::string_view("assistant").size());
      const std::vector<Message> again = parse(tokenizer, tokens, prompt, true, header.recipient);
      check(again.size() == 1 && again[0].content == message.content);
      check(again[0].header.recipient == header.recipient && again[0].header.channel == header.channel);
    }
  }
  return 0;
}
