#pragma once
// Checkpoints of a run: folders step-00001234 in one folder, each complete or not there at all, whatever kills the
// program, fills the disk or cuts the power. A checkpoint is written to "step-00001234.part-<random>", synced, named by
// a manifest (checkpoint_manifest.h) and renamed. In it:
//   tensors-00001.safetensors ...  the tensors
//   state.json                     the trainer's own
//   manifest.json                  what the others must be
// and what else the caller adds. Tensors are whole and are found by name, so that a checkpoint does not depend on how
// many ranks wrote it. One program writes to a folder at a time; any number may read.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "io/safetensors.h"
#include "tensor/tensor.h"

namespace gov::train {

struct NamedTensor {
  std::string name;
  Tensor tensor;  // in the memory of any device
};

class CheckpointStore {
 public:
  // keep: how many complete checkpoints remain after a save, at least 1. The folder is made by the first save.
  // max_shard_bytes: of tensor data in one file; a larger tensor gets a file of its own.
  CheckpointStore(std::filesystem::path folder, std::int64_t keep,
                  std::uint64_t max_shard_bytes = std::uint64_t{2} << 30);
  // Waits for the background; what failed there and was not asked for is lost.
  ~CheckpointStore();
  CheckpointStore(const CheckpointStore&) = delete;
  CheckpointStore& operator=(const CheckpointStore&) = delete;

  // Writes more files into the folder of the checkpoint that is being written, also in folders of their own. It runs in
  // the background and must own what it reads. Names must be plain (is_plain_file_name) and not one of ours.
  using Extra = std::function<void(const std::filesystem::path& into)>;
  // Waits for the device and copies the tensors to the host's memory (one copy of all is kept for the next save); the
  // rest happens in the background. After that the oldest complete checkpoints beyond `keep` are removed. A checkpoint
  // of the same step is replaced, atomically where the file system can.
  // Errors of an earlier save are thrown here, and then this one is not begun. Error kInvalidArgument: as
  // check_tensor_specs, or a complete checkpoint of a later step is there (see discard_after). An error before the
  // checkpoint has its name leaves the others as they were and nothing of this one.
  void save(std::int64_t step, std::span<const NamedTensor> tensors, std::string state_json, Extra extra = {});
  // Until the last save is on the disk; throws what failed in it, once.
  void wait();

  struct Found {
    std::int64_t step = 0;
    std::filesystem::path folder;
  };
  // Complete checkpoints, newest first: their manifest is whole and every file is there with its length. Their bytes
  // are not looked at.
  std::vector<Found> list() const;
  std::optional<Found> latest() const;
  // The newest whose every byte is as written; a note names those that were passed over.
  std::optional<Found> latest_verified(const Log& log) const;
  // Error kCorrupt names the first file whose bytes changed.
  void verify(const Found& found) const;
  // Removes checkpoints of later steps: for a run that goes on from an earlier one.
  void discard_after(std::int64_t step);

  // Fills tensors on any device. `into` may be a part of what was saved. Error kInvalidArgument: a tensor is not in the
  // checkpoint or has another shape or type there; then nothing was written. Hashes are verify()'s business.
  void load(const Found& found, std::span<const NamedTensor> into) const;
  // What a checkpoint holds, sorted by name.
  std::vector<TensorSpec> tensors(const Found& found) const;
  std::string state(const Found& found) const;

 private:
  struct Job;
  void write(const Job& job) const;
  void write_files(const Job& job, const std::filesystem::path& part) const;
  void remove_old(std::int64_t newest) const;
  void remove_leftovers() const;

  std::filesystem::path folder_;
  std::int64_t keep_;
  std::uint64_t max_shard_bytes_;
  Buffer snapshot_;  // read by the background
  std::future<void> background_;
};

}  // namespace gov::train
