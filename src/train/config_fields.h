#pragma once
// Every key of a training file: name, place, range, meaning. Inside src/train only. The visitor has
//   text(key, value, help), texts(key, list, help), flag(key, value, help), path(key, value, help),
//   integer(key, value, low, high, help), number(key, value, low, high, help), choice(key, value, names, help),
//   section(key, struct), list(key, vector of structs).

#include <initializer_list>

#include "train/config.h"

namespace gov::train {

inline constexpr std::int64_t kMostSteps = std::int64_t{1} << 40;
inline constexpr std::int64_t kMostRows = std::int64_t{1} << 30;

template <class V>
void visit(V& v, ModelConfig& c) {
  v.path("base", c.base, "checkpoint folder to start from");
  v.path("config", c.config, "config.json of a model that starts from random weights");
  v.path("tokenizer", c.tokenizer, "file or folder; empty: beside the base or the config");
}

template <class V>
void visit(V& v, NanoConfig& c) {
  v.text("split", c.split, "train, or a set that is held out (only in eval.source)");
  v.integer("questions", c.questions, 1, 16, "questions about each picture");
  v.choice("layout", c.layout, {"separate", "turns"}, "a document for each question, or one with all as turns");
  v.number("compositions", c.compositions, 0, 1, "share of pictures put together of several");
  v.number("chats", c.chats, 0, 1, "share of short chats with a system message");
  v.number("glosses", c.glosses, 0, 1, "share of explanations of words, without a picture");
  v.number("languages", c.languages, 0, 1, "share of questions for the label in another language");
  v.flag("augment", c.augment, "vary size, place, colours and background");
}

template <class V>
void visit(V& v, SourceConfig& c) {
  v.choice("kind", c.kind, {"chat", "llava", "text", "shard", "nano"},
           "JSON lines of OpenAI messages or of LLaVA conversations, plain text, token shards, nano's pictures");
  v.path("path", c.path, "the file; nano: the folder with images.bin and index.json.gz");
  v.number("weight", c.weight, 0, 1e12, "share of the samples drawn; 0: the number of its samples");
  v.path("image_root", c.image_root, "folder that images' paths start from; empty: the file's own");
  v.integer("limit", c.limit, 0, kMostSteps, "use the first samples only; 0: all");
  v.section("nano", c.nano);
}

template <class V>
void visit(V& v, DataConfig& c) {
  v.integer("tokens_per_batch", c.tokens_per_batch, 2, kMostRows, "rows of one micro-batch of one rank");
  v.integer("max_length", c.max_length, 2, kMostRows, "rows of one document, image rows included");
  v.choice("on_long", c.on_long, {"truncate", "skip"}, "what to do with longer ones");
  v.choice("on_bad", c.on_bad, {"skip", "fail"}, "what to do with samples that cannot be read");
  v.choice("train_on", c.train_on, {"assistant", "all"}, "text that counts in the loss of chats");
  v.choice("chat_format", c.chat_format, {"auto", "plain", "harmony"}, "auto: by the vocabulary");
  v.choice("image_position", c.image_position, {"auto", "prefix", "inline"},
           "before all text, or at the image token; auto: inline for harmony models that have the token");
  v.text("reasoning", c.reasoning, "reasoning effort in harmony's system message: low, medium, high");
  v.text("date", c.date, "current date in harmony's system message, YYYY-MM-DD; empty: none");
  v.integer("workers", c.workers, 0, 1024, "threads that read and decode ahead; 0: one a core");
  v.integer("prefetch", c.prefetch, 0, 1 << 20, "samples decoded ahead; 0: eight a worker");
  v.list("source", c.sources);
}

template <class V>
void visit(V& v, RunConfig& c) {
  v.integer("steps", c.steps, 0, kMostSteps, "optimizer steps; 0: from epochs");
  v.number("epochs", c.epochs, 0, 1e6, "passes over the data; 0: from steps");
  v.integer("accumulation", c.accumulation, 1, 1 << 20, "micro-batches a step");
  v.integer("seed", c.seed, 0, INT64_MAX, "of the data's order and of fresh weights");
  v.choice("precision", c.precision, {"f32", "bf16"}, "of activations; masters and sums are f32");
  v.choice("recompute", c.recompute, {"none", "moe", "block"},
           "activations that are computed again in the backward pass");
  v.flag("nan_guard", c.nan_guard, "take no step when the loss or the gradient is not finite");
}

template <class V>
void visit(V& v, OptimizerConfig& c) {
  v.choice("kind", c.kind, {"adamw", "adamw8bit"}, "8 bit: moments in blocks of 8-bit numbers");
  v.number("lr", c.lr, 0, 100, "peak learning rate");
  v.number("beta1", c.beta1, 0, 0.999999, "decay of the first moment");
  v.number("beta2", c.beta2, 0, 0.99999999, "decay of the second moment");
  v.number("eps", c.eps, 1e-20, 1, "added to the root of the second moment");
  v.number("decay", c.decay, 0, 100, "decoupled weight decay of matrices");
  v.number("clip", c.clip, 0, 1e12, "largest norm of the whole gradient; 0: no limit");
}

template <class V>
void visit(V& v, ScheduleConfig& c) {
  v.choice("kind", c.kind, {"constant", "linear", "cosine", "wsd"}, "after the warm-up");
  v.integer("warmup", c.warmup, 0, kMostSteps, "steps of linear warm-up; 0: from warmup_share");
  v.number("warmup_share", c.warmup_share, 0, 1, "of all steps");
  v.number("minimum", c.minimum, 0, 1, "last learning rate, as a share of the peak");
  v.number("decay_share", c.decay_share, 0, 1, "wsd: share of all steps in which it falls");
}

template <class V>
void visit(V& v, LossConfig& c) {
  v.choice("aux", c.aux, {"none", "hf", "switch"},
           "load balance: pooled over layers as transformers, or layer by layer");
  v.number("aux_coef", c.aux_coef, 0, 1e3, "of the balance loss");
  v.number("z_coef", c.z_coef, 0, 1e3, "of the mean squared logsumexp of the router");
  v.number("bias_rate", c.bias_rate, 0, 1, "step of the selection bias that balances without a loss; 0: none");
}

template <class V>
void visit(V& v, GroupConfig& c) {
  v.texts("match", c.match, "patterns of parameter names: * any text, ? one character");
  v.number("lr", c.lr, 0, 1e6, "multiplies the learning rate");
  v.number("decay", c.decay, -1, 100, "weight decay; -1: as without this group");
  v.flag("frozen", c.frozen, "not trained");
}

template <class V>
void visit(V& v, EvalConfig& c) {
  v.integer("every", c.every, 0, kMostSteps, "steps between evaluations; 0: none");
  v.integer("batches", c.batches, 0, kMostSteps, "of one evaluation; 0: all its data once");
  v.integer("patience", c.patience, 0, kMostSteps, "stop after so many evaluations without progress; 0: never");
  v.number("min_delta", c.min_delta, 0, 1e6, "what counts as progress of the loss");
  v.list("source", c.sources);
}

template <class V>
void visit(V& v, CheckpointConfig& c) {
  v.path("folder", c.folder, "where checkpoints go");
  v.integer("every", c.every, 0, kMostSteps, "steps between checkpoints; 0: at the end only");
  v.integer("keep", c.keep, 1, 1 << 20, "the newest that are kept");
  v.number("ema", c.ema, 0, 0.9999999, "decay of the moving average of the weights; 0: none");
}

template <class V>
void visit(V& v, LogConfig& c) {
  v.path("folder", c.folder, "where logs go; empty: the checkpoints' folder");
  v.integer("every", c.every, 1, kMostSteps, "steps between records");
  v.flag("jsonl", c.jsonl, "metrics.jsonl");
  v.flag("tensorboard", c.tensorboard, "an event file for TensorBoard");
  v.flag("plot", c.plot, "loss.svg");
}

template <class V>
void visit(V& v, LoraConfig& c) {
  v.integer("rank", c.rank, 0, 4096, "0: no LoRA; otherwise only adapters and groups that are not frozen are trained");
  v.number("alpha", c.alpha, 0, 1e6, "the adapter's product is scaled by alpha / rank");
  v.flag("dora", c.dora, "train magnitudes apart from directions");
  v.texts("targets", c.targets, "patterns of the weights that get adapters");
}

template <class V>
void visit(V& v, QatConfig& c) {
  v.choice("kind", c.kind, {"none", "mxfp4"}, "round expert weights in the forward pass as the packed checkpoint will");
  v.number("start", c.start, 0, 1, "share of the steps after which rounding begins");
}

template <class V>
void visit(V& v, TrainConfig& c) {
  v.section("model", c.model);
  v.section("data", c.data);
  v.section("run", c.run);
  v.section("optimizer", c.optimizer);
  v.section("schedule", c.schedule);
  v.section("losses", c.losses);
  v.section("eval", c.eval);
  v.section("checkpoint", c.checkpoint);
  v.section("log", c.log);
  v.section("lora", c.lora);
  v.section("qat", c.qat);
  v.list("group", c.groups);
}

}  // namespace gov::train
