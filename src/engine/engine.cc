#include "engine/engine.h"

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>

#include "base/timer.h"
#include "engine/cache_size.h"
#include "engine/check_request.h"
#include "engine/model_runner.h"
#include "tensor/device.h"

namespace gov {
namespace {

DecodingRules decoding_rules(const Config& config, const Tokenizer* tokenizer, std::vector<std::int32_t> stop_ids) {
  DecodingRules rules;
  rules.tokenizer = tokenizer;
  rules.stop_ids = std::move(stop_ids);
  rules.vocabulary = config.vocab_size;
  for (std::int32_t id = 0; id < config.vocab_size; ++id) {
    if (id == config.image_token_id || (tokenizer && !tokenizer->has_token(id))) rules.forbidden.push_back(id);
  }
  return rules;
}

void note_cache_size(const Model& model, const CacheSize& size, const EngineOptions& wanted, const Log& log) {
  const EngineOptions& o = size.options;
  if (wanted.context == 0 && o.context < model.config.max_position_embeddings) {
    log.warn("context cut from {} to {} tokens by the memory limit", model.config.max_position_embeddings, o.context);
  }
  const std::int64_t all = full_blocks_needed(size.spec, o.context) * o.max_sequences;
  if (size.spec.full_blocks < all) {
    log.info("the KV cache holds {} of the {} tokens that {} sequences of {} could need",
             size.spec.full_blocks * o.block_size, all * o.block_size, o.max_sequences, o.context);
  }
}

}  // namespace

struct Engine::Impl {
  Impl(const Model& m, const Tokenizer* tokenizer, std::vector<std::int32_t> stop_ids, CacheSize cache_size,
       ThreadPool& pool)
      : model(m),
        rules(decoding_rules(m.config, tokenizer, std::move(stop_ids))),
        size(cache_size),
        limits(scheduler_limits(size.options)),
        scheduler(model.config, size.spec, limits),
        runner(model, {size.spec, limits, size.options.context, size.options.dtype, size.options.decode_path}, pool) {
    rules.draft_tokens = size.options.draft_tokens;
  }

  RequestState& find(RequestId id) const;
  void use_device() const;
  void cancel_where_asked();
  void encode_images(Step& step);
  std::vector<Drawn> run(const Step& step);
  void read_prompts(const Step& step);
  template <class Work>
  void attempt(const Step& step, Work&& work);
  void note_error();
  void fail_all(std::span<Sequence* const> sequences);
  void start(const Step& step, bool ahead);
  void finish_started();
  void check_blocks(Step& step);
  void advance(const Step& step, std::vector<Drawn> drawn);
  std::optional<DrawFrom> go_on(const Drawn& drawn);
  void accept(const Drawn& drawn);
  void count_tokens(Sequence& sequence, std::int64_t forced);
  void settle();
  void update_block_counts();

  const Model& model;
  DecodingRules rules;
  CacheSize size;
  SchedulerLimits limits;
  Scheduler scheduler;
  ModelRunner runner;
  EngineStats stats;
  std::map<RequestId, std::unique_ptr<RequestState>> requests;  // until taken
  std::vector<RequestState*> active;                            // not finished yet
  RequestId next_id = 1;
  bool stepping = false;
  Timer since_expert_load;
  // Sequences of the decode step that is under way on a GPU, those that have ended since as null; empty: none is.
  std::vector<Sequence*> started;
};

Engine::Engine(const Model& model, const Tokenizer* tokenizer, std::vector<std::int32_t> stop_ids,
               const EngineOptions& options, ThreadPool& pool, const Log& log) {
  CacheSize size = choose_cache_size(model, options);
  note_cache_size(model, size, options, log);
  impl_ = std::make_unique<Impl>(model, tokenizer, std::move(stop_ids), size, pool);
  impl_->runner.read_expert_load(impl_->stats.experts);
  impl_->update_block_counts();
  if (const DecodeRunner* decode = impl_->runner.decode(); decode != nullptr)
    log.info("decode path: {}", decode->path());
}

Engine::~Engine() = default;

RequestId Engine::submit(Request request, Timer since) {
  Impl& e = *impl_;
  e.use_device();
  if (e.size.options.prefix_cache) digest_images(request);
  try {
    check_request(e.model.config, e.rules, request, e.size.options.context);
  } catch (...) {
    ++e.stats.rejected;
    throw;
  }
  auto state = std::make_unique<RequestState>();
  state->id = e.next_id++;
  state->timer = since;
  state->request = std::move(request);
  const Request& r = state->request;
  state->prompt = expand_prompt(e.model.config, r.prompt, static_cast<std::int64_t>(r.images.size()));
  state->image_embeds.resize(r.images.size());
  if (!r.images.empty()) state->rows_per_image = e.model.config.vision.tokens();
  state->max_new_tokens =
      r.embed ? 0 : std::min(r.options.max_new_tokens, e.size.options.context - state->prompt.rows());
  if (r.options.prompt_logprobs >= 0) {
    state->prompt_logprobs.resize(state->prompt.tokens.size(), std::numeric_limits<float>::quiet_NaN());
    state->prompt_top_logprobs.resize(state->prompt.tokens.size());
  }
  for (int choice = 0; choice < r.n; ++choice)
    state->sequences.push_back(std::make_unique<Sequence>(*state, choice, e.rules));
  Sequence& first = *state->sequences.front();
  if (!first.done) {
    for (int choice = 1; choice < r.n && first.draws(); ++choice)
      first.forks.push_back(state->sequences[static_cast<std::size_t>(choice)].get());
    e.scheduler.add(first);
  }
  const RequestId id = state->id;
  e.active.push_back(state.get());
  ++e.stats.submitted;
  e.requests.emplace(id, std::move(state));
  if (!e.stepping) e.settle();
  return id;
}

bool Engine::step() {
  Impl& e = *impl_;
  if (e.stepping) fail(ErrorCode::kInvalidArgument, "step() called from a callback");
  e.use_device();
  try {
    e.cancel_where_asked();
    e.settle();
    if (e.started.empty() && e.scheduler.idle()) return false;
    e.stepping = true;
    if (e.started.empty()) {
      Step step = e.scheduler.schedule();
      for (const ScheduledRows& rows : step.rows) rows.sequence->request->started = true;
      e.check_blocks(step);
      e.encode_images(step);
      if (e.runner.can_start(step)) {
        e.start(step, /*ahead=*/false);
      } else {
        std::vector<Drawn> drawn = e.run(step);
        e.advance(step, std::move(drawn));
      }
    }
    if (!e.started.empty()) e.finish_started();
    e.stepping = false;
    e.cancel_where_asked();
    e.settle();
  } catch (...) {
    e.note_error();
    e.stepping = false;
    throw;
  }
  return true;
}

// The thread that calls may not be the one that made the engine.
void Engine::Impl::use_device() const {
  if (model.device == DeviceKind::kCuda) use_cuda_device(model.ordinal);
}

// Images whose rows this step needs. A request whose image fails drops out of the step.
void Engine::Impl::encode_images(Step& step) {
  const Timer timer;
  std::int64_t encoded = 0;
  for (const ScheduledRows& rows : step.rows) {
    RequestState& state = *rows.sequence->request;
    try {
      if (!state.ended()) encoded += runner.encode_images(rows);
    } catch (...) {
      note_error();
      state.error = std::current_exception();
    }
  }
  std::erase_if(step.rows, [](const ScheduledRows& rows) { return rows.sequence->request->ended(); });
  if (encoded == 0) return;
  stats.images += encoded;
  stats.encode_seconds += timer.seconds();
}

void Engine::Impl::check_blocks(Step& step) {
  if (!size.options.check_blocks) return;
  runner.copy_blocks(step.copies);  // a block that was copied may be free by now
  step.copies.clear();
  if (const std::string fault = scheduler.check(); !fault.empty()) throw std::logic_error(fault);
  runner.poison_free_blocks(scheduler.blocks());
}

// Called where an error of the model's work is being handled. (Numbers that are not finite are no such error.)
void Engine::Impl::note_error() {
  try {
    throw;
  } catch (const Error& e) {
    stats.device_lost = stats.device_lost || e.code() == ErrorCode::kDevice;
  } catch (...) {
  }
}

// Called where the error is being handled.
void Engine::Impl::fail_all(std::span<Sequence* const> sequences) {
  note_error();
  const std::exception_ptr error = std::current_exception();
  for (Sequence* s : sequences) {
    if (s) s->request->error = error;
  }
}

// Starts a decode step on a GPU; finish_started() goes on with it.
void Engine::Impl::start(const Step& step, bool ahead) {
  std::vector<Sequence*> sequences;
  for (const ScheduledRows& rows : step.rows) sequences.push_back(rows.sequence);
  try {
    runner.start(step, scheduler.blocks(), ahead);
    started = std::move(sequences);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) {
      fail_all(sequences);
      return;
    }
    for (Sequence* s : sequences) s->request->cancelled = true;
  } catch (...) {
    fail_all(sequences);
  }
}

// Starts the step after the one under way, if what comes is certain enough, then waits for that one's tokens: the
// device goes on while the host looks at them. A sequence that they end has one row too many in the step after, which
// is dropped.
void Engine::Impl::finish_started() {
  const Timer timer;
  const std::vector<Sequence*> current = std::exchange(started, {});
  const auto goes_on = [](const Sequence* s) { return s && !s->request->ended() && s->can_run_ahead(); };
  Step next;
  if (std::all_of(current.begin(), current.end(), goes_on) && scheduler.schedule_ahead(current, next)) {
    check_blocks(next);
    start(next, /*ahead=*/true);
  } else {
    runner.copy_blocks(next.copies);  // the tables name the copies already
  }
  std::vector<Drawn> drawn;
  try {
    drawn = runner.finish();
  } catch (...) {  // the device failed: nothing that was started is of use
    fail_all(current);
    runner.drop_started();
    started.clear();
  }
  ++stats.steps;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    Sequence* const s = current[i];
    if (!s || s->done || s->request->ended()) continue;
    ++stats.decode_rows;
    scheduler.set_computed(*s, s->rows());
    accept({s, drawn[i].result});
    if (s->done) scheduler.remove(*s);
  }
  stats.decode_seconds += timer.seconds();
}

// A part of a step that is the model's work. What fails there fails every request of the step.
template <class Work>
void Engine::Impl::attempt(const Step& step, Work&& work) {
  Context& ctx = runner.context();
  const std::atomic<bool>* const outer_cancel = ctx.cancel;
  // A request that runs alone can be cancelled within the step: nobody else waits for its rows.
  RequestState* const alone = step.rows.size() == 1 ? step.rows.front().sequence->request : nullptr;
  if (alone && alone->request.cancel && !outer_cancel) ctx.cancel = alone->request.cancel;
  std::vector<Sequence*> sequences;
  for (const ScheduledRows& rows : step.rows) sequences.push_back(rows.sequence);
  try {
    work();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kCancelled) {
      for (Sequence* s : sequences) s->request->cancelled = true;
    } else {
      fail_all(sequences);
    }
  } catch (...) {
    fail_all(sequences);
  }
  ctx.cancel = outer_cancel;
}

std::vector<Drawn> Engine::Impl::run(const Step& step) {
  if (step.rows.empty()) {
    runner.copy_blocks(step.copies);  // the tables name the copies already, and the prefix cache may have them
    return {};
  }
  const Timer timer;
  std::vector<Drawn> drawn;
  attempt(step, [&] { drawn = runner.run(step, scheduler.blocks()); });
  bool decoding = true;
  for (const ScheduledRows& rows : step.rows) {
    const std::int64_t prompt = rows.sequence->request->prompt.rows();
    const std::int64_t of_prompt = std::max<std::int64_t>(0, std::min(rows.end, prompt) - rows.begin);
    stats.prompt_rows += of_prompt;
    stats.decode_rows += rows.end - rows.begin - of_prompt;
    decoding = decoding && of_prompt == 0;
  }
  ++stats.steps;
  (decoding ? stats.decode_seconds : stats.prefill_seconds) += timer.seconds();
  return drawn;
}

void Engine::Impl::read_prompts(const Step& step) {
  const auto reads = [](const ScheduledRows& rows) { return rows.sequence->request->reads_prompt(); };
  if (std::none_of(step.rows.begin(), step.rows.end(), reads)) return;
  const Timer timer;
  attempt(step, [&] { runner.read_prompts(step); });
  stats.prefill_seconds += timer.seconds();
}

void Engine::Impl::advance(const Step& step, std::vector<Drawn> drawn) {
  for (const ScheduledRows& rows : step.rows) {
    if (!rows.sequence->request->ended()) scheduler.set_computed(*rows.sequence, rows.end - rows.guessed);
  }
  while (!drawn.empty()) {
    std::vector<DrawFrom> more;
    std::vector<Sequence*> sequences;
    for (const Drawn& d : drawn) {
      if (const std::optional<DrawFrom> next = go_on(d)) {
        more.push_back(*next);
        sequences.push_back(next->sequence);
      }
    }
    drawn.clear();
    try {
      drawn = runner.draw(more);
    } catch (...) {
      fail_all(sequences);
    }
  }
  read_prompts(step);                            // overwrites the logits
  for (const ScheduledRows& rows : step.rows) {  // whose prompt was all that was asked for
    Sequence& s = *rows.sequence;
    if (s.draws() || s.done || s.request->ended() || s.computed < s.rows()) continue;
    s.finish(FinishReason::kLength);
    scheduler.remove(s);
  }
}

// Accepts a token. Where it is the one that was guessed, the next one's logits are there.
std::optional<DrawFrom> Engine::Impl::go_on(const Drawn& drawn) {
  Sequence& s = *drawn.sequence;
  const std::int64_t known = s.computed;
  accept(drawn);
  if (drawn.guessed > 0 && !s.request->ended()) {
    const std::int64_t right = s.right_guesses();
    scheduler.set_computed(s, s.draft_begin + right);
    if (!s.done && s.computed == s.rows()) return DrawFrom{&s, drawn.logits_row + s.computed - known, drawn.guessed};
    stats.draft.drafted += drawn.guessed;
    stats.draft.accepted += right;
    s.end_guess();
  }
  if (s.done) scheduler.remove(s);
  return {};
}

void Engine::Impl::accept(const Drawn& drawn) {
  RequestState& state = *drawn.sequence->request;
  if (state.cancel_asked()) state.cancelled = true;
  if (state.ended()) return;
  try {
    if (drawn.result.token < 0) {
      fail(ErrorCode::kDevice, "numerical error: non-finite logits at position {} of the request",
           drawn.sequence->rows() - 1);
    }
    const std::int64_t forced_before = drawn.sequence->forced;
    drawn.sequence->accept(drawn.result);
    count_tokens(*drawn.sequence, drawn.sequence->forced - forced_before);
  } catch (...) {
    state.error = std::current_exception();
  }
}

void Engine::Impl::count_tokens(Sequence& sequence, std::int64_t forced) {
  const RequestState& state = *sequence.request;
  const double now = state.timer.seconds();
  stats.tokens += 1 + forced;
  stats.forced_tokens += forced;
  // Every request's first token is also the first of its choice; the other choices' have no time of their own.
  if (sequence.token_seconds >= 0) stats.token_seconds.add(now - sequence.token_seconds);
  else if (sequence.completion.choice == 0) stats.first_token_seconds.add(state.first_token_seconds);
  sequence.token_seconds = now;
}

void Engine::Impl::cancel_where_asked() {
  for (RequestState* state : active) {
    if (state->cancel_asked()) state->cancelled = true;
  }
}

// Finishes the requests that are done, cancelled or failed, and frees what they hold.
void Engine::Impl::settle() {
  for (RequestState* state : active) {
    const auto done = [](const std::unique_ptr<Sequence>& s) { return s->done; };
    state->finished = state->ended() || std::all_of(state->sequences.begin(), state->sequences.end(), done);
    if (!state->finished) continue;
    for (const std::unique_ptr<Sequence>& s : state->sequences) {
      scheduler.remove(*s);
      std::replace(started.begin(), started.end(), s.get(), static_cast<Sequence*>(nullptr));
      if (!s->done && state->cancelled) s->finish(FinishReason::kCancelled);
    }
    scheduler.forget(*state);
    state->total_seconds = state->timer.seconds();
    ++(state->error ? stats.failed : state->cancelled ? stats.cancelled : stats.finished);
    for (Buffer& embeds : state->image_embeds) embeds = {};
    state->request.images = {};
  }
  std::erase_if(active, [](const RequestState* state) { return state->finished; });
  if (!started.empty() && std::all_of(started.begin(), started.end(), [](const Sequence* s) { return s == nullptr; })) {
    started.clear();
    runner.drop_started();
  }
  const auto has_started = [](const RequestState* state) { return state->started; };
  stats.running = std::count_if(active.begin(), active.end(), has_started);
  stats.waiting = static_cast<std::int64_t>(active.size()) - stats.running;
  update_block_counts();
  constexpr double kExpertLoadSeconds = 0.25;
  if (!stats.device_lost && (active.empty() || since_expert_load.seconds() >= kExpertLoadSeconds)) {
    runner.read_expert_load(stats.experts);
    since_expert_load = {};
  }
}

void Engine::Impl::update_block_counts() {
  const BlockManager& blocks = scheduler.blocks();
  stats.full_blocks = blocks.full().size();
  stats.sliding_blocks = blocks.sliding().size();
  stats.free_full_blocks = blocks.full().free_count() + blocks.full().idle_count();
  stats.free_sliding_blocks = blocks.sliding().free_count() + blocks.sliding().idle_count();
  stats.prefix = scheduler.prefixes().stats();
  stats.preemptions = scheduler.preemptions();
  stats.mask_seconds = runner.mask_seconds();
  if (const DecodeRunner* decode = runner.decode(); decode != nullptr) {
    stats.decode_path = decode->path();
    stats.decode = decode->stats();
  }
}

RequestState& Engine::Impl::find(RequestId id) const {
  const auto found = requests.find(id);
  if (found == requests.end()) fail(ErrorCode::kNotFound, "there is no request {}", id);
  return *found->second;
}

bool Engine::finished(RequestId id) const { return impl_->find(id).finished; }

RequestResult Engine::take(RequestId id) {
  RequestState& state = impl_->find(id);
  if (!state.finished) fail(ErrorCode::kInvalidArgument, "request {} is not finished", id);
  const std::unique_ptr<RequestState> taken = std::move(impl_->requests.extract(id).mapped());
  if (taken->error) std::rethrow_exception(taken->error);
  RequestResult result;
  for (const std::unique_ptr<Sequence>& s : taken->sequences) result.choices.push_back(std::move(s->completion));
  result.prompt_tokens = taken->prompt.rows();
  result.cached_tokens = std::max<std::int64_t>(0, taken->cached_rows);
  result.image_tokens = taken->rows_per_image * static_cast<std::int64_t>(taken->image_embeds.size());
  result.prompt_logprobs = std::move(taken->prompt_logprobs);
  result.prompt_top_logprobs = std::move(taken->prompt_top_logprobs);
  for (const double sum : taken->hidden_sum)
    result.embedding.push_back(static_cast<float>(sum / static_cast<double>(result.prompt_tokens)));
  result.first_token_seconds = std::max(0.0, taken->first_token_seconds);
  result.total_seconds = taken->total_seconds;
  return result;
}

void Engine::cancel(RequestId id) {
  RequestState& state = impl_->find(id);
  if (state.finished) return;
  impl_->use_device();
  state.cancelled = true;
  if (!impl_->stepping) impl_->settle();
}

void Engine::reset_prefix_cache() {
  impl_->scheduler.prefixes().reset();
  impl_->update_block_counts();
}

const MemoryPlan& Engine::plan() const { return impl_->size.plan; }
const EngineStats& Engine::stats() const { return impl_->stats; }
const EngineOptions& Engine::options() const { return impl_->size.options; }
Context& Engine::context() { return impl_->runner.context(); }

std::vector<RequestResult> generate(Engine& engine, std::vector<Request> requests) {
  std::vector<RequestId> ids;
  std::exception_ptr error;
  try {
    for (Request& request : requests) ids.push_back(engine.submit(std::move(request)));
  } catch (...) {
    error = std::current_exception();
    for (const RequestId id : ids) engine.cancel(id);
  }
  const auto all_finished = [&] {
    return std::all_of(ids.begin(), ids.end(), [&](RequestId id) { return engine.finished(id); });
  };
  while (!all_finished() && engine.step()) {
  }
  std::vector<RequestResult> results;
  for (const RequestId id : ids) {
    try {
      results.push_back(engine.take(id));
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
  return results;
}

}  // namespace gov
