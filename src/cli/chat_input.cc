#include "cli/chat_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "io/mapped_file.h"

namespace gov::cli {
namespace {

constexpr std::uint64_t kMostHistoryBytes = 16u << 20;
constexpr std::size_t kMostLineBytes = 64u << 20;

// One entry is one line of the file.
std::string escaped(std::string_view entry) {
  std::string out;
  for (const char c : entry) {
    if (c == '\\') out += "\\\\";
    else if (c == '\n') out += "\\n";
    else out += c;
  }
  return out + "\n";
}

std::string unescaped(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\' && i + 1 < line.size()) out += line[++i] == 'n' ? '\n' : line[i];
    else out += line[i];
  }
  return out;
}

// Whether all of it was written.
bool append_bytes(const std::filesystem::path& file, int flags, std::string_view bytes) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
  if (fd < 0) return false;
  const bool is_private = ::fchmod(fd, 0600) == 0;
  const ssize_t written = is_private ? ::write(fd, bytes.data(), bytes.size()) : -1;
  ::close(fd);
  return written == static_cast<ssize_t>(bytes.size());
}

}  // namespace

ChatHistory::ChatHistory(std::filesystem::path file) : file_(std::move(file)) {
  if (file_.empty()) return;
  std::error_code error;
  const std::filesystem::path folder = file_.parent_path();
  if (!folder.empty() && std::filesystem::create_directories(folder, error))
    std::filesystem::permissions(folder, std::filesystem::perms::owner_all, error);
}

std::filesystem::path ChatHistory::default_file() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && state[0] == '/') return std::filesystem::path(state) / "gpt-oss-vision/chat_history";
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') return {};
  return std::filesystem::path(home) / ".local/state/gpt-oss-vision/chat_history";
}

std::vector<std::string> ChatHistory::load() const {
  std::vector<std::string> entries;
  if (file_.empty()) return entries;
  std::string text;
  try {
    text = read_text_file(file_, kMostHistoryBytes);
  } catch (const Error&) {
    return entries;  // none yet, or not readable: a conversation does not need it
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    entries.push_back(unescaped(std::string_view(text).substr(at, end - at)));
    at = end + 1;
  }
  if (entries.size() <= kMost) return entries;
  const bool cut = entries.size() > 2 * kMost;
  entries.erase(entries.begin(), entries.end() - kMost);
  if (cut) {
    std::string rest;
    for (const std::string& entry : entries) rest += escaped(entry);
    append_bytes(file_, O_TRUNC, rest);
  }
  return entries;
}

void ChatHistory::append(std::string_view entry) const {
  if (!file_.empty()) append_bytes(file_, 0, escaped(entry));
}

LineReader::LineReader(bool terminal, std::unique_ptr<LineEditor> editor, InterruptScope& interrupt)
    : terminal_(terminal), editor_(std::move(editor)), interrupt_(interrupt) {}

ReadStatus LineReader::read(const std::string& prompt, std::string& text) {
  assembler_.clear();
  for (;;) {
    std::string line;
    const ReadStatus status = read_line(assembler_.open() ? "... " : prompt, line);
    if (status == ReadStatus::kInterrupted) return status;
    std::optional<std::string> whole = status == ReadStatus::kEnd ? assembler_.finish() : assembler_.add(line);
    if (status == ReadStatus::kEnd && !whole) return status;
    if (!whole) continue;
    text = std::move(*whole);
    if (editor_ && text.find_first_not_of(" \n\t") != std::string::npos) editor_->remember(text);
    return ReadStatus::kLine;
  }
}

bool LineReader::confirm(const std::string& question) {
  if (!terminal_) return false;
  std::string line;
  return read_line(question + " [y/N] ", line) == ReadStatus::kLine && (line.starts_with('y') || line.starts_with('Y'));
}

ReadStatus LineReader::read_line(const std::string& prompt, std::string& line) {
  if (editor_) return editor_->read(prompt, line);
  if (terminal_) fmt::print(stderr, "{}", prompt);  // standard output may go elsewhere
  return read_plain_line(line);
}

// Not through stdio, which would go on reading after a signal.
ReadStatus LineReader::read_plain_line(std::string& line) {
  std::size_t searched = buffer_at_;
  for (;;) {
    const std::size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos || (ended_ && buffer_at_ < buffer_.size())) {
      const std::size_t stop = std::min(end, buffer_.size());
      line = buffer_.substr(buffer_at_, stop - buffer_at_);
      buffer_at_ = std::min(stop + 1, buffer_.size());
      return ReadStatus::kLine;
    }
    if (ended_) return ReadStatus::kEnd;
    if (buffer_.size() - buffer_at_ > kMostLineBytes)
      fail(ErrorCode::kInvalidArgument, "a line of standard input has more than 64 MiB");
    buffer_.erase(0, buffer_at_);
    buffer_at_ = 0;
    searched = buffer_.size();
    char bytes[1 << 16];
    if (interrupt_.take()) return ReadStatus::kInterrupted;
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n > 0) buffer_.append(bytes, static_cast<std::size_t>(n));
    else if (n == 0) ended_ = true;
    else if (errno != EINTR) fail(ErrorCode::kIo, "standard input cannot be read: {}", std::strerror(errno));
  }
}

}  // namespace gov::cli
