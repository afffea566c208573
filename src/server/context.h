#pragma once
// What all routes share: the model, the engine's loop, the workers, the counters.

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/timer.h"
#include "server/api.h"
#include "server/chat_input.h"
#include "server/images.h"
#include "server/schema_cache.h"
#include "server/workers.h"

namespace gov::server {

class Generation;
class ResponseStore;
struct ApiError;

struct ApiCounters {
  // Of the routes that generate: requests that came, and how they ended; those that run make the difference.
  std::atomic<std::int64_t> requests = 0, succeeded = 0, failed = 0, cancelled = 0, rejected = 0;
  std::atomic<std::int64_t> reasoning_tokens = 0, image_tokens = 0, cached_tokens = 0;
  std::array<std::atomic<std::int64_t>, static_cast<std::size_t>(HarmonyRepair::kCount)> repairs{};
};

// One request of a route that generates, in the counters. Its first end counts; one that is let go of without any was
// cancelled: its client has gone before it began.
class CountedRequest {
 public:
  explicit CountedRequest(ApiCounters& counters) : counters_(counters) { ++counters_.requests; }
  ~CountedRequest() { cancelled(); }
  CountedRequest(const CountedRequest&) = delete;

  void succeeded() { end(counters_.succeeded); }
  void cancelled() { end(counters_.cancelled); }
  void failed(const ApiError& error);

 private:
  void end(std::atomic<std::int64_t>& how) {
    if (!ended_.exchange(true)) ++how;
  }

  ApiCounters& counters_;
  std::atomic<bool> ended_ = false;
};
using CountPtr = std::shared_ptr<CountedRequest>;

// From a client's leaving, or its cancelling, to the end of its request in the engine.
class CancelTimes {
 public:
  void add(double seconds) {
    const std::lock_guard lock(mutex_);
    times_.add(seconds);
  }
  Histogram get() const {
    const std::lock_guard lock(mutex_);
    return times_;
  }

 private:
  mutable std::mutex mutex_;
  Histogram times_;
};

// Tokens per second over the last moments, from the engine's counters, noted at most twice a second.
class SpeedMeter {
 public:
  struct Speed {
    double prompt = 0, generated = 0;  // rows per second
  };
  static constexpr double kWindow = 10;                // seconds
  bool due(double now) const { return now >= next_; }  // note() would keep it
  void note(double now, std::int64_t prompt_rows, std::int64_t decode_rows);
  Speed speed(double now, std::int64_t prompt_rows, std::int64_t decode_rows);

 private:
  struct Sample {
    double time;
    std::int64_t prompt_rows, decode_rows;
  };
  std::mutex mutex_;
  std::deque<Sample> samples_;
  std::atomic<double> next_ = 0;
};

// Generations that the engine has; the context outlives them.
class LiveGenerations {
 public:
  // Error kUnavailable once end_all_and_wait() was called: what it waits for must become less.
  std::int64_t add(std::shared_ptr<Generation> generation);
  void remove(std::int64_t id);
  std::map<std::int64_t, std::shared_ptr<Generation>> list() const;
  void end_all_and_wait();

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, std::shared_ptr<Generation>> live_;
  std::int64_t next_ = 0;
  bool closed_ = false;
};

struct ApiContext {
  ApiContext(const ModelPackage& package, EngineLoop& loop, ApiOptions options);
  ~ApiContext();

  const ModelPackage& package;
  EngineLoop& loop;
  const ApiOptions options;
  const std::string version, fingerprint;  // of the program, and as answers have it
  std::int64_t created = 0;                // Unix time of the start
  Timer uptime;
  ops::SamplingParams sampling;  // the model's defaults
  ImageRules image_rules;
  SchemaCache schemas;
  ApiCounters counters;
  CancelTimes cancel_times;
  SpeedMeter meter;
  LiveGenerations live;
  std::unique_ptr<ResponseStore> responses;
  std::atomic<bool> stopping = false;

  PromptRules prompt_rules() const;  // with today's date
  void note_speed();                 // for the meter; any thread, often

  PromptRules rules;

  // In this order: what is above is still there while they run out.
  std::unique_ptr<Workers> deliver;   // writes answers
  std::unique_ptr<Workers> pictures;  // decodes and fetches
  std::unique_ptr<Workers> prepare;   // reads requests
};

using RequestPtr = std::shared_ptr<const HttpRequest>;
using ResponderPtr = std::shared_ptr<Responder>;
using Failed = std::function<void(const ApiError&)>;

// Runs a handler's work on the preparing workers; what it throws goes to `failed`.
void run_prepared(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder,
                  std::function<void(const RequestPtr&)> work, Failed failed);
// The same, with OpenAI's form of errors.
void run_prepared(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder,
                  std::function<void(const RequestPtr&)> work);
// The same for routes that generate: counted from here to what `work` makes of it; the Failed that it gets counts, too.
void run_counted(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder,
                 std::function<void(const RequestPtr&, const CountPtr&, const Failed&)> work, Failed failed);
// Answers at once with what `make` gives, or with what it throws.
void answer_now(const ResponderPtr& responder, const std::function<std::string()>& make);
// Loads the pictures, if there are any on the workers for that, then goes on with them. What goes wrong on another
// thread than the caller's goes to `failed`. cancelled: nobody wants it any more; asked while pictures are fetched.
void with_pictures(ApiContext& context, std::vector<ImageSource> sources, std::function<bool()> cancelled,
                   std::function<void(std::vector<std::vector<float>>)> next, Failed failed);

// The model's name for answers; ApiError 404 model_not_found if the request names another and that matters.
std::string check_model(const ApiContext& context, const std::string& asked);

std::int64_t unix_time();

}  // namespace gov::server
