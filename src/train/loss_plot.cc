#include "train/loss_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace gov::train {
namespace {

constexpr double kWidth = 900, kHeight = 480, kLeft = 64, kRight = 20, kTop = 44, kBottom = 40;
constexpr std::size_t kMostDots = 100;
constexpr const char* kColours[] = {"#2f7bd6", "#d6582f", "#2fa36b", "#8a4fc7"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&') out += "&amp;";
    else if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out;
}

// 1, 2 or 5 times a power of ten, so that about `count` of them make up `range`.
double tick_step(double range, int count) {
  const double raw = range / count, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

struct Axes {
  double steps, low, high;
  double x(double step) const { return kLeft + step / steps * (kWidth - kLeft - kRight); }
  double y(double value) const { return kTop + (high - value) / (high - low) * (kHeight - kTop - kBottom); }
};

// The range of the values, without the few highest at the start, which would flatten all the rest.
Axes make_axes(std::int64_t total_steps, const std::vector<PlotCurve>& curves) {
  std::vector<double> values;
  double last = 1;
  for (const PlotCurve& curve : curves) {
    for (const Curve::Point& p : curve.curve->points()) {
      values.push_back(p.value);
      last = std::max(last, p.step);
    }
  }
  Axes axes{std::max(static_cast<double>(total_steps), last), 0, 1};
  if (values.empty()) return axes;
  std::sort(values.begin(), values.end());
  axes.low = values.front();
  axes.high = values[(values.size() - 1) * 99 / 100];
  const double pad = std::max((axes.high - axes.low) * 0.05, std::max(std::fabs(axes.high), 1e-9) * 1e-3);
  axes.low -= pad;
  axes.high += pad;
  return axes;
}

std::string path_of(const Axes& axes, const std::vector<Curve::Point>& points) {
  std::string out;
  for (const Curve::Point& p : points)
    out += fmt::format("{}{:.1f} {:.1f}", out.empty() ? "M" : "L", axes.x(p.step),
                       std::clamp(axes.y(p.value), kTop - 10, kHeight - kBottom));
  return out;
}

std::vector<Curve::Point> smoothed(const std::vector<Curve::Point>& points) {
  std::vector<Curve::Point> out;
  double mean = 0, weight = 0;
  const double keep = 1 - 1 / std::clamp(static_cast<double>(points.size()) / 40, 1.0, 25.0);
  for (const Curve::Point& p : points) {
    mean = keep * mean + (1 - keep) * p.value;
    weight = keep * weight + (1 - keep);
    out.push_back({p.step, mean / weight});
  }
  return out;
}

std::string grid(const Axes& axes) {
  std::string out;
  const double dy = tick_step(axes.high - axes.low, 6), dx = tick_step(axes.steps, 8);
  for (double v = std::ceil(axes.low / dy) * dy; v <= axes.high; v += dy) {
    const double shown = std::fabs(v) < dy / 1e6 ? 0 : v;
    out += fmt::format(
        R"(<path class="g" d="M{:.1f} {:.1f}H{:.1f}"/><text x="{:.1f}" y="{:.1f}" text-anchor="end">{:.4g}</text>)",
        kLeft, axes.y(v), kWidth - kRight, kLeft - 8, axes.y(v) + 4, shown);
  }
  for (double s = 0; s <= axes.steps; s += dx)
    out += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{:.6g}</text>)", axes.x(s),
                       kHeight - kBottom + 18, s);
  return out +
         fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="end">step</text>)", kWidth - kRight, kHeight - 6);
}

}  // namespace

void Curve::add(std::int64_t step, double value) {
  if (!std::isfinite(value)) return;
  last_ = value;
  sum_step_ += static_cast<double>(step);
  sum_value_ += value;
  if (++in_sum_ < per_point_) return;
  const auto n = static_cast<double>(in_sum_);
  points_.push_back({sum_step_ / n, sum_value_ / n});
  sum_step_ = sum_value_ = 0;
  in_sum_ = 0;
  if (points_.size() == kMostPoints) halve();
}

void Curve::halve() {
  for (std::size_t i = 0; i < kMostPoints / 2; ++i) {
    const Point &a = points_[2 * i], &b = points_[2 * i + 1];
    points_[i] = {(a.step + b.step) / 2, (a.value + b.value) / 2};
  }
  points_.resize(kMostPoints / 2);
  per_point_ *= 2;
}

std::string plot_svg(const std::string& title, std::int64_t total_steps, const std::vector<PlotCurve>& curves) {
  const Axes axes = make_axes(total_steps, curves);
  std::string out =
      fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}">)"
                  "<style>svg{{background:#fff;color:#222}}text{{font:12px sans-serif;fill:currentColor}}"
                  ".g{{stroke:currentColor;opacity:.15}}path{{fill:none}}"
                  "@media(prefers-color-scheme:dark){{svg{{background:#16181c;color:#ddd}}}}</style>"
                  R"(<text x="{2}" y="20" style="font-size:14px;font-weight:bold">{3}</text>)",
                  kWidth, kHeight, kLeft, escaped(title));
  out += grid(axes);
  double legend = kLeft;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const PlotCurve& curve = curves[i];
    if (curve.curve->points().empty()) continue;
    const char* colour = kColours[i % std::size(kColours)];
    const std::vector<Curve::Point>& points = curve.curve->points();
    if (curve.smooth) out += fmt::format(R"(<path d="{}" stroke="{}" opacity=".3"/>)", path_of(axes, points), colour);
    out += fmt::format(R"(<path d="{}" stroke="{}" stroke-width="2"/>)",
                       path_of(axes, curve.smooth ? smoothed(points) : points), colour);
    if (!curve.smooth && points.size() <= kMostDots) {
      for (const Curve::Point& p : points)
        out += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>)", axes.x(p.step), axes.y(p.value),
                           colour);
    }
    const std::string label = fmt::format("{} {:.4g}", escaped(curve.name), curve.curve->last());
    out += fmt::format(R"(<text x="{:.0f}" y="38" style="fill:{}">{}</text>)", legend, colour, label);
    legend += 9 * static_cast<double>(label.size()) + 16;
  }
  return out + "</svg>\n";
}

}  // namespace gov::train
