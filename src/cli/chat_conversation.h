#pragma once
// A conversation: what was said, as a prompt, and in a file.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/prompt_format.h"
#include "engine/model_package.h"
#include "text/harmony.h"

namespace gov::cli {

struct ChatPicture {
  std::string name;           // of its file, without folder
  std::string bytes;          // the file, for saving
  std::vector<float> pixels;  // as the model takes them
  std::string description;    // "PNG, 72 x 72"
};
using ChatPictures = std::vector<std::shared_ptr<const ChatPicture>>;

// Error of a file that cannot be read or is no picture.
std::shared_ptr<const ChatPicture> load_chat_picture(const std::filesystem::path& file,
                                                     const Preprocessor& preprocessor);

// Decodes `bytes` and fills in the rest but the name.
void fill_picture(ChatPicture& picture, const Preprocessor& preprocessor);

struct ChatTurn {
  std::string question;
  ChatPictures pictures;
  std::vector<HarmonyMessage> answer;  // what the model wrote, by message; models without channels: one, "final"

  std::string text() const;       // of the answer: what is meant for the user
  std::string reasoning() const;  // its analysis
};

struct Conversation {
  std::string system;
  std::vector<ChatTurn> turns;
};

struct ChatPrompt {
  std::vector<std::int32_t> ids;
  std::vector<std::vector<float>> images;
  std::int64_t rows = 0;  // tokens with the pictures' rows
};

// The prompt for an answer to the last turn, whose own answer is left out. Turns before `first` are left out.
ChatPrompt chat_prompt(const ModelPackage& package, const Conversation& conversation, const PromptFormat& format,
                       std::size_t first = 0);

// The file's form is named by its extension: .json (all of it; its member "messages" is what OpenAI's chat completions
// take), .md or .markdown (to read). Error kInvalidArgument for another.
void save_chat(const std::filesystem::path& file, const Conversation& conversation, const std::string& model);
// Reads the JSON form, also a file with nothing but {"messages": [...]}. Error kCorrupt or kInvalidArgument in one
// line.
Conversation load_chat(const std::filesystem::path& file, const Preprocessor& preprocessor);

}  // namespace gov::cli
