#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/io/hostile_safetensors.h"
#include "tests/io/temp_folder.h"

namespace gov::test {
namespace {

namespace fs = std::filesystem;

const std::vector<TensorSpec> kSpecs = {{"embed", DType::kBF16, {8, 4}}, {"empty", DType::kF32, {0}},
                                        {"blocks", DType::kU8, {4, 3}},  {"norm", DType::kF32, {4}},
                                        {"ids", DType::kI64, {5}},       {"last", DType::kF16, {3, 3}}};

std::string data_for(const TensorSpec& spec, char seed) {
  std::string text(static_cast<std::size_t>(spec.bytes()), '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(static_cast<std::size_t>(seed) + i % 50);
  return text;
}

void write_checkpoint(const fs::path& folder, std::uint64_t max_shard, char seed, std::size_t chunk = 1 << 20) {
  CheckpointWriter writer(folder, kSpecs, max_shard);
  for (const TensorSpec& spec : kSpecs) {
    const std::string data = data_for(spec, seed);
    for (std::size_t at = 0; at < data.size(); at += chunk)
      writer.write(spec.name, as_bytes(std::string_view(data).substr(at, chunk)));
  }
  writer.add_file("config.json", "{}\n");
  writer.finish();
}

void expect_complete(const Checkpoint& checkpoint, char seed) {
  ASSERT_EQ(checkpoint.names().size(), kSpecs.size());
  std::uint64_t total = 0;
  for (const TensorSpec& spec : kSpecs) {
    const std::optional<Tensor> tensor = checkpoint.find(spec.name);
    ASSERT_TRUE(tensor) << spec.name;
    EXPECT_EQ(tensor->dtype, spec.dtype);
    EXPECT_EQ(tensor->shape, spec.shape);
    EXPECT_EQ(std::string_view(static_cast<const char*>(tensor->data), tensor->bytes()), data_for(spec, seed));
    total += spec.bytes();
  }
  EXPECT_EQ(checkpoint.tensor_bytes(), total);
  EXPECT_GT(checkpoint.file_bytes(), total);
  EXPECT_FALSE(checkpoint.find("absent"));
  EXPECT_FALSE(checkpoint.locate(""));
  checkpoint.check_unchanged();
}

TEST(Checkpoint, RoundTripInOneAndSeveralShards) {
  const TempFolder folder;
  for (const auto& [max_shard, shards] :
       {std::pair(std::uint64_t{1} << 30, 1u), {std::uint64_t{60}, 3u}, {std::uint64_t{1}, 6u}}) {
    const fs::path path = folder / fmt::format("m{}", shards);
    write_checkpoint(path, max_shard, 'a', shards == 3 ? 5 : 1 << 20);
    Checkpoint checkpoint = Checkpoint::open(path);
    EXPECT_EQ(checkpoint.files().size(), shards);
    EXPECT_EQ(checkpoint.folder(), path);
    expect_complete(checkpoint, 'a');
    const Checkpoint moved = std::move(checkpoint);
    expect_complete(moved, 'a');
    EXPECT_EQ(get_file(path / "config.json"), "{}\n");
    EXPECT_EQ(fs::exists(path / "model.safetensors.index.json"), shards > 1);
    EXPECT_EQ(fs::exists(path /
                         (shards == 1 ? "model.safetensors" : fmt::format("model-00001-of-{:05}.safetensors", shards))),
              true);
    EXPECT_EQ(count_files(path), shards + (shards > 1 ? 2u : 1u));
    expect_complete(Checkpoint::open(path / (shards == 1 ? "model.safetensors" : "model.safetensors.index.json")), 'a');
  }
  EXPECT_EQ(count_files(folder.path()), 3u);
}

TEST(Checkpoint, FindsItsMainFile) {
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, "missing", [&] { Checkpoint::open(folder / "missing"); });
  expect_error(ErrorCode::kNotFound, "model.safetensors", [&] { Checkpoint::open(folder.path()); });
  const std::string file = file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x");
  put_file(folder / "weights.safetensors", file);
  EXPECT_EQ(Checkpoint::open(folder.path()).names(), std::vector<std::string_view>{"a"});
  EXPECT_EQ(Checkpoint::open(folder / "weights.safetensors").folder(), folder.path());
  put_file(folder / "other.safetensors", file);
  expect_error(ErrorCode::kInvalidArgument, "several", [&] { Checkpoint::open(folder.path()); });
  put_file(folder / "x.safetensors.index.json", R"({"weight_map":{"a":"other.safetensors"}})");
  EXPECT_EQ(Checkpoint::open(folder.path()).files().front().path().filename(), "other.safetensors");
  put_file(folder / "model.safetensors", file_of("{}", ""));
  EXPECT_TRUE(Checkpoint::open(folder.path()).names().empty());
}

TEST(CheckpointWriter, RefusesMisuse) {
  const TempFolder folder;
  const auto kBad = ErrorCode::kInvalidArgument;
  {
    CheckpointWriter writer(folder / "m", kSpecs, 60);
    const std::string embed = data_for(kSpecs[0], 'a');
    expect_error(kBad, "'norm' came when 'embed' was due", [&] { writer.write("norm", as_bytes("x")); });
    writer.write("embed", as_bytes(embed).first(10));
    expect_error(kBad, "'blocks' came when 'embed'", [&] { writer.write("blocks", as_bytes("x")); });
    expect_error(kBad, "needs 64 bytes, 74", [&] { writer.write("embed", as_bytes(embed)); });
    expect_error(kBad, "'embed' is missing", [&] { writer.finish(); });
    writer.write("embed", as_bytes(embed).subspan(10));
    writer.write("empty", {});
    expect_error(kBad, "'empty' needs 0 bytes", [&] { writer.write("empty", as_bytes("x")); });
    expect_error(kBad, "'blocks' is missing", [&] { writer.finish(); });
    expect_error(kBad, "plain", [&] { writer.add_file("../config.json", ""); });
    expect_error(kBad, "there already", [&] { writer.add_file("model-00001-of-00003.safetensors", ""); });
    expect_error(kBad, "there already", [&] { writer.add_file("model.safetensors.index.json", ""); });
    writer.add_file("a.json", "");
    expect_error(kBad, "there already", [&] { writer.add_file("a.json", ""); });
  }
  EXPECT_EQ(count_files(folder.path()), 0u);
  expect_error(kBad, "listed twice", [&] { CheckpointWriter(folder / "m", {kSpecs[0], kSpecs[0]}, 80); });
  expect_error(kBad, "shape", [&] { CheckpointWriter(folder / "m", {{"a", DType::kF32, {INT64_MAX, -7}}}, 80); });
  expect_error(ErrorCode::kNotFound, "none/m", [&] { CheckpointWriter(folder / "none/m", kSpecs, 60); });
  EXPECT_EQ(count_files(folder.path()), 0u);
}

TEST(CheckpointWriter, LeavesAnExistingTargetAlone) {
  const TempFolder folder;
  const fs::path target = folder / "m";
  fs::create_directory(target);
  write_checkpoint(folder / "m/", 60, 'a');  // an empty folder is taken over; the slash names the same folder
  expect_complete(Checkpoint::open(target), 'a');
  expect_error(ErrorCode::kInvalidArgument, "not empty", [&] { write_checkpoint(target, 60, 'b'); });
  expect_complete(Checkpoint::open(target), 'a');
  put_file(folder / "file", "x");
  expect_error(ErrorCode::kInvalidArgument, "not a folder", [&] { write_checkpoint(folder / "file", 60, 'b'); });
  // The target comes into being while the writer is at work.
  {
    CheckpointWriter writer(folder / "late", {{"a", DType::kU8, {1}}}, 80);
    writer.write("a", as_bytes("x"));
    EXPECT_FALSE(fs::exists(folder / "late"));
    fs::create_directory(folder / "late");
    put_file(folder / "late/keep", "y");
    expect_error(ErrorCode::kInvalidArgument, "not empty", [&] { writer.finish(); });
  }
  EXPECT_EQ(count_files(folder / "late"), 1u);
  EXPECT_EQ(get_file(folder / "late/keep"), "y");
  EXPECT_EQ(count_files(folder.path()), 3u);
}

TEST(Checkpoint, ReplacedWhileLoading200Times) {
  const TempFolder folder;
  write_checkpoint(folder / "a", 30, 'a');
  write_checkpoint(folder / "b", 30, 'b');
  const fs::path current = folder / "current";
  fs::create_directory_symlink("a", current);
  std::atomic<bool> stop{false};
  std::thread replacer([&] {
    for (int i = 0; !stop; ++i) {
      fs::create_directory_symlink(i % 2 == 0 ? "b" : "a", folder / "next");
      fs::rename(folder / "next", current);
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  });
  int whole = 0, replaced = 0;
  for (int i = 0; i < 200; ++i) {
    try {
      const Checkpoint checkpoint = Checkpoint::open(current);
      const char seed = static_cast<const char*>(checkpoint.find("embed")->data)[0];
      for (const TensorSpec& spec : kSpecs) {
        const auto tensor = checkpoint.find(spec.name);
        ASSERT_TRUE(tensor);
        ASSERT_EQ(std::string_view(static_cast<const char*>(tensor->data), tensor->bytes()), data_for(spec, seed));
      }
      checkpoint.check_unchanged();
      ++whole;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo) << error.what();
      ++replaced;
    }
  }
  stop = true;
  replacer.join();
  EXPECT_EQ(whole + replaced, 200);
  EXPECT_GT(replaced, 0);
}

TEST(Checkpoint, AShardReplacedSinceOpeningIsNoticed) {
  const TempFolder folder;
  write_checkpoint(folder / "a", 60, 'a');
  write_checkpoint(folder / "b", 60, 'b');
  const Checkpoint checkpoint = Checkpoint::open(folder / "a");
  checkpoint.check_unchanged();
  const char* shard = "model-00002-of-00003.safetensors";
  fs::rename(folder / "b" / shard, folder / "a" / shard);
  expect_error(ErrorCode::kIo, "model-00002-of-00003.safetensors was replaced", [&] { checkpoint.check_unchanged(); });
  fs::remove(folder / "a" / shard);
  expect_error(ErrorCode::kNotFound, shard, [&] { checkpoint.check_unchanged(); });
}

}  // namespace
}  // namespace gov::test
