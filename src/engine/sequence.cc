#include "engine/sequence.h"

#include <algorithm>

namespace gov {

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kCancelled: return "cancelled";
  }
  return "unknown";
}

ExpandedPrompt expand_prompt(const Config& config, std::span<const std::int32_t> prompt, std::int64_t images) {
  ExpandedPrompt out;
  if (images == 0) {
    out.tokens.assign(prompt.begin(), prompt.end());
    return out;
  }
  std::int32_t next_row = 0;
  const auto add_image = [&] {
    for (std::int64_t row = 0; row < config.vision.tokens(); ++row) {
      out.tokens.push_back(0);
      out.image_rows.push_back(next_row++);
    }
  };
  const auto is_image = [&](std::int32_t token) { return token == config.image_token_id; };
  if (std::none_of(prompt.begin(), prompt.end(), is_image)) {
    for (std::int64_t image = 0; image < images; ++image) add_image();
  }
  for (const std::int32_t token : prompt) {
    if (is_image(token)) {
      add_image();
    } else {
      out.tokens.push_back(token);
      out.image_rows.push_back(-1);
    }
  }
  return out;
}

Sequence::Sequence(RequestState& state, int choice, const DecodingRules& decoding_rules)
    : request(&state),
      rules(&decoding_rules),
      constraint_(state.request.constraint),
      draft_length_(decoding_rules.draft_tokens),
      matcher_(state.request.options.stop) {
  completion.choice = choice;
  const GenerationOptions& options = state.request.options;
  const ops::SamplingParams& p = options.sampling;
  penalised_ = p.repetition_penalty != 1.f || p.presence_penalty != 0.f || p.frequency_penalty != 0.f;
  if (penalised_) {
    for (std::int64_t row = 0; row < state.prompt.rows(); ++row) {
      if (state.prompt.image_row(row) < 0) count(state.prompt.tokens[static_cast<std::size_t>(row)], false);
    }
  }
  if (options.min_new_tokens > 0) {
    forbidden_early_ = rules->forbidden;
    if (!options.ignore_eos)
      forbidden_early_.insert(forbidden_early_.end(), rules->stop_ids.begin(), rules->stop_ids.end());
    forbidden_early_.insert(forbidden_early_.end(), options.stop_tokens.begin(), options.stop_tokens.end());
  }
  if (rules->tokenizer) decoder_.emplace(*rules->tokenizer, true);
  if (state.max_new_tokens == 0 && (choice > 0 || !state.reads_prompt())) finish(FinishReason::kLength);
}

std::int32_t Sequence::token(std::int64_t row) const {
  const std::int64_t prompt_rows = request->prompt.rows();
  if (row >= rows()) return draft[static_cast<std::size_t>(row - draft_begin)];
  return row < prompt_rows ? request->prompt.tokens[static_cast<std::size_t>(row)]
                           : completion.tokens[static_cast<std::size_t>(row - prompt_rows)];
}

PrefixRows Sequence::prefix_rows(std::int64_t begin, std::int64_t end) const {
  PrefixRows rows;
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int32_t image = image_row(row);
    rows.values.push_back(image < 0 ? token(row) : -1 - image);
    if (image < 0) continue;
    rows.images.push_back(request->request.image_digests[static_cast<std::size_t>(image / request->rows_per_image)]);
  }
  return rows;
}

bool Sequence::can_run_ahead() const {
  return !penalised_ && !constrained() && draft_length_.at(rows() + 1) == 0 &&
         static_cast<std::int64_t>(completion.tokens.size()) + 1 < request->max_new_tokens;
}

void Sequence::prepare_draw() {
  early_allowed_ = true;
  mask_.resize(static_cast<std::size_t>((rules->vocabulary + 31) / 32));
  constraint_->allowed(mask_);
  if (static_cast<std::int64_t>(completion.tokens.size()) >= request->request.options.min_new_tokens) return;
  // Where an end token is all that the constraint allows, it comes, early or not.
  std::vector<std::uint32_t> left = mask_;
  for (const std::int32_t token : forbidden_early_) {
    if (token >= 0 && token < rules->vocabulary) left[static_cast<std::size_t>(token / 32)] &= ~(1u << token % 32);
  }
  early_allowed_ = std::any_of(left.begin(), left.end(), [](std::uint32_t word) { return word != 0; });
}

ops::SampleRow Sequence::sample_row(std::int64_t ahead) const {
  const GenerationOptions& options = request->request.options;
  ops::SampleRow row;
  row.params = options.sampling;
  const std::int64_t index = static_cast<std::int64_t>(completion.tokens.size()) + ahead;
  row.draw = static_cast<std::uint64_t>(index);
  row.stream = static_cast<std::uint64_t>(completion.choice);
  row.counts = counts_;
  row.bias = options.logit_bias;
  const bool early = index < options.min_new_tokens && (early_allowed_ || !constrained());
  row.forbidden = early ? forbidden_early_ : rules->forbidden;
  if (constrained()) row.allowed = mask_;
  row.top_logprobs = options.logprobs;
  return row;
}

void Sequence::guess(std::int64_t most) {
  draft.clear();
  draft_begin = rows();
  const std::int64_t wanted = request->max_new_tokens - static_cast<std::int64_t>(completion.tokens.size()) - 1;
  most = std::min({most, wanted, draft_length_.at(rows())});
  if (most <= 0) return;
  for (std::int64_t row = seen_.size(); row < rows(); ++row)
    seen_.push(image_row(row) < 0 ? token(row) : NgramIndex::kNone);
  seen_.guess(most, draft);
  draft.erase(std::find_if(draft.begin(), draft.end(), [&](std::int32_t token) { return stops_at(token); }),
              draft.end());
}

std::int64_t Sequence::right_guesses() const {
  const std::int64_t most = std::min(rows() - draft_begin, static_cast<std::int64_t>(draft.size()));
  std::int64_t right = 0;
  while (right < most && token(draft_begin + right) == draft[static_cast<std::size_t>(right)]) ++right;
  return right;
}

void Sequence::end_guess() {
  draft_length_.learn(rows(), static_cast<std::int64_t>(draft.size()), right_guesses());
  draft.clear();
}

void Sequence::accept(const ops::SampleResult& drawn) {
  take(drawn);
  if (!constrained()) return;
  for (const std::int32_t token : constraint_->forced()) {
    if (done || request->ended() || request->cancel_asked()) return;
    ops::SampleResult only;
    only.token = only.top_tokens[0] = token;
    only.top_logprobs[0] = 0.f;
    only.top_count = request->request.options.logprobs > 0 ? 1 : 0;
    ++forced;
    take(only);
  }
}

void Sequence::take(const ops::SampleResult& drawn) {
  if (constraint_) constraint_->accept(drawn.token);
  if (request->first_token_seconds < 0) request->first_token_seconds = request->timer.seconds();
  const GenerationOptions& options = request->request.options;
  if (stops_at(drawn.token)) {
    completion.stop_token = drawn.token;
    const std::size_t known = completion.text.size();
    finish(FinishReason::kStop);
    if (completion.text.size() > known) emit(-1, std::string_view(completion.text).substr(known), 0.f, {});
    return;
  }
  completion.tokens.push_back(drawn.token);
  if (penalised_) count(drawn.token, true);
  std::vector<TokenLogprob> top;
  if (options.logprobs >= 0) {
    for (int i = 0; i < drawn.top_count; ++i) top.push_back({drawn.top_tokens[i], drawn.top_logprobs[i]});
    completion.logprobs.push_back(drawn.logprob);
    completion.top_logprobs.push_back(top);
  }
  const std::size_t known = completion.text.size();
  completion.text += take_text(drawn.token);
  if (matcher_.match()) {
    completion.stop_match = *matcher_.match();
    finish(FinishReason::kStop);
  } else if (static_cast<std::int64_t>(completion.tokens.size()) >= request->max_new_tokens) {
    finish(FinishReason::kLength);
  }
  emit(drawn.token, std::string_view(completion.text).substr(known), drawn.logprob, top);
}

void Sequence::finish(FinishReason reason) {
  completion.finish_reason = reason;
  if (decoder_ && !matcher_.match()) {
    // The end of a broken character becomes U+FFFD, which may complete a stop string like any other text.
    completion.text += matcher_.append(decoder_->flush());
    if (matcher_.match()) {
      completion.stop_match = *matcher_.match();
      if (reason == FinishReason::kLength) completion.finish_reason = FinishReason::kStop;
    } else {
      completion.text += matcher_.flush();
    }
  }
  done = true;
}

bool Sequence::stops_at(std::int32_t token) const {
  const GenerationOptions& options = request->request.options;
  const auto among = [&](const std::vector<std::int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  return (!options.ignore_eos && among(rules->stop_ids)) || among(options.stop_tokens);
}

void Sequence::count(std::int32_t token, bool output) {
  const auto [entry, added] = count_index_.try_emplace(token, counts_.size());
  if (added) counts_.push_back({token, 0});
  if (output) ++counts_[entry->second].in_output;
}

// The text that this token lets out: whole characters that cannot be part of a stop string. Before min_new_tokens stop
// strings do not count.
std::string Sequence::take_text(std::int32_t token) {
  if (!decoder_) return {};
  const std::string text = decoder_->append(token);
  const bool early = static_cast<std::int64_t>(completion.tokens.size()) < request->request.options.min_new_tokens;
  return early ? text : matcher_.append(text);
}

void Sequence::emit(std::int32_t token, std::string_view text, float logprob, std::span<const TokenLogprob> top) const {
  const Request& r = request->request;
  if (!r.on_token) return;
  const bool with_logprobs = r.options.logprobs >= 0 && token >= 0;
  r.on_token({completion.choice, token, text, with_logprobs ? logprob : 0.f, top});
}

}  // namespace gov
