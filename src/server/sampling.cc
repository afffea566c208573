// The sampling parameters of a request, as the engine takes them.

#include <charconv>
#include <limits>
#include <random>

#include "base/utf8.h"
#include "engine/check_request.h"
#include "server/api_error.h"
#include "server/chat_input.h"

namespace gov::server {
namespace {

std::vector<ops::LogitBias> read_bias(const Json* value) {
  std::vector<ops::LogitBias> entries;
  if (!value) return entries;
  for (const auto& [key, bias] : value->object()) {
    ops::LogitBias entry{};
    const auto id = std::from_chars(key.data(), key.data() + key.size(), entry.token);
    if (id.ec != std::errc() || id.ptr != key.data() + key.size() || entry.token < 0) {
      bad_field("logit_bias", "\"{}\" is not a token id", printable(key, 40));
    }
    if (!bias.is_number() || !(bias.number() >= -100 && bias.number() <= 100)) {
      bad_field("logit_bias", "the bias of token {} must be a number of -100 to 100", entry.token);
    }
    entry.bias = static_cast<float>(bias.number());
    entries.push_back(entry);
  }
  return entries;
}

std::vector<std::int32_t> read_ids(const Json* value, std::string_view field) {
  std::vector<std::int32_t> ids;
  if (!value) return ids;
  for (const Json& item : value->array()) {
    if (!item.is_integer() || item.integer() < 0 || item.integer() > std::numeric_limits<std::int32_t>::max()) {
      bad_field(field, "expected token ids");
    }
    ids.push_back(static_cast<std::int32_t>(item.integer()));
  }
  return ids;
}

std::uint64_t new_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

}  // namespace

GenerationOptions read_sampling(const Fields& fields, const ops::SamplingParams& defaults) {
  GenerationOptions options;
  ops::SamplingParams& p = options.sampling;
  p = defaults;
  const auto read = [&](std::string_view name, float& value) {
    if (fields.has(name)) value = static_cast<float>(fields.number(name));
  };
  // 0 leaves only the likeliest token; the engine wants a share above 0.
  const auto read_share = [&](std::string_view name, float& value) {
    read(name, value);
    if (value <= 0) value = std::numeric_limits<float>::min();
  };
  read("temperature", p.temperature);
  read_share("top_p", p.top_p);
  if (fields.has("top_k")) p.top_k = static_cast<int>(std::max<std::int64_t>(0, fields.integer("top_k")));
  read("min_p", p.min_p);
  read_share("typical_p", p.typical_p);
  read("repetition_penalty", p.repetition_penalty);
  read("presence_penalty", p.presence_penalty);
  read("frequency_penalty", p.frequency_penalty);
  p.seed = fields.has("seed") ? static_cast<std::uint64_t>(fields.integer("seed")) : new_seed();
  options.logit_bias = read_bias(fields.get("logit_bias"));
  options.stop = read_stops(fields, "stop");
  options.stop_tokens = read_ids(fields.get("stop_token_ids"), "stop_token_ids");
  options.min_new_tokens = fields.integer("min_tokens");
  options.ignore_eos = fields.flag("ignore_eos");
  return options;
}

std::vector<std::string> read_stops(const Fields& fields, std::string_view name) {
  std::vector<std::string> stops;
  const Json* value = fields.get(name);
  if (!value) return stops;
  const auto add = [&](const Json& item) {
    if (!item.is_string()) bad_field(name, "expected strings, but got {}", item.kind_name());
    const std::string& text = item.string();
    if (text.empty() || text.size() > kLongestStop) bad_field(name, "each text has 1 to {} bytes", kLongestStop);
    stops.push_back(text);
  };
  if (!value->is_array()) {
    add(*value);
    return stops;
  }
  if (value->array().size() > kMostStops) bad_field(name, "at most {} texts", kMostStops);
  for (const Json& item : value->array()) add(item);
  return stops;
}

int read_priority(const Fields& fields) {
  if (fields.has("priority")) return static_cast<int>(fields.integer("priority"));
  return fields.text("service_tier") == "flex" ? -1 : 0;
}

}  // namespace gov::server
