#pragma once
// Curves of a run as one SVG without outside references, to be looked at while it trains.

#include <cstdint>
#include <string>
#include <vector>

namespace gov::train {

// Values over steps, in a bounded number of points: when there are too many, neighbours become their mean.
class Curve {
 public:
  struct Point {
    double step, value;
  };
  void add(std::int64_t step, double value);  // not finite: left out
  const std::vector<Point>& points() const { return points_; }
  double last() const { return last_; }

 private:
  static constexpr std::size_t kMostPoints = 2048;
  void halve();
  std::vector<Point> points_;
  double sum_step_ = 0, sum_value_ = 0, last_ = 0;
  std::int64_t in_sum_ = 0, per_point_ = 1;
};

struct PlotCurve {
  std::string name;
  const Curve* curve;
  bool smooth = false;  // draw it faintly, with a moving average over it
};

// 900 x 480, light or dark as the viewer prefers. `total_steps` is where the axis ends.
std::string plot_svg(const std::string& title, std::int64_t total_steps, const std::vector<PlotCurve>& curves);

}  // namespace gov::train
