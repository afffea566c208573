#pragma once
// The web page: files of src/server/web, embedded into the program at build time (cmake/EmbedFiles.cmake).

#include <span>
#include <string_view>
#include <vector>

#include "server/http.h"

namespace gov::server {

struct StaticFile {
  std::string_view path;  // "/app.css"
  std::string_view content_type, etag, bytes;
};

std::span<const StaticFile> static_files();  // made by the build
// "/" (index.html) and every file, free of the key; their policy lets a page load from this server only.
std::vector<Route> static_routes();

}  // namespace gov::server
