// gpt-oss-vision generate: text from a prompt and pictures.

#include "cli/generate.h"

#include <algorithm>
#include <cstdio>

#include "base/timer.h"
#include "base/utf8.h"
#include "cli/format.h"
#include "cli/progress.h"
#include "image/image.h"

namespace gov::cli {
namespace {

constexpr const char* kDefaultPrompt = "What is this?";
constexpr const char* kExamples =
    "Examples:\n"
    "  gpt-oss-vision generate --image photo.png --prompt \"What is this?\"\n"
    "  git diff | gpt-oss-vision generate --model ~/models/gpt-oss-20b --system \"Review this change.\"\n"
    "  gpt-oss-vision generate --format raw --prompt \"Once upon\" --temperature 0.8 --seed 7 --n 3 --json\n"
    "  gpt-oss-vision generate --prompt \"A dog?\" --prompt \"A cat?\" --image pets.jpg --max-new-tokens 20 --stats";

void add_prompt_options(CLI::App& app, GenerateOptions& o) {
  const char* kPrompt = "Prompt";
  add_repeatable(
      app, "-p,--prompt", o.prompts,
      "Prompt; several are run as one batch. Without it: --prompt-file, else what is piped to standard input; "
      "with pictures and no text: \"What is this?\"")
      ->group(kPrompt);
  app.add_option("-f,--prompt-file", o.prompt_file, "Read the prompt from a file; - is standard input")
      ->type_name("FILE")
      ->excludes("--prompt")
      ->group(kPrompt);
  add_repeatable(app, "-i,--image", o.images,
                 "Picture file (PNG, JPEG, WebP, GIF, BMP); repeatable. All pictures go to every prompt")
      ->type_name("FILE")
      ->group(kPrompt);
  app.add_option(
         "--image-position", o.image_position,
         "prefix: before all text; inline: in the user message (needs an image token); auto: inline for harmony "
         "models that have an image token, else prefix")
      ->check(CLI::IsMember({"auto", "prefix", "inline"}))
      ->type_name("WHERE")
      ->capture_default_str()
      ->group(kPrompt);
  app.add_option("--format", o.format, "chat: the prompt is a user message; raw: the prompt is continued as it is")
      ->check(CLI::IsMember({"chat", "raw"}))
      ->type_name("FORM")
      ->capture_default_str()
      ->group(kPrompt);
  add_prompt_format_options(app, o.prompt_format, kPrompt);
  app.add_option("-s,--system", o.system, "Instructions put before the user message (chat)")
      ->type_name("TEXT")
      ->group(kPrompt);
  add_date_option(app, o.prompt_format, kPrompt);
  app.add_flag("--special", o.special, "raw: special tokens in the prompt's text become their ids")->group(kPrompt);
}

void add_choices_option(CLI::App& app, GenerateOptions& o) {
  app.add_option("--n", o.n, "Answers to each prompt")
      ->check(CLI::Range(1, 16))
      ->type_name("N")
      ->capture_default_str()
      ->group(kSamplingGroup);
}

void add_length_options(CLI::App& app, GenerateOptions& o) {
  const char* kLength = "Length";
  GenerationOptions& g = o.generation;
  const auto count = [&](const char* name, std::int64_t& value, const char* help) {
    app.add_option(name, value, help)
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 24))
        ->type_name("N")
        ->capture_default_str()
        ->group(kLength);
  };
  count("--max-new-tokens", g.max_new_tokens, "Most tokens of an answer");
  count("--min-new-tokens", g.min_new_tokens, "Do not end before this many tokens");
  add_repeatable(app, "--stop", g.stop, "End before this text; repeatable")->group(kLength);
  app.add_option("--stop-token", g.stop_tokens, "End at this token id; repeatable")
      ->type_name("ID")
      ->allow_extra_args(false)
      ->group(kLength);
  app.add_flag("--ignore-eos", g.ignore_eos, "Do not end at the model's end tokens")->group(kLength);
}

void add_answer_options(CLI::App& app, GenerateOptions& o) {
  const char* kAnswer = "Answer";
  app.add_option("--logprobs", o.generation.logprobs,
                 "With --json: log-probabilities, and those of the N likeliest tokens")
      ->check(CLI::Range(0, 20))
      ->type_name("N")
      ->group(kAnswer);
  app.add_flag("--show-special", o.show_special,
               "Print special tokens too; harmony answers always come with their channel markers")
      ->group(kAnswer);
  app.add_flag("--stream", o.stream, "With --json: one line per token as it comes, then the whole answers")
      ->group(kAnswer);
  app.add_flag("--stats", o.stats, "Times and tokens per second on standard error")->group(kAnswer);
}

std::vector<std::string> collect_prompts(const GenerateOptions& o) {
  std::vector<std::string> prompts = o.prompts;
  if (!o.prompt_file.empty()) prompts.push_back(read_input(o.prompt_file));
  if (prompts.empty() && o.images.empty() && stdin_is_terminal()) {
    throw CLI::ValidationError("generate", "give --prompt, --prompt-file, --image or text on standard input");
  }
  if (prompts.empty() && (o.images.empty() || stdin_is_redirected())) prompts.push_back(read_input("-"));
  const bool unasked = prompts.empty() || (prompts.size() == 1 && prompts[0].empty() && o.prompts.empty());
  if (unasked && !o.images.empty()) prompts = {o.format == "chat" ? kDefaultPrompt : ""};
  for (const std::string& prompt : prompts) {
    if (prompt.empty() && o.images.empty()) fail(ErrorCode::kInvalidArgument, "the prompt is empty");
    if (!utf8_valid(prompt)) fail(ErrorCode::kInvalidArgument, "the prompt is not valid UTF-8");
  }
  return prompts;
}

GenerationOptions generation_options(const GenerateOptions& o, const ops::SamplingParams& defaults) {
  GenerationOptions g = o.generation;
  g.sampling = sampling_params(o.sampling, defaults);
  if (!o.sampling.seed) g.sampling.seed = random_seed();
  g.logit_bias = logit_bias(o.sampling);
  return g;
}

// Token ids of one prompt in the format asked for.
std::vector<std::int32_t> encode_prompt(const GenerateOptions& o, const ModelPackage& package,
                                        const PromptFormat& format, const std::string& prompt) {
  if (o.format == "raw") {
    return package.tokenizer.encode(prompt, o.special ? SpecialTokens::kAllow : SpecialTokens::kOrdinary);
  }
  const std::int64_t image_token = package.model.config.image_token_id;
  const bool can_inline = image_token >= 0;
  if (o.image_position == "inline" && !can_inline) {
    fail(ErrorCode::kUnsupported, "--image-position inline: the model's config.json has no image_token_id");
  }
  ChatOptions chat;
  chat.format = format.format;
  chat.harmony_template = format.harmony_template;
  chat.reasoning_effort = format.effort;
  chat.current_date = format.date;
  const bool in_place = o.image_position == "inline" ||
                        (o.image_position == "auto" && can_inline && format.format == ChatFormat::kHarmony);
  if (in_place) chat.image_token_id = static_cast<std::int32_t>(image_token);
  std::vector<ChatMessage> messages;
  if (!o.system.empty()) messages.push_back({"system", {{ContentPart::Kind::kText, o.system}}});
  ChatMessage user{"user", {}};
  for (std::size_t i = 0; i < o.images.size(); ++i) user.content.push_back({ContentPart::Kind::kImage, ""});
  user.content.push_back({ContentPart::Kind::kText, prompt});
  messages.push_back(std::move(user));
  return render_chat(package.tokenizer, messages, chat);
}

std::vector<std::vector<float>> load_pictures(const std::vector<std::string>& files, const Preprocessor& preprocessor) {
  std::vector<std::vector<float>> pictures;
  for (const std::string& file : files)
    pictures.push_back(pixel_values(load_image(file, preprocessor.decode_options()), preprocessor));
  return pictures;
}

// Runs all requests; shows the progress of long prompts until the first text comes.
std::vector<RequestResult> run_requests(Engine& engine, const Config& config, std::vector<Request> requests,
                                        const CommonOptions& common) {
  std::int64_t rows = 0;
  for (const Request& request : requests) {
    const auto places = std::count(request.prompt.begin(), request.prompt.end(), config.image_token_id);
    rows += static_cast<std::int64_t>(request.prompt.size()) - places;
    rows += static_cast<std::int64_t>(request.images.size()) * config.vision.tokens();
  }
  PromptProgress progress(engine, rows, common);
  std::vector<RequestId> ids;
  for (Request& request : requests) {
    request.on_token = [&progress, show = std::move(request.on_token)](const TokenEvent& event) {
      progress.end();
      if (show) show(event);
    };
    ids.push_back(engine.submit(std::move(request)));
  }
  while (engine.step()) progress.update();
  progress.end();
  std::vector<RequestResult> results;
  for (const RequestId id : ids) results.push_back(engine.take(id));
  return results;
}

void print_stats(const Engine& engine, const std::vector<RequestResult>& results, double load_seconds) {
  const EngineStats& s = engine.stats();
  const auto rate = [](double count, double seconds) { return seconds > 0 ? count / seconds : 0.0; };
  std::int64_t produced = 0;
  for (const RequestResult& result : results) {
    for (const Completion& choice : result.choices) produced += static_cast<std::int64_t>(choice.tokens.size());
  }
  fmt::print(stderr, "gpt-oss-vision: load {:.2f} s; ", load_seconds);
  if (s.images > 0) fmt::print(stderr, "{} pictures in {:.3f} s; ", s.images, s.encode_seconds);
  fmt::print(stderr, "prompt {} tokens, {:.1f} tok/s, first token after {:.3f} s; ", s.prompt_rows,
             rate(static_cast<double>(s.prompt_rows), s.prefill_seconds), results.front().first_token_seconds);
  fmt::print(stderr, "generation {} tokens, {:.1f} tok/s\n", produced,
             rate(static_cast<double>(s.decode_rows), s.decode_seconds));
}

int run_generate(const Program& program, const GenerateOptions& o) {
  const std::vector<std::string> prompts = collect_prompts(o);
  const auto answers = static_cast<std::int64_t>(prompts.size()) * o.n;
  const Timer load_timer;
  Session session = open_session(o.common, program, std::min<std::int64_t>(answers, 64));
  const double load_seconds = load_timer.seconds();
  const ModelPackage& package = *session.package;
  const auto pictures = load_pictures(o.images, package.preprocessor);
  const GenerationOptions generation = generation_options(o, default_sampling(package.folder));
  const PromptFormat format = prompt_format(o.prompt_format, package);
  // Without its markers a harmony answer would run reasoning and reply together.
  const bool show_special = o.show_special || (o.format == "chat" && format.format == ChatFormat::kHarmony);

  AnswerPrinter printer(o, package.tokenizer, prompts.size(), show_special);
  std::vector<Request> requests;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Request request;
    request.prompt = encode_prompt(o, package, format, prompts[i]);
    request.images = pictures;
    request.options = generation;
    request.n = o.n;
    request.on_token = printer.on_token(i);
    request.cancel = program.cancel;
    requests.push_back(std::move(request));
  }
  if (o.common.verbose)
    fmt::print(stderr, "gpt-oss-vision: model {}\n{}", package.folder.string(), session.engine->plan().str());
  const auto results = run_requests(*session.engine, package.model.config, std::move(requests), o.common);
  for (std::size_t i = 0; i < results.size(); ++i) printer.finish(i, results[i], generation.sampling.seed);
  if (o.stats || o.common.verbose) print_stats(*session.engine, results, load_seconds);
  if (program.cancel->load()) fail(ErrorCode::kCancelled, "generation was cut short");
  return 0;
}

}  // namespace

void add_generate(CLI::App& root, Program& program) {
  const auto o = std::make_shared<GenerateOptions>();
  CLI::App& app = *root.add_subcommand("generate", "Answer a prompt, with or without pictures");
  add_model_option(app, o->common);
  add_prompt_options(app, *o);
  add_sampling_options(app, o->sampling);
  add_choices_option(app, *o);
  add_length_options(app, *o);
  add_answer_options(app, *o);
  add_memory_options(app, o->common);
  add_machine_options(app, o->common);
  add_output_options(app, o->common);
  app.footer(kExamples);
  app.callback([&program, o] { program.action = [&program, o] { return run_generate(program, *o); }; });
}

}  // namespace gov::cli
