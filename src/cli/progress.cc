#include "cli/progress.h"

#include <algorithm>
#include <cstdio>

#include "base/json_writer.h"
#include "cli/format.h"

namespace gov::cli {
namespace {

constexpr std::int64_t kLongPrompt = 2048;  // rows below which a bar would only flicker

CommonOptions quiet_if(bool quiet, CommonOptions o) {
  o.quiet = o.quiet || quiet;
  return o;
}

}  // namespace

Progress::Progress(std::string label, double total, Unit unit, const CommonOptions& o)
    : label_(std::move(label)),
      total_(total),
      unit_(unit),
      json_(o.json && !o.quiet),
      bar_(!o.json && !o.quiet && stderr_is_terminal()) {}

Progress::~Progress() { clear(); }

void Progress::update(double done) {
  if (!json_ && !bar_) return;
  const double seconds = timer_.seconds();
  if (done < total_ && seconds - drawn_at_ < (json_ ? 1.0 : 0.1)) return;
  drawn_at_ = seconds;
  draw(done, seconds);
}

void Progress::clear() {
  if (visible_) std::fputs("\r\033[K", stderr);
  visible_ = false;
}

void Progress::draw(double done, double seconds) {
  const double rate = seconds > 0 ? done / seconds : 0;
  const double left = rate > 0 ? std::max(0.0, total_ - done) / rate : 0;
  if (json_) {
    JsonWriter json;
    json.begin_object().field("progress", label_).field("done", done).field("total", total_).field("rate", rate);
    json.field("seconds_left", left).end_object();
    fmt::print(stderr, "{}\n", json.str());
    return;
  }
  const double part = total_ > 0 ? std::clamp(done / total_, 0.0, 1.0) : 1.0;
  const int filled = static_cast<int>(part * 30);
  const std::string speed = unit_ == Unit::kBytes ? human_bytes(rate) + "/s" : fmt::format("{:.0f} tok/s", rate);
  fmt::print(stderr, "\r{} [{}{}] {:3.0f} %  {}  {:.0f} s left\033[K", label_,
             std::string(static_cast<std::size_t>(filled), '#'),
             std::string(static_cast<std::size_t>(30 - filled), ' '), part * 100, speed, left);
  visible_ = true;
}

PromptProgress::PromptProgress(const Engine& engine, std::int64_t rows, const CommonOptions& o)
    : engine_(engine),
      before_(engine.stats().prompt_rows),
      progress_("prompt", static_cast<double>(rows), Progress::Unit::kTokens,
                quiet_if(o.json || rows < kLongPrompt, o)) {}

void PromptProgress::update() {
  if (!ended_) progress_.update(static_cast<double>(engine_.stats().prompt_rows - before_));
}

void PromptProgress::end() {
  if (!ended_) progress_.clear();
  ended_ = true;
}

}  // namespace gov::cli
