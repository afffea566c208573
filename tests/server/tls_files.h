#pragma once
// A certificate made for the test, and a client that speaks TLS.

#include "tests/server/http_client.h"

namespace gov::test {

struct TlsFiles {
  std::string cert, key;  // PEM files in the temporary folder
};

// Self-signed, for the name and 127.0.0.1.
TlsFiles make_tls_files(const std::string& name);

// One request; the answer is read until the server closes. max_version: of TLS, 0: any. Status 0 when no connection
// came about.
Answer tls_request(int port, const std::string& text, int max_version = 0);

}  // namespace gov::test
