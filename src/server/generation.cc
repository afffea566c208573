#include "server/generation.h"

namespace gov::server {

void Generation::submit(ApiContext& context, Request request, const std::shared_ptr<Strand>& strand,
                        GenerationCalls calls) {
  const auto self = shared_from_this();
  prompt_tokens_ = static_cast<std::int64_t>(request.prompt.size());
  const auto shared_calls = std::make_shared<GenerationCalls>(std::move(calls));
  const bool scores = request.options.logprobs >= 0, wanted = shared_calls->token != nullptr;
  const std::int64_t id = context.live.add(self);
  request.cancel = &cancel_;
  request.on_token = [&context, self, strand, shared_calls, scores, wanted](const TokenEvent& event) {
    if (event.token >= 0) ++self->generated_;
    context.note_speed();
    if (!wanted) return;
    TokenPiece piece{event.choice, std::string(event.text), {event.token, 0.f, {}}};
    if (scores) {
      piece.score.logprob = event.logprob;
      piece.score.top.assign(event.top_logprobs.begin(), event.top_logprobs.end());
    }
    strand->post([self, shared_calls, piece = std::move(piece)]() mutable {
      if (self->cancel_ || !shared_calls->token) return;
      self->call(*shared_calls, [&] { shared_calls->token(std::move(piece)); });
    });
  };
  try {
    context.loop.submit(std::move(request),
                        [&context, self, strand, shared_calls, id](RequestResult result, std::exception_ptr error) {
                          if (const double at = self->cancelled_at_; at >= 0)
                            context.cancel_times.add(self->timer_.seconds() - at);
                          auto shared_result = std::make_shared<RequestResult>(std::move(result));
                          strand->post([&context, self, shared_calls, id, shared_result, error] {
                            context.live.remove(id);
                            if (!shared_calls->done) return;  // a call threw before: it was told
                            self->call(*shared_calls, [&] {
                              if (error) shared_calls->failed(to_api_error(error));
                              else shared_calls->done(std::move(*shared_result));
                            });
                            *shared_calls = {};  // what they hold may hold this generation
                          });
                        });
  } catch (...) {
    context.live.remove(id);
    throw;
  }
}

void Generation::call(GenerationCalls& calls, const std::function<void()>& one) {
  try {
    one();
  } catch (...) {
    end();
    const GenerationCalls last = std::exchange(calls, {});
    if (last.failed) last.failed(to_api_error(std::current_exception()));
  }
}

void Generation::cancel() {
  double never = -1;
  cancelled_at_.compare_exchange_strong(never, timer_.seconds());  // the first call counts
  cancel_ = true;
}

void count_usage(ApiContext& context, const Usage& usage) {
  ApiCounters& c = context.counters;
  c.cached_tokens += usage.cached;
  c.image_tokens += usage.image;
  c.reasoning_tokens += usage.reasoning;
}

void cancel_with(Responder& responder, const std::shared_ptr<Generation>& generation) {
  responder.on_cancel([weak = std::weak_ptr<Generation>(generation)] {
    if (const auto g = weak.lock()) g->cancel();
  });
}

ApiError stopping_error() { return {503, "service_unavailable", "the server is stopping", "", "unavailable"}; }

}  // namespace gov::server
