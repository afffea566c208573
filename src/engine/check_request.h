#pragma once
// Every rule on what a request may ask for, in one place.

#include "engine/sequence.h"
#include "model/config.h"

namespace gov {

inline constexpr int kMostChoices = 16;
inline constexpr int kMostLogprobs = 20;
inline constexpr std::size_t kMostStops = 16;
inline constexpr std::size_t kLongestStop = 256;  // bytes
inline constexpr std::size_t kMostStopTokens = 1024;
inline constexpr std::size_t kMostLogitBias = 1024;

// Error kInvalidArgument naming the field; kContextLength if the prompt, and one token if any is
// wanted, do not fit `context` positions.
void check_request(const Config& config, const DecodingRules& rules, const Request& request, std::int64_t context);

}  // namespace gov
