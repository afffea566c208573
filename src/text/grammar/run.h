#pragma once
// Following a text through a grammar, byte by byte: a set of threads, each a stack and a place on top of it. Every
// thread can be completed on its own, so that a text never runs into a dead end. Stacks are immutable and shared; a
// state is cheap to copy and its copies may be used in several threads of the process. Private to src/text.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/grammar/program.h"

namespace gov {

struct GrammarFrame;

// A counted reference; the last one frees a stack without recursion.
class FramePtr {
 public:
  FramePtr() = default;
  explicit FramePtr(const GrammarFrame* frame) : frame_(frame) {}  // takes over one reference
  FramePtr(const FramePtr& other);
  FramePtr(FramePtr&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  FramePtr& operator=(FramePtr other) noexcept {
    std::swap(frame_, other.frame_);
    return *this;
  }
  ~FramePtr();
  const GrammarFrame* operator->() const { return frame_; }
  const GrammarFrame* get() const { return frame_; }
  explicit operator bool() const { return frame_ != nullptr; }
  // Equal stacks, even if they were made apart (by 128 bits of hash).
  friend bool operator==(const FramePtr& a, const FramePtr& b);

 private:
  const GrammarFrame* frame_ = nullptr;
};

struct Hash128 {
  std::uint64_t a = 0, b = 0;
  void add(std::uint64_t value) {
    a = (a ^ value) * 0x9E3779B97F4A7C15ull;
    a ^= a >> 29;
    b = (b + value + 0x7F4A7C15ull) * 0xD6E8FEB86659FD93ull;
    b ^= b >> 32;
  }
  void add(const std::string& text);
  friend auto operator<=>(const Hash128&, const Hash128&) = default;
};

using WrittenNames = std::vector<std::string>;  // with closing quotes, sorted

// An array or object that is being written.
struct GrammarFrame {
  mutable std::atomic<std::uint32_t> references{1};
  mutable FramePtr parent;
  std::uint32_t spec = 0;  // in Impl::objects or Impl::arrays
  bool object = false;
  bool untracked = false;   // the last undeclared name is not among `written` (masks of exits only, token_masks.cc)
  std::uint32_t index = 0;  // object: declared properties from here may follow
  std::uint32_t count = 0;  // items or properties so far
  std::uint32_t depth = 1;  // of nesting
  std::shared_ptr<const WrittenNames> written;  // undeclared names so far; null: none
  Hash128 hash;
};

struct GrammarThread {
  enum class Phase : std::uint8_t {
    kValue,        // a value (`what`), white space before it
    kTerminal,     // inside terminal `what`, at `state`
    kObjectStart,  // behind {
    kObjectName,   // behind a comma
    kName,         // inside a declared name, at node `state`
    kExtraName,    // inside another name, of extras[what], at `state`
    kColon,        // behind a name; value `what` follows
    kObjectNext,   // behind a property
    kObjectClose,  // only white space and }
    kArrayStart,
    kArrayItem,  // behind a comma
    kArrayNext,  // behind an item
    kArrayClose,
    kDone,
  };
  Phase phase = Phase::kDone;
  std::uint32_t what = 0, state = 0;
  std::uint32_t count = 0;  // characters of a terminal; white space so far (0 none, 1 a space, 2 + n a newline and n)
  std::uint32_t node = kNoValue;  // kExtraName: where the text is among the declared names
  FramePtr frame;
  std::shared_ptr<const std::string> typed;  // kExtraName: the text behind the opening quote

  void add_hash(Hash128& hash) const;
  friend bool operator==(const GrammarThread& a, const GrammarThread& b);
};

using GrammarThreads = std::vector<GrammarThread>;

GrammarThreads start_threads(const Grammar::Impl& grammar);
// `out` is replaced; empty if the byte cannot come next.
void step_threads(const Grammar::Impl& grammar, const GrammarThreads& in, std::uint8_t byte, GrammarThreads& out);
bool is_complete(const GrammarThreads& threads);

// The terminal that a thread in kTerminal or kExtraName is in.
const Terminal& terminal_of(const Grammar::Impl& grammar, const GrammarThread& thread);
// The thread behind the terminal that `thread` is in, as if it had ended here. For an undeclared name its text is not
// known: it is left out of the names written, and no other undeclared name may end within the same token.
GrammarThread after_terminal(const Grammar::Impl& grammar, const GrammarThread& thread);
// How many declared and written names of the thread's object begin with `typed`; kExtraName.
std::uint32_t names_taken(const Grammar::Impl& grammar, const GrammarThread& thread, const std::string& typed,
                          std::uint32_t node);

}  // namespace gov
