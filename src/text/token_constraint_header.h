#pragma once
// The headers that harmony's next message may have, as a tree of token ids, each text as the tokenizer encodes it.
// Private to src/text.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/harmony.h"
#include "text/token_constraint.h"

namespace gov {

// What a header opens, as bits.
enum HeaderKind : std::uint8_t {
  kOpensAnalysis = 1,
  kOpensPreamble = 2,  // commentary without recipient
  kOpensFinal = 4,
  kOpensCall = 8,
  kOpensFinalShort = 16,  // the one form that is used when a message is opened by force
  kOpensCallShort = 32,
};

class HarmonyHeaders {
 public:
  struct Node {
    std::vector<std::pair<std::int32_t, std::uint32_t>> next;
    std::uint8_t reaches = 0;  // HeaderKinds that can be reached
    std::uint8_t opens = 0;    // at the end of a header: its kinds
    std::int32_t tool = -1;    // kOpensCall: which one
  };

  HarmonyHeaders(const Tokenizer& tokenizer, const HarmonyTokens& tokens, const OutputRules& rules);

  // Behind <|start|>assistant, and behind the end of a message, where <|start|>assistant comes first.
  std::uint32_t start() const { return 0; }
  std::uint32_t next_message() const { return next_message_; }
  const Node& node(std::uint32_t index) const { return nodes_[index]; }
  // Whether this token may come next if these kinds are allowed; `to` is the node behind it then.
  bool follow(std::uint32_t from, std::int32_t token, std::uint8_t kinds, std::uint32_t& to) const;

 private:
  using Ids = std::vector<std::int32_t>;
  void add(const Ids& ids, std::uint8_t kinds, std::int32_t tool);
  std::uint32_t child(std::uint32_t from, std::int32_t token);
  Ids text(std::string_view text) const { return tokenizer_.encode(text); }
  void add_call(const OutputRules& rules, std::int32_t tool);
  // `ids` and then each form of the end of a header: before it, `open` is the text since the last control token.
  void add_ends(Ids ids, const std::string& open, bool json, std::uint8_t kinds, std::uint8_t short_kind,
                std::int32_t tool);

  const Tokenizer& tokenizer_;
  const HarmonyTokens& tokens_;
  std::vector<Node> nodes_{1};
  std::uint32_t next_message_ = 0;
};

}  // namespace gov
