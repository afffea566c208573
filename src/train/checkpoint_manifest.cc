#include "train/checkpoint_manifest.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/json.h"
#include "base/thread_pool.h"
#include "io/mapped_file.h"
#include "io/weight_map.h"

namespace gov::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFormat = "gov-train-checkpoint-1";
constexpr std::uint64_t kMaxManifestBytes = 16u << 20;
constexpr int kHashThreads = 4;  // a step may be running meanwhile

std::string hex(const Sha256Digest& digest) {
  std::string text;
  for (const std::uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

bool read_hex(std::string_view text, Sha256Digest& out) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  if (text.size() != 2 * out.size()) return false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t high = kDigits.find(text[2 * i]), low = kDigits.find(text[2 * i + 1]);
    if (high == kDigits.npos || low == kDigits.npos) return false;
    out[i] = static_cast<std::uint8_t>(16 * high + low);
  }
  return true;
}

bool is_plain_path(std::string_view name) {
  for (;;) {
    const std::size_t slash = name.find('/');
    if (!is_plain_file_name(name.substr(0, slash))) return false;
    if (slash == name.npos) return true;
    name.remove_prefix(slash + 1);
  }
}

Sha256Digest hash_file(const fs::path& path) {
  const FileDescriptor file = open_for_reading(path);
  const std::uint64_t size = regular_file_stamp(file, path).size;
  std::vector<std::byte> piece(static_cast<std::size_t>(std::min<std::uint64_t>(size, 1u << 20)));
  Sha256 hash;
  for (std::uint64_t at = 0; at < size; at += piece.size()) {
    const auto part =
        std::span(piece).first(static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), size - at)));
    read_exactly(file, at, part, path);
    hash.update(part);
  }
  return hash.digest();
}

std::vector<Sha256Digest> hash_files(const fs::path& folder, const std::vector<ManifestFile>& files) {
  std::vector<Sha256Digest> digests(files.size());
  ThreadPool pool(static_cast<int>(std::clamp<std::size_t>(files.size(), 1, std::min(kHashThreads, usable_cores()))));
  pool.parallel_for(static_cast<std::int64_t>(files.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      digests[i] = hash_file(folder / files[i].name);
  });
  return digests;
}

void sync_file(const fs::path& path) {
  const FileDescriptor file = open_for_reading(path);
  if (::fsync(file.get()) != 0) fail_errno("sync", path, errno);
}

Manifest manifest_of(const Json& json) {
  const auto member = [](const Json& object, std::string_view name, auto is) -> const Json& {
    const Json* value = object.find(name);
    if (!value || !(value->*is)()) fail(ErrorCode::kCorrupt, "{} is missing or of the wrong kind", name);
    return *value;
  };
  Manifest manifest;
  manifest.step = member(json, "step", &Json::is_integer).integer();
  for (const Json& item : member(json, "files", &Json::is_array).array()) {
    ManifestFile file;
    file.name = member(item, "name", &Json::is_string).string();
    file.bytes = static_cast<std::uint64_t>(member(item, "bytes", &Json::is_integer).integer());
    const bool is_hash = read_hex(member(item, "sha256", &Json::is_string).string(), file.sha256);
    const bool in_order = manifest.files.empty() || manifest.files.back().name < file.name;
    if (!is_hash || !in_order || !is_plain_path(file.name)) {
      fail(ErrorCode::kCorrupt, "the entry of file '{}' breaks a rule", printable(file.name));
    }
    manifest.files.push_back(std::move(file));
  }
  return manifest;
}

}  // namespace

Manifest make_manifest(const fs::path& folder, std::int64_t step) {
  Manifest manifest;
  manifest.step = step;
  std::vector<fs::path> folders{folder};
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).generic_string();
    if (!is_plain_path(name)) {
      fail(ErrorCode::kInvalidArgument, "{} has no plain file name", path_text(entry.path()));
    }
    const fs::file_status status = entry.symlink_status();
    if (fs::is_directory(status)) {
      folders.push_back(entry.path());
    } else if (!fs::is_regular_file(status)) {
      fail(ErrorCode::kInvalidArgument, "{} is neither a file nor a folder", path_text(entry.path()));
    } else if (name != kManifestName) {
      sync_file(entry.path());
      manifest.files.push_back({name, entry.file_size(), {}});
    }
  }
  for (const fs::path& path : folders) sync_folder(path);
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.name < b.name; });
  const std::vector<Sha256Digest> digests = hash_files(folder, manifest.files);
  for (std::size_t i = 0; i < digests.size(); ++i) manifest.files[i].sha256 = digests[i];
  return manifest;
}

std::string manifest_json(const Manifest& manifest) {
  JsonWriter json;
  json.begin_object().field("format", kFormat).field("step", manifest.step).key("files").begin_array();
  for (const ManifestFile& file : manifest.files) {
    json.begin_object().field("name", file.name).field("bytes", file.bytes);
    json.field("sha256", hex(file.sha256)).end_object();
  }
  return json.end_array().end_object().take();
}

Manifest parse_manifest(std::string_view json, std::string_view what) {
  try {
    Manifest manifest = manifest_of(Json::parse(json));
    // A second look at everything at once: no other key, no other spelling.
    if (manifest_json(manifest) != json) fail(ErrorCode::kCorrupt, "it is not as it was written");
    return manifest;
  } catch (const Error& error) {
    fail(ErrorCode::kCorrupt, "{} is damaged: {}", what, error.what());
  }
}

Manifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestName;
  Manifest manifest = parse_manifest(read_text_file(path, kMaxManifestBytes), path_text(path));
  for (const ManifestFile& file : manifest.files) {
    std::error_code error;
    const fs::path full = folder / file.name;
    if (!fs::is_regular_file(fs::symlink_status(full, error))) {
      fail(ErrorCode::kNotFound, "{} is missing", path_text(full));
    }
    const std::uint64_t bytes = fs::file_size(full, error);
    if (error) fail_errno("inspect", full, error.value());
    if (bytes != file.bytes) {
      fail(ErrorCode::kCorrupt, "{} has {} bytes, {} were written", path_text(full), bytes, file.bytes);
    }
  }
  return manifest;
}

void verify_manifest(const fs::path& folder, const Manifest& manifest) {
  const std::vector<Sha256Digest> digests = hash_files(folder, manifest.files);
  for (std::size_t i = 0; i < digests.size(); ++i) {
    const ManifestFile& file = manifest.files[i];
    if (digests[i] != file.sha256) {
      fail(ErrorCode::kCorrupt, "{} is not as it was written: its SHA-256 is {}, not {}", path_text(folder / file.name),
           hex(digests[i]), hex(file.sha256));
    }
  }
}

}  // namespace gov::train
