#pragma once
// An owned POSIX file descriptor and the few calls on it that the folder needs. Every error names the path.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"

namespace gov {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { close(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

// What identifies the contents of an open file as far as the system can tell without reading them.
struct FileStamp {
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t modified_s = 0, modified_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

// A path as it may stand in a one-line message.
std::string path_text(const std::filesystem::path& path);
// "cannot <action> <path>: <text of error_number>", kNotFound for a missing file, otherwise kIo.
[[noreturn]] void fail_errno(const char* action, const std::filesystem::path& path, int error_number);

// Opens a path for reading; follows symbolic links. It may be any kind of file: see regular_file_stamp.
FileDescriptor open_for_reading(const std::filesystem::path& path);
// The stamp of an open file; Error kInvalidArgument if it is not a regular file (a folder, a pipe, a device).
FileStamp regular_file_stamp(const FileDescriptor& file, const std::filesystem::path& path);
// Fills `out` from `offset`; Error kIo if the file ends before that or cannot be read. Never raises SIGBUS.
void read_exactly(const FileDescriptor& file, std::uint64_t offset, std::span<std::byte> out,
                  const std::filesystem::path& path);
// Writes all bytes at `offset`.
void write_exactly(const FileDescriptor& file, std::uint64_t offset, std::span<const std::byte> bytes,
                   const std::filesystem::path& path);
// The whole of an open regular file; Error kInvalidArgument if it holds more than max_bytes.
std::string read_all_text(const FileDescriptor& file, std::uint64_t max_bytes, const std::filesystem::path& path);
// Makes names in a folder (creations, renames) durable.
void sync_folder(const std::filesystem::path& folder);
// The folder that holds `path`; "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace gov
