#include "text/harmony_header.h"

#include <algorithm>
#include <optional>

#include "text/harmony_names.h"

namespace gov {
namespace {

using Before = HeaderPiece::Before;
using Repair = HarmonyRepair;

// Header text is ASCII where it is right, so ASCII's white space it is.
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::size_t skip_space(std::string_view text, std::size_t at) {
  while (at < text.size() && is_space(text[at])) ++at;
  return at;
}

std::size_t word_end(std::string_view text, std::size_t at) {
  while (at < text.size() && !is_space(text[at])) ++at;
  return at;
}

std::size_t name_length(std::string_view text) {
  std::size_t length = 0;
  while (length < text.size() && is_name_char(text[length])) ++length;
  return length;
}

std::string_view longest_channel(std::string_view text) {
  for (const std::string_view channel : kChannels) {
    if (text.starts_with(channel)) return channel;  // none is the beginning of another
  }
  return {};
}

// A word that is nothing but one of these may be a content type wherever it stands.
std::string_view known_type(std::string_view text) {
  const std::string_view word = text.substr(0, name_length(text));
  for (const std::string_view type : {"json", "code", "text", "python", "yaml", "xml"}) {
    if (word == type) return type;
  }
  return {};
}

// A name with other characters around it: "––commentary", "commentary?".
std::string_view without_junk(std::string_view word) {
  while (!word.empty() && (!is_name_char(word.front()) || word.front() == '-' || word.front() == '.'))
    word.remove_prefix(1);
  while (!word.empty() && (!is_name_char(word.back()) || word.back() == '-' || word.back() == '.'))
    word.remove_suffix(1);
  return word;
}

class HeaderReader {
 public:
  HeaderReader(std::span<const HeaderPiece> pieces, const HeaderRules& rules, HarmonyRepairs& repairs)
      : pieces_(pieces), rules_(rules), repairs_(repairs) {}

  ParsedHeader read() {
    out_.message.role = HarmonyRole::kAssistant;
    for (std::size_t i = 0; i < pieces_.size() && !is_cut_; ++i) read_piece(i);
    settle_channel();
    if (out_.message.role == HarmonyRole::kAssistant) settle_recipient();
    out_.message.content_type = type_;
    return std::move(out_);
  }

 private:
  void count(Repair repair) { ++repairs_[static_cast<std::size_t>(repair)]; }

  void read_piece(std::size_t i) {
    const HeaderPiece& piece = pieces_[i];
    std::size_t at = 0;
    if (i == 0 && piece.before == Before::kNothing) at = role(piece.text);
    if (i == 0 && piece.before != Before::kNothing && rules_.has_role) count(Repair::kMissingStart);
    if (piece.before == Before::kChannel) at = channel(piece.text);
    if (piece.before == Before::kConstrain) at = constrained_type(piece.text);
    words(i, at);
  }

  void words(std::size_t i, std::size_t at) {
    const std::string_view text = pieces_[i].text;
    while (!is_cut_ && (at = skip_space(text, at)) < text.size()) {
      const std::size_t end = word_end(text, at);
      const std::size_t taken = word(text.substr(at, end - at));
      if (taken == end - at) {
        at = end;
      } else if (rules_.has_message) {
        count(Repair::kExtraHeaderWords);
        at = end;
      } else {
        cut(i, at + taken);
      }
    }
  }

  // There is no <|message|>: what follows is the content.
  void cut(std::size_t i, std::size_t at) {
    is_cut_ = true;
    out_.rest = pieces_[i].text.substr(at);
    for (++i; i < pieces_.size(); ++i) out_.rest += pieces_[i].text;
  }

  // Each returns how many bytes of the text it took.

  std::size_t role(std::string_view text) {
    const std::size_t begin = skip_space(text, 0);
    const std::string_view word = text.substr(begin, word_end(text, begin) - begin);
    if (word.empty()) {
      if (rules_.has_role) count(Repair::kMissingStart);
      return begin;
    }
    const std::string_view name = word.substr(0, word.find(':'));
    for (const HarmonyRole role : {HarmonyRole::kSystem, HarmonyRole::kDeveloper, HarmonyRole::kUser,
                                   HarmonyRole::kAssistant, HarmonyRole::kTool}) {
      if (name != harmony_role_name(role)) continue;
      if (!rules_.has_role && role != HarmonyRole::kAssistant) return begin;  // a word like others
      if (!rules_.has_role) count(Repair::kExtraHeaderWords);                 // once more
      return begin + known_role(role, word, name.size());
    }
    if (!rules_.has_role) return begin;
    if (has_recipient() && name_length(word) > 0) {
      out_.message.role = HarmonyRole::kTool;
      out_.message.name = word.substr(0, std::min(name_length(word), kMaxToolName));
      if (out_.message.name != word) count(Repair::kControlInName);
      out_.is_empty = false;
      return begin + word.size();
    }
    count(Repair::kExtraHeaderWords);
    constexpr std::string_view kGlued = "assistant";
    return word.starts_with(kGlued) ? begin + kGlued.size() : begin;
  }

  std::size_t known_role(HarmonyRole role, std::string_view word, std::size_t length) {
    out_.message.role = role;
    if (role == HarmonyRole::kTool) out_.message.name = "tool";
    if (length == word.size()) return length;
    const std::string_view name = word.substr(length + 1);
    if (role != HarmonyRole::kTool && is_name(name)) out_.message.name = name;
    else count(Repair::kExtraHeaderWords);
    return word.size();
  }

  bool has_recipient() const {
    return std::any_of(pieces_.begin(), pieces_.end(), [](const HeaderPiece& piece) {
      return piece.text.starts_with("to=") || piece.text.find(" to=") != std::string::npos;
    });
  }

  std::size_t channel(std::string_view text) {
    if (has_marker_) count(Repair::kBadChannel);
    has_marker_ = true;
    out_.is_empty = false;
    const std::size_t begin = skip_space(text, 0);
    const std::string_view word = text.substr(begin, word_end(text, begin) - begin);
    const std::string_view found = longest_channel(word);
    if (found.empty()) {
      count(Repair::kBadChannel);
      return begin;
    }
    channel_ = found;
    const std::string_view behind = word.substr(found.size());
    if (behind.empty()) return begin + found.size();
    count(Repair::kBadChannel);
    if (behind.starts_with("to=")) return begin + found.size();
    // With <|message|> it belongs to the header and means nothing; without, it is where the content begins.
    return begin + (rules_.has_message ? word.size() : found.size());
  }

  std::size_t constrained_type(std::string_view text) {
    if (expects_recipient_) count(Repair::kConstrainAsRecipient);
    expects_recipient_ = false;
    has_constrain_ = true;
    out_.is_empty = false;
    const std::size_t begin = skip_space(text, 0);
    const std::string_view type = known_type(text.substr(begin));
    if (type.empty()) {
      count(Repair::kExtraHeaderWords);
      return rules_.has_message ? word_end(text, begin) : begin;
    }
    type_ = type;
    return begin + type.size();
  }

  std::size_t word(std::string_view word) {
    if (expects_recipient_) {
      expects_recipient_ = false;
      return recipient(word);
    }
    if (word.starts_with("to=")) {
      out_.is_empty = false;
      expects_recipient_ = word.size() == 3;
      return 3 + recipient(word.substr(3));
    }
    const std::string_view bare = without_junk(word);
    if (!bare.empty() && longest_channel(bare) == bare) {
      count(Repair::kBadChannel);
      if (bare_channel_.empty()) bare_channel_ = bare;
      out_.is_empty = false;
      return word.size();
    }
    if (const std::string_view type = known_type(word); !type.empty() && type_.empty()) {
      type_ = type;
      return type.size();
    }
    if (out_.message.recipient.empty() && (declared(word) || word.starts_with("functions."))) {
      count(Repair::kExtraHeaderWords);
      return recipient(word);
    }
    if (rules_.has_message && !out_.message.recipient.empty() && type_.empty() && is_name(word) &&
        word.size() <= kMaxContentType) {
      type_ = word;
      return word.size();
    }
    return 0;
  }

  std::size_t recipient(std::string_view text) {
    if (text.empty()) return 0;
    const std::size_t control = text.find("<|");
    if (control != std::string_view::npos) {
      count(text.substr(control).starts_with("<|constrain|>") && control == 0 ? Repair::kConstrainAsRecipient
                                                                              : Repair::kControlInName);
    }
    const std::string_view name = text.substr(0, std::min(name_length(text), kMaxToolName));
    if (name.empty()) return 0;
    if (!out_.message.recipient.empty()) return 0;
    out_.message.recipient = name;
    out_.is_empty = false;
    return control == name.size() && rules_.has_message ? text.size() : name.size();
  }

  // The declared tool that is meant: the name itself, or a function's name without its namespace.
  std::optional<std::string> declared(std::string_view name) const {
    const std::string* found = nullptr;
    for (const std::string& tool : rules_.tools) {
      if (tool == name) return tool;
      const bool is_last =
          tool.size() > name.size() + 1 && tool.ends_with(name) && tool[tool.size() - name.size() - 1] == '.';
      if (is_last && (!found || tool.starts_with("functions."))) found = &tool;
    }
    return found ? std::optional<std::string>(*found) : std::nullopt;
  }

  void settle_channel() {
    HarmonyMessage& message = out_.message;
    if (!channel_.empty()) message.channel = channel_;
    else if (!bare_channel_.empty()) message.channel = bare_channel_;
    else if (message.role != HarmonyRole::kAssistant) return;
    else if (!message.recipient.empty()) message.channel = "commentary";
    else if (has_marker_) message.channel = "analysis";
    else message.channel = rules_.fallback;
    const bool is_assumed = channel_.empty() && bare_channel_.empty() && !has_marker_;
    if (is_assumed && (!out_.is_empty || rules_.has_message)) count(Repair::kBadChannel);
  }

  void settle_recipient() {
    std::string& recipient = out_.message.recipient;
    if (recipient.empty()) {
      // The type of arguments without anyone to get them.
      if (has_constrain_ && out_.message.channel != "final") count(Repair::kConstrainAsRecipient);
      return;
    }
    const auto tool = declared(recipient);
    const bool is_nobody = recipient == "all" || recipient == "user" || recipient == "assistant";
    if (!tool && (is_nobody || out_.message.channel == "final")) {
      if (recipient != "all") count(Repair::kExtraHeaderWords);
      recipient.clear();
      return;
    }
    if (!tool) {
      count(Repair::kUnknownTool);
      out_.unknown_tool = true;
    } else if (*tool != recipient) {
      count(Repair::kMissingNamespace);
      recipient = *tool;
    }
  }

  std::span<const HeaderPiece> pieces_;
  const HeaderRules& rules_;
  HarmonyRepairs& repairs_;
  ParsedHeader out_;
  std::string channel_, bare_channel_, type_;
  bool has_marker_ = false, has_constrain_ = false, expects_recipient_ = false, is_cut_ = false;
};

}  // namespace

ParsedHeader parse_header(std::span<const HeaderPiece> pieces, const HeaderRules& rules, HarmonyRepairs& repairs) {
  return HeaderReader(pieces, rules, repairs).read();
}

const char* harmony_repair_name(HarmonyRepair repair) {
  switch (repair) {
    case Repair::kExtraHeaderWords: return "extra_header_words";
    case Repair::kMissingStart: return "missing_start";
    case Repair::kStrayEnd: return "stray_end";
    case Repair::kBadChannel: return "bad_channel";
    case Repair::kControlInName: return "control_in_name";
    case Repair::kConstrainAsRecipient: return "constrain_as_recipient";
    case Repair::kMissingNamespace: return "missing_namespace";
    case Repair::kUnknownTool: return "unknown_tool";
    case Repair::kMissingMessageToken: return "missing_message_token";
    case Repair::kUnfinishedHeader: return "unfinished_header";
    case Repair::kMissingEnd: return "missing_end";
    case Repair::kStrayControl: return "stray_control";
    case Repair::kCount: break;
  }
  return "?";
}

}  // namespace gov
