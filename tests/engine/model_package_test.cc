#include "engine/model_package.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "engine/engine.h"

namespace gov {
namespace {

namespace fs = std::filesystem;

const fs::path kNano = fs::path(GOV_SOURCE_DIR) / "models" / "nano";

class PackageFolder : public testing::Test {
 protected:
  PackageFolder() : folder(fs::temp_directory_path() / fmt::format("gov_package_{}_{}", getpid(), next++)) {
    fs::create_directories(folder);
  }
  ~PackageFolder() override { fs::remove_all(folder); }

  void write(const std::string& name, const std::string& text) { std::ofstream(folder / name) << text; }
  void copy_nano() {
    for (const fs::directory_entry& file : fs::directory_iterator(kNano)) {
      if (file.is_regular_file()) fs::copy_file(file.path(), folder / file.path().filename());
    }
  }
  void replace(const std::string& name, const std::string& text) {
    fs::remove(folder / name);
    write(name, text);
  }
  ErrorCode sampling_error() {
    try {
      default_sampling(folder);
    } catch (const Error& error) {
      message = error.what();
      return error.code();
    }
    ADD_FAILURE() << "accepted";
    return ErrorCode::kIo;
  }

  static inline int next = 0;
  fs::path folder;
  std::string message;
};

TEST_F(PackageFolder, SamplingDefaults) {
  EXPECT_EQ(default_sampling(folder).temperature, 0.f);  // no file
  write("generation_config.json", R"({"do_sample": false, "temperature": 0.7, "top_p": 0.9})");
  EXPECT_EQ(default_sampling(folder).temperature, 0.f);
  write("generation_config.json", R"({"temperature": 0.7})");
  EXPECT_EQ(default_sampling(folder).temperature, 0.f);
  write("generation_config.json", R"({"do_sample": true})");
  EXPECT_EQ(default_sampling(folder).temperature, 1.f);
  EXPECT_EQ(default_sampling(folder).top_k, 0);
  write("generation_config.json",
        R"({"do_sample": true, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.8,
            "repetition_penalty": 1.1, "eos_token_id": 3, "unknown": [1]})");
  const ops::SamplingParams p = default_sampling(folder);
  EXPECT_EQ(p.temperature, 0.7f);
  EXPECT_EQ(p.top_k, 40);
  EXPECT_EQ(p.top_p, 0.9f);
  EXPECT_EQ(p.min_p, 0.05f);
  EXPECT_EQ(p.typical_p, 0.8f);
  EXPECT_EQ(p.repetition_penalty, 1.1f);
  write("generation_config.json", R"({"do_sample": true, "top_k": null, "temperature": null})");
  EXPECT_EQ(default_sampling(folder).temperature, 1.f);
}

TEST_F(PackageFolder, BadSamplingDefaultsNameTheFileAndTheKey) {
  for (const std::string key : {"temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty"}) {
    for (const std::string value : {"-1", "\"0.5\"", "1e9", "[1]"}) {
      write("generation_config.json", "{\"" + key + "\": " + value + "}");
      EXPECT_EQ(sampling_error(), ErrorCode::kCorrupt) << key << " " << value;
      EXPECT_NE(message.find("generation_config.json: " + key), std::string::npos) << message;
    }
  }
  for (const std::string text : {"", "{", "[]", "{\"do_sample\": 1}", "\xFF"}) {
    write("generation_config.json", text);
    EXPECT_EQ(sampling_error(), ErrorCode::kCorrupt) << text;
  }
}

TEST_F(PackageFolder, NanoIsWhole) {
  ThreadPool pool(2);
  const ModelPackage package = load_package(kNano, pool);
  EXPECT_EQ(package.stop_ids, (std::vector<std::int32_t>{4088, 4094, 4087}));
  EXPECT_EQ(package.chat_format, ChatFormat::kPlain);
  ASSERT_TRUE(package.chat_template.has_value());
  EXPECT_NE(package.chat_template->find("<|message|>"), std::string::npos);
  EXPECT_EQ(package.preprocessor.out_height(), 224);
  EXPECT_EQ(default_sampling(kNano).temperature, 0.f);

  EngineOptions options;
  options.context = 2048;
  options.check_blocks = true;
  Engine engine(package.model, &package.tokenizer, package.stop_ids, options, pool);
  Request request;
  const ChatMessage question{"user", {{ContentPart::Kind::kText, "What is a dog?"}}};
  ChatOptions chat;
  chat.format = package.chat_format;
  request.prompt = render_chat(package.tokenizer, {&question, 1}, chat);
  request.options.sampling = default_sampling(kNano);
  request.options.max_new_tokens = 60;
  const Completion answer = generate(engine, std::vector<Request>(1, request))[0].choices[0];
  EXPECT_EQ(answer.finish_reason, FinishReason::kStop);
  EXPECT_NE(answer.stop_token, -1);
  EXPECT_GT(answer.text.size(), 3u);
}

TEST_F(PackageFolder, StopIdsOfBothFilesOnceAndInRange) {
  ThreadPool pool(2);
  copy_nano();
  replace("generation_config.json", R"({"eos_token_id": [7, 4088, 5000, -1, 7]})");
  EXPECT_EQ(load_package(folder, pool).stop_ids, (std::vector<std::int32_t>{4088, 4094, 4087, 7}));
  replace("generation_config.json", R"({"eos_token_id": 9})");
  EXPECT_EQ(load_package(folder, pool).stop_ids, (std::vector<std::int32_t>{4088, 4094, 4087, 9}));
  fs::remove(folder / "generation_config.json");
  EXPECT_EQ(load_package(folder, pool).stop_ids, (std::vector<std::int32_t>{4088, 4094, 4087}));
  for (const std::string wrong :
       {R"({"eos_token_id": "x"})", R"({"eos_token_id": [1.5]})", R"({"eos_token_id": {}})"}) {
    replace("generation_config.json", wrong);
    EXPECT_THROW(load_package(folder, pool), Error) << wrong;
  }
}

TEST_F(PackageFolder, TheOtherFilesMayBeMissingButNotWrong) {
  ThreadPool pool(2);
  copy_nano();
  fs::remove(folder / "preprocessor_config.json");
  fs::remove(folder / "chat_template.jinja");
  replace("tokenizer_config.json", R"({"chat_template": "{{ inside }}"})");
  const ModelPackage package = load_package(folder, pool);
  EXPECT_EQ(package.preprocessor.out_width(), 224);
  EXPECT_EQ(package.chat_template.value_or(""), "{{ inside }}");
  replace("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "x"}]})");
  EXPECT_FALSE(load_package(folder, pool).chat_template.has_value());

  const auto refused_with = [&](const std::string& words) {
    try {
      load_package(folder, pool);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  write("preprocessor_config.json", R"({"size": {"height": 336, "width": 336}})");
  refused_with("336 x 336");
  write("preprocessor_config.json", R"({"size": "large"})");
  refused_with("preprocessor_config.json");
  fs::remove(folder / "preprocessor_config.json");
  fs::remove(folder / "tokenizer.json");
  refused_with("tokenizer");
}

}  // namespace
}  // namespace gov
