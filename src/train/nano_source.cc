#include "train/nano_source.h"

#include "base/error.h"
#include "train/chat_sample.h"

namespace gov::train {
namespace {

constexpr double kSystemShare = 0.08;  // of single questions

SharedPixels pixels_of(const SampleRules& rules, const Image& image) {
  auto pixels = std::make_shared<std::vector<float>>(rules.pixels());
  rules.preprocessor.apply(image, pixels->data());
  return pixels;
}

void add_text(ChatRecord& record, HarmonyRole role, const std::string& text) {
  HarmonyMessage message{.role = role};
  if (role == HarmonyRole::kAssistant) message.channel = "final";
  message.content.push_back({ContentPart::Kind::kText, text});
  record.messages.push_back(std::move(message));
  record.weights.push_back(1);
}

std::vector<Sample> conversations(const NanoConfig& config, const SampleRules& rules, std::string_view system,
                                  std::span<const QuestionAnswer> questions, const SharedPixels& pixels, bool as_turns,
                                  NanoRandom& random) {
  std::vector<SharedPixels> images;
  if (pixels) images.push_back(pixels);
  std::vector<Sample> out;
  if (as_turns || config.layout == NanoConfig::Layout::kTurns) {
    out.push_back(chat_sample(rules, nano_record(std::string(system), questions, pixels != nullptr), images));
    return out;
  }
  for (const QuestionAnswer& question : questions) {
    const std::string own = neutral_system(random, kSystemShare);
    out.push_back(chat_sample(rules, nano_record(own, {&question, 1}, pixels != nullptr), images));
  }
  return out;
}

}  // namespace

ChatRecord nano_record(const std::string& system, std::span<const QuestionAnswer> turns, bool with_picture) {
  ChatRecord record;
  if (!system.empty()) add_text(record, HarmonyRole::kSystem, system);
  for (const QuestionAnswer& turn : turns) {
    add_text(record, HarmonyRole::kUser, turn.question);
    if (with_picture) {
      std::vector<ContentPart>& content = record.messages.back().content;
      content.insert(content.begin(), {ContentPart::Kind::kImage, ""});
      with_picture = false;
    }
    add_text(record, HarmonyRole::kAssistant, turn.answer);
  }
  return record;
}

std::vector<Sample> nano_samples(const NanoData& data, const std::vector<std::size_t>& set, std::size_t picture,
                                 const NanoConfig& config, const SampleRules& rules, std::uint64_t seed,
                                 std::uint64_t number) {
  NanoRandom random(seed, number);
  const auto count = static_cast<std::size_t>(config.questions);
  const int side = rules.preprocessor.out_width();
  const NanoConcept& shown = data.concept_of(picture);
  const bool trains = config.split == "train";
  const double kind = trains ? random.uniform() : 1;
  if (kind < config.glosses) {
    if (random.chance(0.25)) {
      const NanoChat chat = word_chat(data, random);
      return conversations(config, rules, chat.system, chat.turns, nullptr, true, random);
    }
    std::vector<QuestionAnswer> words;
    for (std::size_t i = 0; i < count; ++i) words.push_back(ask_word(data, random));
    return conversations(config, rules, "", words, nullptr, false, random);
  }
  if (kind < config.glosses + config.compositions) {
    std::vector<std::size_t> pictures{picture};
    const std::size_t wanted = draw_picture_count(random);
    while (pictures.size() < wanted) pictures.push_back(set[random.below(set.size())]);
    random.shuffle(pictures);
    const Scene scene = composed_scene(data, std::move(pictures), side, config.augment, random);
    return conversations(config, rules, "", scene_questions(data, scene, count, random), pixels_of(rules, scene.image),
                         false, random);
  }
  const Scene scene = single_scene(data, picture, side, config.augment && trains, random);
  const SharedPixels pixels = pixels_of(rules, scene.image);
  if (kind < config.glosses + config.compositions + config.chats) {
    const NanoChat chat = picture_chat(data, shown, random);
    return conversations(config, rules, chat.system, chat.turns, pixels, true, random);
  }
  const std::vector<QuestionAnswer> questions = picture_questions(data, shown, count, config.languages, random);
  return conversations(config, rules, "", questions, pixels, false, random);
}

Source nano_source(const SourceConfig& config, std::shared_ptr<const SampleRules> rules, std::uint64_t seed) {
  if (rules->image_rows == 0) fail(ErrorCode::kInvalidArgument, "{}: the model has no vision", path_text(config.path));
  const NanoConfig& nano = config.nano;
  if (nano.compositions + nano.chats + nano.glosses > 1)
    fail(ErrorCode::kInvalidArgument, "nano: the shares of compositions, chats and glosses add up to more than 1");
  auto data = std::make_shared<const NanoData>(config.path);
  auto set = std::make_shared<const std::vector<std::size_t>>(data->set(nano.split));
  Source source;
  source.size = static_cast<std::int64_t>(set->size());
  source.make = [=](std::int64_t index, std::int64_t epoch) {
    const auto i = static_cast<std::size_t>(index);
    const std::uint64_t number = static_cast<std::uint64_t>(epoch) * set->size() + i;
    return nano_samples(*data, *set, (*set)[i], nano, *rules, seed, number);
  };
  source.where = [=, path = config.path](std::int64_t index) {
    return fmt::format("{}: picture {}", path_text(path), (*set)[static_cast<std::size_t>(index)]);
  };
  return source;
}

}  // namespace gov::train
