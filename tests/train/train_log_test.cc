// Logs: bytes of event files, records that survive a resume, the plot.

#include "train/train_log.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"
#include "tests/train/train_support.h"

namespace gov::train {
namespace {

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

TEST(TensorBoard, Crc32c) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(""), 0u);
}

// Read back once with the tensorboard package (event_file_loader), which gave the same times, steps and values.
TEST(TensorBoard, Bytes) {
  EXPECT_EQ(hex(version_event(1.5)), "09000000000000f83f1a0d627261696e2e4576656e743a32");
  EXPECT_EQ(hex(scalar_event(1.5, 300, "loss", 0.25f)), "09000000000000f83f10ac022a0d0a0b0a046c6f7373150000803e");
  EXPECT_EQ(hex(tf_record(version_event(1.5))),
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c");
}

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::vector<std::string> out;
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

TEST(TrainLog, RecordsAndResumes) {
  const auto folder = test::fresh_folder("log") / "deep";
  const auto record = [](TrainLog& log, std::int64_t step, double loss) {
    const Metric metrics[] = {{"loss", loss}, {"lr", 1e-3}};
    log.record(step, metrics);
  };
  {
    TrainLog log(folder, {}, 0, 10, "a <run>");
    for (std::int64_t step = 0; step < 6; ++step) record(log, step, 4.0 - static_cast<double>(step) / 2);
    record(log, 6, NAN);
  }
  std::vector<std::string> lines = lines_of(folder / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 7u);
  const Json third = Json::parse(lines[3]);
  EXPECT_EQ(third.find("step")->integer(), 3);
  EXPECT_EQ(third.find("loss")->number(), 2.5);
  EXPECT_EQ(third.find("lr")->number(), 1e-3);
  EXPECT_GT(third.find("time")->number(), 1e9);
  EXPECT_TRUE(Json::parse(lines[6]).find("loss")->is_null());
  std::ofstream(folder / "metrics.jsonl", std::ios::app) << "{\"step\": 3, \"lo";  // cut off by a crash

  {
    TrainLog log(folder, {}, 4, 10, "a <run>");
    record(log, 4, 9);
    const Metric evaluated[] = {{"eval/loss", 1.5}};
    log.record(4, evaluated);
    const std::string svg = read_text_file(folder / "loss.svg", 1 << 20);  // an evaluation is drawn at once
    EXPECT_NE(svg.find("a &lt;run&gt;"), std::string::npos);
    EXPECT_NE(svg.find(">evaluation 1.5<"), std::string::npos);
    EXPECT_NE(svg.find(">loss 9<"), std::string::npos);
    EXPECT_NE(svg.find("<circle"), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
  }
  lines = lines_of(folder / "metrics.jsonl");
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(Json::parse(lines[3]).find("step")->integer(), 3);
  EXPECT_EQ(Json::parse(lines[4]).find("loss")->number(), 9);
  std::size_t event_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    event_files += entry.path().filename().string().starts_with("events.out.tfevents.") ? 1 : 0;
  EXPECT_EQ(event_files, 2u);
}

TEST(TrainLog, WritesOnlyWhatIsWanted) {
  const auto folder = test::fresh_folder("log_none");
  LogConfig config;
  config.jsonl = config.tensorboard = config.plot = false;
  {
    TrainLog log(folder, config, 0, 10, "run");
    const Metric metrics[] = {{"loss", 1}};
    log.record(0, metrics);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(Curve, StaysBounded) {
  Curve curve;
  for (std::int64_t i = 0; i < 1'000'000; ++i) curve.add(i, static_cast<double>(i));
  EXPECT_LT(curve.points().size(), 2048u);
  EXPECT_GT(curve.points().size(), 900u);
  for (const Curve::Point& p : curve.points()) EXPECT_EQ(p.step, p.value);  // means of the same
  EXPECT_EQ(curve.last(), 999'999);
  curve.add(5, INFINITY);
  EXPECT_EQ(curve.last(), 999'999);
}

TEST(Curve, PlotsOfNothingAndOfOneValue) {
  Curve empty, flat;
  flat.add(3, 2);
  flat.add(4, 2);
  EXPECT_TRUE(plot_svg("t", 0, {{"loss", &empty}}).ends_with("</svg>\n"));
  const std::string svg = plot_svg("t", 10, {{"loss", &flat, true}});
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(TrainLog, ProgressText) {
  const Metric metrics[] = {
      {"loss", 1.23456}, {"lr", 1.5e-3}, {"grad_norm", 0.5}, {"tokens_per_second", 12345}, {"mfu", 0.31}};
  EXPECT_EQ(progress_text(120, 3742, metrics),
            "step 120/3742  loss 1.2346  lr 1.50e-03  norm 0.50  12.3 K tok/s  MFU 31 %");
}

}  // namespace
}  // namespace gov::train
