// config.json: any bytes give a configuration or an Error; an accepted one survives a round trip through its own JSON.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  gov::Config config;
  try {
    config = gov::parse_config({reinterpret_cast<const char*>(data), size});
  } catch (const gov::Error&) {
    return 0;
  }
  gov::rope_inv_freq(config);
  const std::string text = gov::config_json(config);
  if (gov::config_json(gov::parse_config(text)) != text) std::abort();  // an Error here is a finding too
  return 0;
}
