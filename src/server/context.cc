#include "server/context.h"

#include <chrono>
#include <ctime>
#include <limits>

#include "server/api_error.h"
#include "server/fetch.h"
#include "server/generation.h"
#include "server/response_store.h"

namespace gov::server {
namespace {

constexpr std::size_t kMostPreparing = 1024;

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

}  // namespace

std::int64_t unix_time() { return static_cast<std::int64_t>(std::time(nullptr)); }

void SpeedMeter::note(double now, std::int64_t prompt_rows, std::int64_t decode_rows) {
  constexpr double kApart = 0.5;
  const std::lock_guard lock(mutex_);
  if (!samples_.empty() && now < samples_.back().time + kApart) return;
  next_ = now + kApart;
  samples_.push_back({now, prompt_rows, decode_rows});
  while (samples_.size() > 1 && samples_[1].time <= now - kWindow) samples_.pop_front();
}

SpeedMeter::Speed SpeedMeter::speed(double now, std::int64_t prompt_rows, std::int64_t decode_rows) {
  note(now, prompt_rows, decode_rows);
  const std::lock_guard lock(mutex_);
  const Sample& base = samples_.front();  // the last before the window, or the first there is
  const double seconds = now - base.time;
  if (seconds <= 0) return {};
  return {static_cast<double>(prompt_rows - base.prompt_rows) / seconds,
          static_cast<double>(decode_rows - base.decode_rows) / seconds};
}

void CountedRequest::failed(const ApiError& error) {
  end(error.status == 429 ? counters_.rejected : error.status == 499 ? counters_.cancelled : counters_.failed);
}

std::int64_t LiveGenerations::add(std::shared_ptr<Generation> generation) {
  const std::lock_guard lock(mutex_);
  if (closed_) fail(ErrorCode::kUnavailable, "the server is stopping");
  live_.emplace(next_, std::move(generation));
  return next_++;
}

void LiveGenerations::remove(std::int64_t id) {
  std::shared_ptr<Generation> gone;  // let go of without the lock
  const std::lock_guard lock(mutex_);
  if (const auto it = live_.find(id); it != live_.end()) {
    gone = std::move(it->second);
    live_.erase(it);
  }
  changed_.notify_all();
}

std::map<std::int64_t, std::shared_ptr<Generation>> LiveGenerations::list() const {
  const std::lock_guard lock(mutex_);
  return live_;
}

void LiveGenerations::end_all_and_wait() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  for (const auto& [id, generation] : live_) generation->end();
  changed_.wait(lock, [&] { return live_.empty(); });
}

ApiContext::ApiContext(const ModelPackage& p, EngineLoop& l, ApiOptions o)
    : package(p),
      loop(l),
      options(std::move(o)),
      version(GOV_VERSION),
      fingerprint("gpt-oss-vision-" GOV_VERSION),
      created(unix_time()),
      sampling(default_sampling(package.folder)),
      responses(std::make_unique<ResponseStore>(options.stored_bytes, options.response_ttl_seconds)),
      deliver(std::make_unique<Workers>(2, std::numeric_limits<std::size_t>::max())),
      pictures(std::make_unique<Workers>(options.remote_images ? 8 : 2, kMostPreparing)),
      prepare(std::make_unique<Workers>(2, kMostPreparing)) {
  rules.tokens = HarmonyTokens::find(package.tokenizer);
  const bool harmony = package.chat_format == ChatFormat::kHarmony && rules.tokens;
  rules.format = harmony ? PromptRules::Format::kHarmony : PromptRules::Format::kPlain;
  const std::int64_t image_token = package.model.config.image_token_id;
  if (harmony && image_token >= 0) rules.harmony.image_token_id = static_cast<std::int32_t>(image_token);
  rules.harmony.format = options.chat_template;
  rules.harmony.order = options.render_order;
  rules.end_ids = package.stop_ids;
  rules.default_effort = options.reasoning_effort;
  rules.schemas = &schemas;
  image_rules.remote = options.remote_images;
  if (options.remote_images) {
    FetchOptions fetch;
    fetch.hosts = options.image_hosts;
    image_rules.fetch = [fetcher = std::make_shared<Fetcher>(std::move(fetch))](
                            const std::string& url, double seconds, const std::function<bool()>& cancelled) {
      return fetcher->get(url, seconds, cancelled);
    };
  }
}

ApiContext::~ApiContext() {
  stopping = true;
  prepare.reset();
  pictures.reset();
  live.end_all_and_wait();
  deliver.reset();
}

PromptRules ApiContext::prompt_rules() const {
  PromptRules now = rules;
  now.date = today();
  return now;
}

void ApiContext::note_speed() {
  const double now = uptime.seconds();
  if (!meter.due(now)) return;
  const EngineStats stats = loop.stats();
  meter.note(now, stats.prompt_rows, stats.tokens);
}

void run_prepared(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder,
                  std::function<void(const RequestPtr&)> work, Failed failed) {
  const auto guarded = [failed](const std::function<void()>& call) {
    try {
      call();
    } catch (...) {
      failed(to_api_error(std::current_exception()));
    }
  };
  guarded([&] {
    if (context.stopping) fail(ErrorCode::kUnavailable, "the server is stopping");
    const auto copy = std::make_shared<const HttpRequest>(request);
    context.prepare->post([copy, responder, work = std::move(work), guarded] {
      if (!responder->cancelled()) guarded([&] { work(copy); });
    });
  });
}

void run_prepared(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder,
                  std::function<void(const RequestPtr&)> work) {
  run_prepared(context, request, responder, std::move(work),
               [responder](const ApiError& error) { send_error(*responder, error); });
}

void run_counted(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder,
                 std::function<void(const RequestPtr&, const CountPtr&, const Failed&)> work, Failed failed) {
  const auto count = std::make_shared<CountedRequest>(context.counters);
  const Failed counted = [failed = std::move(failed), count](const ApiError& error) {
    count->failed(error);
    failed(error);
  };
  run_prepared(
      context, request, responder,
      [work = std::move(work), count, counted](const RequestPtr& http) { work(http, count, counted); }, counted);
}

void answer_now(const ResponderPtr& responder, const std::function<std::string()>& make) {
  try {
    responder->json(200, make());
  } catch (...) {
    send_error(*responder, to_api_error(std::current_exception()));
  }
}

void with_pictures(ApiContext& context, std::vector<ImageSource> sources, std::function<bool()> cancelled,
                   std::function<void(std::vector<std::vector<float>>)> next, Failed failed) {
  if (sources.empty()) {
    next({});
    return;
  }
  for (const ImageSource& source : sources) check_image_url(source, context.image_rules);
  context.pictures->post([&context, sources = std::move(sources), cancelled = std::move(cancelled),
                          next = std::move(next), failed = std::move(failed)] {
    try {
      const auto unwanted = [&] { return context.stopping || cancelled(); };
      if (unwanted()) fail(ErrorCode::kCancelled, "nobody waits for it");
      next(load_images(sources, context.package.preprocessor, context.image_rules, unwanted));
    } catch (...) {
      failed(context.stopping ? stopping_error() : to_api_error(std::current_exception()));
    }
  });
}

std::string check_model(const ApiContext& context, const std::string& asked) {
  const std::string& name = context.options.model_name;
  if (!asked.empty() && asked != name && !context.options.any_model) {
    throw ApiError(404, "invalid_request_error", fmt::format("model: \"{}\" does not exist", printable(asked, 100)),
                   "model", "model_not_found");
  }
  return name;
}

}  // namespace gov::server
