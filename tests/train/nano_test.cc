// Nano's tasks over a small pack of pictures made here, and over the whole one where it is at hand.

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <set>

#include "base/json.h"
#include "io/gzip.h"
#include "tests/train/train_support.h"
#include "train/loader.h"
#include "train/nano_eval.h"
#include "train/nano_words.h"

namespace gov::train {
namespace {

using test::error_of;

void write_gzip(const std::filesystem::path& path, const std::string& text) {
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
}

struct Made {
  const char* label;
  const char* file;
  const char* sub;
  bool unseen;
};
constexpr Made kMade[] = {{"dog face", "dog_face.png", "mammals", false},
                          {"owl", "owl.webp", "birds", false},
                          {"key", "key.webp", "tools", false},
                          {"tomato", "tomato.png", "fruit", true},
                          {"left arrow", "red_heart.webp", "arrows", false},
                          {"man running", "man_dancing.jpg", "athletics", false},
                          {"man running: facing right", "man_dancing.jpg", "athletics", false}};

Json index_of_made(std::string& images) {
  Json::Array concepts, pictures;
  std::int64_t number = 0;
  for (const Made& m : kMade) {
    Json names;
    for (const char* language : kNanoLanguages) names.set(language, std::string(language) + " " + m.label);
    Json item;
    item.set("label", m.label).set("tags", Json::Array{"a", std::string("b ") + m.label, "c", "d"});
    item.set("group", "things").set("sub", m.sub).set("lang", names).set("hold_design", m.unseen);
    item.set("gloss", m.label == std::string("owl") ? Json(Json::Array{"owl", "a bird of the night"}) : Json());
    concepts.push_back(item);
    const std::string file = read_text_file(test::kPictures / m.file, 1 << 24);
    for (const char* split : {"train", "held", "held_twemoji"}) {
      pictures.push_back(Json::Array{number, split == std::string("train") ? "noto" : "other", split,
                                     static_cast<std::int64_t>(images.size()), static_cast<std::int64_t>(file.size())});
      images += file;
    }
    ++number;
  }
  Json index;
  index.set("concepts", concepts).set("pictures", pictures);
  return index.set("glosses", Json::Array{Json::Array{"line", "a long thin mark"}});
}

// The folder of the pack, made once.
const std::filesystem::path& pack() {
  static const std::filesystem::path folder = [] {
    const auto made = test::fresh_folder("nano_" + std::to_string(::getpid()));
    std::string images;
    const Json index = index_of_made(images);
    test::write(made / "images.bin", images);
    write_gzip(made / "index.json.gz", index.dump());
    return made;
  }();
  return folder;
}

const NanoData& data() {
  static const NanoData loaded(pack());
  return loaded;
}

TEST(Gzip, ReadsWholeFilesOnly) {
  const auto path = test::fresh_folder("gzip") / "a.gz";
  const std::string text(300'000, 'x');
  write_gzip(path, text);
  const std::string file = read_text_file(path, 1 << 20);
  const auto bytes = std::as_bytes(std::span(file));
  EXPECT_EQ(gunzip(bytes, 300'000), text);
  EXPECT_THROW(gunzip(bytes, 299'999), Error);
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_THROW(gunzip(bytes.first(n), 1 << 20), Error) << n;
  const std::string more = file + "x";
  EXPECT_THROW(gunzip(std::as_bytes(std::span(more)), 1 << 20), Error);
}

TEST(NanoIndex, FaultsNameTheirPlace) {
  std::string images;
  const Json good = index_of_made(images);
  EXPECT_NO_THROW(parse_nano_index(good.dump(), images.size()));
  EXPECT_NE(error_of([&] { parse_nano_index(good.dump(), images.size() - 1); }).find("pictures[20]: bytes"),
            std::string::npos);
  const auto with = [&](std::string from, const std::string& to) {
    std::string text = good.dump();
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    return error_of([&] { parse_nano_index(text, images.size()); });
  };
  EXPECT_EQ(with("\"label\":\"owl\"", "\"label\":5"), "concepts[1].label must be a text");
  EXPECT_EQ(with("\"sub\":\"birds\"", "\"sup\":\"birds\""), "concepts[1].sub is missing");
  EXPECT_EQ(with("[0,\"noto\",\"train\",0,", "[99,\"noto\",\"train\",0,"), "pictures[0]: there is no concept 99");
  EXPECT_EQ(with("[0,\"noto\",\"train\",0,", "[0,\"noto\",\"train\","), "pictures[0] must be a list of 5");
  EXPECT_EQ(error_of([&] { parse_nano_index("{}", 0); }), "index.concepts is missing");
}

TEST(NanoData, SetsKeepHeldPicturesApart) {
  std::set<std::size_t> seen;
  for (const char* name : {"train", "held_style", "held_style_design_unseen", "held_twemoji", "held_flat"})
    for (const std::size_t picture : data().set(name)) EXPECT_TRUE(seen.insert(picture).second);
  EXPECT_EQ(seen.size(), std::size(kMade) * 3);
  EXPECT_EQ(data().set("held_style").size(), std::size(kMade) - 1);
  EXPECT_EQ(data().set("held_style_design_unseen").size(), 1u);
  EXPECT_THROW(data().set("held"), Error);
}

TEST(NanoData, DirectionsAreNotMirrored) {
  std::vector<std::string> still;
  for (const NanoConcept& c : data().concepts())
    if (!c.may_flip) still.push_back(c.label);
  EXPECT_EQ(still, (std::vector<std::string>{"left arrow", "man running", "man running: facing right"}));
}

TEST(NanoWords, Articles) {
  for (const char* text : {"a dog face",
                           "an owl",
                           "an hourglass done",
                           "a unicorn",
                           "a one-piece swimsuit",
                           "an eject button",
                           "an OK button",
                           "a BACK arrow",
                           "a NEW button",
                           "an ID button",
                           "a yen banknote",
                           "grapes",
                           "sunglasses",
                           "a bus",
                           "a cactus",
                           "a face with rolling eyes",
                           "people holding hands",
                           "a sign of the horns",
                           "no bicycles",
                           "six o'clock",
                           "eight-thirty",
                           "Sagittarius",
                           "Mrs. Claus",
                           "a Japanese \"vacancy\" button",
                           "heart hands",
                           "dna",
                           "two hearts",
                           "a princess",
                           "a wine glass",
                           "women with bunny ears",
                           "a woman's boot",
                           "a person lifting weights",
                           "keycap: 4"}) {
    std::string label = text;
    for (const char* article : {"a ", "an "})
      if (label.starts_with(article)) label = label.substr(std::string_view(article).size());
    EXPECT_EQ(with_article(label), text);
  }
}

TEST(NanoWords, Capitals) {
  EXPECT_EQ(capitalised("écran"), "Écran");
  EXPECT_EQ(capitalised("œil"), "Œil");
  EXPECT_EQ(capitalised("ёлка"), "Ёлка");
  EXPECT_EQ(capitalised("собака"), "Собака");
  EXPECT_EQ(capitalised("イヌ"), "イヌ");
  EXPECT_EQ(capitalised("ß"), "ß");
  EXPECT_EQ(capitalised(""), "");
}

std::string all_text(const SampleRules& rules, const std::vector<Sample>& samples) {
  std::string out;
  for (const Sample& sample : samples) out += test::shown(rules, sample) + "\n";
  return out;
}

SourceConfig nano_config() {
  SourceConfig config;
  config.kind = SourceConfig::Kind::kNano;
  config.path = pack().string();
  return config;
}

TEST(NanoSource, ASampleDependsOnSeedAndNumberOnly) {
  const auto rules = std::make_shared<const SampleRules>(test::nano_rules());
  const Source source = open_source(nano_config(), rules, 7), again = open_source(nano_config(), rules, 7);
  const Source other = open_source(nano_config(), rules, 8);
  EXPECT_EQ(source.size, static_cast<std::int64_t>(std::size(kMade)));
  int differing = 0;
  for (const std::int64_t epoch : {3, 0, 2}) {
    for (std::int64_t i = source.size - 1; i >= 0; --i) {
      const auto a = source.make(i, epoch), b = again.make(i, epoch);
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t k = 0; k < a.size(); ++k) {
        EXPECT_EQ(a[k].tokens, b[k].tokens);
        EXPECT_EQ(a[k].images.empty(), b[k].images.empty());
        if (!a[k].images.empty()) {
          EXPECT_EQ(*a[k].images[0], *b[k].images[0]);
        }
        EXPECT_NO_THROW(check_sample(a[k], rules->vocab_size, rules->image_rows, rules->pixels()));
      }
      differing += all_text(*rules, a) != all_text(*rules, other.make(i, epoch)) ? 1 : 0;
    }
  }
  EXPECT_GT(differing, 18);
}

TEST(NanoSource, QuestionsOfOnePictureShareItsPixels) {
  const auto rules = std::make_shared<const SampleRules>(test::nano_rules());
  SourceConfig config = nano_config();
  config.nano.compositions = config.nano.chats = config.nano.glosses = 0;
  const std::vector<Sample> samples = open_source(config, rules, 7).make(0, 0);
  ASSERT_EQ(samples.size(), 4u);
  std::set<std::string> answers;
  for (const Sample& sample : samples) {
    EXPECT_EQ(sample.images, samples[0].images);
    const std::string text = test::shown(*rules, sample);
    EXPECT_TRUE(text.starts_with("<258><|start|>")) << text;
    EXPECT_TRUE(text.ends_with("<|return|>]")) << text;
    answers.insert(text.substr(text.find('[')));
  }
  EXPECT_EQ(answers.size(), 4u);
  config.nano.layout = NanoConfig::Layout::kTurns;
  config.nano.questions = 3;
  EXPECT_EQ(open_source(config, rules, 7).make(0, 0).size(), 1u);
}

TEST(NanoSource, HeldSetsAreDrawnPlain) {
  const auto rules = std::make_shared<const SampleRules>(test::nano_rules());
  SourceConfig config = nano_config();
  config.nano.split = "held_twemoji";
  const Source source = open_source(config, rules, 7);
  std::vector<float> want(rules->pixels());
  rules->preprocessor.apply(load_image(test::kPictures / "dog_face.png", rules->preprocessor.decode_options()),
                            want.data());
  for (const std::int64_t epoch : {0, 1, 2}) EXPECT_EQ(*source.make(0, epoch)[0].images[0], want);
}

TEST(NanoSource, EveryTaskOccurs) {
  const auto rules = std::make_shared<const SampleRules>(test::nano_rules());
  const Source source = open_source(nano_config(), rules, 1);
  std::string all;
  for (std::int64_t epoch = 0; epoch < 40; ++epoch)
    for (std::int64_t i = 0; i < source.size; ++i) all += all_text(*rules, source.make(i, epoch));
  for (const char* text : {"[This is a dog face. Related words: a, b dog face, c.<|return|>]",
                           "[A dog face<|return|>]",
                           "[A dog face. It belongs to things (mammals). Related words: a, b dog face, c.<|return|>]",
                           "[It belongs to things (birds).<|return|>]",
                           "[A, b owl, c.<|return|>]",
                           "[Yes, it is a dog face.<|return|>]",
                           "[No, it is a",
                           "[Fr dog face<|return|>]",
                           "[Ru owl<|return|>]",
                           "Was ist das?",
                           "[There are two pictures.<|return|>]",
                           "[There are four pictures.",
                           "[There is one picture.",
                           "[The background is white.",
                           "on the left?",
                           "at the top?",
                           "in the bottom right corner?",
                           "[On the right.",
                           "[Yes, there is ",
                           "[No, I do not see ",
                           " and a ",
                           "[A bird of the night.<|return|>]",
                           "[A long thin mark.<|return|>]",
                           "[Line.<|return|>]",
                           "Translate \"",
                           "<|start|>system<|message|>Answer in ",
                           "<|start|>system<|message|>Be brief.",
                           "[You are welcome.",
                           "[Hello! Show me a picture",
                           "[I am nano,"})
    EXPECT_NE(all.find(text), std::string::npos) << text;
}

TEST(NanoSource, Loads) {
  const auto rules = std::make_shared<const SampleRules>(test::nano_rules());
  const std::vector<Source> sources = open_sources({nano_config()}, rules, 7);
  LoaderOptions options;
  options.tokens_per_batch = 4096;
  options.workers = 2;
  Loader a(sources, rules, options, first_state(shapes_of(sources), 7, 1));
  options.workers = 1;
  Loader b(sources, rules, options, first_state(shapes_of(sources), 7, 1));
  for (int i = 0; i < 4; ++i) {
    const auto x = a.next(), y = b.next();
    EXPECT_EQ(x->tokens, y->tokens);
    EXPECT_LT(x->images.size() * 258, 4096u);
    ASSERT_EQ(x->images.size(), y->images.size());
    for (std::size_t image = 0; image < x->images.size(); ++image) EXPECT_EQ(*x->images[image], *y->images[image]);
  }
  EXPECT_EQ(a.report().bad, 0);
}

TEST(NanoSource, RefusesSharesAboveOne) {
  SourceConfig config = nano_config();
  config.nano.chats = 0.9;
  const auto rules = std::make_shared<const SampleRules>(test::nano_rules());
  EXPECT_THROW(open_source(config, rules, 1), Error);
}

TEST(NanoEvaluation, TheTaughtAnswersScoreFully) {
  const NanoEvaluation evaluation(data(), 224);
  NanoScores scores(data()), silent(data());
  for (const std::string& set : NanoEvaluation::sets()) {
    for (std::size_t i = 0; i < std::min<std::size_t>(evaluation.size(set), 30); ++i) {
      const NanoItem item = evaluation.item(set, i);
      EXPECT_EQ(item.scene.image.pixels, evaluation.item(set, i).scene.image.pixels);
      for (const NanoQuestion& question : item.questions) {
        scores.add(item, question, " " + question.answer + "\n");
        silent.add(item, question, "");
      }
    }
  }
  for (const char* name : {"label_exact", "caption_exact", "top_tag_hit", "any_tag_hit", "subgroup_hit", "french_exact",
                           "yes_no", "yes_no_with_label", "position_all", "left_right_of_two", "count", "list_exact_1",
                           "list_exact_2", "list_exact_3", "list_exact_4", "list_item_recall", "background"}) {
    ASSERT_TRUE(scores.figures().contains(name)) << name;
    EXPECT_EQ(scores.figures().at(name).mean(), 1) << name;
    EXPECT_EQ(silent.figures().at(name).mean(), 0) << name;
  }
  EXPECT_THROW(evaluation.item("held_flat", 0), Error);
}

TEST(NanoEvaluation, HalfRightAnswers) {
  const NanoEvaluation evaluation(data(), 224);
  NanoScores scores(data());
  const NanoItem item = evaluation.item("held_style", 0);  // a dog face
  scores.add(item, item.questions[0], "This is a dog. Related words: zebra, c.");
  scores.add(item, item.questions[4], "Yes, it is an owl.");
  NanoItem pair{{{}, {0, 3}, {"on the left", "on the right"}, ""}, {}};
  const NanoQuestion list{NanoQuestionKind::kList, "List everything.", list_answer(data(), pair.scene), ""};
  EXPECT_EQ(list.answer, "A dog face and an owl.");
  scores.add(pair, list, "A cat and an owl.");
  const auto mean = [&](const char* name) { return scores.figures().at(name).mean(); };
  EXPECT_EQ(mean("label_exact"), 0);
  EXPECT_EQ(mean("top_tag_hit"), 0);
  EXPECT_EQ(mean("any_tag_hit"), 1);
  EXPECT_EQ(mean("yes_no"), 1);
  EXPECT_EQ(mean("yes_no_with_label"), 0);
  EXPECT_EQ(mean("list_exact_2"), 0);
  EXPECT_EQ(mean("list_item_recall"), 0.5);
}

}  // namespace
}  // namespace gov::train
