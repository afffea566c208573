// Training files: any bytes give a configuration or an Error in one line; an accepted one survives a round trip. The
// first line, if it begins with '=', is an override.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "train/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gov::train;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  if (text.starts_with('=')) {
    const std::string_view line = text.substr(1, text.find('\n') - 1);
    overrides.emplace_back(line);
    text.remove_prefix(std::min(text.size(), line.size() + 2));
  }
  TrainConfig config;
  try {
    config = parse_train_config(text, overrides);
  } catch (const gov::Error& e) {
    if (std::string_view(e.what()).find('\n') != std::string_view::npos) std::abort();
    return 0;
  }
  const std::string written = train_config_toml(config);
  if (train_config_toml(parse_train_config(written)) != written) std::abort();  // an Error here is a finding too
  return 0;
}
