#include "train/checkpoint_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <unordered_map>
#include <utility>

#include "io/atomic_file.h"
#include "tensor/device.h"
#include "train/checkpoint_manifest.h"

namespace gov::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStateName = "state.json";
constexpr std::string_view kTensorsPrefix = "tensors-", kStepPrefix = "step-";
constexpr std::uint64_t kMaxStateBytes = 256u << 20;
constexpr std::size_t kAlign = 64;
constexpr std::size_t kListed = 4;  // names in one message

std::string step_name(std::int64_t step) { return fmt::format("{}{:08}", kStepPrefix, step); }

std::optional<std::int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  std::int64_t step = -1;
  std::from_chars(name.data() + kStepPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || step_name(step) != name) return std::nullopt;
  return step;
}

// What a killed program leaves: "step-00001234.part-<16 hex digits>".
bool is_leftover(std::string_view name) {
  const std::size_t dot = name.find('.');
  if (dot == name.npos || !step_of(name.substr(0, dot))) return false;
  const std::string_view rest = name.substr(dot);
  constexpr std::string_view kPart = ".part-";
  return rest.starts_with(kPart) && rest.size() == kPart.size() + 16 &&
         rest.find_first_not_of("0123456789abcdef", kPart.size()) == rest.npos;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename().native());
  if (error && error != std::errc::no_such_file_or_directory) fail_errno("list", folder, error.value());
  return names;
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) fail_errno("remove", path, error.value());
}

// The checkpoint loses its name first and for good, so that none is ever seen half removed.
void remove_checkpoint(const fs::path& path) {
  const fs::path aside = path.parent_path() / part_name(path.filename().native());
  if (::rename(path.c_str(), aside.c_str()) != 0) fail_errno("rename", path, errno);
  sync_folder(folder_of(path));
  remove_tree(aside);
}

// A folder and those above it, so that they survive a loss of power.
void make_folders(const fs::path& folder) {
  std::vector<fs::path> missing;
  std::error_code ignored;  // mkdir says what is wrong
  for (fs::path at = fs::absolute(folder); !fs::exists(at, ignored); at = at.parent_path()) missing.push_back(at);
  for (; !missing.empty(); missing.pop_back()) {
    const fs::path& path = missing.back();
    if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) fail_errno("create folder", path, errno);
    sync_folder(folder_of(path));
  }
}

// Gives `part` the name `target`, in exchange for what may have that name.
void publish(const fs::path& part, const fs::path& target) {
  if (::rename(part.c_str(), target.c_str()) == 0) return;
  if (errno != ENOTEMPTY && errno != EEXIST) fail_errno("rename to", target, errno);
  if (::renameat2(AT_FDCWD, part.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) fail_errno("rename to", target, errno);
  // A file system that cannot exchange two names: for a moment this step has no checkpoint.
  remove_checkpoint(target);
  if (::rename(part.c_str(), target.c_str()) != 0) fail_errno("rename to", target, errno);
}

std::string described(DType dtype, const Shape& shape) { return fmt::format("{} {}", dtype_name(dtype), shape.str()); }

// Calls found(step, folder, manifest) for the complete checkpoints, newest first, until it returns true, and
// bad(folder, error) for the others.
template <class OnFound, class OnBad>
void scan(const fs::path& folder, OnFound found, OnBad bad) {
  std::vector<std::int64_t> steps;
  for (const std::string& name : names_in(folder))
    if (const auto step = step_of(name)) steps.push_back(*step);
  std::sort(steps.rbegin(), steps.rend());
  for (const std::int64_t step : steps) {
    const fs::path path = folder / step_name(step);
    try {
      const Manifest manifest = read_manifest(path);
      if (manifest.step != step) {
        fail(ErrorCode::kCorrupt, "{} holds the checkpoint of step {}", path_text(path), manifest.step);
      }
      if (found(CheckpointStore::Found{step, path}, manifest)) return;
    } catch (const Error& error) {
      bad(path, error);
    }
  }
}

// The open files of a checkpoint and where each tensor is.
struct Shards {
  explicit Shards(const fs::path& folder) {
    for (const ManifestFile& file : read_manifest(folder).files) {
      if (file.name.starts_with(kTensorsPrefix)) files.push_back(SafetensorsFile::open(folder / file.name));
    }
    for (const SafetensorsFile& file : files)
      for (const SafetensorsEntry& entry : file.entries()) by_name.emplace(entry.name, std::pair(&file, &entry));
  }
  std::vector<SafetensorsFile> files;
  std::unordered_map<std::string_view, std::pair<const SafetensorsFile*, const SafetensorsEntry*>> by_name;
};

std::vector<TensorSpec> specs_of(std::span<const NamedTensor> tensors) {
  std::vector<TensorSpec> specs;
  for (const NamedTensor& t : tensors) specs.push_back({t.name, t.tensor.dtype, t.tensor.shape});
  check_tensor_specs(specs);
  return specs;
}

}  // namespace

struct CheckpointStore::Job {
  std::int64_t step;
  std::vector<TensorSpec> specs;
  std::vector<std::span<const std::byte>> data;  // in snapshot_
  std::string state_json;
  Extra extra;
};

CheckpointStore::CheckpointStore(fs::path folder, std::int64_t keep, std::uint64_t max_shard_bytes)
    : folder_(std::move(folder)), keep_(keep), max_shard_bytes_(max_shard_bytes) {
  if (keep_ < 1) fail(ErrorCode::kInvalidArgument, "{} checkpoints cannot be kept, at least 1 must be", keep_);
}

CheckpointStore::~CheckpointStore() {
  if (background_.valid()) background_.wait();
}

void CheckpointStore::wait() {
  if (background_.valid()) background_.get();
}

void CheckpointStore::save(std::int64_t step, std::span<const NamedTensor> tensors, std::string state_json,
                           Extra extra) {
  wait();
  if (step < 0) fail(ErrorCode::kInvalidArgument, "{} is not a step", step);
  if (const auto newest = latest(); newest && newest->step > step) {
    fail(ErrorCode::kInvalidArgument, "{} holds a checkpoint of step {}, later than {}", path_text(folder_),
         newest->step, step);
  }
  Job job{step, specs_of(tensors), {}, std::move(state_json), std::move(extra)};
  std::size_t total = 0;
  bool on_device = false;
  for (const NamedTensor& t : tensors) {
    total += (t.tensor.bytes() + kAlign - 1) / kAlign * kAlign;
    on_device = on_device || t.tensor.device != DeviceKind::kCpu;
  }
  if (snapshot_.bytes() < total) {
    snapshot_ = Buffer();  // before there are two
    snapshot_ = Buffer(total, DeviceKind::kCpu, "the copy for a checkpoint");
  }
  if (on_device) synchronize_device();
  auto* at = static_cast<std::byte*>(snapshot_.data());
  for (const NamedTensor& t : tensors) {
    const std::size_t bytes = t.tensor.bytes();
    if (bytes > 0) copy_bytes(at, DeviceKind::kCpu, t.tensor.data, t.tensor.device, bytes, nullptr);
    job.data.emplace_back(at, bytes);
    at += (bytes + kAlign - 1) / kAlign * kAlign;
  }
  if (on_device) synchronize(nullptr);
  background_ = std::async(std::launch::async, [this, job = std::move(job)] { write(job); });
}

void CheckpointStore::write(const Job& job) const {
  make_folders(folder_);
  remove_leftovers();
  const fs::path target = folder_ / step_name(job.step);
  const fs::path part = folder_ / part_name(step_name(job.step));
  if (::mkdir(part.c_str(), 0777) != 0) fail_errno("create folder", part, errno);
  try {
    write_files(job, part);
    publish(part, target);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(part, ignored);
    throw;
  }
  sync_folder(folder_);
  remove_tree(part);  // what had the name before, if any
  remove_old(job.step);
}

void CheckpointStore::write_files(const Job& job, const fs::path& part) const {
  std::size_t shard = 0;
  for (std::size_t first = 0, end = 0; first < job.specs.size(); first = end) {
    std::uint64_t bytes = 0;
    do bytes += job.specs[end++].bytes();
    while (end < job.specs.size() && job.specs[end].bytes() <= max_shard_bytes_ - std::min(bytes, max_shard_bytes_));
    const auto begin = job.specs.begin();
    SafetensorsWriter writer(part / fmt::format("{}{:05}.safetensors", kTensorsPrefix, ++shard),
                             {begin + static_cast<std::ptrdiff_t>(first), begin + static_cast<std::ptrdiff_t>(end)});
    for (std::size_t i = first; i < end; ++i) writer.write(job.data[i]);
    writer.finish();
  }
  write_file_atomic(part / kStateName, std::as_bytes(std::span(job.state_json)));
  if (job.extra) job.extra(part);
  const std::string manifest = manifest_json(make_manifest(part, job.step));
  write_file_atomic(part / kManifestName, std::as_bytes(std::span(manifest)));
}

void CheckpointStore::remove_leftovers() const {
  for (const std::string& name : names_in(folder_))
    if (is_leftover(name)) remove_tree(folder_ / name);
}

// Folders that are not complete are left alone: whatever they are, this program did not leave them so.
void CheckpointStore::remove_old(std::int64_t newest) const {
  std::int64_t kept = 0;
  for (const Found& found : list())
    if (found.step <= newest && ++kept > keep_) remove_checkpoint(found.folder);
}

void CheckpointStore::discard_after(std::int64_t step) {
  wait();
  for (const Found& found : list())
    if (found.step > step) remove_checkpoint(found.folder);
}

std::vector<CheckpointStore::Found> CheckpointStore::list() const {
  std::vector<Found> all;
  scan(
      folder_,
      [&](Found found, const Manifest&) {
        all.push_back(std::move(found));
        return false;
      },
      [](const fs::path&, const Error&) {});
  return all;
}

std::optional<CheckpointStore::Found> CheckpointStore::latest() const {
  std::optional<Found> newest;
  scan(
      folder_,
      [&](Found found, const Manifest&) {
        newest = std::move(found);
        return true;
      },
      [](const fs::path&, const Error&) {});
  return newest;
}

std::optional<CheckpointStore::Found> CheckpointStore::latest_verified(const Log& log) const {
  std::optional<Found> newest;
  scan(
      folder_,
      [&](Found found, const Manifest& manifest) {
        verify_manifest(found.folder, manifest);
        newest = std::move(found);
        return true;
      },
      [&](const fs::path&, const Error& error) { log.warn("checkpoint passed over: {}", error.what()); });
  return newest;
}

void CheckpointStore::verify(const Found& found) const { verify_manifest(found.folder, read_manifest(found.folder)); }

void CheckpointStore::load(const Found& found, std::span<const NamedTensor> into) const {
  const Shards shards(found.folder);
  std::vector<std::string> wrong;
  for (const NamedTensor& t : into) {
    const auto at = shards.by_name.find(t.name);
    if (at == shards.by_name.end()) {
      wrong.push_back(fmt::format("tensor '{}' is not in it", printable(t.name)));
      continue;
    }
    const SafetensorsEntry& entry = *at->second.second;
    if (entry.dtype != t.tensor.dtype || entry.shape != t.tensor.shape) {
      wrong.push_back(fmt::format("tensor '{}' is {} {} in it, not {}", printable(t.name), entry.stored_dtype,
                                  entry.shape.str(), described(t.tensor.dtype, t.tensor.shape)));
    }
  }
  if (!wrong.empty()) {
    const std::size_t more = wrong.size() - std::min(wrong.size(), kListed);
    wrong.resize(wrong.size() - more);
    fail(ErrorCode::kInvalidArgument, "{}: {}{}", path_text(found.folder), fmt::join(wrong, "; "),
         more > 0 ? fmt::format("; and {} more", more) : "");
  }
  Buffer staging;
  for (const NamedTensor& t : into) {
    const auto& [file, entry] = shards.by_name.at(t.name);
    const std::size_t bytes = t.tensor.bytes();
    if (bytes == 0) continue;
    const bool on_device = t.tensor.device != DeviceKind::kCpu;
    if (on_device && staging.bytes() < bytes) staging = Buffer(bytes, DeviceKind::kCpu, "a tensor of a checkpoint");
    file->read(*entry, {static_cast<std::byte*>(on_device ? staging.data() : t.tensor.data), bytes});
    if (!on_device) continue;
    copy_bytes(t.tensor.data, t.tensor.device, staging.data(), DeviceKind::kCpu, bytes, nullptr);
    synchronize(nullptr);  // the staging memory is used again
  }
}

std::vector<TensorSpec> CheckpointStore::tensors(const Found& found) const {
  const Shards shards(found.folder);
  std::vector<TensorSpec> specs;
  for (const auto& [name, place] : shards.by_name) {
    if (!place.second->dtype) {
      fail(ErrorCode::kUnsupported, "{}: tensor '{}' is {}", path_text(found.folder), printable(name),
           place.second->stored_dtype);
    }
    specs.push_back({std::string(name), *place.second->dtype, place.second->shape});
  }
  std::sort(specs.begin(), specs.end(), [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; });
  return specs;
}

std::string CheckpointStore::state(const Found& found) const {
  return read_text_file(found.folder / kStateName, kMaxStateBytes);
}

}  // namespace gov::train
