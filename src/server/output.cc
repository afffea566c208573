#include "server/output.h"

#include <algorithm>
#include <random>

#include "base/philox.h"

namespace gov::server {
namespace {

using Kind = OutputItem::Kind;

constexpr std::string_view kFunctions = "functions.";

Kind item_kind(const HarmonyMessage& header) {
  if (header.is_call()) return Kind::kToolCall;
  if (header.role != HarmonyRole::kAssistant) return Kind::kReasoning;  // what a model makes others say is no answer
  return header.channel == "analysis" ? Kind::kReasoning : Kind::kMessage;
}

HarmonyMessage plain_message() {
  HarmonyMessage message;
  message.role = HarmonyRole::kAssistant;
  message.channel = "final";
  return message;
}

}  // namespace

std::string new_id(std::string_view prefix) {
  std::random_device device;
  const auto random = [&] { return (std::uint64_t{device()} << 32) | device(); };
  const Philox generate{random()};
  const std::uint64_t number = random();
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  std::string id(prefix);
  for (std::uint64_t block = 0; block < 6; ++block) {
    for (const std::uint32_t word : generate(number, block)) id += kLetters[word % kLetters.size()];
  }
  return id;
}

OutputReader::OutputReader(Options options) : options_(std::move(options)) {
  if (options_.harmony) {
    HarmonyParser::Options parse;
    parse.tools = options_.tools;
    parser_.emplace(*options_.tokenizer, *options_.harmony, std::move(parse));
    return;
  }
  decoder_.emplace(*options_.tokenizer);
}

std::span<const std::int32_t> OutputReader::repairs() const {
  if (!parser_) return {};
  return parser_->repairs();
}

void OutputReader::append(TokenScore token, std::vector<OutputEvent>& events) {
  if (stopped_) return;
  ++tokens_;
  const std::int32_t id = token.token;
  const bool was_open = open_;
  if (!parser_ && !open_) begin(plain_message(), events);
  // The score waits at the end of the text that the token brings; a token that ends a message has none.
  const auto keep_score = [&](std::size_t length) {
    if (options_.scores && items_.back().kind == Kind::kMessage) {
      waiting_.push_back({std::move(token), taken_ + length});
    }
  };
  if (!parser_) {
    const std::string piece = decoder_->append(id);
    keep_score(piece.size());
    text(piece, events);
    return;
  }
  parsed_.clear();
  parser_->append(id, parsed_);
  std::size_t length = 0;
  bool only_text = was_open;
  for (const HarmonyEvent& event : parsed_) {
    only_text = only_text && event.kind == HarmonyEvent::Kind::kDelta;
    length += event.text.size();
  }
  if (only_text) keep_score(length);
  if (was_open && items_.back().kind == Kind::kReasoning) ++reasoning_tokens_;  // with its end token
  read_harmony(events);
}

void OutputReader::read_harmony(std::vector<OutputEvent>& events) {
  for (const HarmonyEvent& event : parsed_) {
    if (stopped_) return;
    switch (event.kind) {
      case HarmonyEvent::Kind::kMessageStart: begin(event.header, events); break;
      case HarmonyEvent::Kind::kDelta: text(event.text, events); break;
      case HarmonyEvent::Kind::kMessageEnd:
        if (!open_) break;
        items_.back().message = event.header;
        end(event.end_token >= 0, events);
        break;
    }
  }
}

void OutputReader::begin(const HarmonyMessage& header, std::vector<OutputEvent>& events) {
  if (open_) end(false, events);
  OutputItem item;
  item.kind = item_kind(header);
  item.preamble = item.kind == Kind::kMessage && header.channel == "commentary";
  item.message = header;
  if (item.kind == Kind::kToolCall) {
    item.id = new_id("call_");
    item.name =
        header.recipient.starts_with(kFunctions) ? header.recipient.substr(kFunctions.size()) : header.recipient;
  }
  items_.push_back(std::move(item));
  open_ = true;
  taken_ = released_ = 0;
  waiting_.clear();
  matcher_.reset();
  if (items_.back().kind == Kind::kMessage && !options_.stop.empty()) matcher_.emplace(options_.stop);
  events.push_back({OutputEvent::Kind::kBegin, items_.size() - 1, "", {}});
}

void OutputReader::text(std::string_view piece, std::vector<OutputEvent>& events) {
  if (!open_) return;
  taken_ += piece.size();
  release(matcher_ ? matcher_->append(piece) : std::string(piece), events);
  if (matcher_ && matcher_->match()) {
    stopped_ = true;
    stop_match_ = *matcher_->match();
    waiting_.clear();
    matcher_.reset();
    items_.back().message.content = {{ContentPart::Kind::kText, items_.back().text}};
    end(true, events);
  }
}

void OutputReader::release(std::string piece, std::vector<OutputEvent>& events) {
  released_ += piece.size();
  OutputEvent event{OutputEvent::Kind::kText, items_.size() - 1, std::move(piece), {}};
  while (!waiting_.empty() && waiting_.front().end <= released_) {
    event.scores.push_back(std::move(waiting_.front().score));
    waiting_.pop_front();
  }
  if (event.text.empty() && event.scores.empty()) return;
  OutputItem& item = items_.back();
  item.text += event.text;
  item.scores.insert(item.scores.end(), event.scores.begin(), event.scores.end());
  events.push_back(std::move(event));
}

void OutputReader::end(bool complete, std::vector<OutputEvent>& events) {
  if (matcher_) release(matcher_->flush(), events);
  matcher_.reset();
  OutputItem& item = items_.back();
  item.complete = complete;
  if (!parser_) item.message.content = {{ContentPart::Kind::kText, item.text}};
  open_ = false;
  events.push_back({OutputEvent::Kind::kEnd, items_.size() - 1, "", {}});
}

void OutputReader::finish(std::int32_t end_token, std::vector<OutputEvent>& events) {
  if (stopped_) return;
  if (!parser_) {
    if (!open_) return;
    text(decoder_->flush(), events);
    if (open_) end(end_token >= 0, events);
    return;
  }
  if (end_token >= 0) {
    parsed_.clear();
    parser_->append(end_token, parsed_);
    read_harmony(events);
  }
  if (stopped_) return;
  parsed_.clear();
  parser_->finish(parsed_);
  read_harmony(events);
  if (open_) end(false, events);
}

}  // namespace gov::server
