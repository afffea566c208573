#include "io/beneath.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "io/weight_map.h"

namespace gov {
namespace {

constexpr int kFileFlags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
constexpr int kFolderFlags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_DIRECTORY;

bool is_blob_name(std::string_view name) {  // a git SHA-1 or a SHA-256
  if (name.size() != 40 && name.size() != 64) return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

[[noreturn]] void refuse_link(const std::filesystem::path& full, std::string_view target) {
  fail(ErrorCode::kCorrupt, "{} is a symbolic link out of its model folder, to '{}'", path_text(full),
       printable(target));
}

}  // namespace

Folder::Folder(const std::filesystem::path& path) : path_(path) {
  folder_ = FileDescriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (!folder_) fail_errno("open folder", path, errno);
}

FileDescriptor Folder::open(std::string_view name) const {
  if (!is_plain_file_name(name)) {
    fail(ErrorCode::kCorrupt, "'{}' is not a plain file name in {}", printable(name), path_text(path_));
  }
  const std::string text(name);
  FileDescriptor file(::openat(folder_.get(), text.c_str(), kFileFlags));
  if (file) return file;
  if (errno == ELOOP) return open_link_target(text);
  fail_errno("open", path_ / text, errno);
}

FileDescriptor Folder::open_link_target(const std::string& name) const {
  const std::filesystem::path full = path_ / name;
  std::array<char, 512> buffer;
  const ssize_t length = ::readlinkat(folder_.get(), name.c_str(), buffer.data(), buffer.size());
  if (length < 0) fail_errno("read link", full, errno);
  const std::string target(buffer.data(), static_cast<std::size_t>(length));
  if (target.size() == buffer.size()) refuse_link(full, target);  // cut: longer than any target that is allowed
  if (!is_plain_file_name(target)) return open_cache_blob(target, full);
  FileDescriptor file(::openat(folder_.get(), target.c_str(), kFileFlags));
  if (file) return file;
  if (errno == ELOOP) refuse_link(full, target);
  fail_errno("open", full, errno);
}

FileDescriptor Folder::open_cache_blob(std::string_view target, const std::filesystem::path& full) const {
  constexpr std::string_view kUp = "../", kBlobs = "blobs/";
  constexpr int kMaxLevels = 4;  // a cache may hold folders inside a snapshot, e.g. original/
  int levels = 0;
  std::string_view rest = target;
  while (rest.substr(0, kUp.size()) == kUp && levels <= kMaxLevels) {
    rest.remove_prefix(kUp.size());
    ++levels;
  }
  if (levels < 2 || levels > kMaxLevels || rest.substr(0, kBlobs.size()) != kBlobs) refuse_link(full, target);
  const std::string blob(rest.substr(kBlobs.size()));
  if (!is_blob_name(blob)) refuse_link(full, target);
  // The link must climb exactly out of ".../snapshots/<revision>[/...]", so that blobs belongs to the same cache.
  std::error_code ignored;
  std::filesystem::path climbed = std::filesystem::canonical(path_, ignored);
  for (int level = 1; level < levels; ++level) climbed = climbed.parent_path();
  if (climbed.filename() != "snapshots") refuse_link(full, target);
  const FileDescriptor cache(::openat(
      folder_.get(), std::string(target.substr(0, 3 * static_cast<std::size_t>(levels))).c_str(), kFolderFlags));
  if (!cache) fail_errno("open", full, errno);
  const FileDescriptor blobs(::openat(cache.get(), "blobs", kFolderFlags));
  if (!blobs) refuse_link(full, target);
  FileDescriptor file(::openat(blobs.get(), blob.c_str(), kFileFlags));
  if (file) return file;
  if (errno == ELOOP) refuse_link(full, target);
  fail_errno("open", full, errno);
}

}  // namespace gov
