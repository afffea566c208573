#include "text/token_constraint_header.h"

namespace gov {
namespace {

void append(std::vector<std::int32_t>& ids, const std::vector<std::int32_t>& more) {
  ids.insert(ids.end(), more.begin(), more.end());
}

}  // namespace

HarmonyHeaders::HarmonyHeaders(const Tokenizer& tokenizer, const HarmonyTokens& tokens, const OutputRules& rules)
    : tokenizer_(tokenizer), tokens_(tokens) {
  const auto plain = [&](std::string_view channel, std::uint8_t kinds) {
    Ids ids{tokens_.channel};
    append(ids, text(channel));
    ids.push_back(tokens_.message);
    add(ids, kinds, -1);
  };
  plain("analysis", kOpensAnalysis);
  plain("commentary", kOpensPreamble);
  plain("final", kOpensFinal | kOpensFinalShort);
  if (rules.final_format != nullptr) add_ends({tokens_.channel}, "final", true, kOpensFinal, 0, -1);
  if (rules.tool_choice != OutputRules::ToolChoice::kNone) {
    for (std::size_t i = 0; i < rules.tools.size(); ++i) add_call(rules, static_cast<std::int32_t>(i));
  }
  Ids assistant{tokens_.start};
  append(assistant, text("assistant"));
  next_message_ = static_cast<std::uint32_t>(nodes_.size());
  for (std::size_t i = 0; i < assistant.size(); ++i) {
    const bool last = i + 1 == assistant.size();
    nodes_.emplace_back();
    nodes_.back().reaches = 0xFF;
    nodes_.back().next.emplace_back(assistant[i], last ? 0 : static_cast<std::uint32_t>(nodes_.size()));
  }
}

void HarmonyHeaders::add_call(const OutputRules& rules, std::int32_t tool) {
  const ToolRule& rule = rules.tools[static_cast<std::size_t>(tool)];
  const bool json = rule.arguments != nullptr, function = rule.recipient.starts_with("functions.");
  std::vector<std::string> channels{"commentary"};
  if (!function) channels.insert(channels.begin(), "analysis");  // built-in tools are called while thinking
  for (const std::string& channel : channels) {
    const std::uint8_t short_kind = channel == channels[0] ? std::uint8_t{kOpensCallShort} : std::uint8_t{0};
    add_ends({tokens_.channel}, channel + " to=" + rule.recipient, json, kOpensCall, short_kind, tool);
    Ids ids = text(" to=" + rule.recipient);
    ids.push_back(tokens_.channel);
    add_ends(std::move(ids), channel, json, kOpensCall, 0, tool);
  }
}

void HarmonyHeaders::add_ends(Ids ids, const std::string& open, bool json, std::uint8_t kinds, std::uint8_t short_kind,
                              std::int32_t tool) {
  const auto form = [&](const std::string& last, bool constrain, std::uint8_t form_kinds) {
    Ids all = ids;
    append(all, text(last));
    if (constrain) {
      all.push_back(tokens_.constrain);
      append(all, text("json"));
    }
    all.push_back(tokens_.message);
    add(all, form_kinds, tool);
  };
  const auto with_short = static_cast<std::uint8_t>(kinds | short_kind);
  form(open, false, json ? kinds : with_short);
  if (json) {
    form(open + " ", true, with_short);
    form(open, true, kinds);
    form(open + " json", false, kinds);
  } else {
    form(open + " code", false, kinds);
  }
}

std::uint32_t HarmonyHeaders::child(std::uint32_t from, std::int32_t token) {
  for (const auto& [id, to] : nodes_[from].next) {
    if (id == token) return to;
  }
  const auto to = static_cast<std::uint32_t>(nodes_.size());
  nodes_.emplace_back();
  nodes_[from].next.emplace_back(token, to);
  return to;
}

void HarmonyHeaders::add(const Ids& ids, std::uint8_t kinds, std::int32_t tool) {
  std::uint32_t at = 0;
  nodes_[0].reaches |= kinds;
  for (const std::int32_t id : ids) {
    at = child(at, id);
    nodes_[at].reaches |= kinds;
  }
  nodes_[at].opens |= kinds;
  nodes_[at].tool = tool;
}

bool HarmonyHeaders::follow(std::uint32_t from, std::int32_t token, std::uint8_t kinds, std::uint32_t& to) const {
  for (const auto& [id, next] : nodes_[from].next) {
    if (id != token || (nodes_[next].reaches & kinds) == 0) continue;
    to = next;
    return true;
  }
  return false;
}

}  // namespace gov
