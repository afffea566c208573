#pragma once
// Reading gzip (RFC 1952) through zlib.

#include <cstddef>
#include <span>
#include <string>

namespace gov {

// The contents of a gzip file of one member. Error kCorrupt: damaged, cut or followed by something; kInvalidArgument:
// more than max_bytes come out of it.
std::string gunzip(std::span<const std::byte> file, std::size_t max_bytes);

}  // namespace gov
