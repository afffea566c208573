#pragma once
// Where the library's notes go. The library never prints: a client hands it a sink, and an empty sink drops the note.

#include <fmt/format.h>

#include <functional>
#include <string_view>
#include <utility>

namespace gov {

enum class LogLevel { kDebug, kInfo, kWarning };

struct Log {
  std::function<void(LogLevel, std::string_view)> sink;

  template <class... Args>
  void warn(fmt::format_string<Args...> format, Args&&... args) const {
    if (sink) sink(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) const {
    if (sink) sink(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
  }
};

}  // namespace gov
