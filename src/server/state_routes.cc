// What the server is and what it is doing: /v1/models, /state, /slots, /props, and the metrics.

#include "server/answer_json.h"
#include "server/api_error.h"
#include "server/response_store.h"
#include "server/routes.h"

namespace gov::server {
namespace {

double share(std::int64_t free, std::int64_t blocks) {
  return blocks > 0 ? static_cast<double>(blocks - free) / static_cast<double>(blocks) : 0.0;
}

double mean(const Histogram& h) { return h.count > 0 ? h.sum / static_cast<double>(h.count) : 0.0; }

const char* device_of(const ApiContext& context) {
  return context.package.model.device == DeviceKind::kCpu ? "cpu" : "cuda";
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

void write_model(JsonWriter& w, const ApiContext& context) {
  w.begin_object().field("id", context.options.model_name).field("object", "model").field("created", context.created);
  w.field("owned_by", "gpt-oss-vision").field("max_model_len", context.loop.engine_options().context).end_object();
}

void write_blocks(JsonWriter& w, std::int64_t blocks, std::int64_t free) {
  w.begin_object().field("blocks", blocks).field("free", free).field("used", share(free, blocks)).end_object();
}

void write_load(JsonWriter& w, const std::vector<std::int64_t>& counts, std::int64_t experts) {
  w.begin_array();
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const bool first = i % static_cast<std::size_t>(experts) == 0;
    if (first && i > 0) w.end_array();
    if (first) w.begin_array();
    w.value(counts[i]);
  }
  if (!counts.empty()) w.end_array();
  w.end_array();
}

void write_cache(JsonWriter& w, const ApiContext& context, const EngineStats& stats) {
  const EngineOptions& options = context.loop.engine_options();
  w.key("kv").begin_object().field("context", options.context).field("block_size", options.block_size).key("full");
  write_blocks(w, stats.full_blocks, stats.free_full_blocks);
  w.key("sliding");
  write_blocks(w, stats.sliding_blocks, stats.free_sliding_blocks);
  w.end_object();
  const PrefixStats& prefix = stats.prefix;
  w.key("prefix_cache").begin_object().field("enabled", options.prefix_cache).field("queries_total", prefix.queries);
  w.field("hits_total", prefix.hits)
      .field("hit_tokens_total", prefix.hit_rows)
      .field("query_tokens_total", prefix.query_rows);
  w.end_object();
  w.key("draft").begin_object().field("proposed_total", stats.draft.drafted);
  w.field("accepted_total", stats.draft.accepted).end_object();
}

void write_counters(JsonWriter& w, ApiContext& context, const EngineStats& stats) {
  const SpeedMeter::Speed speed = context.meter.speed(context.uptime.seconds(), stats.prompt_rows, stats.tokens);
  w.key("speed").begin_object().field("prompt_tokens_per_second", speed.prompt);
  w.field("generated_tokens_per_second", speed.generated).field("window_seconds", SpeedMeter::kWindow).end_object();
  const ApiCounters& c = context.counters;
  w.key("tokens").begin_object().field("prompt_total", stats.prompt_rows).field("generated_total", stats.tokens);
  w.field("reasoning_total", c.reasoning_tokens.load()).field("image_total", c.image_tokens.load());
  w.field("cached_total", c.cached_tokens.load()).end_object();
  w.key("requests").begin_object().field("total", c.requests.load()).field("succeeded", c.succeeded.load());
  w.field("failed", c.failed.load())
      .field("cancelled", c.cancelled.load())
      .field("rejected", c.rejected.load())
      .end_object();
  w.key("latency").begin_object().field("first_token_seconds_mean", mean(stats.first_token_seconds));
  w.field("token_seconds_mean", mean(stats.token_seconds)).end_object();
  w.key("harmony_repairs").begin_object();
  for (std::size_t i = 0; i < c.repairs.size(); ++i)
    w.field(harmony_repair_name(static_cast<HarmonyRepair>(i)), c.repairs[i].load());
  w.end_object();
}

}  // namespace

void list_models(ApiContext& context, const HttpRequest&, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    JsonWriter w;
    w.begin_object().field("object", "list").key("data").begin_array();
    write_model(w, context);
    return w.end_array().end_object().take();
  });
}

void get_model(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    const std::string& id = request.params.at("id");
    if (id != context.options.model_name) {
      throw ApiError(404, "invalid_request_error", fmt::format("model: \"{}\" does not exist", printable(id, 100)),
                     "model", "model_not_found");
    }
    JsonWriter w;
    write_model(w, context);
    return w.take();
  });
}

void state(ApiContext& context, const HttpRequest&, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    const EngineStats stats = context.loop.stats();
    const EngineOptions& options = context.loop.engine_options();
    const Config& config = context.package.model.config;
    JsonWriter w;
    w.begin_object().field("object", "state").field("time", now()).field("uptime_seconds", context.uptime.seconds());
    w.field("ready", !context.stopping && !context.loop.failed()).field("model", context.options.model_name);
    w.field("device", device_of(context)).field("version", context.version);
    w.key("queue").begin_object().field("waiting", stats.waiting).field("running", stats.running);
    w.field("limit", context.loop.limits().queue).end_object();
    w.key("batch").begin_object().field("max_sequences", options.max_sequences).field("sequences", stats.running);
    w.field("prompt_rows_total", stats.prompt_rows)
        .field("decode_rows_total", stats.decode_rows)
        .field("steps_total", stats.steps);
    w.end_object();
    write_cache(w, context, stats);
    write_counters(w, context, stats);
    w.key("experts").begin_object().field("layers", config.num_hidden_layers);
    w.field("experts", config.num_local_experts).field("per_token", config.num_experts_per_tok);
    w.key("text");
    write_load(w, stats.experts.text, config.num_local_experts);
    w.key("image");
    write_load(w, stats.experts.image, config.num_local_experts);
    w.end_object();
    return w.end_object().take();
  });
}

// What others ask is none of a key's business.
void slots(ApiContext& context, const HttpRequest& request, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    JsonWriter w;
    w.begin_array();
    for (const auto& [id, generation] : context.live.list()) {
      if (generation->tenant() != request.tenant) continue;
      w.begin_object().field("id", id).field("request_id", generation->request_id()).field("is_processing", true);
      w.field("prompt_tokens", generation->prompt_tokens()).field("generated_tokens", generation->generated());
      w.field("seconds", generation->seconds()).end_object();
    }
    return w.end_array().take();
  });
}

void props(ApiContext& context, const HttpRequest&, const ResponderPtr& responder) {
  answer_now(responder, [&] {
    const Config& config = context.package.model.config;
    const EngineOptions& options = context.loop.engine_options();
    const ops::SamplingParams& p = context.sampling;
    JsonWriter w;
    w.begin_object()
        .field("model", context.options.model_name)
        .field("model_type", config.model_type)
        .field("version", context.version);
    w.field("device", device_of(context)).field("context", options.context);
    w.field("total_slots", options.max_sequences).field("vocab_size", config.vocab_size);
    const bool harmony = context.rules.format == PromptRules::Format::kHarmony;
    w.field("chat_format", harmony ? "harmony" : "plain").field("reasoning", harmony);
    w.field("tools", context.rules.tokens.has_value());
    w.key("modalities").begin_object().field("vision", config.use_vision).end_object();
    w.key("images").begin_object().field("remote", context.options.remote_images);
    w.field("most", static_cast<std::int64_t>(kMostImages))
        .field("most_bytes", static_cast<std::int64_t>(ImageLimits().max_bytes));
    w.field("tokens_each", config.use_vision ? config.vision.tokens() : 0).end_object();
    w.key("default_generation_settings").begin_object();
    w.field("temperature", static_cast<double>(p.temperature))
        .field("top_p", static_cast<double>(p.top_p))
        .field("top_k", p.top_k);
    w.field("min_p", static_cast<double>(p.min_p)).field("reasoning_effort", context.rules.default_effort).end_object();
    w.key("chat_template");
    if (context.package.chat_template) w.value(*context.package.chat_template);
    else w.null();
    return w.end_object().take();
  });
}

}  // namespace gov::server
