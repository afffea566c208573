#pragma once
// What a model generated for one choice, token by token, as items: reasoning, texts for the user, tool calls. All three
// protocols write their answers from these.

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/stop_matcher.h"
#include "text/harmony.h"

namespace gov::server {

struct TokenScore {
  std::int32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;
};

struct OutputItem {
  enum class Kind { kReasoning, kMessage, kToolCall };
  Kind kind = Kind::kMessage;
  bool preamble = false;           // a message that came on the commentary channel
  std::string id;                  // of a tool call
  std::string name;                // of the function called, without namespace
  std::string text;                // of a tool call: its arguments
  bool complete = false;           // ended by its own end, not by a limit
  std::vector<TokenScore> scores;  // of a message, with logprobs
  HarmonyMessage message;          // as it belongs into the next prompt (harmony only)
};

struct OutputEvent {
  enum class Kind { kBegin, kText, kEnd };
  Kind kind = Kind::kText;
  std::size_t item = 0;            // its place in the list of items
  std::string text;                // kText: new text
  std::vector<TokenScore> scores;  // kText: of the tokens that make it, with logprobs
};

class OutputReader {
 public:
  struct Options {
    const Tokenizer* tokenizer = nullptr;
    std::optional<HarmonyTokens> harmony = std::nullopt;  // empty: all output is one message of plain text
    std::vector<std::string> tools = {};                  // full names
    std::vector<std::string> stop = {};                   // end the answer's text
    bool scores = false;
  };
  explicit OutputReader(Options options);

  // One token, with its scores if options.scores; new events are appended. Nothing more comes after stopped().
  void append(TokenScore token, std::vector<OutputEvent>& events);
  // The output ended: by end_token, or -1.
  void finish(std::int32_t end_token, std::vector<OutputEvent>& events);

  bool stopped() const { return stopped_; }  // a stop text was found
  const std::string& stop_match() const { return stop_match_; }
  const std::vector<OutputItem>& items() const { return items_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t reasoning_tokens() const { return reasoning_tokens_; }
  // Repairs of malformed output so far, by kind; empty for plain output.
  std::span<const std::int32_t> repairs() const;

 private:
  void read_harmony(std::vector<OutputEvent>& events);
  void begin(const HarmonyMessage& header, std::vector<OutputEvent>& events);
  void text(std::string_view piece, std::vector<OutputEvent>& events);
  void end(bool complete, std::vector<OutputEvent>& events);
  void release(std::string piece, std::vector<OutputEvent>& events);

  Options options_;
  std::optional<HarmonyParser> parser_;
  std::optional<StreamDecoder> decoder_;
  std::vector<HarmonyEvent> parsed_;
  std::vector<OutputItem> items_;
  bool open_ = false;  // the last item goes on
  std::optional<StopMatcher> matcher_;
  // Scores whose text may still be held back: a score goes out with the text that its token ends in.
  struct Waiting {
    TokenScore score;
    std::size_t end;  // bytes of the item's text once the token is in
  };
  std::deque<Waiting> waiting_;
  std::size_t taken_ = 0, released_ = 0;  // bytes of the open message's text: read, and given out
  std::int64_t tokens_ = 0, reasoning_tokens_ = 0;
  bool stopped_ = false;
  std::string stop_match_;
};

// "call_" and 24 letters and digits: unlike any before.
std::string new_id(std::string_view prefix);

}  // namespace gov::server
