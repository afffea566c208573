#include "train/run_state.h"

#include "base/error.h"
#include "base/json.h"

namespace gov::train {
namespace {

constexpr const char* kFormat = "gov-train-state-1";

const Json& member(const Json& object, const char* name, bool ok(const Json&)) {
  const Json* value = object.find(name);
  if (!value || !ok(*value)) fail(ErrorCode::kCorrupt, "state.json: {} is missing or of the wrong kind", name);
  return *value;
}

std::int64_t count(const Json& object, const char* name) {
  const std::int64_t value = member(object, name, [](const Json& v) { return v.is_integer(); }).integer();
  if (value < 0) fail(ErrorCode::kCorrupt, "state.json: {} is negative", name);
  return value;
}

}  // namespace

std::string RunState::json() const {
  JsonWriter json;
  json.begin_object().field("format", kFormat).field("step", step).field("updates", updates);
  json.field("skipped", skipped)
      .field("skipped_in_a_row", skipped_in_a_row)
      .field("rows", rows)
      .field("samples", samples);
  json.field("seconds", seconds).field("stale_evals", stale_evals).key("best_eval");
  if (best_eval) json.value(*best_eval);
  else json.null();
  return json.key("data").raw(data.json()).end_object().take();
}

RunState RunState::from_json(std::string_view text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Error& error) {
    fail(ErrorCode::kCorrupt, "state.json: {}", error.what());
  }
  const Json& format = member(json, "format", [](const Json& v) { return v.is_string(); });
  if (format.string() != kFormat)
    fail(ErrorCode::kCorrupt, "state.json: format \"{}\", expected \"{}\"", printable(format.string()), kFormat);
  RunState state;
  state.step = count(json, "step");
  state.updates = count(json, "updates");
  state.skipped = count(json, "skipped");
  state.skipped_in_a_row = count(json, "skipped_in_a_row");
  state.rows = count(json, "rows");
  state.samples = count(json, "samples");
  state.stale_evals = count(json, "stale_evals");
  state.seconds = member(json, "seconds", [](const Json& v) { return v.is_number(); }).number();
  const Json& best = member(json, "best_eval", [](const Json& v) { return v.is_number() || v.is_null(); });
  if (best.is_number()) state.best_eval = best.number();
  state.data = DataState::from_json(member(json, "data", [](const Json& v) { return v.is_object(); }).dump());
  return state;
}

}  // namespace gov::train
