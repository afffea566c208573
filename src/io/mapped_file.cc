#include "io/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "io/atomic_file.h"

namespace gov {
namespace {

constexpr std::uint64_t kPrefaultChunk = std::uint64_t{16} << 20;
#ifdef MADV_POPULATE_READ
constexpr int kPopulateRead = MADV_POPULATE_READ;
#else
constexpr int kPopulateRead = 22;  // Linux 5.14, generic ABI; older kernels answer EINVAL
#endif

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : MappedFile(open_for_reading(path), path) {}

MappedFile::MappedFile(FileDescriptor file, std::filesystem::path path)
    : file_(std::move(file)), path_(std::move(path)), stamp_(regular_file_stamp(file_, path_)) {
  if (stamp_.size == 0) return;
  if (stamp_.size > std::numeric_limits<std::size_t>::max() / 2) {
    fail(ErrorCode::kUnsupported, "{} is too large to map: {} bytes", path_text(path_), stamp_.size);
  }
  const auto size = static_cast<std::size_t>(stamp_.size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file_.get(), 0);
  if (data == MAP_FAILED) fail_errno("map", path_, errno);
  const std::uint64_t size_now = regular_file_stamp(file_, path_).size;
  if (size_now != stamp_.size) {
    ::munmap(data, size);
    fail(ErrorCode::kIo, "{} changed from {} to {} bytes while it was being opened", path_text(path_), stamp_.size,
         size_now);
  }
  data_ = data;
  size_ = size;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : file_(std::move(other.file_)),
      path_(std::move(other.path_)),
      stamp_(other.stamp_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(path_, other.path_);
  std::swap(stamp_, other.stamp_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  read_exactly(file_, offset, out, path_);
}

void MappedFile::check_unchanged() const {
  const FileStamp now = regular_file_stamp(file_, path_);
  if (now != stamp_) fail(ErrorCode::kIo, "{} was changed while it was in use", path_text(path_));
}

void MappedFile::will_need() const {
  if (data_) ::madvise(data_, size_, MADV_WILLNEED);
}

void MappedFile::sequential() const {
  if (data_) ::madvise(data_, size_, MADV_SEQUENTIAL);
}

void MappedFile::prefault(std::uint64_t offset, std::uint64_t count) const {
  if (offset > size_ || count > size_ - offset) {
    fail(ErrorCode::kInvalidArgument, "{}: bytes {} to {} are not in the file", path_text(path_), offset,
         offset + count);
  }
  if (count == 0) return;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = offset / page * page;
  char* start = static_cast<char*>(data_) + begin;
  const auto length = static_cast<std::size_t>(offset + count - begin);
  int result;
  do {
    result = ::madvise(start, length, kPopulateRead);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return;
  // EFAULT: the file ends before the range, the case in which touching the pages would raise SIGBUS.
  if (errno != EINVAL) fail_errno("read", path_, errno);
  // A kernel before 5.14: read calls fill the page cache at least, and report errors instead of raising SIGBUS.
  std::array<std::byte, 65536> scratch;
  for (std::uint64_t at = offset; at < offset + count; at += scratch.size()) {
    const std::uint64_t rest = std::min<std::uint64_t>(scratch.size(), offset + count - at);
    read_at(at, std::span(scratch).first(static_cast<std::size_t>(rest)));
  }
}

void MappedFile::prefault(ThreadPool& pool) const {
  const std::uint64_t chunks = (size_ + kPrefaultChunk - 1) / kPrefaultChunk;
  pool.parallel_for(static_cast<std::int64_t>(chunks), 1, [&](std::int64_t begin, std::int64_t end, int) {
    const std::uint64_t from = static_cast<std::uint64_t>(begin) * kPrefaultChunk;
    const std::uint64_t to = std::min<std::uint64_t>(static_cast<std::uint64_t>(end) * kPrefaultChunk, size_);
    prefault(from, to - from);
  });
}

std::string read_text_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return read_all_text(open_for_reading(path), max_bytes, path);
}

void write_file_atomic(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write_at(0, bytes);
  file.commit();
}

}  // namespace gov
