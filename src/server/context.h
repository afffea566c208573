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
  std::atomic<std::int64_t> requests = 0, succeeded = 0, failed = 0, cancelled = 0, rejected = 0;
  std::atomic<std::int64_t> prompt_tokens = 0, generated_tokens = 0, reasoning_tokens = 0, image_tokens = 0,
                            cached_tokens = 0;
  std::atomic<std::int64_t> first_tokens = 0;  // requests that had one
  std::atomic<double> first_token_seconds = 0, token_seconds = 0;
  std::array<std::atomic<std::int64_t>, static_cast<std::size_t>(HarmonyRepair::kCount)> repairs{};
};

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
  static constexpr double kWindow = 10;  // seconds
  void note(double now, std::int64_t prompt_rows, std::int64_t decode_rows);
  Speed speed(double now, std::int64_t prompt_rows, std::int64_t decode_rows);

 private:
  struct Sample {
    double time;
    std::int64_t prompt_rows, decode_rows;
  };
  std::mutex mutex_;
  std::deque<Sample> samples_;
};

// Generations that the engine has; the context outlives them.
class LiveGenerations {
 public:
  std::int64_t add(std::shared_ptr<Generation> generation);
  void remove(std::int64_t id);
  std::map<std::int64_t, std::shared_ptr<Generation>> list() const;
  void cancel_all_and_wait();

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, std::shared_ptr<Generation>> live_;
  std::int64_t next_ = 0;
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
// Loads the pictures, if there are any on the workers for that, then goes on with them. What `next` throws on another
// thread than the caller's goes to `failed`. cancelled: nobody wants it any more; may be null.
void with_pictures(ApiContext& context, std::vector<ImageSource> sources, std::function<bool()> cancelled,
                   std::function<void(std::vector<std::vector<float>>)> next, Failed failed);

// The model's name for answers; ApiError 404 model_not_found if the request names another and that matters.
std::string check_model(const ApiContext& context, const std::string& asked);

std::int64_t unix_time();

}  // namespace gov::server
