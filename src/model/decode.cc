#include "model/decode.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "model/fused_decode.h"
#include "ops/device_only.h"
#include "ops/sample_device.h"

namespace gov {
namespace {

// forward(): every op of ops.h, one after the other.
class OpsStep : public DecodeStep {
 public:
  OpsStep(const Model& model, const KvCache& cache, Activations& acts) : model_(model), cache_(cache), acts_(acts) {}
  const char* path() const override { return "ops"; }
  void run(Context& ctx, const Batch& batch) override { forward(ctx, model_, batch, cache_, acts_); }

 private:
  const Model& model_;
  const KvCache& cache_;
  Activations& acts_;
};

// Numbers of rows that have a graph of their own: padding costs experts that nobody asked for, so small ones are exact.
std::int64_t row_bucket(std::int64_t rows, std::int64_t most) {
  const std::int64_t step = rows <= 8 ? 1 : rows <= 32 ? 8 : rows <= 64 ? 16 : rows <= 128 ? 32 : 64;
  return std::min((rows + step - 1) / step * step, most);
}

std::int64_t key_bucket(std::int64_t keys) {
  return std::max<std::int64_t>(1024, static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(keys))));
}

// The first `rows` sequences of a batch of one row each.
Batch first_rows(const Batch& all, std::int64_t rows) {
  Batch b;
  b.tokens = all.tokens.slice(0, rows);
  b.positions = all.positions.slice(0, rows);
  b.modality = all.modality.slice(0, rows);
  b.cu_seqlens = all.cu_seqlens.slice(0, rows + 1);
  b.kv_lens = all.kv_lens.slice(0, rows);
  b.full = {all.full.slots.slice(0, rows), all.full.block_tables.slice(0, rows)};
  b.sliding = {all.sliding.slots.slice(0, rows), all.sliding.block_tables.slice(0, rows)};
  b.logits_rows = all.logits_rows.slice(0, rows);
  b.vision_rows = Tensor(nullptr, DType::kI32, {0}, "vision_rows", all.tokens.device);
  b.max_rows = 1;
  return b;
}

}  // namespace

std::unique_ptr<DecodeStep> make_decode_step(const Model& model, const KvCache& cache, Activations& acts,
                                             std::string_view path) {
  auto ops_step = std::make_unique<OpsStep>(model, cache, acts);
  if (path == "ops" || (path == "auto" && !fused_decode_supported(model))) return ops_step;
  if (path == "auto" || path == "fused") return make_fused_decode(model, cache, acts, false, std::move(ops_step));
  if (path == "fused-int8") return make_fused_decode(model, cache, acts, true, std::move(ops_step));
  fail(ErrorCode::kInvalidArgument, "there is no decode path '{}'", printable(path));
}

DecodeRunner::DecodeRunner(const Model& model, const KvCache& cache, Activations& acts, std::int64_t max_sequences,
                           std::int64_t max_blocks, std::string_view path)
    : acts_(acts),
      block_size_(cache.spec().block_size),
      max_sequences_(max_sequences),
      max_blocks_(max_blocks),
      step_(make_decode_step(model, cache, acts, path)) {
  const std::int64_t s = max_sequences;
  const auto plan = [&](Tensor Batch::*field, const char* name, DType dtype, Shape shape) {
    device_arena_.plan(&(whole_.*field), name, dtype, shape);
  };
  plan(&Batch::tokens, "tokens", DType::kI32, {s});
  plan(&Batch::positions, "positions", DType::kI32, {s});
  plan(&Batch::modality, "modality", DType::kU8, {s});
  plan(&Batch::cu_seqlens, "cu_seqlens", DType::kI32, {s + 1});
  plan(&Batch::kv_lens, "kv_lens", DType::kI32, {s});
  plan(&Batch::logits_rows, "logits_rows", DType::kI32, {s});
  device_arena_.plan(&whole_.full.slots, "full slots", DType::kI64, {s});
  device_arena_.plan(&whole_.sliding.slots, "sliding slots", DType::kI64, {s});
  header_bytes_ = device_arena_.planned_bytes();
  device_arena_.plan(&whole_.full.block_tables, "full block_tables", DType::kI32, {s, max_blocks});
  device_arena_.plan(&whole_.sliding.block_tables, "sliding block_tables", DType::kI32, {s, max_blocks});
  const std::size_t bytes = device_arena_.planned_bytes();
  device_arena_.commit(model.device, "decode batches");
  staging_ = PinnedBuffer(bytes, "decode batches");
  copied_ = Event::create();
  const auto* first = static_cast<const char*>(whole_.tokens.data);  // the arena's start
  const auto twin = [&](Tensor t) {
    t.data = static_cast<char*>(staging_.data()) + (static_cast<const char*>(t.data) - first);
    t.device = DeviceKind::kCpu;
    return t;
  };
  std::memset(staging_.data(), 0xff, bytes);  // tables of -1
  for (Tensor Batch::*field :
       {&Batch::tokens, &Batch::positions, &Batch::modality, &Batch::cu_seqlens, &Batch::kv_lens, &Batch::logits_rows})
    staged_.*field = twin(whole_.*field);
  staged_.full = {twin(whole_.full.slots), twin(whole_.full.block_tables)};
  staged_.sliding = {twin(whole_.sliding.slots), twin(whole_.sliding.block_tables)};
  std::memset(staged_.modality.data, 0, staged_.modality.bytes());
  for (std::int64_t i = 0; i <= s; ++i) {
    staged_.cu_seqlens.as<std::int32_t>()[i] = static_cast<std::int32_t>(i);
    if (i < s) staged_.logits_rows.as<std::int32_t>()[i] = static_cast<std::int32_t>(i);
  }
  copy_bytes(whole_.tokens.data, model.device, staging_.data(), DeviceKind::kCpu, bytes, nullptr);
  synchronize(nullptr);
}

void DecodeRunner::set(Context& ctx, std::span<const DecodeRow> rows, bool keep_tokens) {
  GOV_DCHECK(static_cast<std::int64_t>(rows.size()) <= max_sequences_);
  copied_.wait();
  rows_ = static_cast<std::int64_t>(rows.size());
  longest_ = 0;
  const std::int64_t padded = row_bucket(rows_, max_sequences_);
  for (std::int64_t i = 0; i < padded; ++i) {
    DecodeRow row;  // padding: no keys, nothing written
    row.position = -1;
    row.full_slot = row.sliding_slot = -1;
    if (i < rows_) row = rows[static_cast<std::size_t>(i)];
    staged_.tokens.as<std::int32_t>()[i] = row.token;
    staged_.positions.as<std::int32_t>()[i] = std::max(row.position, 0);
    staged_.kv_lens.as<std::int32_t>()[i] = row.position + 1;
    staged_.full.slots.as<std::int64_t>()[i] = row.full_slot;
    staged_.sliding.slots.as<std::int64_t>()[i] = row.sliding_slot;
    longest_ = std::max<std::int64_t>(longest_, row.position + 1);
  }
  const Tensor& first = keep_tokens ? staged_.positions : staged_.tokens;
  const auto skipped = static_cast<std::size_t>(static_cast<char*>(first.data) - static_cast<char*>(staging_.data()));
  copy_bytes((keep_tokens ? whole_.positions : whole_.tokens).data, DeviceKind::kCuda, first.data, DeviceKind::kCpu,
             header_bytes_ - skipped, ctx.stream);
  set_tables(ctx, rows);
  copied_.record(ctx.stream);
}

// Block tables rarely change: only rows that did go over.
void DecodeRunner::set_tables(Context& ctx, std::span<const DecodeRow> rows) {
  const auto update = [&](const Tensor& host, const Tensor& device, std::int64_t row,
                          std::span<const std::int32_t> table) {
    GOV_DCHECK(static_cast<std::int64_t>(table.size()) <= max_blocks_);
    std::int32_t* const known = host.as<std::int32_t>() + row * max_blocks_;
    const auto [a, b] = std::mismatch(table.begin(), table.end(), known);
    if (a == table.end()) return;
    const auto begin = a - table.begin();
    const std::size_t bytes = (table.size() - static_cast<std::size_t>(begin)) * sizeof(std::int32_t);
    std::memcpy(b, table.data() + begin, bytes);
    copy_bytes(device.as<std::int32_t>() + row * max_blocks_ + begin, DeviceKind::kCuda, b, DeviceKind::kCpu, bytes,
               ctx.stream);
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    update(staged_.full.block_tables, whole_.full.block_tables, row, rows[i].full_table);
    update(staged_.sliding.block_tables, whole_.sliding.block_tables, row, rows[i].sliding_table);
  }
}

void DecodeRunner::run_directly(Context& ctx, const Batch& batch, bool feed) {
  step_->run(ctx, batch);
  if (!feed) return;
  ops::sample_greedy_device(ctx, acts_.logits.slice(0, batch.tokens.rows()), batch.tokens);
  ops::advance_rows(ctx, {batch.positions, batch.kv_lens, batch.full.slots, batch.sliding.slots,
                          batch.full.block_tables, batch.sliding.block_tables, block_size_});
}

void DecodeRunner::run(Context& ctx, bool feed) {
  const Kind kind{row_bucket(rows_, max_sequences_), key_bucket(longest_), feed};
  Batch batch = first_rows(whole_, kind.rows);
  batch.max_keys = std::min(kind.keys, max_blocks_ * block_size_);
  if (feed) ++longest_;
  Recorded& r = graphs_[kind];
  const bool warm = r.generation == ctx.workspace.generation();
  if (ctx.trace || !warm) {  // also after the workspace has moved, and once more if it moves within
    ++stats_.eager;
    r.graph = {};
    run_directly(ctx, batch, feed);
    r.generation = ctx.workspace.generation();
    return;
  }
  if (ctx.cancel && ctx.cancel->load(std::memory_order_relaxed)) fail(ErrorCode::kCancelled, "cancelled");
  if (!r.graph) {
    ++stats_.recorded;
    ctx.workspace.compact();
    const Counters before = ctx.counters;
    r.graph = Graph::capture(ctx.stream, [&] { run_directly(ctx, batch, feed); });
    r.counters = {ctx.counters.bytes - before.bytes, ctx.counters.flops - before.flops, ctx.counters.ops - before.ops};
  } else {
    ++stats_.replayed;
    ctx.counters.bytes += r.counters.bytes;
    ctx.counters.flops += r.counters.flops;
    ctx.counters.ops += r.counters.ops;
  }
  r.graph.launch(ctx.stream);
}

}  // namespace gov
