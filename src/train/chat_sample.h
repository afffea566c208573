#pragma once
// A conversation as a sample: rendered as at inference, with labels where the model itself would have written.

#include <filesystem>
#include <span>

#include "train/chat_record.h"
#include "train/sample_rules.h"

namespace gov::train {

// Labels and weights of a rendered conversation. Trained is what an assistant writes: in the plain form its text and
// the end token, in harmony also the header behind <|start|>assistant and, after analysis, the next <|start|>assistant.
// The end of an answer is labelled with the token that ends generation (<|return|>), whatever stands in the text.
struct ChatLabels {
  std::vector<std::int32_t> labels;
  std::vector<float> weights;
};
// `weights`: of the assistant's messages other than analysis, in order; analysis has that of the message behind it.
// `harmony`: how the ids were rendered, which may be harmony for a plain model where tools are involved.
ChatLabels label_chat(const SampleRules& rules, std::span<const std::int32_t> ids, std::span<const double> weights,
                      bool harmony);

// Errors kInvalidArgument as render_chat and render_harmony; those of read_image_reference.
Sample chat_sample(const SampleRules& rules, const ChatRecord& record, const std::filesystem::path& image_root);
// The same with pictures at hand, one for each image part.
Sample chat_sample(const SampleRules& rules, const ChatRecord& record, std::span<const SharedPixels> images);

}  // namespace gov::train
