// Without libedit: lines are typed as the terminal gives them.

#include "cli/chat_input.h"

namespace gov::cli {

struct LineEditor::Impl {};

LineEditor::LineEditor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LineEditor::~LineEditor() = default;
std::unique_ptr<LineEditor> LineEditor::create(const ChatHistory&) { return nullptr; }
ReadStatus LineEditor::read(const std::string&, std::string&) { return ReadStatus::kEnd; }
void LineEditor::remember(const std::string&) {}
std::string line_editor_name() { return "none (built without libedit)"; }

}  // namespace gov::cli
