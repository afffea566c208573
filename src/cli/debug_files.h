#pragma once
// The files of `debug forward`, `debug gradients` and `debug train-steps`: inputs, and named results.

#include <map>

#include "cli/common.h"

namespace gov::cli {

struct Inputs {
  std::int64_t batch = 0, text = 0;     // B, T
  std::vector<std::int64_t> ids;        // [B, T]
  std::vector<float> pixels;            // [B, 3, side, side] or empty
  std::vector<std::uint8_t> loss_mask;  // [B, T] or empty
};

// One tensor of the output file.
struct Result {
  DType dtype;
  Shape shape;
  std::vector<std::byte> bytes;
};
using Results = std::map<std::string, Result>;

template <class T>
void put_result(Results& results, const std::string& name, Shape shape, std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  results.insert_or_assign(name, Result{kDTypeOf<T>, shape, {bytes.begin(), bytes.end()}});
}

// Error kNotFound, kInvalidArgument for what does not fit the model.
Inputs read_inputs(const std::string& path, const Config& config);
void write_results(const std::string& path, const Results& results);

}  // namespace gov::cli
