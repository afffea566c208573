#pragma once
// Nano's training tasks as a source: picture `index` of a set, asked about in a way that depends on the seed and the
// number of the draw only.

#include <memory>

#include "train/chat_record.h"
#include "train/nano_questions.h"
#include "train/source.h"

namespace gov::train {

// config.path is the folder with images.bin and index.json.gz. Sets that are held out are drawn plain, without
// compositions, chats and words.
Source nano_source(const SourceConfig& config, std::shared_ptr<const SampleRules> rules, std::uint64_t seed);

// The samples of draw `number` about `picture`; scenes of several pictures take the others from `set`.
std::vector<Sample> nano_samples(const NanoData& data, const std::vector<std::size_t>& set, std::size_t picture,
                                 const NanoConfig& config, const SampleRules& rules, std::uint64_t seed,
                                 std::uint64_t number);

// The conversation with a picture (or none) in its first question, as a record for chat_sample.
ChatRecord nano_record(const std::string& system, std::span<const QuestionAnswer> turns, bool with_picture);

}  // namespace gov::train
