#include "server/static_files.h"

namespace gov::server {
namespace {

constexpr const char* kPolicy =
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

Handler serve(const StaticFile& file) {
  return [file](const HttpRequest& request, const std::shared_ptr<Responder>& responder) {
    const Responder::Headers headers = {{"ETag", std::string(file.etag)},
                                        {"Cache-Control", "no-cache"},  // asked again each time, answered by 304
                                        {"Content-Security-Policy", kPolicy},
                                        {"Referrer-Policy", "no-referrer"}};
    const auto known = request.headers.find("if-none-match");
    if (known != request.headers.end() && known->second.find(file.etag) != std::string::npos) {
      responder->bytes(304, "", "", headers);
    } else {
      responder->bytes(200, file.content_type, std::string(file.bytes), headers);
    }
  };
}

}  // namespace

std::vector<Route> static_routes() {
  std::vector<Route> routes;
  for (const StaticFile& file : static_files()) {
    routes.push_back({"GET", std::string(file.path), serve(file), true, false});
    if (file.path == "/index.html") routes.push_back({"GET", "/", serve(file), true, false});
  }
  return routes;
}

}  // namespace gov::server
