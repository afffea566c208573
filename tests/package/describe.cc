// describe MODEL_FOLDER PICTURE: says what the picture shows.
#include <gpt_oss_vision/gpt_oss_vision.h>
#include <cstdio>

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  gov::ThreadPool pool;
  const gov::ModelPackage package = gov::load_package(argv[1], pool);
  gov::Engine engine(package.model, &package.tokenizer, package.stop_ids, {}, pool);

  gov::Request request;
  const gov::Preprocessor& pre = package.preprocessor;
  request.images.resize(1, std::vector<float>(std::size_t{3} * pre.out_height() * pre.out_width()));
  pre.apply(gov::load_image(argv[2], pre.decode_options()), request.images[0].data());
  const gov::ChatMessage question{"user", {{gov::ContentPart::Kind::kText, "What is this?"}}};
  request.prompt = gov::render_chat(package.tokenizer, {&question, 1}, {.format = package.chat_format});
  request.options.sampling = gov::default_sampling(package.folder);

  std::printf("%s\n", gov::generate(engine, {request}).at(0).choices.at(0).text.c_str());
} catch (const gov::Error& error) {
  std::fprintf(stderr, "describe: %s\n", error.what());
  return 1;
}
