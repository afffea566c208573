#include "tests/train/disk_watch.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <mutex>

namespace gov::test {
namespace {

namespace fs = std::filesystem;

std::mutex mutex;
fs::path watched;
DiskWatch::Hook hook;

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

bool is_watched(const fs::path& path) {
  const auto [end, unused] = std::mismatch(watched.begin(), watched.end(), path.begin(), path.end());
  return end == watched.end();
}

fs::path path_of(int fd) {
  char text[4096];
  const ssize_t length = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), text, sizeof text);
  return length > 0 ? fs::path(std::string(text, static_cast<std::size_t>(length))) : fs::path();
}

fs::path path_at(int folder, const char* name) {
  if (name[0] == '/') return name;
  return folder == AT_FDCWD ? fs::current_path() / name : path_of(folder) / name;
}

// Asks the hook, then does the operation: `call` as it is, `some` the part of a write that reaches the disk anyway.
template <class Call, class Some>
auto watch(const DiskOp& op, Call call, Some some) -> decltype(call()) {
  const std::scoped_lock lock(mutex);
  if (!hook || !is_watched(op.path)) return call();
  const DiskAnswer answer = hook(op);
  if (answer.some > 0) some(answer.some);
  if (answer.cut) ::kill(::getpid(), SIGKILL);
  if (answer.error == 0) return call();
  errno = answer.error;
  return -1;
}

template <class Call>
auto watch(const DiskOp& op, Call call) -> decltype(call()) {
  return watch(op, call, [](std::size_t) {});
}

}  // namespace

DiskWatch::DiskWatch(fs::path folder, Hook asked) {
  const std::scoped_lock lock(mutex);
  watched = std::move(folder);
  hook = std::move(asked);
}

DiskWatch::~DiskWatch() {
  const std::scoped_lock lock(mutex);
  hook = nullptr;
}

}  // namespace gov::test

using gov::test::DiskOp;
using namespace gov::test;

extern "C" {

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  static auto* const call = real<int(const char*, int, ...)>("open");
  if (!(flags & O_CREAT)) return call(path, flags);
  return watch({DiskOp::kCreate, path_at(AT_FDCWD, path), {}, 0, {}}, [&] { return call(path, flags, mode); });
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  static auto* const call = real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  DiskOp op{DiskOp::kWrite, path_of(fd), {}, static_cast<std::uint64_t>(offset), {}};
  op.data.assign(static_cast<const char*>(data), bytes);
  return watch(
      op, [&] { return call(fd, data, bytes, offset); }, [&](size_t some) { call(fd, data, some, offset); });
}

// Nobody cuts the power of a test: a sync is seen, not done, which would take most of the time.
int fsync(int fd) {
  return watch({DiskOp::kSync, path_of(fd), {}, 0, {}}, [] { return 0; });
}

int mkdir(const char* path, mode_t mode) noexcept {
  static auto* const call = real<int(const char*, mode_t)>("mkdir");
  return watch({DiskOp::kMakeFolder, path_at(AT_FDCWD, path), {}, 0, {}}, [&] { return call(path, mode); });
}

int rename(const char* from, const char* to) noexcept {
  static auto* const call = real<int(const char*, const char*)>("rename");
  return watch({DiskOp::kRename, path_at(AT_FDCWD, from), path_at(AT_FDCWD, to), 0, {}},
               [&] { return call(from, to); });
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  static auto* const call = real<int(int, const char*, int, const char*, unsigned)>("renameat2");
  return watch({DiskOp::kExchange, path_at(from_folder, from), path_at(to_folder, to), 0, {}},
               [&] { return call(from_folder, from, to_folder, to, flags); });
}

int unlink(const char* path) noexcept {
  static auto* const call = real<int(const char*)>("unlink");
  return watch({DiskOp::kRemove, path_at(AT_FDCWD, path), {}, 0, {}}, [&] { return call(path); });
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  static auto* const call = real<int(int, const char*, int)>("unlinkat");
  struct stat status {};
  const bool there = ::fstatat(folder, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
  // remove_all() tries, to see what it has.
  if (!there || S_ISDIR(status.st_mode) != ((flags & AT_REMOVEDIR) != 0)) return call(folder, path, flags);
  return watch({DiskOp::kRemove, path_at(folder, path), {}, 0, {}}, [&] { return call(folder, path, flags); });
}

}  // extern "C"
