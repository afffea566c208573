#include "cli/chat_settings.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <span>

#include "base/error.h"

namespace gov::cli {
namespace {

constexpr float kMost = std::numeric_limits<float>::max();

struct FloatSetting {
  const char* name;
  float ops::SamplingParams::*field;
  float least, most;
  bool above_least;  // the least value itself is not allowed
};

// The engine's own ranges, so that a value is refused where it is typed.
constexpr FloatSetting kFloats[] = {
    {"temperature", &ops::SamplingParams::temperature, 0, kMost, false},
    {"top_p", &ops::SamplingParams::top_p, 0, 1, true},
    {"min_p", &ops::SamplingParams::min_p, 0, 1, false},
    {"typical_p", &ops::SamplingParams::typical_p, 0, 1, true},
    {"repetition_penalty", &ops::SamplingParams::repetition_penalty, 0, kMost, true},
    {"presence_penalty", &ops::SamplingParams::presence_penalty, -kMost, kMost, false},
    {"frequency_penalty", &ops::SamplingParams::frequency_penalty, -kMost, kMost, false},
};

const FloatSetting* find_float(std::string_view name) {
  for (const FloatSetting& setting : kFloats) {
    if (name == setting.name) return &setting;
  }
  return nullptr;
}

template <class T>
std::optional<T> number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

void set_float(ChatSettings& settings, const FloatSetting& setting, std::string_view text) {
  const auto value = number<float>(text);
  const bool in_range = value && std::isfinite(*value) && *value <= setting.most &&
                        (setting.above_least ? *value > setting.least : *value >= setting.least);
  if (in_range) {
    settings.sampling.*setting.field = *value;
    return;
  }
  const std::string least = setting.least == -kMost
                                ? ""
                                : fmt::format("{} {}", setting.above_least ? "more than" : "at least", setting.least);
  const std::string most = setting.most == kMost ? "" : fmt::format("at most {}", setting.most);
  fail(ErrorCode::kInvalidArgument, "{} is a number{}{}{}{}, not '{}'", setting.name, least.empty() ? "" : " of ",
       least, least.empty() || most.empty() ? "" : " and ", most, printable(text, 40));
}

}  // namespace

std::vector<std::string> chat_setting_names() {
  std::vector<std::string> names;
  for (const FloatSetting& setting : kFloats) names.emplace_back(setting.name);
  for (const char* name : {"top_k", "seed", "max_tokens"}) names.emplace_back(name);
  return names;
}

void set_chat_setting(ChatSettings& settings, std::string_view name, std::string_view value) {
  if (const FloatSetting* setting = find_float(name); setting != nullptr) return set_float(settings, *setting, value);
  if (name == "top_k") {
    const auto k = number<int>(value);
    if (!k || *k < 0) fail(ErrorCode::kInvalidArgument, "top_k is 0 (off) or more, not '{}'", printable(value, 40));
    settings.sampling.top_k = *k;
  } else if (name == "seed") {
    const auto seed = number<std::uint64_t>(value);
    if (!seed && value != "random")
      fail(ErrorCode::kInvalidArgument, "seed is a number of 0 or more, or random, not '{}'", printable(value, 40));
    settings.seed = seed;
  } else if (name == "max_tokens") {
    const auto most = number<std::int64_t>(value);
    if (!most || *most < 1 || *most > std::int64_t{1} << 24)
      fail(ErrorCode::kInvalidArgument, "max_tokens is 1 or more, not '{}'", printable(value, 40));
    settings.max_tokens = *most;
  } else {
    fail(ErrorCode::kInvalidArgument, "there is no setting '{}'; there are {}", printable(name, 40),
         fmt::join(chat_setting_names(), ", "));
  }
}

std::string chat_setting_text(const ChatSettings& settings, std::string_view name) {
  if (const FloatSetting* setting = find_float(name); setting != nullptr)
    return fmt::format("{}", settings.sampling.*setting->field);
  if (name == "top_k") return std::to_string(settings.sampling.top_k);
  if (name == "max_tokens") return std::to_string(settings.max_tokens);
  return settings.seed ? std::to_string(*settings.seed) : "random";
}

}  // namespace gov::cli
