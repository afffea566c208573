// Line editing with libedit.

#include <histedit.h>
#include <langinfo.h>

#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <cwchar>

#include "base/error.h"
#include "base/utf8.h"
#include "cli/chat_input.h"
#include "cli/format.h"

namespace gov::cli {
namespace {

constexpr const char* kPasteOn = "\033[?2004h";
constexpr const char* kPasteOff = "\033[?2004l";
constexpr std::wstring_view kPasteEnd = L"\033[201~";
constexpr std::size_t kMostShown = 60;  // candidates of a completion

// libedit works on wide characters, in the locale's encoding. Any UTF-8 will do.
void use_utf8_locale() {
  if (std::setlocale(LC_CTYPE, "") != nullptr && std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0) return;
  std::setlocale(LC_CTYPE, "C.UTF-8");
}

std::string narrow(std::wstring_view text) {
  std::string out;
  for (const wchar_t c : text) utf8_append(out, static_cast<char32_t>(c));
  return out;
}

std::wstring wide(std::string_view text) {
  std::wstring out;
  while (!text.empty()) {
    const Utf8Char c = utf8_next(text);
    out += static_cast<wchar_t>(c.code_point);
    text.remove_prefix(c.length);
  }
  return out;
}

}  // namespace

struct LineEditor::Impl {
  explicit Impl(const ChatHistory& history) : file(history) {}
  ~Impl() {
    if (editor != nullptr) el_end(editor);
    if (entries != nullptr) history_end(entries);
  }

  static Impl& of(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return *static_cast<Impl*>(self);
  }
  static char* prompt_of(EditLine* editor) { return of(editor).prompt.data(); }
  static unsigned char on_interrupt(EditLine* editor, int) {
    of(editor).interrupted = true;
    return CC_NEWLINE;
  }
  static unsigned char on_suspend(EditLine*, int) {
    std::raise(SIGTSTP);
    return CC_REDISPLAY;
  }
  static unsigned char on_paste(EditLine* editor, int);
  static unsigned char on_complete(EditLine* editor, int);

  EditLine* editor = nullptr;
  History* entries = nullptr;
  ChatHistory file;
  std::string prompt, last;
  bool interrupted = false;
};

// A bracketed paste: everything to its end mark is text, line breaks too, instead of a message for each line.
unsigned char LineEditor::Impl::on_paste(EditLine* editor, int) {
  std::wstring text;
  wchar_t c = 0;
  while (!text.ends_with(kPasteEnd) && el_wgetc(editor, &c) == 1) text += c == L'\r' ? L'\n' : c;
  if (text.ends_with(kPasteEnd)) text.resize(text.size() - kPasteEnd.size());
  while (text.ends_with(L'\n')) text.pop_back();
  std::wstring clean;
  for (const wchar_t x : text) {
    if (x == L'\t') clean += L"    ";
    else if (x == L'\n' || (x >= L' ' && x != 0x7F)) clean += x;
  }
  if (!clean.empty() && el_winsertstr(editor, clean.c_str()) != 0) return CC_ERROR;
  return CC_REFRESH;
}

unsigned char LineEditor::Impl::on_complete(EditLine* editor, int) {
  const LineInfoW* info = el_wline(editor);
  const std::string line = narrow({info->buffer, static_cast<std::size_t>(info->cursor - info->buffer)});
  const ChatCompletion completion = complete_chat_line(line);
  const std::vector<std::string>& candidates = completion.candidates;
  if (candidates.empty()) return CC_ERROR;
  std::string common = candidates.front();
  for (const std::string& candidate : candidates) {
    const auto differs = std::mismatch(common.begin(), common.end(), candidate.begin(), candidate.end());
    common.erase(differs.first, common.end());
  }
  const std::string typed = line.substr(completion.from);
  while (!common.empty() && !utf8_valid(common)) common.pop_back();
  if (common.size() > typed.size() && common.starts_with(typed)) {
    std::string rest = common.substr(typed.size());
    if (candidates.size() == 1 && !rest.ends_with('/') && !rest.ends_with(' ')) rest += ' ';
    return el_winsertstr(editor, wide(rest).c_str()) == 0 ? CC_REFRESH : CC_ERROR;
  }
  if (candidates.size() == 1) return CC_NORM;
  std::string shown = "\n";
  for (std::size_t i = 0; i < std::min(candidates.size(), kMostShown); ++i) shown += printable(candidates[i]) + "  ";
  if (candidates.size() > kMostShown) shown += fmt::format("and {} more", candidates.size() - kMostShown);
  put(shown + "\n");
  return CC_REDISPLAY;
}

LineEditor::LineEditor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LineEditor::~LineEditor() = default;

std::unique_ptr<LineEditor> LineEditor::create(const ChatHistory& history) {
  use_utf8_locale();
  auto impl = std::make_unique<Impl>(history);
  impl->editor = el_init("gpt-oss-vision", stdin, stdout, stderr);
  impl->entries = history_init();
  if (impl->editor == nullptr || impl->entries == nullptr) return nullptr;
  EditLine* const editor = impl->editor;
  HistEvent event;
  ::history(impl->entries, &event, H_SETSIZE, static_cast<int>(ChatHistory::kMost));
  ::history(impl->entries, &event, H_SETUNIQUE, 1);
  for (const std::string& entry : history.load()) ::history(impl->entries, &event, H_ENTER, entry.c_str());
  el_set(editor, EL_CLIENTDATA, impl.get());
  el_set(editor, EL_PROMPT, &Impl::prompt_of);
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_SIGNAL, 1);  // the terminal is put right on suspending and on a change of its size
  el_set(editor, EL_HIST, ::history, impl->entries);
  el_set(editor, EL_ADDFN, "chat-interrupt", "Drop the line", &Impl::on_interrupt);
  el_set(editor, EL_ADDFN, "chat-suspend", "Stop the program until the shell goes on with it", &Impl::on_suspend);
  el_set(editor, EL_ADDFN, "chat-paste", "Take a pasted text", &Impl::on_paste);
  el_set(editor, EL_ADDFN, "chat-complete", "Complete a command or file", &Impl::on_complete);
  el_set(editor, EL_SETTY, "-d", "-isig", nullptr);  // while a line is edited Ctrl-C and Ctrl-Z are keys
  el_set(editor, EL_BIND, "^C", "chat-interrupt", nullptr);
  el_set(editor, EL_BIND, "^Z", "chat-suspend", nullptr);
  el_set(editor, EL_BIND, "\\e[200~", "chat-paste", nullptr);
  el_set(editor, EL_BIND, "^I", "chat-complete", nullptr);
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(editor, EL_BIND, "\\e[1;5C", "em-next-word", nullptr);
  el_set(editor, EL_BIND, "\\e[1;5D", "ed-prev-word", nullptr);
  el_source(editor, nullptr);  // the user's ~/.editrc
  return std::unique_ptr<LineEditor>(new LineEditor(std::move(impl)));
}

ReadStatus LineEditor::read(const std::string& prompt, std::string& line) {
  Impl& e = *impl_;
  e.prompt = prompt;
  e.interrupted = false;
  put(kPasteOn);
  int count = 0;
  const char* const typed = el_gets(e.editor, &count);
  put(kPasteOff);
  if (e.interrupted) {
    put("^C\n");
    return ReadStatus::kInterrupted;
  }
  if (typed == nullptr || count <= 0) {
    put("\n");
    return ReadStatus::kEnd;
  }
  line.assign(typed, static_cast<std::size_t>(count));
  if (line.ends_with('\n')) line.pop_back();
  return ReadStatus::kLine;
}

void LineEditor::remember(const std::string& entry) {
  if (entry == impl_->last) return;
  impl_->last = entry;
  HistEvent event;
  ::history(impl_->entries, &event, H_ENTER, entry.c_str());
  impl_->file.append(entry);
}

std::string line_editor_name() { return fmt::format("libedit {}.{}", LIBEDIT_MAJOR, LIBEDIT_MINOR); }

}  // namespace gov::cli
