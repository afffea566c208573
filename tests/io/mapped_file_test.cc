#include "io/mapped_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "io/atomic_file.h"
#include "tests/io/temp_folder.h"

namespace gov::test {
namespace {

namespace fs = std::filesystem;

TEST(MappedFile, MapsWhatIsThere) {
  const TempFolder folder;
  const std::string text = std::string(100'000, 'x') + "end";
  put_file(folder / "file", text);
  MappedFile file(folder / "file");
  ASSERT_EQ(file.bytes().size(), text.size());
  EXPECT_EQ(std::memcmp(file.bytes().data(), text.data(), text.size()), 0);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.bytes().data()) % 4096, 0u);
  const std::byte* address = file.bytes().data();
  MappedFile moved = std::move(file);
  EXPECT_EQ(moved.bytes().data(), address);
  file = std::move(moved);
  EXPECT_EQ(file.bytes().data(), address);
  file.will_need();
  file.sequential();
  file.prefault(1, text.size() - 1);
  ThreadPool pool(2);
  file.prefault(pool);
  std::string part(10, '\0');
  file.read_at(text.size() - 10, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(part, text.substr(text.size() - 10));
  file.check_unchanged();
}

TEST(MappedFile, EmptyFile) {
  const TempFolder folder;
  put_file(folder / "file", "");
  const MappedFile file(folder / "file");
  EXPECT_TRUE(file.bytes().empty());
  ThreadPool pool(1);
  file.prefault(pool);
  file.will_need();
}

TEST(MappedFile, RefusesWhatIsNoRegularFile) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::kNotFound, "missing", [&] { MappedFile(folder / "missing"); });
  expect_error(ErrorCode::kNotFound, "x", [&] { MappedFile(folder / "pipe" / "x"); });
  expect_error(ErrorCode::kInvalidArgument, "not a regular file", [&] { MappedFile{folder.path()}; });
  expect_error(ErrorCode::kInvalidArgument, "not a regular file", [&] { MappedFile(folder / "pipe"); });
  expect_error(ErrorCode::kInvalidArgument, "not a regular file", [&] { MappedFile("/dev/null"); });
  expect_error(ErrorCode::kInvalidArgument, "not a regular file", [&] { read_text_file(folder / "pipe", 10); });
}

TEST(MappedFile, AShrunkFileIsAnErrorNotASignal) {
  const TempFolder folder;
  put_file(folder / "file", std::string(1 << 20, 'x'));
  const MappedFile file(folder / "file");
  fs::resize_file(folder / "file", 5000);
  std::string part(100, '\0');
  expect_error(ErrorCode::kIo, "file", [&] { file.read_at(500'000, std::as_writable_bytes(std::span(part))); });
  expect_error(ErrorCode::kIo, "file", [&] { file.prefault(0, 1 << 20); });
  expect_error(ErrorCode::kIo, "changed", [&] { file.check_unchanged(); });
  file.prefault(0, 5000);
}

TEST(MappedFile, CutWhileItIsRead200Times) {
  const TempFolder folder;
  const fs::path path = folder / "file";
  const std::string content(1 << 20, 'x');
  int cut = 0;
  for (int round = 0; round < 200; ++round) {
    put_file(path, content);
    const MappedFile file(path);
    std::atomic<bool> go{false};
    std::thread shrinker([&] {
      while (!go) std::this_thread::yield();
      fs::resize_file(path, static_cast<std::uintmax_t>(round) * 5000);
    });
    std::string read(content.size(), '\0');
    go = true;
    try {
      for (std::size_t at = 0; at < read.size(); at += 65536) {
        file.read_at(at, std::as_writable_bytes(std::span(read)).subspan(at, 65536));
      }
      EXPECT_EQ(read, content);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      ++cut;
    }
    shrinker.join();
    EXPECT_THROW(file.check_unchanged(), Error);
  }
  RecordProperty("cut", cut);
}

TEST(MappedFile, AReplacedFileKeepsItsOldBytes) {
  const TempFolder folder;
  put_file(folder / "file", std::string(10'000, 'a'));
  const MappedFile file(folder / "file");
  const std::string other(10, 'b');
  write_file_atomic(folder / "file", as_bytes(other));
  EXPECT_EQ(static_cast<char>(file.bytes().back()), 'a');
  file.check_unchanged();
  EXPECT_EQ(get_file(folder / "file"), other);
}

TEST(ReadTextFile, LimitIsExact) {
  const TempFolder folder;
  put_file(folder / "file", std::string("a\0b", 3));
  EXPECT_EQ(read_text_file(folder / "file", 3), std::string("a\0b", 3));
  expect_error(ErrorCode::kInvalidArgument, "3 bytes; at most 2", [&] { read_text_file(folder / "file", 2); });
  expect_error(ErrorCode::kNotFound, "none", [&] { read_text_file(folder / "none", 2); });
}

TEST(AtomicFile, NothingRemainsWithoutCommit) {
  const TempFolder folder;
  put_file(folder / "file", "old");
  {
    AtomicFile file(folder / "file");
    file.write_at(0, as_bytes("new"));
    EXPECT_EQ(count_files(folder.path()), 2u);
    EXPECT_EQ(get_file(folder / "file"), "old");
    AtomicFile moved = std::move(file);
    EXPECT_EQ(count_files(folder.path()), 2u);
  }
  EXPECT_EQ(count_files(folder.path()), 1u);
  EXPECT_EQ(get_file(folder / "file"), "old");
  write_file_atomic(folder / "file", as_bytes("newer"));
  EXPECT_EQ(get_file(folder / "file"), "newer");
  EXPECT_EQ(count_files(folder.path()), 1u);
}

TEST(AtomicFile, ErrorsNameTheFile) {
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, "no/file", [&] { write_file_atomic(folder / "no/file", {}); });
  expect_error(ErrorCode::kInvalidArgument, "names no file", [&] { write_file_atomic(folder / "folder/", {}); });
  fs::create_directory(folder / "taken");
  expect_error(ErrorCode::kIo, "taken", [&] { write_file_atomic(folder / "taken", {}); });
  EXPECT_EQ(count_files(folder.path()), 1u);
  expect_error(ErrorCode::kIo, "/dev/full", [&] {
    write_exactly(FileDescriptor(::open("/dev/full", O_WRONLY | O_CLOEXEC)), 0, as_bytes("x"), "/dev/full");
  });
}

}  // namespace
}  // namespace gov::test
