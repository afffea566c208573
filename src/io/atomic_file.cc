#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace gov {

std::string part_name(const std::string& name) {
  std::uint64_t random = 0;
  if (::getrandom(&random, sizeof random, 0) != static_cast<ssize_t>(sizeof random)) {
    fail(ErrorCode::kIo, "the system has no random numbers for a temporary name");
  }
  return fmt::format("{}.part-{:016x}", name, random);
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
  if (!path.has_filename()) fail(ErrorCode::kInvalidArgument, "{} names no file to write", path_text(path));
  part_ = path.parent_path() / part_name(path.filename().native());
  file_ = FileDescriptor(::open(part_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!file_) fail_errno("create", part_, errno);
}

AtomicFile::~AtomicFile() {
  if (!part_.empty()) ::unlink(part_.c_str());
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)), part_(std::move(other.part_)), file_(std::move(other.file_)) {
  other.part_
      .clear();  // a moved-from path is unspecified; an empty one tells the destructor that nothing is left to do
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  write_exactly(file_, offset, bytes, part_);
}

void AtomicFile::commit() {
  if (!file_) fail(ErrorCode::kInvalidArgument, "{} is already finished", path_text(path_));
  if (::fsync(file_.get()) != 0) fail_errno("sync", part_, errno);
  file_.close();
  if (::rename(part_.c_str(), path_.c_str()) != 0) fail_errno("rename to", path_, errno);
  part_.clear();
  sync_folder(folder_of(path_));
}

}  // namespace gov
