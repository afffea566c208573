#include "io/file_descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace gov {
namespace {

constexpr std::size_t kMaxTransfer = std::size_t{1} << 30;  // one read or write call moves less than 2 GiB on Linux

}  // namespace

void FileDescriptor::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::string path_text(const std::filesystem::path& path) { return printable(path.native(), 1024); }

void fail_errno(const char* action, const std::filesystem::path& path, int error_number) {
  const bool missing = error_number == ENOENT || error_number == ENOTDIR;
  fail(missing ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot {} {}: {}", action, path_text(path),
       std::system_category().message(error_number));
}

FileDescriptor open_for_reading(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe must not wait for its other end; it has no effect on regular files.
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file) fail_errno("open", path, errno);
  return file;
}

FileStamp regular_file_stamp(const FileDescriptor& file, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno("inspect", path, errno);
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::kInvalidArgument, "{} is not a regular file", path_text(path));
  return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size), status.st_mtim.tv_sec,
          status.st_mtim.tv_nsec};
}

void read_exactly(const FileDescriptor& file, std::uint64_t offset, std::span<std::byte> out,
                  const std::filesystem::path& path) {
  while (!out.empty()) {
    const ssize_t got = ::pread(file.get(), out.data(), std::min(out.size(), kMaxTransfer), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno("read", path, errno);
    if (got == 0) fail(ErrorCode::kIo, "{} ends at byte {}: it was cut while being read", path_text(path), offset);
    offset += static_cast<std::uint64_t>(got);
    out = out.subspan(static_cast<std::size_t>(got));
  }
}

void write_exactly(const FileDescriptor& file, std::uint64_t offset, std::span<const std::byte> bytes,
                   const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t put =
        ::pwrite(file.get(), bytes.data(), std::min(bytes.size(), kMaxTransfer), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail_errno("write", path, put < 0 ? errno : ENOSPC);
    offset += static_cast<std::uint64_t>(put);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

std::string read_all_text(const FileDescriptor& file, std::uint64_t max_bytes, const std::filesystem::path& path) {
  const std::uint64_t size = regular_file_stamp(file, path).size;
  if (size > max_bytes) {
    fail(ErrorCode::kInvalidArgument, "{} has {} bytes; at most {} are read", path_text(path), size, max_bytes);
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  read_exactly(file, 0, std::as_writable_bytes(std::span(text)), path);
  return text;
}

void sync_folder(const std::filesystem::path& folder) {
  const FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY));
  if (!file) fail_errno("open", folder, errno);
  // Some network file systems cannot sync a folder and say EINVAL; there is nothing more to do there.
  if (::fsync(file.get()) != 0 && errno != EINVAL) fail_errno("sync", folder, errno);
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  return folder.empty() ? std::filesystem::path(".") : folder;
}

}  // namespace gov
