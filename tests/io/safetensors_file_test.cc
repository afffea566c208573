// Reading and writing whole files: round trips, files of the Python library, alignment, all-or-nothing writing.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <sstream>
#include <thread>

#include "io/safetensors.h"
#include "tests/io/hostile_safetensors.h"
#include "tests/io/temp_folder.h"

namespace gov::test {
namespace {

namespace fs = std::filesystem;

constexpr DType kAllTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kU8,
                               DType::kI8,  DType::kBool, DType::kI16, DType::kI32, DType::kI64};

std::string pattern(std::uint64_t bytes, std::size_t seed) {
  std::string text(static_cast<std::size_t>(bytes), '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>((i * 31 + seed * 17) % 253);
  return text;
}

std::string_view data_of(const Tensor& tensor) { return {static_cast<const char*>(tensor.data), tensor.bytes()}; }

std::vector<TensorSpec> all_specs() {
  std::vector<TensorSpec> specs;
  for (const DType type : kAllTypes) {
    const std::string name = dtype_name(type);
    specs.push_back({name + ".matrix", type, {3, 5}});
    specs.push_back({name + ".scalar", type, {}});
    specs.push_back({name + ".empty", type, {4, 0}});
    specs.push_back({name + ".\"rank five\"\n\xC3\xA9", type, {1, 2, 3, 1, 2}});
  }
  return specs;
}

TEST(SafetensorsFile, RoundTripOfAllTypesInAnyChunks) {
  const TempFolder folder;
  const std::vector<TensorSpec> specs = all_specs();
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"k\"\xC3\xA9", "line\n\x01"}};
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{64}, std::size_t{1} << 20}) {
    std::string stream;
    for (std::size_t i = 0; i < specs.size(); ++i) stream += pattern(specs[i].bytes(), i);
    SafetensorsWriter writer(folder / "f.safetensors", specs, metadata);
    for (std::size_t at = 0; at < stream.size(); at += chunk)
      writer.write(as_bytes(std::string_view(stream).substr(at, chunk)));
    writer.finish();
    EXPECT_EQ(fs::file_size(folder / "f.safetensors"), writer.file_bytes());
    const SafetensorsFile file = SafetensorsFile::open(folder / "f.safetensors");
    EXPECT_EQ(file.metadata(), metadata);
    ASSERT_EQ(file.entries().size(), specs.size());
    EXPECT_EQ(file.entries().front().begin % 64, 0u);
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const SafetensorsEntry* entry = file.find(specs[i].name);
      ASSERT_NE(entry, nullptr) << specs[i].name;
      EXPECT_TRUE(entry->aligned());
      const Tensor tensor = file.tensor(*entry);
      EXPECT_EQ(tensor.dtype, specs[i].dtype);
      EXPECT_EQ(tensor.shape, specs[i].shape);
      EXPECT_EQ(tensor.name, specs[i].name);
      EXPECT_EQ(data_of(tensor), pattern(specs[i].bytes(), i));
    }
    EXPECT_EQ(file.find("absent"), nullptr);
    EXPECT_EQ(file.find(""), nullptr);
  }
  EXPECT_EQ(count_files(folder.path()), 1u);
}

TEST(SafetensorsFile, ReadsThePythonLibrarysFiles) {
  const fs::path data = fs::path(GOV_SOURCE_DIR) / "tests/io/data";
  std::size_t checked = 0, unsupported = 0;
  for (const char* name : {"all_types", "shapes", "no_tensors"}) {
    const SafetensorsFile file = SafetensorsFile::open(data / (std::string(name) + ".safetensors"));
    EXPECT_EQ(file.metadata().count("format"), name == std::string("shapes") ? 0u : 1u);
    std::istringstream lines(get_file(data / (std::string(name) + ".tsv")));
    std::size_t count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
      std::istringstream fields(line);
      std::string tensor, dtype, shape, hex, bytes;
      std::getline(fields, tensor, '\t');
      std::getline(fields, dtype, '\t');
      std::getline(fields, shape, '\t');
      std::getline(fields, hex, '\t');
      for (std::size_t i = 0; i < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
      const SafetensorsEntry* entry = file.find(tensor);
      ASSERT_NE(entry, nullptr) << tensor;
      EXPECT_EQ(entry->stored_dtype, dtype);
      EXPECT_EQ(fmt::format("{}", fmt::join(entry->shape.extents(), ",")), shape);
      std::string read(static_cast<std::size_t>(entry->bytes()), '\0');
      file.read(*entry, std::as_writable_bytes(std::span(read)));
      EXPECT_EQ(read, bytes);
      if (entry->dtype) {
        EXPECT_EQ(safetensors_dtype_name(*entry->dtype), dtype);
        EXPECT_EQ(data_of(file.tensor(*entry)), bytes);
        ++checked;
      } else {
        expect_error(ErrorCode::kUnsupported, dtype, [&] { file.tensor(*entry); });
        ++unsupported;
      }
    }
    EXPECT_EQ(count, file.entries().size());
  }
  EXPECT_EQ(checked, 15u);
  EXPECT_EQ(unsupported, 5u);
  const SafetensorsFile file = SafetensorsFile::open(data / "all_types.safetensors");
  EXPECT_EQ(file.metadata().at("gr\xC3\xB6\xC3\x9F"
                               "e"),
            "\xE2\x80\x9Cquoted\xE2\x80\x9D \\ \"x\"\n\xF0\x9F\x98\x80");
}

TEST(SafetensorsFile, UnalignedDataIsCopiedOnce) {
  const TempFolder folder;
  // "a" shifts "b" off the alignment of its type; the header's length shifts everything by one more.
  std::string header = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                       R"("b":{"dtype":"F64","shape":[2],"data_offsets":[3,19]}})";
  while (header.size() % 8 != 0) header += ' ';
  const std::string data = "abc" + pattern(16, 4);
  put_file(folder / "f.safetensors", file_of(header, data));
  SafetensorsFile file = SafetensorsFile::open(folder / "f.safetensors");
  const SafetensorsEntry* entry = file.find("b");
  ASSERT_FALSE(entry->aligned());
  EXPECT_TRUE(file.find("a")->aligned());
  void* copies[2] = {};
  std::thread other([&] { copies[0] = file.tensor(*entry).data; });
  copies[1] = file.tensor(*entry).data;
  other.join();
  EXPECT_EQ(copies[0], copies[1]);
  const SafetensorsFile moved = std::move(file);
  const Tensor tensor = moved.tensor(*moved.find("b"));
  EXPECT_EQ(tensor.data, copies[0]);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data) % 64, 0u);
  EXPECT_EQ(data_of(tensor), data.substr(3));
}

TEST(SafetensorsWriter, RefusesBadPlans) {
  const TempFolder folder;
  const auto plan = [&](std::vector<TensorSpec> specs) {
    SafetensorsWriter(folder / "f.safetensors", std::move(specs));
  };
  const auto kBad = ErrorCode::kInvalidArgument;
  expect_error(kBad, "listed twice", [&] {
    plan({{"a", DType::kU8, {1}}, {"b", DType::kU8, {1}}, {"a", DType::kF32, {1}}});
  });
  expect_error(kBad, "__metadata__", [&] { plan({{"__metadata__", DType::kU8, {1}}}); });
  expect_error(kBad, "name of a tensor", [&] { plan({{"\xFF", DType::kU8, {1}}}); });
  expect_error(kBad, "shape", [&] { plan({{"a", DType::kU8, {-1}}}); });
  expect_error(kBad, "shape", [&] { plan({{"a", DType::kF32, {INT64_MAX / 2, 4}}}); });
  expect_error(kBad, "shape", [&] { plan({{"a", DType::kF64, {INT64_MAX / 8, 0, 8}}}); });
  expect_error(kBad, "together", [&] {
    std::vector<TensorSpec> specs;
    for (int i = 0; i < 40; ++i) specs.push_back({std::to_string(i), DType::kU8, {INT64_MAX / 16}});
    plan(std::move(specs));
  });
  expect_error(kBad, "metadata", [&] { SafetensorsWriter(folder / "f", {}, {{"a", "\xFF"}}); });
  EXPECT_EQ(count_files(folder.path()), 0u);
}

TEST(SafetensorsWriter, AppearsCompleteOrNotAtAll) {
  const TempFolder folder;
  const fs::path path = folder / "f.safetensors";
  const std::vector<TensorSpec> specs = {{"a", DType::kU8, {4}}, {"b", DType::kF32, {2}}};
  put_file(path, "old");
  const std::string data = pattern(12, 1);
  {
    SafetensorsWriter writer(path, specs);
    writer.write(as_bytes(data).first(11));
    EXPECT_EQ(get_file(path), "old");
    expect_error(ErrorCode::kInvalidArgument, "'b' is missing", [&] { writer.finish(); });
  }
  EXPECT_EQ(get_file(path), "old");
  EXPECT_EQ(count_files(folder.path()), 1u);
  {
    SafetensorsWriter writer(path, specs);
    expect_error(ErrorCode::kInvalidArgument, "1 bytes more", [&] { writer.write(as_bytes(pattern(13, 1))); });
  }
  EXPECT_EQ(get_file(path), "old");
  SafetensorsWriter writer(path, specs);
  writer.write(as_bytes(data));
  writer.finish();
  EXPECT_EQ(SafetensorsFile::open(path).entries().size(), 2u);
  EXPECT_EQ(count_files(folder.path()), 1u);
  expect_error(ErrorCode::kInvalidArgument, "already finished", [&] { writer.finish(); });
  EXPECT_EQ(SafetensorsFile::open(path).entries().size(), 2u);
}

}  // namespace
}  // namespace gov::test
