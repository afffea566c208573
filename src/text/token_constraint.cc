#include "text/token_constraint.h"

#include <algorithm>
#include <bit>

#include "base/utf8.h"
#include "text/token_constraint_header.h"
#include "text/token_masks.h"

namespace gov {
namespace {

constexpr std::uint8_t kNoMessage = 0;    // TokenConstraint::State::message before the first one
constexpr std::int32_t kMaxAnalyses = 2;  // messages
constexpr std::size_t kMaxForced = 256;   // tokens in one call of forced()

// What comes after the last character boundary of a text that these bytes were added to; empty where it is broken.
std::string unfinished(std::string pending, std::string_view bytes) {
  pending += bytes;
  std::string_view left = pending;
  while (!left.empty()) {
    const Utf8Char c = utf8_next(left);
    if (c.incomplete) return std::string(left);
    left.remove_prefix(c.length);
  }
  return {};
}

}  // namespace

struct TokenConstraint::Shared {
  OutputRules rules;
  std::optional<HarmonyTokens> tokens;
  Tokenizer tokenizer;
  std::shared_ptr<const TokenTables> tables;
  std::optional<HarmonyHeaders> headers;
  std::vector<std::int32_t> ends;                          // of the last message
  std::vector<std::shared_ptr<const GrammarMasks>> calls;  // of rules.tools; null: free text
  std::shared_ptr<const GrammarMasks> final_format;        // null: free text
  TokenMask text_mask[2];  // free text that ends with <|end|>, and one that ends with `ends`

  Shared(const Tokenizer& t, std::optional<HarmonyTokens> harmony, std::span<const std::int32_t> end_ids, OutputRules r)
      : rules(std::move(r)), tokens(harmony), tokenizer(t), tables(TokenTables::of(t)) {
    check(end_ids);
    if (rules.in_header) headers.emplace(tokenizer, *tokens, rules);
    const auto masks = [&](const std::shared_ptr<const Grammar>& g) {
      return g == nullptr ? nullptr : tables->masks_of(g);
    };
    for (const ToolRule& tool : rules.tools) calls.push_back(masks(tool.arguments));
    final_format = masks(rules.final_format);
    for (TokenMask& mask : text_mask) mask = tables->ordinary();
    if (tokens) set_token(text_mask[0], tokens->end);
    for (const std::int32_t id : ends) set_token(text_mask[1], id);
  }

  void check(std::span<const std::int32_t> end_ids) {
    const auto add = [&](std::int32_t id) {
      if (!tokenizer.has_token(id) || std::find(ends.begin(), ends.end(), id) != ends.end()) return;
      if (tokens && (id == tokens->call || id == tokens->end)) return;  // they end other messages
      ends.push_back(id);
    };
    if (rules.in_header && tokens) add(tokens->return_token);
    for (const std::int32_t id : end_ids) add(id);
    if (ends.empty()) fail(ErrorCode::kInvalidArgument, "output rules: the model has no token that ends a text");
    const bool required = rules.tool_choice == OutputRules::ToolChoice::kRequired;
    if (!rules.in_header && (!rules.tools.empty() || required))
      fail(ErrorCode::kInvalidArgument, "output rules: tools need harmony's headers");
    if (rules.in_header && !tokens)
      fail(ErrorCode::kInvalidArgument, "output rules: the tokenizer lacks harmony's control tokens");
    if (required && rules.tools.empty())
      fail(ErrorCode::kInvalidArgument, "output rules: a call is required, but there are no tools");
  }
};

struct TokenConstraint::State {
  enum class Phase : std::uint8_t { kHeader, kText, kGrammar, kEnded };
  Phase phase = Phase::kHeader;
  std::uint8_t message = kNoMessage;  // HeaderKind of the message that is written, or was
  std::int32_t tool = -1;             // kOpensCall
  std::uint32_t node = 0;             // kHeader
  std::int32_t analyses = 0;
  bool preamble = false;
  std::int64_t reasoning = 0;  // tokens of analysis so far
  std::string pending;         // kText of an analysis: the begin of a character
  GrammarThreads threads;      // kGrammar

  bool over_limit(const Shared& s) const {
    return s.rules.max_reasoning_tokens >= 0 && reasoning >= s.rules.max_reasoning_tokens;
  }

  // The messages that may come next.
  std::uint8_t kinds(const Shared& s) const {
    const bool required = s.rules.tool_choice == OutputRules::ToolChoice::kRequired;
    // Reasoning was cut: no more detours.
    if (analyses > 0 && over_limit(s)) return required ? kOpensCallShort : kOpensFinalShort;
    const bool calls = s.rules.tool_choice != OutputRules::ToolChoice::kNone && !s.rules.tools.empty();
    unsigned out = 0;
    if (s.rules.analysis && !over_limit(s) && message != kOpensAnalysis && analyses < kMaxAnalyses)
      out |= kOpensAnalysis;
    if (calls && s.rules.preamble && !preamble) out |= kOpensPreamble;
    if (calls) out |= kOpensCall;
    if (!required) out |= kOpensFinal;
    return static_cast<std::uint8_t>(out);
  }

  const GrammarMasks& grammar(const Shared& s) const {
    return message == kOpensCall ? *s.calls[static_cast<std::size_t>(tool)] : *s.final_format;
  }

  bool is_end(const Shared& s, std::int32_t token) const {
    if (message == kOpensAnalysis || message == kOpensPreamble) return token == s.tokens->end;
    if (message == kOpensCall) return token == s.tokens->call;
    return std::find(s.ends.begin(), s.ends.end(), token) != s.ends.end();
  }

  void add_ends(const Shared& s, std::span<std::uint32_t> words) const {
    if (message == kOpensAnalysis || message == kOpensPreamble) return set_token(words, s.tokens->end);
    if (message == kOpensCall) return set_token(words, s.tokens->call);
    for (const std::int32_t id : s.ends) set_token(words, id);
  }

  // Analysis that has to end: the tokens that finish a character, or none of them if there is nothing to finish.
  std::vector<std::int32_t> finishing(const Shared& s) const {
    std::vector<std::int32_t> out;
    for (unsigned byte = 0x80; byte < 0xC0 && !pending.empty(); ++byte) {
      const std::string text = pending + static_cast<char>(static_cast<unsigned char>(byte));
      const Utf8Char c = utf8_next(text);
      if (!c.valid && !c.incomplete) continue;
      const char last = text.back();
      const auto token = s.tokenizer.find_token(std::string_view(&last, 1));
      if (token && s.tables->is_ordinary(*token)) out.push_back(*token);
    }
    return out;
  }

  TokenMask mask(const Shared& s) const {
    switch (phase) {
      case Phase::kEnded: return TokenMask(s.tables->words(), ~0u);
      case Phase::kText: {
        if (message == kOpensAnalysis && over_limit(s)) {
          TokenMask words(s.tables->words(), 0);
          for (const std::int32_t id : finishing(s)) set_token(words, id);
          if (std::all_of(words.begin(), words.end(), [](std::uint32_t w) { return w == 0; }))
            set_token(words, s.tokens->end);
          return words;
        }
        if (message == kOpensCall) {
          TokenMask words = s.tables->ordinary();
          add_ends(s, words);
          return words;
        }
        return s.text_mask[message == kOpensFinal ? 1 : 0];
      }
      case Phase::kHeader: {
        TokenMask words(s.tables->words(), 0);
        for (const auto& [token, to] : s.headers->node(node).next) {
          if ((s.headers->node(to).reaches & kinds(s)) != 0) set_token(words, token);
        }
        return words;
      }
      case Phase::kGrammar: break;
    }
    TokenMask words(s.tables->words(), 0);
    grammar(s).add(threads, words);
    if (is_complete(threads)) add_ends(s, words);
    return words;
  }

  void open(const Shared& s, std::uint32_t at) {
    const HarmonyHeaders::Node& header = s.headers->node(at);
    message = (header.opens & kOpensAnalysis) != 0   ? kOpensAnalysis
              : (header.opens & kOpensPreamble) != 0 ? kOpensPreamble
              : (header.opens & kOpensFinal) != 0    ? kOpensFinal
                                                     : kOpensCall;
    tool = header.tool;
    analyses += message == kOpensAnalysis ? 1 : 0;
    preamble = preamble || message == kOpensPreamble;
    begin_content(s);
  }

  void begin_content(const Shared& s) {
    const bool ruled = message == kOpensCall ? s.calls[static_cast<std::size_t>(tool)] != nullptr
                                             : message == kOpensFinal && s.final_format != nullptr;
    phase = ruled ? Phase::kGrammar : Phase::kText;
    pending.clear();
    threads = ruled ? start_threads(grammar(s).impl()) : GrammarThreads();
  }

  // False if the token may not come next.
  bool accept(const Shared& s, std::int32_t token) {
    if (phase == Phase::kEnded) return true;
    if (phase == Phase::kHeader) {
      if (!s.headers->follow(node, token, kinds(s), node)) return false;
      if (s.headers->node(node).opens != 0) open(s, node);
      return true;
    }
    if (is_end(s, token)) return end(s);
    if (!s.tables->is_ordinary(token)) return false;
    const std::string_view bytes = s.tokenizer.token_bytes(token);
    if (phase == Phase::kText) {
      if (message != kOpensAnalysis) return true;
      if (over_limit(s)) {
        const std::vector<std::int32_t> allowed = finishing(s);
        if (std::find(allowed.begin(), allowed.end(), token) == allowed.end()) return false;
      }
      ++reasoning;
      pending = unfinished(std::move(pending), bytes);
      return true;
    }
    GrammarThreads next;
    for (const char byte : bytes) {
      step_threads(grammar(s).impl(), threads, static_cast<std::uint8_t>(byte), next);
      std::swap(threads, next);
      if (threads.empty()) return false;
    }
    return true;
  }

  bool end(const Shared& s) {
    if (phase == Phase::kGrammar && !is_complete(threads)) return false;
    if (message == kOpensAnalysis && over_limit(s) && !finishing(s).empty()) return false;
    const bool more = message == kOpensAnalysis || message == kOpensPreamble;
    phase = more ? Phase::kHeader : Phase::kEnded;
    if (more) node = s.headers->next_message();
    threads.clear();
    return true;
  }
};

TokenConstraint::TokenConstraint(const Tokenizer& tokenizer, std::optional<HarmonyTokens> tokens,
                                 std::span<const std::int32_t> end_ids, OutputRules rules)
    : shared_(std::make_shared<const Shared>(tokenizer, tokens, end_ids, std::move(rules))) {
  auto state = std::make_shared<State>();
  if (!shared_->rules.in_header) {
    state->message = kOpensFinal;
    state->begin_content(*shared_);
  }
  state_ = std::move(state);
}

const std::vector<std::uint32_t>& TokenConstraint::mask() const {
  if (mask_ == nullptr) mask_ = std::make_shared<const TokenMask>(state_->mask(*shared_));
  return *mask_;
}

void TokenConstraint::allowed(std::span<std::uint32_t> words) const {
  const std::vector<std::uint32_t>& own = mask();
  const std::size_t both = std::min(words.size(), own.size());
  std::copy_n(own.begin(), both, words.begin());
  // Rows of the model that no token stands for.
  std::fill(words.begin() + static_cast<std::ptrdiff_t>(both), words.end(), ended() ? ~0u : 0u);
}

std::vector<std::int32_t> TokenConstraint::forced() const {
  std::vector<std::int32_t> out;
  TokenConstraint ahead = *this;
  while (!ahead.ended() && out.size() < kMaxForced) {
    std::int32_t only = -1;
    int count = 0;
    const std::vector<std::uint32_t>& words = ahead.mask();
    for (std::size_t i = 0; i < words.size() && count < 2; ++i) {
      if (words[i] == 0) continue;
      count += std::popcount(words[i]);
      only = static_cast<std::int32_t>(i * 32) + std::countr_zero(words[i]);
    }
    if (out.empty()) mask_ = ahead.mask_;
    if (count != 1) break;
    out.push_back(only);
    ahead.accept(only);
  }
  return out;
}

void TokenConstraint::accept(std::int32_t token) {
  if (ended()) return;
  auto next = std::make_shared<State>(*state_);
  if (!next->accept(*shared_, token)) next->phase = State::Phase::kEnded;
  state_ = std::move(next);
  mask_ = nullptr;
}

bool TokenConstraint::ended() const { return state_->phase == State::Phase::kEnded; }

}  // namespace gov
