#pragma once
// One choice of a request while it runs: its rows, blocks, sampling state and text.

#include <exception>
#include <memory>
#include <optional>
#include <unordered_map>

#include "base/sha256.h"
#include "base/timer.h"
#include "engine/block_manager.h"
#include "engine/draft.h"
#include "engine/request.h"
#include "engine/stop_matcher.h"
#include "engine/turns.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace gov {

// A prompt with its images' rows in place. Positions run over these rows.
struct ExpandedPrompt {
  std::vector<std::int32_t> tokens;  // [rows], 0 on image rows
  std::vector<std::int32_t>
      image_rows;  // [rows], image * rows_per_image + row within it, or -1 for text; empty without images
  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int32_t image_row(std::int64_t row) const {
    return image_rows.empty() ? -1 : image_rows[static_cast<std::size_t>(row)];
  }
};

// Places the image rows: instead of each image token, or in front of everything if there is none (model.md section 7 of
// the project's notes). The counts must already agree.
ExpandedPrompt expand_prompt(const Config& config, std::span<const std::int32_t> prompt, std::int64_t images);

// What all sequences of an engine share.
struct DecodingRules {
  const Tokenizer* tokenizer = nullptr;  // may be null
  std::vector<std::int32_t> stop_ids;    // eos ids
  std::vector<std::int32_t> forbidden;   // never drawn: the image token, ids without token
  std::int64_t vocabulary = 0;
  std::int64_t draft_tokens = 0;  // most tokens guessed for one step
};

struct Sequence;
struct PrefixNode;

// Rows as the prefix cache compares them: a token, or -1 - r for row r of the images, whose digests follow in order.
struct PrefixRows {
  std::vector<std::int32_t> values;
  std::vector<Sha256Digest> images;  // one for each negative value
};

// A request while it runs. Sequences point to it: it stays at its address.
struct RequestState {
  std::int64_t id = 0;
  Request request;
  ExpandedPrompt prompt;
  std::vector<Buffer>
      image_embeds;  // per image, where the model is, empty until encoded; F32 [rows_per_image, hidden_size]
  std::int64_t rows_per_image = 0;
  std::int64_t cached_rows = -1;  // of the prompt, taken from the prefix cache; -1: not looked up yet
  std::vector<std::unique_ptr<Sequence>> sequences;  // [n]
  std::int64_t max_new_tokens = 0;                   // cut to the context
  Timer timer;
  Tenant* tenant = nullptr;  // of the scheduler, while it has the request
  bool started = false;      // a row was scheduled
  double first_token_seconds = -1;
  double total_seconds = 0;
  // Of the prompt's rows, where the request asks for more than the next token (prompt_rows.h).
  std::int64_t read_rows = 0;  // rows that were read
  std::vector<float> prompt_logprobs;
  std::vector<std::vector<TokenLogprob>> prompt_top_logprobs;
  std::vector<double> hidden_sum;
  bool cancelled = false;
  std::exception_ptr error;
  bool finished = false;  // all sequences are done, or there is an error; take() may have it

  bool ended() const { return cancelled || error != nullptr; }
  bool cancel_asked() const { return request.cancel && request.cancel->load(std::memory_order_relaxed); }
  bool reads_prompt() const { return request.options.prompt_logprobs >= 0 || request.embed; }
};

struct Sequence {
  Sequence(RequestState& request, int choice, const DecodingRules& rules);

  // Rows of the prompt and the tokens drawn so far; those from `computed` on are not in the cache yet.
  std::int64_t rows() const { return request->prompt.rows() + static_cast<std::int64_t>(completion.tokens.size()); }
  std::int32_t token(std::int64_t row) const;  // also of guessed rows
  std::int32_t image_row(std::int64_t row) const {
    return row < request->prompt.rows() ? request->prompt.image_row(row) : -1;
  }
  int priority() const { return request->request.priority; }
  PrefixRows prefix_rows(std::int64_t begin, std::int64_t end) const;
  // The larger priority first, then requests in the order of submission, choices in order.
  bool before(const Sequence& other) const {
    if (priority() != other.priority()) return priority() > other.priority();
    return request->id != other.request->id ? request->id < other.request->id
                                            : completion.choice < other.completion.choice;
  }

  // Whether its prompt is followed by tokens at all.
  bool draws() const { return request->max_new_tokens > 0; }
  // Whether prepare_draw() is to be called before sample_row().
  bool constrained() const { return constraint_.has_value() && !constraint_->ended(); }
  // Finds out what the constraint allows next, once the token before is known.
  void prepare_draw();
  // How the next token is to be drawn, or the one `ahead` after it. The spans stay valid until accept().
  ops::SampleRow sample_row(std::int64_t ahead = 0) const;
  // Whether the token after the next is wanted, unless a stop rule ends the sequence, and can be drawn without knowing
  // the next one.
  bool can_run_ahead() const;
  // Guesses up to `most` tokens after rows() into `draft`.
  void guess(std::int64_t most);
  // Of the rows that were guessed, how many have turned out to be right so far.
  std::int64_t right_guesses() const;
  // Forgets the guess, having learnt from it.
  void end_guess();
  // Takes the drawn token: text, stop rules, callback. Then likewise the tokens that the constraint leaves no choice
  // about: nothing is drawn for them, and their log-probability is what a draw among one token has, 0. An exception of
  // the callback passes through.
  void accept(const ops::SampleResult& drawn);
  // Ends it where it is; the text held back so far is kept.
  void finish(FinishReason reason);

  RequestState* request;
  const DecodingRules* rules;
  Completion completion;
  std::int64_t computed = 0;  // rows in the cache
  BlockTables blocks;
  PrefixNode* prefix_node = nullptr;  // of the prefix cache: the last whole block that it knows of this sequence
  std::int64_t branch_row = -1;       // rows up to here are known to the cache; a window is wanted there
  std::vector<Sequence*>
      forks;  // choices that begin with this one's prompt blocks once all but its last row is computed
  std::vector<std::int32_t> draft;  // guessed tokens from row draft_begin on
  std::int64_t draft_begin = 0;
  bool done = false;
  std::int64_t forced = 0;    // tokens taken without a draw
  double token_seconds = -1;  // by the request's timer: when the last token came

 private:
  void take(const ops::SampleResult& drawn);
  bool stops_at(std::int32_t token) const;
  void count(std::int32_t token, bool output);
  std::string take_text(std::int32_t token);
  void emit(std::int32_t token, std::string_view text, float logprob, std::span<const TokenLogprob> top) const;

  bool penalised_ = false;  // counts are kept only when a penalty needs them
  std::vector<ops::TokenCount> counts_;
  std::unordered_map<std::int32_t, std::size_t> count_index_;
  std::vector<std::int32_t> forbidden_early_;  // before min_new_tokens: the forbidden ids and the stop ids
  bool early_allowed_ = true;                  // whether forbidden_early_ leaves anything of what the constraint allows
  std::optional<TokenConstraint> constraint_;
  std::vector<std::uint32_t> mask_;  // what it allows next
  NgramIndex seen_;
  DraftLength draft_length_;
  std::optional<StreamDecoder> decoder_;
  StopMatcher matcher_;
};

}  // namespace gov
