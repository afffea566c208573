#include "engine/prompt_rows.h"

#include <algorithm>
#include <cmath>

namespace gov {
namespace {

// Rows `begin` .. `end` of the prompt, whose hidden states are `x`.
struct Piece {
  RequestState& request;
  std::int64_t begin, end;
  Tensor x;

  std::int64_t rows() const { return end - begin; }
  void fail_at(std::int64_t row, const char* what) const {
    request.error = std::make_exception_ptr(Error(
        ErrorCode::kDevice, fmt::format("numerical error: non-finite {} at position {} of the prompt", what, row)));
  }
};

void score(Context& ctx, const Model& model, Activations& acts, const Piece& piece) {
  RequestState& r = piece.request;
  const std::int64_t count = piece.rows();
  const Tensor normed = acts.last_normed.slice(0, count), logits = acts.logits.slice(0, count);
  ops::rms_norm(ctx, piece.x, model.weights.norm, model.config.rms_norm_eps, normed);
  ops::linear(ctx, normed, model.weights.lm_head, {}, logits);
  ops::SampleRow row;
  row.params.temperature = 0;
  row.top_logprobs = r.request.options.prompt_logprobs;
  std::vector<ops::SampleRow> rows(static_cast<std::size_t>(count), row);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t next = piece.begin + i + 1;  // the token that this row's logits are about
    if (next < r.prompt.rows() && r.prompt.image_row(next) < 0)
      rows[static_cast<std::size_t>(i)].given = r.prompt.tokens[static_cast<std::size_t>(next)];
  }
  std::vector<ops::SampleResult> results(rows.size());
  ops::sample(ctx, logits, rows, results);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto position = piece.begin + static_cast<std::int64_t>(i);
    if (results[i].token < 0) return piece.fail_at(position, "logits");
    if (rows[i].given < 0) continue;
    const auto at = static_cast<std::size_t>(position + 1);
    r.prompt_logprobs[at] = results[i].logprob;
    for (int k = 0; k < results[i].top_count; ++k)
      r.prompt_top_logprobs[at].push_back({results[i].top_tokens[k], results[i].top_logprobs[k]});
  }
}

void add_hidden(Context& ctx, const Model& model, Activations& acts, const Piece& piece) {
  const Tensor normed = acts.last.slice(0, piece.rows());
  ops::rms_norm(ctx, piece.x, model.weights.norm, model.config.rms_norm_eps, normed);
  std::vector<float> host(static_cast<std::size_t>(normed.elements()));
  copy_bytes(host.data(), DeviceKind::kCpu, normed.data, normed.device, normed.bytes(), ctx.stream);
  if (ctx.on_cuda()) synchronize(ctx.stream);
  const auto width = static_cast<std::size_t>(normed.shape[1]);
  piece.request.hidden_sum.resize(width);
  for (std::size_t i = 0; i < host.size(); ++i) {
    if (!std::isfinite(host[i]))
      return piece.fail_at(piece.begin + static_cast<std::int64_t>(i / width), "hidden state");
    piece.request.hidden_sum[i % width] += static_cast<double>(host[i]);
  }
}

}  // namespace

void read_prompt_rows(Context& ctx, const Model& model, Activations& acts, const ScheduledRows& rows,
                      std::int64_t first) {
  RequestState& request = *rows.sequence->request;
  if (rows.sequence->completion.choice > 0) return;  // its prompt is the first choice's
  std::int64_t begin = std::max(rows.begin, request.read_rows);
  // The last row's logits are about the first token after the prompt.
  const std::int64_t end = std::min(rows.end, request.prompt.rows() - (request.request.embed ? 0 : 1));
  while (begin < end && !request.ended()) {
    const std::int64_t count = std::min(end - begin, acts.max_logits_rows);
    const Piece piece{request, begin, begin + count, acts.x.slice(first + begin - rows.begin, count)};
    if (request.request.options.prompt_logprobs >= 0) score(ctx, model, acts, piece);
    if (request.request.embed) add_hidden(ctx, model, acts, piece);
    request.read_rows = begin += count;
  }
}

}  // namespace gov
