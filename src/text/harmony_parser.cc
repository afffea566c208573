#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include "base/utf8.h"
#include "text/harmony.h"
#include "text/harmony_header.h"
#include "text/harmony_names.h"

namespace gov {
namespace {

using Kind = HarmonyEvent::Kind;
using Repair = HarmonyRepair;

// A header of so many tokens, besides the name of a tool, has no end.
constexpr std::size_t kMaxHeaderTokens = 64;

// What the text of a header can begin with when the start token is missing.
enum class Guess { kHeader, kContent, kUndecided };

Guess guess(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return Guess::kUndecided;
  text.remove_prefix(begin);
  for (const std::string_view word : {"analysis", "commentary", "final", "assistant", "to="}) {
    if (word.starts_with(text)) return Guess::kUndecided;  // its beginning, or whole without what follows
    if (!text.starts_with(word)) continue;
    const std::string_view behind = text.substr(word.size());
    return word == "to=" || !is_name_char(behind.front()) ? Guess::kHeader : Guess::kContent;
  }
  return Guess::kContent;
}

}  // namespace

struct HarmonyParser::State {
  // kGuess: text where <|start|> is due; it is a header or not.
  enum class Phase { kStart, kGuess, kHeader, kContent, kFinished };
  using Events = std::vector<HarmonyEvent>;

  State(const Tokenizer& t, const HarmonyTokens& ids, Options o)
      : tokenizer(t), tokens(ids), options(std::move(o)), assistant(tokenizer.encode("assistant")) {
    for (const std::string& tool : options.tools) {
      max_header_tokens = std::max(max_header_tokens, kMaxHeaderTokens + tokenizer.encode(tool).size());
    }
    if (options.in_header) {
      begin_header(false);
      return;
    }
    phase = Phase::kContent;
    message.role = HarmonyRole::kAssistant;
    message.channel = "final";
    message.content.push_back({ContentPart::Kind::kText, {}});
    is_clean = false;  // the header's ids are in the prompt
    owes_start = true;
  }

  void count(Repair repair) { ++repairs[static_cast<std::size_t>(repair)]; }
  std::int32_t repair_count() const { return std::accumulate(repairs.begin(), repairs.end(), 0); }
  bool is_end(std::int32_t token) const {
    return token == tokens.end || token == tokens.return_token || token == tokens.call;
  }
  // A token without a meaning in any place: reserved, an image's, ...
  bool is_other_special(std::int32_t token) const {
    return tokenizer.is_special(token) && !is_end(token) && token != tokens.start && token != tokens.message &&
           token != tokens.channel && token != tokens.constrain;
  }

  void begin_header(bool has_role) {
    phase = Phase::kHeader;
    header_ids.clear();
    header_has_role = has_role;
    repairs_before = repair_count();
    fallback = "final";
    message = {};
    pending.clear();
  }

  std::string header_bytes() const { return tokenizer.decode(header_ids, true); }

  std::vector<HeaderPiece> pieces() const {
    std::vector<HeaderPiece> out(1);
    for (const std::int32_t id : header_ids) {
      if (!tokenizer.is_special(id)) {
        out.back().text += tokenizer.token_bytes(id);
        continue;
      }
      const HeaderPiece::Before before = id == tokens.channel     ? HeaderPiece::Before::kChannel
                                         : id == tokens.constrain ? HeaderPiece::Before::kConstrain
                                                                  : HeaderPiece::Before::kOther;
      if (out.size() == 1 && out[0].text.empty() && out[0].before == HeaderPiece::Before::kNothing) out.clear();
      out.push_back({before, {}});
    }
    return out;
  }

  // Ends the header and opens its message; false if there is nothing in it.
  bool open(bool has_message, Events& events) {
    if (!has_message) count(Repair::kMissingMessageToken);
    ParsedHeader parsed = parse_header(pieces(), {header_has_role, has_message, fallback, options.tools}, repairs);
    if (!has_message && parsed.is_empty && parsed.rest.empty()) {
      phase = Phase::kStart;
      return false;
    }
    generated = header_ids;
    is_clean = true;
    if (header_has_role) {
      // Ids are used again from behind <|start|>assistant.
      is_clean =
          header_ids.size() >= assistant.size() && std::equal(assistant.begin(), assistant.end(), header_ids.begin());
      if (is_clean)
        generated.erase(generated.begin(), generated.begin() + static_cast<std::ptrdiff_t>(assistant.size()));
    }
    open_as(std::move(parsed.message), parsed.unknown_tool, events);
    if (has_message) generated.push_back(tokens.message);
    else deliver(parsed.rest, events);
    return true;
  }

  void open_as(HarmonyMessage header, bool unknown_tool, Events& events) {
    message = std::move(header);
    events.push_back({.kind = Kind::kMessageStart, .message = index, .header = message, .unknown_tool = unknown_tool});
    message.content.push_back({ContentPart::Kind::kText, {}});
    phase = Phase::kContent;
  }

  // The text in place of a start was no header.
  void open_guessed_content(Events& events) {
    const std::string bytes = header_bytes();
    is_clean = false;
    open_as({.role = HarmonyRole::kAssistant, .channel = "analysis"}, false, events);
    deliver(bytes, events);
  }

  void deliver(std::string_view bytes, Events& events, bool is_last = false) {
    pending += bytes;
    std::string text = utf8_take(pending, is_last);
    if (text.empty()) return;
    message.content[0].text += text;
    events.push_back({.kind = Kind::kDelta, .message = index, .text = std::move(text)});
  }

  void close(std::int32_t end_token, Events& events) {
    start_if_owed(events);
    deliver({}, events, true);
    if (is_clean && repair_count() == repairs_before && message.role == HarmonyRole::kAssistant) {
      if (end_token >= 0) generated.push_back(end_token);
      message.generated = std::move(generated);
    }
    generated.clear();
    events.push_back(
        {.kind = Kind::kMessageEnd, .message = index, .header = std::move(message), .end_token = end_token});
    message = {};
    ++index;
    phase = Phase::kStart;
  }

  void start_if_owed(Events& events) {
    if (!std::exchange(owes_start, false)) return;
    HarmonyMessage header = message;
    header.content.clear();
    events.push_back({.kind = Kind::kMessageStart, .message = index, .header = std::move(header)});
  }

  void at_start(std::int32_t token, Events& events) {
    if (token == tokens.start) return begin_header(true);
    if (is_end(token)) return count(Repair::kStrayEnd);
    if (token == tokens.constrain || is_other_special(token)) return count(Repair::kStrayControl);
    begin_header(false);
    count(Repair::kMissingStart);
    if (token == tokens.channel || token == tokens.message) {
      if (token == tokens.message) fallback = "analysis";
      return in_header(token, events);
    }
    header_ids.push_back(token);
    phase = Phase::kGuess;
    decide(events);
  }

  void decide(Events& events) {
    const Guess what = guess(header_bytes());
    if (what == Guess::kHeader) phase = Phase::kHeader;
    else if (what == Guess::kContent || header_ids.size() >= max_header_tokens) open_guessed_content(events);
  }

  void in_guess(std::int32_t token, Events& events) {
    if (is_other_special(token)) return count(Repair::kStrayControl);
    if (token == tokens.start || is_end(token)) {
      const std::string bytes = header_bytes();
      if (bytes.find_first_not_of(" \t\r\n") == std::string::npos) {  // white space between messages
        phase = Phase::kStart;
        return at_start(token, events);
      }
      open_guessed_content(events);
      close(is_end(token) ? token : -1, events);
      if (token == tokens.start) begin_header(true);
      return;
    }
    if (tokenizer.is_special(token)) {
      phase = Phase::kHeader;
      return in_header(token, events);
    }
    header_ids.push_back(token);
    decide(events);
  }

  void in_header(std::int32_t token, Events& events) {
    if (token == tokens.start) {
      count(header_ids.empty() ? Repair::kExtraHeaderWords : Repair::kUnfinishedHeader);
      return begin_header(true);
    }
    if (token == tokens.message) {
      open(true, events);
      return;
    }
    if (is_end(token)) {
      if (open(false, events)) close(token, events);
      return;
    }
    if (is_other_special(token)) count(Repair::kStrayControl);
    header_ids.push_back(token);
    if (header_ids.size() >= max_header_tokens) open(false, events);
  }

  void in_content(std::int32_t token, Events& events) {
    start_if_owed(events);
    if (is_end(token)) return close(token, events);
    if (token == tokens.start || token == tokens.channel) {
      count(Repair::kMissingEnd);
      close(-1, events);
      begin_header(token == tokens.start);
      if (token == tokens.start) return;
      count(Repair::kMissingStart);
      return in_header(token, events);
    }
    if (tokenizer.is_special(token)) return count(Repair::kStrayControl);
    if (is_clean) generated.push_back(token);
    deliver(tokenizer.token_bytes(token), events);
  }

  Tokenizer tokenizer;
  HarmonyTokens tokens;
  Options options;
  std::vector<std::int32_t> assistant;  // the role's ids
  std::size_t max_header_tokens = kMaxHeaderTokens;
  HarmonyRepairs repairs{};

  Phase phase = Phase::kHeader;
  std::vector<std::int32_t> header_ids;  // since <|start|>
  bool header_has_role = false;
  std::string_view fallback = "final";
  std::int32_t repairs_before = 0;  // when this message began

  HarmonyMessage message;
  std::int32_t index = 0;
  std::string pending;                  // the start of a character
  std::vector<std::int32_t> generated;  // of this message, while is_clean
  bool is_clean = false;
  bool owes_start = false;
};

HarmonyParser::HarmonyParser(const Tokenizer& tokenizer, const HarmonyTokens& tokens, Options options)
    : state_(std::make_unique<State>(tokenizer, tokens, std::move(options))) {}
HarmonyParser::HarmonyParser(HarmonyParser&&) noexcept = default;
HarmonyParser& HarmonyParser::operator=(HarmonyParser&&) noexcept = default;
HarmonyParser::~HarmonyParser() = default;

void HarmonyParser::append(std::int32_t token, std::vector<HarmonyEvent>& events) {
  State& s = *state_;
  if (s.phase == State::Phase::kFinished) return;
  if (!s.tokenizer.has_token(token)) return s.count(Repair::kStrayControl);
  switch (s.phase) {
    case State::Phase::kStart: return s.at_start(token, events);
    case State::Phase::kGuess: return s.in_guess(token, events);
    case State::Phase::kHeader: return s.in_header(token, events);
    case State::Phase::kContent: return s.in_content(token, events);
    case State::Phase::kFinished: return;
  }
}

void HarmonyParser::finish(std::vector<HarmonyEvent>& events) {
  State& s = *state_;
  const bool in_header = s.phase == State::Phase::kHeader || s.phase == State::Phase::kGuess;
  if (s.phase == State::Phase::kContent) s.close(-1, events);
  else if (in_header && !s.header_ids.empty()) s.count(Repair::kUnfinishedHeader);
  s.phase = State::Phase::kFinished;
}

const HarmonyRepairs& HarmonyParser::repairs() const { return state_->repairs; }

}  // namespace gov
