// The parameters of all routes. Bounds that the engine has too (check_request.h) are the same here, so that a client is
// told the name that it used.

#include "engine/check_request.h"
#include "server/params.h"

namespace gov::server {
namespace {

using Params = std::vector<Param>;

constexpr double kMostTokens = 1 << 30;

Param honoured(std::string_view name, unsigned kinds, std::string_view what, std::string_view fallback = "",
               double min = kNone, double max = kNone, std::string_view choices = "") {
  return {name, kinds, min, max, fallback, choices, Use::kHonoured, false, what};
}
Param required(std::string_view name, unsigned kinds, std::string_view what, double min = kNone, double max = kNone) {
  return {name, kinds, min, max, "", "", Use::kHonoured, true, what};
}
Param noted(std::string_view name, unsigned kinds, std::string_view what) {
  return {name, kinds, kNone, kNone, "", "", Use::kNoted, false, what};
}
Param refused(std::string_view name, std::string_view what, std::string_view let_through = "") {
  return {
      name, kBool | kInt | kNumber | kString | kArray | kObject, kNone, kNone, let_through, "", Use::kRefused, false,
      what};
}

void append(Params& to, const Params& more) { to.insert(to.end(), more.begin(), more.end()); }

Params sampling() {
  return {
      honoured("temperature", kNumber, "0 is greedy: always the likeliest token", "", 0, 2),
      honoured("top_p", kNumber, "the smallest set of tokens whose probability reaches this; 1 is off", "", 0, 1),
      honoured("top_k", kInt, "only this many of the likeliest tokens; 0 is off, as is -1", "", -1, kMostTokens),
      honoured("min_p", kNumber, "only tokens of at least this share of the likeliest one's probability", "", 0, 1),
      honoured("typical_p", kNumber, "locally typical sampling; 1 is off", "", 0, 1),
      honoured("repetition_penalty", kNumber, "divides the logits of tokens seen before; 1 is off", "", 0.01, 100),
      honoured("presence_penalty", kNumber, "subtracted once for tokens in the answer", "0", -2, 2),
      honoured("frequency_penalty", kNumber, "subtracted for each occurrence in the answer", "0", -2, 2),
      honoured("logit_bias", kObject, "token id to a number of -100 to 100, added to its logit", "", 0,
               static_cast<double>(kMostLogitBias)),
      honoured("seed", kInt, "the same seed gives the same tokens on the same build and device"),
      honoured("stop", kString | kArray, "up to 16 texts of 1 to 256 bytes; the answer ends before the first of them"),
      honoured("stop_token_ids", kArray, "token ids that end the output wherever they come", "", 0,
               static_cast<double>(kMostStopTokens)),
      honoured("min_tokens", kInt, "no end before this many tokens", "0", 0, kMostTokens),
      honoured("ignore_eos", kBool, "does not end at the model's end tokens", "false"),
  };
}

Params common() {
  return {
      honoured("model", kString, "the model's name as /v1/models has it, or any", "", 0, 512),
      honoured("stream", kBool, "the answer comes as server-sent events", "false"),
      honoured("n", kInt, "independent answers", "1", 1, kMostChoices),
      honoured("cache_salt", kString, "prompts are shared in the prefix cache only with requests of the same salt", "",
               0, 256),
      honoured("priority", kInt, "below 0: waits behind others", "0", -100, 0),
      noted("user", kString, "who the client's user is"),
  };
}

Param service_tier() {
  return honoured("service_tier", kString, "flex waits behind others, all else is the default", "", kNone, kNone,
                  "auto|default|flex|scale|priority|fast");
}

Params account() {
  return {
      service_tier(),
      noted("metadata", kObject, "labels of the client's own"),
      noted("safety_identifier", kString, "who the client's user is"),
      noted("prompt_cache_key", kString, "prefixes are found without it; cache_salt keeps them apart"),
      noted("prompt_cache_retention", kString, "prefixes are kept while there is room"),
      noted("prompt_cache_options", kObject, "prefixes are kept while there is room"),
      refused("moderation", "no moderation model"),
  };
}

Params reasoning() {
  return {
      honoured("max_reasoning_tokens", kInt, "reasoning is closed by force after this many tokens", "", 0, kMostTokens),
      honoured("preserve_thinking", kBool, "keeps the reasoning of past turns in the prompt", "false"),
  };
}

ParamTable chat() {
  ParamTable table{"chat", "POST", "/v1/chat/completions", "Answers a conversation.", {}};
  table.params = {
      required("messages", kArray, "the conversation: system, developer, user, assistant and tool messages", 1),
      honoured("max_completion_tokens", kInt, "most tokens of the output, reasoning included", "", 1, kMostTokens),
      honoured("max_tokens", kInt, "older name of max_completion_tokens", "", 1, kMostTokens),
      honoured("reasoning_effort", kString, "minimal is low; none closes the reasoning at once", "", kNone, kNone,
               "none|minimal|low|medium|high"),
      honoured("reasoning", kObject, "{effort, max_tokens, exclude}: the same in one object"),
      honoured("include_reasoning", kBool, "false leaves reasoning and reasoning_content out of the answer", "true"),
      honoured("tools", kArray, "functions that the model may call", "", 0, 128),
      honoured("tool_choice", kString | kObject,
               "none, auto, required, {type: function, function: {name}} or allowed_tools"),
      honoured("parallel_tool_calls", kBool, "false: at most one call in an answer", "true"),
      honoured("response_format", kObject, "{type: text, json_object or json_schema}; holds for the final answer"),
      honoured("logprobs", kBool, "log-probabilities of the answer's tokens", "false"),
      honoured("top_logprobs", kInt, "and of this many of the likeliest tokens", "0", 0, kMostLogprobs),
      honoured("stream_options", kObject, "{include_usage}: a last chunk with the usage"),
  };
  append(table.params, reasoning());
  append(table.params, common());
  append(table.params, sampling());
  append(table.params, account());
  append(table.params, {refused("audio", "text only"), refused("modalities", "text only", R"(["text"])"),
                        refused("prediction", "drafts come from the prompt"),
                        refused("store", "chat answers are not stored; /v1/responses does"),
                        refused("functions", "use tools"), refused("function_call", "use tool_choice"),
                        refused("verbosity", "harmony has no such setting", R"("medium")"),
                        refused("web_search_options", "the server does not search the web")});
  return table;
}

ParamTable completions() {
  ParamTable table{"completions", "POST", "/v1/completions", "Continues a text or token ids as they are.", {}};
  table.params = {
      required("prompt", kString | kArray,
               "a text, token ids, or an array of either; a text's special tokens are parsed"),
      honoured("max_tokens", kInt, "most tokens of the output; 0 with echo only scores the prompt", "16", 0,
               kMostTokens),
      honoured("echo", kBool, "the prompt comes before the completion", "false"),
      honoured("logprobs", kInt, "log-probabilities of the tokens and of this many of the likeliest", "", 0,
               kMostLogprobs),
      honoured("parse_special", kBool, "the text of a special token becomes its id", "true"),
      honoured("stream_options", kObject, "{include_usage}: a last chunk with the usage"),
      refused("best_of", "use n", "1"),
      refused("suffix", "the model does not fill in", R"("")"),
      service_tier(),
  };
  append(table.params, common());
  append(table.params, sampling());
  return table;
}

Params responses_input() {
  return {
      honoured("model", kString, "the model's name as /v1/models has it, or any", "", 0, 512),
      required("input", kString | kArray, "a text, or items: messages, reasoning, function_call, function_call_output"),
      honoured("instructions", kString, "a developer message before the input"),
      honoured("previous_response_id", kString, "continues a stored response", "", 1, 128),
      honoured("reasoning", kObject, "{effort}"),
      honoured("text", kObject, "{format}: text, json_object or json_schema"),
      honoured("tools", kArray, "functions that the model may call", "", 0, 128),
      honoured("tool_choice", kString | kObject, "none, auto, required, {type: function, name} or allowed_tools"),
      honoured("parallel_tool_calls", kBool, "false: at most one call in an answer", "true"),
      honoured("ignore_unknown_tools", kBool, "tools of other types are left out instead of refused", "false"),
      refused("conversation", "use previous_response_id"),
      refused("truncation", "a prompt that is too long is refused", R"("disabled")"),
  };
}

ParamTable responses() {
  ParamTable table{
      "responses", "POST", "/v1/responses", "Answers a list of items; can be stored and run in the background.", {}};
  table.params = responses_input();
  append(table.params,
         {
             honoured("max_output_tokens", kInt, "most tokens of the output, reasoning included", "", 1, kMostTokens),
             honoured("store", kBool, "keeps the response for GET and previous_response_id for a while", "false"),
             honoured("background", kBool, "answers at once and goes on working; needs store", "false"),
             honoured("stream", kBool, "the answer comes as server-sent events", "false"),
             honoured("stream_options", kObject, "{include_obfuscation}: nothing is ever padded"),
             honoured("include", kArray,
                      "message.output_text.logprobs; reasoning.encrypted_content is taken, reasoning comes as text", "",
                      0, 16),
             honoured("top_logprobs", kInt, "log-probabilities of this many of the likeliest tokens", "0", 0,
                      kMostLogprobs),
             honoured("metadata", kObject, "up to 16 texts that come back with the response", "", 0, 16),
             honoured("cache_salt", kString,
                      "prompts are shared in the prefix cache only with requests of the same salt", "", 0, 256),
             honoured("priority", kInt, "below 0: waits behind others", "0", -100, 0),
             noted("user", kString, "who the client's user is"),
         });
  append(table.params, reasoning());
  append(table.params, sampling());
  for (const Param& param : account()) {
    if (param.name != "metadata") table.params.push_back(param);
  }
  append(table.params,
         {refused("access_programs", "one access for all"), refused("background_options", "background has no options"),
          refused("context_management", "nothing is compacted"), refused("image", "pictures are taken as they are"),
          refused("max_tool_calls", "the server calls no tools itself"), refused("prompt", "no stored prompts")});
  return table;
}

ParamTable input_tokens() {
  ParamTable table{"input_tokens", "POST", "/v1/responses/input_tokens", "How many tokens an input takes.",
                   responses_input()};
  append(table.params, {refused("personality", "the model has one")});
  return table;
}

ParamTable embeddings() {
  return {"embeddings",
          "POST",
          "/v1/embeddings",
          "The mean of the final hidden states over a text's tokens, of length 1. The model was not trained for it.",
          {required("input", kString | kArray, "a text, token ids, or an array of up to 2048 of either"),
           honoured("model", kString, "the model's name as /v1/models has it, or any", "", 0, 512),
           honoured("encoding_format", kString, "numbers, or little-endian 32-bit floats in base64", R"("float")",
                    kNone, kNone, "float|base64"),
           honoured("dimensions", kInt, "only the first of them, again of length 1", "", 1, kMostTokens),
           noted("user", kString, "who the client's user is")}};
}

Params messages_input() {
  return {
      honoured("model", kString, "the model's name as /v1/models has it, or any", "", 0, 512),
      required("messages", kArray, "the conversation: user and assistant messages", 1),
      honoured("system", kString | kArray, "instructions: a text, or text blocks"),
      honoured("tools", kArray, "functions that the model may call", "", 0, 128),
      honoured("tool_choice", kObject, "{type: auto, any, tool or none; name, disable_parallel_tool_use}"),
      honoured("thinking", kObject, "{type: enabled, adaptive or disabled; budget_tokens}"),
      honoured("output_config", kObject, "{effort, format}"),
      noted("cache_control", kObject, "prefixes are kept while there is room"),
  };
}

ParamTable messages() {
  ParamTable table{"messages", "POST", "/v1/messages", "Anthropic's form of a conversation.", messages_input()};
  append(table.params,
         {
             required("max_tokens", kInt, "most tokens of the output, reasoning included", 1, kMostTokens),
             honoured("stop_sequences", kArray,
                      "up to 16 texts of 1 to 256 bytes; the answer ends before the first of them", "", 0,
                      static_cast<double>(kMostStops)),
             honoured("stream", kBool, "the answer comes as server-sent events", "false"),
             honoured("temperature", kNumber, "0 is greedy: always the likeliest token", "", 0, 2),
             honoured("top_p", kNumber, "the smallest set of tokens whose probability reaches this", "", 0, 1),
             honoured("top_k", kInt, "only this many of the likeliest tokens; 0 is off", "", 0, kMostTokens),
             noted("metadata", kObject, "who the client's user is"),
             noted("service_tier", kString, "one for all"),
             noted("inference_geo", kString, "here"),
             refused("container", "no containers"),
             refused("mcp_servers", "the server calls no tools itself"),
             refused("context_management", "nothing is compacted"),
         });
  return table;
}

ParamTable count_tokens() {
  return {"count_tokens", "POST", "/v1/messages/count_tokens", "How many tokens a conversation takes.",
          messages_input()};
}

ParamTable tokenize() {
  return {"tokenize",
          "POST",
          "/tokenize",
          "A text's token ids.",
          {honoured("prompt", kString, "the text"), honoured("content", kString, "another name of prompt"),
           honoured("add_special_tokens", kBool, "the model's tokenizer adds none either way", "true"),
           honoured("parse_special", kBool, "the text of a special token becomes its id", "true"),
           honoured("return_token_strs", kBool, "also the tokens' texts", "false")}};
}

ParamTable detokenize() {
  return {"detokenize",
          "POST",
          "/detokenize",
          "The text of token ids.",
          {required("tokens", kArray, "token ids"),
           honoured("skip_special_tokens", kBool, "leaves the text of special tokens out", "false")}};
}

ParamTable apply_template() {
  ParamTable table = chat();
  table.id = "apply_template";
  table.path = "/apply-template";
  table.what = "The prompt that a chat request makes, as text and as token ids.";
  return table;
}

}  // namespace

const std::vector<ParamTable>& param_tables() {
  static const std::vector<ParamTable> tables = {chat(),       responses(),     input_tokens(), completions(),
                                                 embeddings(), messages(),      count_tokens(), tokenize(),
                                                 detokenize(), apply_template()};
  return tables;
}

}  // namespace gov::server
