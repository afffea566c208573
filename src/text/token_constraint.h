#pragma once
// What a generation may write, as sets of tokens: the automaton of harmony's headers (a header can never be malformed),
// tools and tool_choice, grammars for arguments and for the final channel, and the limit on reasoning.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/grammar/grammar.h"
#include "text/harmony.h"
#include "text/tokenizer.h"

namespace gov {

struct ToolRule {
  std::string recipient;  // "functions.f"
  std::shared_ptr<const Grammar>
      arguments;  // null: free text ended by <|call|>; a JSON object is Grammar::json_object()
};

struct OutputRules {
  enum class ToolChoice { kNone, kAuto, kRequired };  // a named choice is kRequired with that one rule
  std::vector<ToolRule> tools;
  ToolChoice tool_choice = ToolChoice::kAuto;
  bool analysis = true;                    // false: no analysis message
  bool preamble = true;                    // false: no text for the user before a call
  std::int64_t max_reasoning_tokens = -1;  // -1: no limit; then analysis is closed and `final` (or the required call)
                                           // is opened by force
  std::shared_ptr<const Grammar> final_format;  // of the final message's text; null: free
  // False: the prompt ended after a final message's header (models without channels): only final_format applies, then
  // an end token.
  bool in_header = true;
};

// The state of one generation; cheap to copy (one per choice, and for looking ahead). All tables of a vocabulary are
// built once and shared. One object is used by one thread at a time; copies of it are independent.
//
// Messages in order: analysis (twice at most, not one directly behind the other), at most one preamble (commentary
// without recipient), then the final message or a call. Control tokens appear only where one of these moves has them.
class TokenConstraint {
 public:
  // `tokens` may be empty for a tokenizer without harmony's tokens (then rules.in_header must be false, without tools).
  // end_ids: the model's eos ids. Error kInvalidArgument for rules that contradict each other.
  TokenConstraint(const Tokenizer& tokenizer, std::optional<HarmonyTokens> tokens,
                  std::span<const std::int32_t> end_ids, OutputRules rules);

  // Bit id % 32 of word id / 32 is set if the token may come next; [ceil(vocab / 32)] words, all are written. At least
  // one is set until ended().
  void allowed(std::span<std::uint32_t> words) const;
  // The tokens that have to come next, as far as they are certain; they cost no model step of their own. May end with
  // the token that ends the generation.
  std::vector<std::int32_t> forced() const;
  // Takes the token that was drawn or forced; one that was not allowed ends the constraint (everything is allowed
  // then).
  void accept(std::int32_t token);
  bool ended() const;  // nothing at all is forbidden then, control tokens included

  struct Shared;  // tables of one vocabulary and one set of rules
  struct State;

 private:
  const std::vector<std::uint32_t>& mask() const;

  std::shared_ptr<const Shared> shared_;
  std::shared_ptr<const State> state_;
  mutable std::shared_ptr<const std::vector<std::uint32_t>> mask_;  // of state_, once it was asked for
};

}  // namespace gov
