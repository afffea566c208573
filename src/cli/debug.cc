// gpt-oss-vision debug: looks inside, for tests and for comparing with other implementations.

#include "cli/debug.h"

#include <simdjson.h>

#include <iostream>

#include "base/json_writer.h"
#include "cli/format.h"
#include "image/image.h"
#include "image/preprocess.h"
#include "io/safetensors.h"
#include "text/tokenizer.h"

namespace gov::cli {
namespace {

struct DebugTokenizeOptions {
  std::string tokenizer;
  bool special = false;
};

struct DebugPreprocessOptions {
  CommonOptions common;
  std::string image, output;
};

int run_debug_tokenize(const Program& program, const DebugTokenizeOptions& o) {
  const Tokenizer tokenizer =
      Tokenizer::load(o.tokenizer.empty() ? resolve_model("", program) : std::filesystem::path(o.tokenizer));
  simdjson::dom::parser parser;
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    if (line.empty()) continue;
    simdjson::dom::element document;
    std::string_view text;
    if (parser.parse(line).get(document) != simdjson::SUCCESS || document["text"].get(text) != simdjson::SUCCESS) {
      fail(ErrorCode::kInvalidArgument, "line {} of standard input is not an object with a \"text\"", number);
    }
    JsonWriter json;
    json.begin_object().key("ids").begin_array();
    for (const std::int32_t id : tokenizer.encode(text, o.special ? SpecialTokens::kAllow : SpecialTokens::kOrdinary))
      json.value(id);
    put(json.end_array().end_object().take() + "\n");
  }
  return 0;
}

Preprocessor preprocessor_of(const std::filesystem::path& folder, const Log& log) {
  const auto file = folder / "preprocessor_config.json";
  if (std::filesystem::exists(file)) return Preprocessor::from_json(read_text_file(file, 1u << 20));
  const Config config = load_config(folder, log);
  if (!config.use_vision)
    fail(ErrorCode::kUnsupported, "the model in '{}' takes no pictures", printable(folder.string()));
  return Preprocessor::for_size(static_cast<int>(config.vision.image_size));
}

int run_debug_preprocess(const Program& program, const DebugPreprocessOptions& o) {
  const Preprocessor preprocessor = preprocessor_of(resolve_model(o.common.model, program), make_log(o.common));
  const Image image = load_image(o.image, preprocessor.decode_options());
  const std::int64_t height = preprocessor.out_height(), width = preprocessor.out_width();
  std::vector<float> pixels(static_cast<std::size_t>(3 * height * width));
  preprocessor.apply(image, pixels.data());
  if (!o.output.empty()) {
    SafetensorsWriter writer(o.output, {{"pixel_values", DType::kF32, Shape{1, 3, height, width}}});
    writer.write(std::as_bytes(std::span(pixels)));
    writer.finish();
    return 0;
  }
  JsonWriter json;
  json.begin_object().key("image").begin_array().value(image.width).value(image.height).end_array();
  json.key("shape").begin_array().value(3).value(height).value(width).end_array().key("channels").begin_array();
  const auto per_channel = static_cast<std::size_t>(height * width);
  for (std::size_t c = 0; c < 3; ++c) {
    const std::span<const float> channel(pixels.data() + c * per_channel, per_channel);
    double sum = 0;
    for (const float value : channel) sum += static_cast<double>(value);
    const auto [least, most] = std::minmax_element(channel.begin(), channel.end());
    json.begin_object().field("mean", sum / static_cast<double>(per_channel));
    json.field("min", static_cast<double>(*least)).field("max", static_cast<double>(*most)).end_object();
  }
  put(json.end_array().end_object().take() + "\n");
  return 0;
}

void add_forward(CLI::App& debug, Program& program) {
  const auto o = std::make_shared<DebugForwardOptions>();
  CLI::App& app =
      *debug.add_subcommand("forward", "Every intermediate tensor of one forward pass, to a safetensors file");
  add_model_option(app, o->common);
  app.add_option("--inputs", o->inputs,
                 "input_ids I64 [B, T]; optional pixel_values F32 [B, 3, side, side] and loss_mask [B, T]")
      ->required()
      ->type_name("FILE");
  app.add_option("--output", o->output, "Safetensors file to write")->required()->type_name("FILE");
  const auto count = [&](const char* name, std::int64_t& value, const char* help) {
    app.add_option(name, value, help)
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20))
        ->type_name("N")
        ->capture_default_str();
  };
  count("--generate", o->generate, "Tokens generated greedily, end tokens ignored; 0 = none");
  count("--generate-prompt", o->generate_prompt, "Text tokens of each row to generate from");
  add_type_options(app, o->common);
  add_machine_options(app, o->common);
  add_output_options(app, o->common);
  app.footer(
      "Examples:\n"
      "  gpt-oss-vision debug forward --model case/ --inputs case/inputs.safetensors --output out.safetensors\n"
      "  gpt-oss-vision debug forward --model case/ --inputs case/inputs.safetensors --output out.safetensors --isa "
      "baseline");
  app.callback([&program, o] { program.action = [&program, o] { return run_debug_forward(program, *o); }; });
}

void add_training(CLI::App& debug, Program& program) {
  const auto add = [&](const char* name, const char* help, bool steps,
                       int (*run)(const Program&, const DebugTrainingOptions&)) {
    const auto o = std::make_shared<DebugTrainingOptions>();
    CLI::App& app = *debug.add_subcommand(name, help);
    add_model_option(app, o->common);
    app.add_option("--inputs", o->inputs, "As for debug forward")->required()->type_name("FILE");
    app.add_option("--output", o->output, "Safetensors file to write")->required()->type_name("FILE");
    app.add_option("--recompute", o->recompute, "What is computed twice instead of kept")
        ->check(CLI::IsMember({"none", "moe", "block"}))
        ->capture_default_str();
    app.add_option("--aux-coefficient", o->aux_coefficient, "Of the load-balancing loss; default: the configuration's")
        ->check(CLI::NonNegativeNumber)
        ->type_name("C");
    if (steps) {
      app.add_option("--steps", o->steps, "AdamW steps on the same batch")
          ->check(CLI::Range(1, 1 << 20))
          ->type_name("N")
          ->capture_default_str();
      const auto number = [&](const char* option, double& value, const char* text) {
        app.add_option(option, value, text)->check(CLI::NonNegativeNumber)->type_name("X")->capture_default_str();
      };
      number("--lr", o->lr, "Learning rate");
      number("--beta1", o->beta1, "Decay of the first moment");
      number("--beta2", o->beta2, "Decay of the second moment");
      number("--eps", o->eps, "Added to the root of the second moment");
      number("--decay", o->decay, "Weight decay, on every tensor");
      number("--clip", o->clip, "Largest norm of all gradients");
    }
    add_type_options(app, o->common);
    add_machine_options(app, o->common);
    add_output_options(app, o->common);
    app.footer(fmt::format(
        "Examples:\n  gpt-oss-vision debug {} --model case/ --inputs case/inputs.safetensors --output out.safetensors",
        name));
    app.callback([&program, o, run] { program.action = [&program, o, run] { return run(program, *o); }; });
  };
  add("gradients", "The gradient of the loss by every tensor of the model, to a safetensors file", false,
      run_debug_gradients);
  add("train-steps", "Losses and gradient norms of a few training steps", true, run_debug_train_steps);
}

void add_text_and_pictures(CLI::App& debug, Program& program) {
  const auto t = std::make_shared<DebugTokenizeOptions>();
  CLI::App& tokenize =
      *debug.add_subcommand("tokenize", "JSON lines {\"text\": ..} on standard input to {\"ids\": [..]} lines");
  tokenize.add_option("--tokenizer", t->tokenizer, "File or folder; default: the default model's")->type_name("FILE");
  tokenize.add_flag("--special", t->special, "Special tokens in the text become their ids");
  tokenize.footer(
      "Examples:\n  echo '{\"text\": \"What is this?\"}' | gpt-oss-vision debug tokenize --tokenizer "
      "o200k_base.tiktoken\n"
      "  gpt-oss-vision debug tokenize --special < texts.jsonl");
  tokenize.callback([&program, t] { program.action = [&program, t] { return run_debug_tokenize(program, *t); }; });

  const auto p = std::make_shared<DebugPreprocessOptions>();
  CLI::App& preprocess = *debug.add_subcommand("preprocess", "A picture as the model sees it");
  preprocess.add_option("image", p->image, "Picture file")->required()->type_name("IMAGE");
  add_model_option(preprocess, p->common);
  preprocess
      .add_option("--output", p->output,
                  "Write pixel_values F32 [1, 3, h, w] to this safetensors file; default: a summary as JSON")
      ->type_name("FILE");
  add_output_options(preprocess, p->common);
  preprocess.footer(
      "Examples:\n  gpt-oss-vision debug preprocess photo.jpg\n"
      "  gpt-oss-vision debug preprocess photo.jpg --model ~/models/vision --output pixels.safetensors");
  preprocess.callback([&program, p] { program.action = [&program, p] { return run_debug_preprocess(program, *p); }; });
}

}  // namespace

void add_debug(CLI::App& root, Program& program) {
  CLI::App& app =
      *root.add_subcommand("debug", "Look inside: tensors of a forward pass, gradients, token ids, pixel values");
  app.require_subcommand(1);
  add_forward(app, program);
  add_training(app, program);
  add_text_and_pictures(app, program);
  app.footer("Examples:\n  gpt-oss-vision debug forward --help\n  gpt-oss-vision debug preprocess photo.jpg");
}

}  // namespace gov::cli
