#pragma once
// The bytes of an answer's head and of its chunks.

#include <string>
#include <string_view>

#include "server/http.h"

namespace gov::server {

enum class Framing { kLength, kChunked, kUntilClose, kNone };  // kNone: no body (204, 304)

struct AnswerHead {
  int minor_version = 1;  // of the request
  int status = 200;
  std::string_view content_type;
  Framing framing = Framing::kLength;
  std::size_t length = 0;
  bool keep_alive = true;
};

// Control bytes in header values become spaces, so that no text can begin a header of its own.
std::string answer_head(const AnswerHead& head, const Responder::Headers& headers, const Responder::Headers& more);
std::string chunk_of(std::string_view data, Framing framing);  // as it goes over the wire
std::string_view last_chunk(Framing framing);

}  // namespace gov::server
