#pragma once
// Tensors whose bytes depend on a step, for checkpoints of tests.

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "train/checkpoint_store.h"

namespace gov::train::test {

class Values {
 public:
  explicit Values(std::int64_t step) {
    add("master.embed", DType::kF32, {3, 5}, step);
    add("moment.embed", DType::kBF16, {7}, step);
    add("counts", DType::kI64, {2, 1}, step);
    add("moment8", DType::kU8, {33}, step);
    add("empty", DType::kF32, {0, 4}, step);
  }
  std::span<const NamedTensor> tensors() const { return tensors_; }
  std::vector<NamedTensor>& list() { return tensors_; }
  bool operator==(const Values& other) const { return bytes_ == other.bytes_; }
  void clear() {
    for (auto& bytes : bytes_) std::fill(bytes.begin(), bytes.end(), std::uint8_t{0xee});
  }

 private:
  void add(const char* name, DType dtype, Shape shape, std::int64_t step) {
    auto& bytes = bytes_.emplace_back(static_cast<std::size_t>(shape.elements()) * dtype_size(dtype));
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::uint8_t>(i * 7 + static_cast<std::size_t>(step) * 31 + bytes_.size());
    tensors_.push_back({name, Tensor(bytes.data(), dtype, shape)});
  }
  std::vector<std::vector<std::uint8_t>> bytes_;
  std::vector<NamedTensor> tensors_;
};

inline constexpr std::uint64_t kSmallShard = 40;  // several shards even here

inline std::string state_of(std::int64_t step) { return fmt::format(R"({{"step":{}}})", step); }

inline void save(CheckpointStore& store, std::int64_t step) {
  store.save(step, Values(step).tensors(), state_of(step));
  store.wait();
}

// The checkpoint holds just what was saved for its step.
inline void expect_whole(const CheckpointStore& store, const CheckpointStore::Found& found) {
  EXPECT_NO_THROW(store.verify(found));
  Values loaded(found.step);
  loaded.clear();
  store.load(found, loaded.tensors());
  EXPECT_TRUE(loaded == Values(found.step)) << found.folder;
  EXPECT_EQ(store.state(found), state_of(found.step));
}

}  // namespace gov::train::test
