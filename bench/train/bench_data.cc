// How fast training data are made: pictures a second of nano's tasks, decoded, drawn, preprocessed and tokenised, by
// one thread, and batches by the loader's threads.  bench_data FOLDER [seconds] [folder for example pictures]

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>

#include "base/json_writer.h"
#include "base/thread_pool.h"
#include "base/timer.h"
#include "io/mapped_file.h"
#include "train/loader.h"
#include "train/nano_source.h"

namespace {

using namespace gov;
using namespace gov::train;

void row(const char* work, double value, const char* unit, int threads) {
  JsonWriter json;
  json.begin_object().field("work", work).field("model", "nano").field("threads", threads);
  json.field("value", value).field("unit", unit).end_object();
  fmt::print("{}\n", json.str());
}

std::shared_ptr<const SampleRules> rules_of_nano() {
  const std::filesystem::path nano = std::filesystem::path(GOV_SOURCE_DIR) / "models/nano";
  return std::make_shared<const SampleRules>(
      sample_rules(parse_config(read_text_file(nano / "config.json", 1 << 20)), Tokenizer::load(nano),
                   Preprocessor::from_json(read_text_file(nano / "preprocessor_config.json", 1 << 20)), {}));
}

// Example scenes as PPM files, with the text beside them, to be looked at.
void write_examples(const NanoData& data, const std::filesystem::path& folder, const SampleRules& rules) {
  const std::vector<std::size_t> set = data.set("train");
  for (std::uint64_t i = 0; i < 24; ++i) {
    NanoRandom random(7, i);
    std::vector<std::size_t> pictures{set[random.below(set.size())]};
    if (i % 2 == 1)
      for (std::size_t n = draw_picture_count(random); pictures.size() < n;)
        pictures.push_back(set[random.below(set.size())]);
    const Scene scene = i % 2 == 1 ? composed_scene(data, pictures, rules.preprocessor.out_width(), true, random)
                                   : single_scene(data, pictures[0], rules.preprocessor.out_width(), true, random);
    const auto questions = i % 2 == 1 ? scene_questions(data, scene, 4, random)
                                      : picture_questions(data, data.concept_of(pictures[0]), 4, 0.3, random);
    std::ofstream picture(folder / fmt::format("{:02}.ppm", i), std::ios::binary);
    picture << fmt::format("P6 {} {} 255\n", scene.image.width, scene.image.height);
    picture.write(reinterpret_cast<const char*>(scene.image.pixels.data()),
                  static_cast<std::streamsize>(scene.image.pixels.size()));
    std::ofstream text(folder / fmt::format("{:02}.txt", i));
    for (const QuestionAnswer& q : questions) text << q.question << "\n  " << q.answer << "\n";
  }
}

void run(const std::string& folder, double seconds, const char* examples) {
  const auto rules = rules_of_nano();
  if (examples != nullptr) write_examples(NanoData(folder), examples, *rules);
  SourceConfig config;
  config.kind = SourceConfig::Kind::kNano;
  config.path = folder;
  Timer timer;
  const Source source = open_source(config, rules, 1);
  row("open", timer.seconds(), "s", 1);
  std::int64_t count = 0;
  for (timer = Timer(); timer.seconds() < seconds; ++count) source.make(count % source.size, count / source.size);
  row("nano_samples", static_cast<double>(count) / timer.seconds(), "pictures/s", 1);

  LoaderOptions options;
  options.tokens_per_batch = 65536;
  const std::vector<Source> sources{source};
  Loader loader(sources, rules, options, first_state(shapes_of(sources), 1, 1));
  loader.next();
  std::int64_t images = 0, rows = 0;
  for (timer = Timer(); timer.seconds() < seconds;) {
    const auto batch = loader.next();
    images += static_cast<std::int64_t>(batch->images.size());
    rows += batch->rows();
  }
  row("nano_batches", static_cast<double>(images) / timer.seconds(), "pictures/s", usable_cores());
  row("nano_batches", static_cast<double>(rows) / timer.seconds(), "rows/s", usable_cores());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: bench_data FOLDER [seconds] [folder for examples]\n");
    return 2;
  }
  try {
    run(argv[1], argc > 2 ? std::atof(argv[2]) : 5, argc > 3 ? argv[3] : nullptr);
  } catch (const gov::Error& e) {
    fmt::print(stderr, "bench_data: {}\n", e.what());
    return 1;
  }
}
