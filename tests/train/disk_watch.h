#pragma once
// Every call of this program that changes a disk, seen before it happens: the test's own open, pwrite, fsync, rename
// ... stand before the C library's (disk_watch.cc), so that what is tested is exactly the code that ships.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace gov::test {

struct DiskOp {
  enum Kind { kCreate, kWrite, kSync, kMakeFolder, kRename, kExchange, kRemove };
  Kind kind;
  std::filesystem::path path;
  std::filesystem::path to;  // of kRename and kExchange
  std::uint64_t offset = 0;  // of kWrite
  std::string data;          // of kWrite
};

// What becomes of it.
struct DiskAnswer {
  int error = 0;         // errno that the call shall fail with; 0: it is done
  std::size_t some = 0;  // of a write that fails or is cut: bytes that are written all the same
  bool cut = false;      // the program dies here, by SIGKILL
};

// While it lives, `hook` is asked about every operation beneath `folder`, by whatever thread. One at a time.
class DiskWatch {
 public:
  using Hook = std::function<DiskAnswer(const DiskOp&)>;
  DiskWatch(std::filesystem::path folder, Hook hook);
  ~DiskWatch();
  DiskWatch(const DiskWatch&) = delete;
  DiskWatch& operator=(const DiskWatch&) = delete;
};

}  // namespace gov::test
