#include "train/memory_table.h"

#include <algorithm>

#include "base/cpu_info.h"
#include "base/thread_pool.h"
#include "model/memory_plan.h"
#include "tensor/device.h"

namespace gov::train {
namespace {

constexpr std::uint64_t kLogitsBytes = std::uint64_t{256} << 20;  // of the head in one piece on a GPU

// Rows of a batch in the host's memory: eight arrays of 4 bytes or less.
constexpr std::uint64_t kRowBytes = 32;

std::uint64_t data_bytes(const TrainConfig& config, const Config& model, std::int64_t images) {
  const VisionConfig& v = model.vision;
  const std::uint64_t image =
      model.use_vision ? static_cast<std::uint64_t>(v.num_channels * v.image_size * v.image_size) * sizeof(float) : 0;
  const std::int64_t workers = config.data.workers > 0 ? config.data.workers : usable_cores();
  const std::int64_t ahead = config.data.prefetch > 0 ? config.data.prefetch : 8 * workers;
  const auto batches = static_cast<std::uint64_t>(config.run.accumulation + 3);
  const auto rows = static_cast<std::uint64_t>(config.data.tokens_per_batch);
  return batches * (rows * kRowBytes + static_cast<std::uint64_t>(images) * image) +
         static_cast<std::uint64_t>(ahead) * image;
}

}  // namespace

std::uint64_t MemoryTable::total() const {
  std::uint64_t sum = 0;
  for (const auto& [purpose, bytes] : rows) sum += bytes;
  return sum;
}

TrainingSizes training_sizes(const Config& model, const DataConfig& data, const Place& place) {
  TrainingSizes sizes;
  sizes.rows = sizes.loss_rows = data.tokens_per_batch;
  if (model.use_vision) {
    sizes.images = data.tokens_per_batch / model.vision.tokens();
    sizes.image_rows = sizes.images * model.vision.tokens();
  }
  if (place.device != DeviceKind::kCpu) {
    const auto fit = static_cast<std::int64_t>(kLogitsBytes / sizeof(float)) / model.vocab_size;
    sizes.logits_rows = std::clamp<std::int64_t>(fit, 64, 4096);
  }
  return sizes;
}

Recompute recompute_of(RunConfig::Recompute recompute) {
  switch (recompute) {
    case RunConfig::Recompute::kNone: return Recompute::kNone;
    case RunConfig::Recompute::kMoe: return Recompute::kMoe;
    case RunConfig::Recompute::kBlock: break;
  }
  return Recompute::kBlock;
}

MemoryTable memory_table(const TrainConfig& config, const StartFiles& files, const ParameterPlan& plan,
                         const Place& place) {
  const ParameterSet::Wanted wanted = plan.wanted();
  const std::uint64_t trained = ParameterSet::bytes(files.config, wanted);
  const bool copies = place.device != DeviceKind::kCpu && place.dtype == DType::kBF16;
  const TrainingSizes sizes = training_sizes(files.config, config.data, place);
  MemoryTable table;
  if (!plan.all_trained()) table.rows.emplace_back("weights as read", stored_weight_bytes(files.config));
  if (copies) table.rows.emplace_back("weights, bf16", ParameterSet::bytes(files.config, wanted, DType::kBF16));
  table.rows.emplace_back("master weights", trained);
  table.rows.emplace_back("gradients", trained);
  table.rows.emplace_back("moments", 2 * trained);
  if (config.qat.kind == QatConfig::Kind::kMxfp4) {
    std::uint64_t packed = 0;
    for (const ParameterSpec& spec : plan.specs)
      if (spec.storage == Storage::kExpertMatrix && plan.trained.contains(spec.name))
        packed += static_cast<std::uint64_t>(spec.shape.elements()) * 17 / 32;
    table.rows.emplace_back("packed experts", packed);
  }
  table.rows.emplace_back("activations",
                          TrainingActivations::bytes(files.config, sizes, recompute_of(config.run.recompute), place));
  table.data = data_bytes(config, files.config, sizes.images);
  table.limit = place.device == DeviceKind::kCpu ? available_memory() : cuda_free_memory();
  if (place.device == DeviceKind::kCpu) table.rows.emplace_back("data", table.data);
  return table;
}

void require_fits(const MemoryTable& table) {
  constexpr double kGB = 1e9;
  if (table.total() <= table.limit) return;
  fail(ErrorCode::kOutOfMemory,
       "training needs {:.2f} GB, {:.2f} GB are free; lower data.tokens_per_batch, set run.recompute, or freeze groups",
       static_cast<double>(table.total()) / kGB, static_cast<double>(table.limit) / kGB);
}

}  // namespace gov::train
