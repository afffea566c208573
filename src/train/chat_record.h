#pragma once
// One conversation of a data file, as its JSON says it, in OpenAI's or LLaVA's form.

#include <string>
#include <vector>

#include "base/json.h"
#include "text/harmony.h"

namespace gov::train {

struct ChatRecord {
  // System and developer texts are kSystem and kDeveloper messages; an assistant's reasoning, its text beside calls and
  // each call are messages of their own, in this order.
  std::vector<HarmonyMessage> messages;
  std::vector<double> weights;      // [messages], of an assistant's text in the loss
  std::vector<std::string> images;  // of the image parts, in order: a data: address or a path
  std::vector<ToolFunction> tools;
};

// {"messages": [{"role", "content", ...}], "tools": [...], "images": [...]}: OpenAI's chat completions. Content is a
// text or parts of text, image_url, or image (the next of "images", or with an "image", "path" or "url" of its own).
// Messages may have reasoning_content (or reasoning, thinking), tool_calls, tool_call_id, weight. Other members are
// ignored. Error kInvalidArgument naming the member, e.g. "messages[2].content[0].type: ...".
ChatRecord parse_openai_record(const Json& record);

// {"image": path or list of paths, "conversations": [{"from": "human" | "gpt" | "system", "value": text}]}; "<image>"
// in a human's text, with the line break beside it, is the next image. Images that no text has a place for come first
// in the first human text. Errors as above.
ChatRecord parse_llava_record(const Json& record);

}  // namespace gov::train
