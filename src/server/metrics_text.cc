// The API's and the engine's part of GET /metrics, in Prometheus's text form.

#include "server/response_store.h"
#include "server/routes.h"

namespace gov::server {
namespace {

class Text {
 public:
  void value(std::string_view name, std::string_view type, std::string_view help, double v) {
    head(name, type, help);
    out_ += fmt::format("{} {}\n", name, v);
  }
  void head(std::string_view name, std::string_view type, std::string_view help) {
    out_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  void labelled(std::string_view name, const std::string& labels, double v) {
    out_ += fmt::format("{}{{{}}} {}\n", name, labels, v);
  }

  void histogram(std::string_view name, std::string_view help, const Histogram& h) {
    head(name, "histogram", help);
    std::int64_t below = 0;
    for (std::size_t i = 0; i < Histogram::kBounds.size(); ++i) {
      below += h.counts[i];
      out_ += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, Histogram::kBounds[i], below);
    }
    out_ +=
        fmt::format("{}_bucket{{le=\"+Inf\"}} {}\n{}_sum {}\n{}_count {}\n", name, h.count, name, h.sum, name, h.count);
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

void add_experts(Text& text, const std::vector<std::int64_t>& counts, std::int64_t experts, const char* modality) {
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::size_t e = static_cast<std::size_t>(experts);
    text.labelled("gov_expert_rows_total",
                  fmt::format("layer=\"{}\",expert=\"{}\",modality=\"{}\"", i / e, i % e, modality),
                  static_cast<double>(counts[i]));
  }
}

void add_engine(Text& text, const ApiContext& context, const EngineStats& s) {
  const auto number = [](std::int64_t x) { return static_cast<double>(x); };
  text.value("gov_requests_waiting", "gauge", "Requests of which no row was computed yet.", number(s.waiting));
  text.value("gov_requests_running", "gauge", "Requests started and not finished.", number(s.running));
  text.value("gov_engine_steps_total", "counter", "Steps of the engine.", number(s.steps));
  text.value("gov_prompt_rows_total", "counter", "Prompt rows computed.", number(s.prompt_rows));
  text.value("gov_generated_tokens_total", "counter", "Tokens generated.", number(s.tokens));
  text.value("gov_forced_tokens_total", "counter", "Tokens written without a draw.", number(s.forced_tokens));
  text.value("gov_constraint_seconds_total", "counter", "Seconds spent on what constraints allow.", s.mask_seconds);
  text.value("gov_images_total", "counter", "Pictures encoded.", number(s.images));
  text.value("gov_preemptions_total", "counter",
             "Sequences that gave way, for lack of cache blocks or to a larger priority.", number(s.preemptions));
  text.value("gov_prefix_query_rows_total", "counter", "Prompt rows looked up in the prefix cache.",
             number(s.prefix.query_rows));
  text.value("gov_prefix_hit_rows_total", "counter", "Of these, rows that were there.", number(s.prefix.hit_rows));
  text.value("gov_prefix_evictions_total", "counter", "Blocks that the prefix cache gave up.",
             number(s.prefix.evictions));
  text.value("gov_draft_tokens_total", "counter", "Tokens guessed.", number(s.draft.drafted));
  text.value("gov_draft_accepted_total", "counter", "Of these, tokens that were right.", number(s.draft.accepted));
  text.head("gov_kv_blocks", "gauge", "Blocks of the key-value cache.");
  for (const auto& [group, blocks, free] : {std::tuple{"full", s.full_blocks, s.free_full_blocks},
                                            std::tuple{"sliding", s.sliding_blocks, s.free_sliding_blocks}}) {
    text.labelled("gov_kv_blocks", fmt::format("group=\"{}\",state=\"used\"", group), number(blocks - free));
    text.labelled("gov_kv_blocks", fmt::format("group=\"{}\",state=\"free\"", group), number(free));
  }
  text.histogram("gov_first_token_seconds", "From a request to its first token.", s.first_token_seconds);
  text.histogram("gov_token_seconds", "Between the tokens of an answer.", s.token_seconds);
  text.histogram("gov_cancel_seconds", "From a client's leaving to the end of its request.",
                 context.cancel_times.get());
  text.head("gov_expert_rows_total", "counter", "Rows sent to an expert, by the kind of row.");
  add_experts(text, s.experts.text, context.package.model.config.num_local_experts, "text");
  add_experts(text, s.experts.image, context.package.model.config.num_local_experts, "image");
}

}  // namespace

std::string metrics_text(ApiContext& context) {
  Text text;
  const ApiCounters& c = context.counters;
  text.head("gov_api_requests_total", "counter", "Generating requests by how they ended.");
  text.labelled("gov_api_requests_total", "end=\"succeeded\"", static_cast<double>(c.succeeded.load()));
  text.labelled("gov_api_requests_total", "end=\"failed\"", static_cast<double>(c.failed.load()));
  text.labelled("gov_api_requests_total", "end=\"cancelled\"", static_cast<double>(c.cancelled.load()));
  text.labelled("gov_api_requests_total", "end=\"rejected\"", static_cast<double>(c.rejected.load()));
  text.value("gov_cached_tokens_total", "counter", "Prompt tokens taken from the prefix cache.",
             static_cast<double>(c.cached_tokens.load()));
  text.value("gov_image_tokens_total", "counter", "Prompt rows of pictures.",
             static_cast<double>(c.image_tokens.load()));
  text.value("gov_reasoning_tokens_total", "counter", "Tokens of reasoning.",
             static_cast<double>(c.reasoning_tokens.load()));
  text.value("gov_stored_response_bytes", "gauge", "Bytes of stored responses.",
             static_cast<double>(context.responses->bytes()));
  text.head("gov_harmony_repairs_total", "counter", "Malformed output put right, by kind.");
  for (std::size_t i = 0; i < c.repairs.size(); ++i) {
    text.labelled("gov_harmony_repairs_total",
                  fmt::format("kind=\"{}\"", harmony_repair_name(static_cast<HarmonyRepair>(i))),
                  static_cast<double>(c.repairs[i].load()));
  }
  add_engine(text, context, context.loop.stats());
  return text.take();
}

}  // namespace gov::server
