// Checkpoints of a run: what is saved is loaded, which ones remain, what damage is found. Kills, full disks and losses
// of power are in checkpoint_crash_test.cc.

#include <gtest/gtest.h>

#include <numeric>

#include "tensor/device.h"
#include "tests/io/temp_folder.h"
#include "tests/test_device.h"
#include "tests/train/checkpoint_values.h"
#include "train/checkpoint_manifest.h"

namespace gov::train::test {
namespace {

namespace fs = std::filesystem;
using gov::test::count_files;
using gov::test::expect_error;
using gov::test::get_file;
using gov::test::put_file;
using gov::test::TempFolder;

std::vector<std::int64_t> steps_in(const CheckpointStore& store) {
  std::vector<std::int64_t> steps;
  for (const auto& found : store.list()) steps.push_back(found.step);
  return steps;
}

TEST(CheckpointStore, RoundTrip) {
  const TempFolder folder;
  for (const std::uint64_t shard : {std::uint64_t{1}, kSmallShard, std::uint64_t{1} << 30}) {
    CheckpointStore store(folder / fmt::format("not/yet/there{}", shard), 2, shard);
    EXPECT_FALSE(store.latest());
    save(store, 7);
    const auto found = store.latest();
    ASSERT_TRUE(found);
    EXPECT_EQ(found->folder.filename(), "step-00000007");
    expect_whole(store, *found);
    std::vector<std::string> names;
    for (const TensorSpec& spec : store.tensors(*found)) names.push_back(spec.name);
    EXPECT_EQ(names, (std::vector<std::string>{"counts", "empty", "master.embed", "moment.embed", "moment8"}));
    const std::size_t shards = shard == 1 ? 4 : shard == kSmallShard ? 3 : 1;
    EXPECT_EQ(count_files(found->folder), shards + 2);
  }
}

TEST(CheckpointStore, NoTensorsAndStepsOfAnyLength) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 9);
  for (const std::int64_t step : {std::int64_t{0}, std::int64_t{99'999'999}, std::int64_t{100'000'000}, INT64_MAX}) {
    store.save(step, {}, "{}");
    store.wait();
  }
  EXPECT_EQ(steps_in(store), (std::vector<std::int64_t>{INT64_MAX, 100'000'000, 99'999'999, 0}));
  store.load(*store.latest(), {});
}

TEST(CheckpointStore, PartOfTheTensors) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 1);
  save(store, 3);
  Values loaded(4);
  store.load(*store.latest(), loaded.tensors().subspan(3, 1));
  const Values saved(3), other(4);
  EXPECT_EQ(std::memcmp(loaded.list()[3].tensor.data, saved.tensors()[3].tensor.data, 33), 0);
  EXPECT_EQ(std::memcmp(loaded.list()[0].tensor.data, other.tensors()[0].tensor.data, 60), 0);
}

TEST(CheckpointStore, KeepsTheNewest) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 2, kSmallShard);
  put_file(folder / "notes.txt", "mine");
  fs::create_directory(folder / "step-00000001");  // not complete: nobody's to remove
  fs::create_directory(folder / "step-2");
  fs::create_directory(folder / "step-00000009.part-0123456789abcdef");  // a killed save's
  fs::create_directory(folder / "step-00000009.part-0123456789abcdex");
  for (const std::int64_t step : {10, 20, 30, 40}) save(store, step);
  EXPECT_EQ(steps_in(store), (std::vector<std::int64_t>{40, 30}));
  for (const auto& found : store.list()) expect_whole(store, found);
  EXPECT_EQ(count_files(folder.path()), 6u);
  EXPECT_FALSE(fs::exists(folder / "step-00000009.part-0123456789abcdef"));
  expect_error(ErrorCode::kInvalidArgument, "0 checkpoints cannot be kept", [&] { CheckpointStore(folder.path(), 0); });
}

TEST(CheckpointStore, SameStepReplacesAndEarlierStepsAreRefused) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 3);
  for (const std::int64_t step : {10, 20, 30}) save(store, step);
  store.save(30, Values(31).tensors(), "{}");
  store.wait();
  Values loaded(30);
  store.load(*store.latest(), loaded.tensors());
  EXPECT_TRUE(loaded == Values(31));
  EXPECT_EQ(count_files(folder.path()), 3u);
  expect_error(ErrorCode::kInvalidArgument, "holds a checkpoint of step 30, later than 25", [&] { save(store, 25); });
  expect_error(ErrorCode::kInvalidArgument, "-1 is not a step", [&] { save(store, -1); });
  store.discard_after(15);
  save(store, 16);
  EXPECT_EQ(steps_in(store), (std::vector<std::int64_t>{16, 10}));
}

TEST(CheckpointStore, DamagedOneOfTheSameStepIsReplaced) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 3);
  save(store, 10);
  fs::remove(folder / "step-00000010/state.json");
  EXPECT_FALSE(store.latest());
  save(store, 10);
  expect_whole(store, *store.latest());
}

// The trainer goes on at once: what it writes then must not reach the disk.
TEST(CheckpointStore, TensorsMayChangeAfterSave) {
  const TempFolder folder;
  constexpr std::size_t kCount = 1 << 20;
  std::vector<float> values(kCount);
  const NamedTensor tensor{"weights", Tensor::of(values.data(), {static_cast<std::int64_t>(kCount)})};
  CheckpointStore store(folder.path(), 3, 1 << 20);
  for (std::int64_t step = 1; step <= 3; ++step) {
    std::iota(values.begin(), values.end(), static_cast<float>(step));
    store.save(step, {&tensor, 1}, "{}");
    std::fill(values.begin(), values.end(), -1.f);
  }
  store.wait();
  for (const auto& found : store.list()) {
    store.verify(found);
    store.load(found, {&tensor, 1});
    std::vector<float> expected(kCount);
    std::iota(expected.begin(), expected.end(), static_cast<float>(found.step));
    EXPECT_EQ(values, expected) << found.step;
  }
}

TEST(CheckpointStore, DeviceMemory) {
  GOV_NEEDS_TEST_DEVICE();
  use_cuda_device(gov::test::test_ordinal());
  const TempFolder folder;
  constexpr std::size_t kCount = 1 << 20;
  std::vector<float> values(kCount), back(kCount);
  std::iota(values.begin(), values.end(), 0.f);
  const Buffer memory(4 * kCount, DeviceKind::kCuda, "test");
  const NamedTensor tensor{"weights", Tensor(memory.data(), DType::kF32, {kCount}, "", DeviceKind::kCuda)};
  const Stream stream = Stream::create();
  copy_bytes(memory.data(), DeviceKind::kCuda, values.data(), DeviceKind::kCpu, 4 * kCount, stream.get());
  CheckpointStore store(folder.path(), 3);
  store.save(1, {&tensor, 1}, "{}");
  fill_bytes(memory.data(), DeviceKind::kCuda, 0, 4 * kCount, stream.get());
  synchronize(stream.get());
  store.wait();
  store.load(*store.latest(), {&tensor, 1});
  copy_bytes(back.data(), DeviceKind::kCpu, memory.data(), DeviceKind::kCuda, 4 * kCount, nullptr);
  EXPECT_EQ(back, values);
}

TEST(CheckpointStore, WrongTensorsAreNamed) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 1);
  save(store, 1);
  const auto found = *store.latest();
  Values into(2);
  into.list()[0].name = "master.\nhead";
  into.list()[1].tensor.shape = {7, 1};
  into.list()[2].tensor = Tensor(into.list()[2].tensor.data, DType::kF64, {2, 1});
  const auto load = [&] { store.load(found, into.tensors()); };
  expect_error(ErrorCode::kInvalidArgument, "step-00000001: tensor 'master.?head' is not in it", load);
  expect_error(ErrorCode::kInvalidArgument, "tensor 'moment.embed' is BF16 [7] in it, not bf16 [7, 1]", load);
  expect_error(ErrorCode::kInvalidArgument, "tensor 'counts' is I64 [2, 1] in it, not f64 [2, 1]", load);
  EXPECT_TRUE(into == Values(2)) << "nothing may be written";
  for (auto& tensor : into.list()) tensor.name += "x";
  expect_error(ErrorCode::kInvalidArgument, "and 1 more", load);
  into.list()[1].name = into.list()[0].name;
  expect_error(ErrorCode::kInvalidArgument, "is listed twice", [&] { store.save(2, into.tensors(), "{}"); });
}

TEST(CheckpointStore, ExtraFiles) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 2);
  store.save(1, Values(1).tensors(), state_of(1), [](const fs::path& into) {
    fs::create_directories(into / "model/deep");
    put_file(into / "model/config.json", "{}");
    put_file(into / "model/deep/file", "");
  });
  store.wait();
  const auto found = *store.latest();
  expect_whole(store, found);
  EXPECT_EQ(read_manifest(found.folder).files.size(), 4u);
  put_file(found.folder / "model/config.json", "[]");
  expect_error(ErrorCode::kCorrupt, "model/config.json is not as it was written", [&] { store.verify(found); });
  fs::remove(found.folder / "model/deep/file");
  EXPECT_FALSE(store.latest());
}

TEST(CheckpointStore, ErrorsOfTheBackgroundComeOnce) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 2);
  save(store, 1);
  const auto failing = [](const fs::path&) { fail(ErrorCode::kIo, "no extra today"); };
  store.save(2, Values(2).tensors(), "{}", failing);
  expect_error(ErrorCode::kIo, "no extra today", [&] { store.wait(); });
  store.wait();
  store.save(2, Values(2).tensors(), "{}", failing);
  expect_error(ErrorCode::kIo, "no extra today", [&] { save(store, 2); });
  EXPECT_EQ(steps_in(store), (std::vector<std::int64_t>{1}));
  store.save(2, Values(2).tensors(), "{}", [](const fs::path& into) { fs::create_symlink("/etc", into / "link"); });
  expect_error(ErrorCode::kInvalidArgument, "link is neither a file nor a folder", [&] { store.wait(); });
  store.save(2, Values(2).tensors(), "{}", [](const fs::path& into) { put_file(into / "a b", ""); });
  expect_error(ErrorCode::kInvalidArgument, "has no plain file name", [&] { store.wait(); });
  EXPECT_EQ(count_files(folder.path()), 1u);
  save(store, 2);
  expect_whole(store, *store.latest());
}

TEST(CheckpointStore, FolderThatCannotBe) {
  const TempFolder folder;
  put_file(folder / "file", "");
  CheckpointStore store(folder / "file/checkpoints", 1);
  expect_error(ErrorCode::kNotFound, "cannot", [&] { save(store, 1); });
}

// Any one bit of any file: the checkpoint is passed over, with a note, and the one before it is taken.
TEST(CheckpointStore, EveryFlippedBitIsFound) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 2);
  save(store, 1);
  save(store, 2);
  std::int64_t flips = 0;
  for (const auto& entry : fs::directory_iterator(folder / "step-00000002")) {
    const std::string whole = get_file(entry.path());
    const std::size_t stride = entry.path().filename() == kManifestName ? 1 : 3;
    for (std::size_t bit = 0; bit < 8 * whole.size(); bit += stride, ++flips) {
      std::string damaged = whole;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      fs::remove(entry.path());  // some file systems sync a file that is cut and written again
      put_file(entry.path(), damaged);
      std::string note;
      const auto found = store.latest_verified({[&](LogLevel, std::string_view text) { note = text; }});
      ASSERT_TRUE(found && found->step == 1) << entry.path() << " bit " << bit;
      ASSERT_NE(note.find("checkpoint passed over: "), note.npos);
      ASSERT_EQ(note.find('\n'), note.npos);
    }
    put_file(entry.path(), whole);
  }
  EXPECT_GT(flips, 2000);
  EXPECT_EQ(store.latest_verified({})->step, 2);
}

TEST(CheckpointStore, EveryShorterOrMissingFileIsFoundWithoutReading) {
  const TempFolder folder;
  CheckpointStore store(folder.path(), 2);
  save(store, 1);
  save(store, 2);
  for (const auto& entry : fs::directory_iterator(folder / "step-00000002")) {
    const std::string whole = get_file(entry.path());
    for (std::size_t length = 0; length < whole.size(); ++length) {
      fs::remove(entry.path());
      put_file(entry.path(), whole.substr(0, length));
      ASSERT_EQ(store.latest()->step, 1) << entry.path() << " " << length;
    }
    put_file(entry.path(), whole + " ");
    ASSERT_EQ(store.latest()->step, 1) << entry.path();
    fs::remove(entry.path());
    ASSERT_EQ(store.latest()->step, 1) << entry.path();
    put_file(entry.path(), whole);
  }
  fs::rename(folder / "step-00000002", folder / "step-00000003");
  EXPECT_EQ(store.latest()->step, 1);
}

TEST(Manifest, RefusesWhatItWouldNotWrite) {
  const std::string hash(64, 'a');
  const auto text = [&](const std::string& name, const std::string& bytes = "1") {
    return fmt::format(
        R"({{"format":"gov-train-checkpoint-1","step":5,"files":[{{"name":"{}","bytes":{},"sha256":"{}"}}]}})", name,
        bytes, hash);
  };
  EXPECT_EQ(parse_manifest(text("a/b.c"), "it").files.at(0).name, "a/b.c");
  for (const std::string name : {"", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a\\\\b", "\\u0000"})
    expect_error(ErrorCode::kCorrupt, "it is damaged: ", [&] { parse_manifest(text(name), "it"); });
  for (const std::string bytes : {"-1", "1.0", "\"1\"", "01", "9223372036854775808"})
    expect_error(ErrorCode::kCorrupt, "it is damaged: ", [&] { parse_manifest(text("a", bytes), "it"); });
  for (const std::string json : {"", "null", "{}", "[]", R"({"format":"gov-train-checkpoint-2","step":5,"files":[]})",
                                 R"({"format":"gov-train-checkpoint-1","step":5,"files":[]} )",
                                 R"({"format":"gov-train-checkpoint-1","step":5,"files":[7]})"})
    expect_error(ErrorCode::kCorrupt, "it is damaged: ", [&] { parse_manifest(json, "it"); });
}

}  // namespace
}  // namespace gov::train::test
