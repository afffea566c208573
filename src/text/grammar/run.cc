#include "text/grammar/run.h"

#include <algorithm>

namespace gov {
namespace {

using Phase = GrammarThread::Phase;

// White space is a space, or a newline with some indentation: bounded, so that no text consists of it.
constexpr std::uint32_t kNoSpace = 0, kOneSpace = 1, kNewline = 2, kMaxIndent = 2 * kMaxNesting;

bool step_space(std::uint32_t& space, std::uint8_t byte) {
  if (space == kNoSpace && byte == ' ') return space = kOneSpace, true;
  if (space == kNoSpace && byte == '\n') return space = kNewline, true;
  if (space >= kNewline && space < kNewline + kMaxIndent && (byte == ' ' || byte == '\t')) return ++space, true;
  return false;
}

// A new frame with these contents; its hash is filled.
FramePtr make_frame(FramePtr parent, const GrammarFrame* from, std::uint32_t index, std::uint32_t count,
                    std::shared_ptr<const WrittenNames> written) {
  auto* frame = new GrammarFrame;
  frame->spec = from->spec;
  frame->object = from->object;
  frame->untracked = from->untracked;
  frame->depth = from->depth;
  frame->index = index;
  frame->count = count;
  frame->written = std::move(written);
  if (parent) frame->hash = parent->hash;
  for (const std::uint64_t value :
       {std::uint64_t{frame->spec} * 4 + frame->object * 2 + frame->untracked, std::uint64_t{index},
        std::uint64_t{count}, std::uint64_t{frame->written ? frame->written->size() : 0}})
    frame->hash.add(value);
  if (frame->written) {
    for (const std::string& name : *frame->written) frame->hash.add(name);
  }
  frame->parent = std::move(parent);
  return FramePtr(frame);
}

std::uint32_t depth_of(const FramePtr& frame) { return frame ? frame->depth : 0; }

class Stepper {
 public:
  Stepper(const Grammar::Impl& grammar, GrammarThreads& out) : g_(grammar), out_(out) {}

  void step(const GrammarThread& t, std::uint8_t byte) {
    switch (t.phase) {
      case Phase::kDone: return;
      case Phase::kValue:
        if (!space(t, byte)) start_value(t.what, t.frame, byte);
        return;
      case Phase::kTerminal: {
        std::uint32_t count = t.count;
        const std::uint32_t state = g_.terminals[t.what].step(t.state, count, byte);
        if (state != Dfa::kDead) in_terminal(t.what, state, count, t.frame);
        return;
      }
      case Phase::kColon:
        if (byte == ':') add({Phase::kValue, t.what, 0, kNoSpace, kNoValue, t.frame, nullptr});
        return;
      case Phase::kName: return declared_name(t, byte);
      case Phase::kExtraName: return extra_name(t, byte);
      case Phase::kObjectStart:
      case Phase::kObjectName:
      case Phase::kObjectNext:
      case Phase::kObjectClose: return object(t, byte);
      default: return array(t, byte);
    }
  }

  void add(GrammarThread thread) {
    if (out_.size() >= kMaxReadings) return;
    if (std::find(out_.begin(), out_.end(), thread) == out_.end()) out_.push_back(std::move(thread));
  }

  // Behind a value in this frame.
  void after_value(const FramePtr& frame) {
    const Phase phase = !frame ? Phase::kDone : frame->object ? Phase::kObjectNext : Phase::kArrayNext;
    add({phase, 0, 0, kNoSpace, kNoValue, frame, nullptr});
  }

  void in_terminal(std::uint32_t terminal, std::uint32_t state, std::uint32_t count, const FramePtr& frame) {
    const Terminal& t = g_.terminals[terminal];
    if (t.accepts(state, count)) after_value(frame);
    if (t.dfa->continues[state]) add({Phase::kTerminal, terminal, state, count, kNoValue, frame, nullptr});
  }

 private:
  bool fits(std::uint32_t value, const FramePtr& frame) const {
    return depth_of(frame) + g_.values[value].height <= kMaxNesting;
  }

  bool space(const GrammarThread& t, std::uint8_t byte) {
    std::uint32_t count = t.count;
    if (!step_space(count, byte)) return false;
    GrammarThread next = t;
    next.count = count;
    add(std::move(next));
    return true;
  }

  void start_value(std::uint32_t value, const FramePtr& frame, std::uint8_t byte) {
    const GrammarValue& v = g_.values[value];
    for (const std::uint32_t i : v.terminals) {
      std::uint32_t count = 0;
      const Terminal& t = g_.terminals[i];
      const std::uint32_t state = t.step(t.dfa->start, count, byte);
      if (state != Dfa::kDead) in_terminal(i, state, count, frame);
    }
    const auto open = [&](std::uint32_t spec, bool is_object, std::uint32_t height) {
      if (depth_of(frame) + height > kMaxNesting) return;
      GrammarFrame fresh;
      fresh.spec = spec;
      fresh.object = is_object;
      fresh.depth = depth_of(frame) + 1;
      add({is_object ? Phase::kObjectStart : Phase::kArrayStart, 0, 0, kNoSpace, kNoValue,
           make_frame(frame, &fresh, 0, 0, nullptr), nullptr});
    };
    if (byte == '{') {
      for (const std::uint32_t i : v.objects) open(i, true, g_.objects[i].height);
    } else if (byte == '[') {
      for (const std::uint32_t i : v.arrays) open(i, false, g_.arrays[i].height);
    }
  }

  // ---- Objects

  const ObjectSpec& spec(const GrammarThread& t) const { return g_.objects[t.frame->spec]; }

  bool endless_extra(const ObjectSpec& o, const FramePtr& frame) const {
    return std::any_of(o.extras.begin(), o.extras.end(), [&](const ExtraNames& e) {
      return e.name.dfa->completions[e.name.dfa->start] >= Dfa::kInfinite && fits(e.value, frame);
    });
  }
  bool property_allowed(const ObjectSpec& o, const FramePtr& frame, std::uint32_t j) const {
    const std::uint32_t count = frame->count + 1;
    if (!fits(o.properties[j].value, frame) || count + o.required_after[j + 1] > o.max) return false;
    return count + o.possible_after[j + 1] >= o.min || endless_extra(o, frame);
  }
  // Some property whose name passes this node may come next.
  bool viable(const ObjectSpec& o, const FramePtr& frame, std::uint32_t node) const {
    const auto& below = o.names[node].below;
    const std::uint32_t last = o.next_required[frame->index];
    for (auto at = std::lower_bound(below.begin(), below.end(), frame->index); at != below.end() && *at <= last; ++at) {
      if (property_allowed(o, frame, *at)) return true;
    }
    return false;
  }
  bool extra_allowed(const ObjectSpec& o, const FramePtr& frame, const ExtraNames& extra) const {
    if (o.next_required[frame->index] != o.count() || frame->count >= o.max || !fits(extra.value, frame)) return false;
    const std::uint32_t names = extra.name.dfa->completions[extra.name.dfa->start];
    return names >= Dfa::kInfinite || names > o.count() + (frame->written ? frame->written->size() : 0);
  }
  bool may_close(const ObjectSpec& o, const FramePtr& frame) const {
    return o.next_required[frame->index] == o.count() && frame->count >= o.min;
  }
  bool may_continue(const ObjectSpec& o, const FramePtr& frame) const {
    return viable(o, frame, 0) || std::any_of(o.extras.begin(), o.extras.end(),
                                              [&](const ExtraNames& e) { return extra_allowed(o, frame, e); });
  }

  void open_name(const GrammarThread& t) {
    const ObjectSpec& o = spec(t);
    if (viable(o, t.frame, 0)) add({Phase::kName, 0, 0, 0, kNoValue, t.frame, nullptr});
    for (std::uint32_t e = 0; e < o.extras.size(); ++e) {
      if (!extra_allowed(o, t.frame, o.extras[e])) continue;
      const Dfa& dfa = *o.extras[e].name.dfa;
      add({Phase::kExtraName, e, dfa.step(dfa.start, '"') & ~Dfa::kCount, 0, 0, t.frame,
           std::make_shared<const std::string>()});
    }
  }

  void object(const GrammarThread& t, std::uint8_t byte) {
    const ObjectSpec& o = spec(t);
    if (byte == '}' && t.phase != Phase::kObjectName && may_close(o, t.frame)) return after_value(t.frame->parent);
    const bool name = t.phase == Phase::kObjectStart || t.phase == Phase::kObjectName;
    if (byte == '"' && name) return open_name(t);
    if (byte == ',' && t.phase == Phase::kObjectNext) {
      if (may_continue(o, t.frame)) add({Phase::kObjectName, 0, 0, kNoSpace, kNoValue, t.frame, nullptr});
      return;
    }
    if (t.phase != Phase::kObjectNext) {
      space(t, byte);
    } else if (may_close(o, t.frame)) {
      GrammarThread closing = t;
      closing.phase = Phase::kObjectClose;
      space(closing, byte);
    }
  }

  void declared_name(const GrammarThread& t, std::uint8_t byte) {
    const ObjectSpec& o = spec(t);
    const std::uint32_t next = o.child(t.state, byte);
    if (next == kNoValue || !viable(o, t.frame, next)) return;
    const std::uint32_t property = o.names[next].property;
    if (property == kNoValue) return add({Phase::kName, 0, next, 0, kNoValue, t.frame, nullptr});
    FramePtr frame = make_frame(t.frame->parent, t.frame.get(), property + 1, t.frame->count + 1, t.frame->written);
    add({Phase::kColon, o.properties[property].value, 0, 0, kNoValue, std::move(frame), nullptr});
  }

  void extra_name(const GrammarThread& t, std::uint8_t byte) {
    const ObjectSpec& o = spec(t);
    const ExtraNames& extra = o.extras[t.what];
    const Dfa& dfa = *extra.name.dfa;
    const std::uint32_t state = dfa.step(t.state, byte) & ~Dfa::kCount;
    if (state == Dfa::kDead) return;
    const std::uint32_t node = t.node == kNoValue ? kNoValue : o.child(t.node, byte);
    auto typed = std::make_shared<const std::string>(*t.typed + static_cast<char>(byte));
    // Names that are declared or written already must not be written again, nor what can only become one of them.
    if (dfa.completions[state] < Dfa::kInfinite && dfa.completions[state] <= names_taken(g_, t, *typed, node)) return;
    if (!dfa.accepting[state]) return add({Phase::kExtraName, t.what, state, 0, node, t.frame, std::move(typed)});
    if (t.frame->untracked) return;
    auto written =
        t.frame->written ? std::make_shared<WrittenNames>(*t.frame->written) : std::make_shared<WrittenNames>();
    written->insert(std::lower_bound(written->begin(), written->end(), *typed), *typed);
    FramePtr frame = make_frame(t.frame->parent, t.frame.get(), o.count(), t.frame->count + 1, std::move(written));
    add({Phase::kColon, extra.value, 0, 0, kNoValue, std::move(frame), nullptr});
  }

  // ---- Arrays

  void array(const GrammarThread& t, std::uint8_t byte) {
    const ArraySpec& a = g_.arrays[t.frame->spec];
    const bool may_close = t.frame->count >= a.min;
    if (byte == ']' && t.phase != Phase::kArrayItem && may_close) return after_value(t.frame->parent);
    const std::uint32_t item = t.frame->count < a.max ? a.value_at(t.frame->count) : kNoValue;
    const bool more = item != kNoValue && fits(item, t.frame);
    if (t.phase == Phase::kArrayNext) {
      if (byte == ',') {
        if (more) add({Phase::kArrayItem, 0, 0, kNoSpace, kNoValue, t.frame, nullptr});
      } else if (may_close) {
        GrammarThread closing = t;
        closing.phase = Phase::kArrayClose;
        space(closing, byte);
      }
      return;
    }
    if (space(t, byte) || t.phase == Phase::kArrayClose || !more) return;
    // Where the number of items no longer matters it is not counted, so that states repeat.
    const bool count = a.max != Dfa::kInfinite || t.frame->count < std::max<std::size_t>(a.min, a.prefix.size());
    const FramePtr frame = count ? make_frame(t.frame->parent, t.frame.get(), 0, t.frame->count + 1, nullptr) : t.frame;
    start_value(item, frame, byte);
  }

  const Grammar::Impl& g_;
  GrammarThreads& out_;
};

}  // namespace

FramePtr::FramePtr(const FramePtr& other) : frame_(other.frame_) {
  if (frame_ != nullptr) frame_->references.fetch_add(1, std::memory_order_relaxed);
}

FramePtr::~FramePtr() {
  const GrammarFrame* frame = frame_;
  while (frame != nullptr && frame->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const GrammarFrame* next = std::exchange(frame->parent.frame_, nullptr);
    delete frame;
    frame = next;
  }
}

bool operator==(const FramePtr& a, const FramePtr& b) {
  if (a.frame_ == b.frame_) return true;
  return a.frame_ != nullptr && b.frame_ != nullptr && a.frame_->hash == b.frame_->hash;
}

void Hash128::add(const std::string& text) {
  add(text.size());
  for (std::size_t i = 0; i < text.size(); i += 8) {
    std::uint64_t word = 0;
    for (std::size_t j = i; j < std::min(i + 8, text.size()); ++j)
      word = word << 8 | static_cast<unsigned char>(text[j]);
    add(word);
  }
}

void GrammarThread::add_hash(Hash128& hash) const {
  hash.add(std::uint64_t{static_cast<std::uint8_t>(phase)} << 32 | what);
  hash.add(std::uint64_t{state} << 32 | count);
  hash.add(frame ? frame->hash.a : 0);
  hash.add(frame ? frame->hash.b : 0);
  if (typed) hash.add(*typed);
}

bool operator==(const GrammarThread& a, const GrammarThread& b) {
  if (a.phase != b.phase || a.what != b.what || a.state != b.state || a.count != b.count || !(a.frame == b.frame))
    return false;
  return a.typed == b.typed || (a.typed && b.typed && *a.typed == *b.typed);
}

GrammarThreads start_threads(const Grammar::Impl& grammar) {
  GrammarThreads out;
  Stepper stepper(grammar, out);
  // A text may be empty only under a regular expression, whose terminal is entered at once.
  const GrammarValue& root = grammar.values[grammar.root];
  if (root.terminals.size() == 1 && root.objects.empty() && root.arrays.empty()) {
    stepper.in_terminal(root.terminals[0], grammar.terminals[root.terminals[0]].dfa->start, 0, FramePtr());
  } else {
    stepper.add({Phase::kValue, grammar.root, 0, kOneSpace, kNoValue, FramePtr(), nullptr});
  }
  return out;
}

void step_threads(const Grammar::Impl& grammar, const GrammarThreads& in, std::uint8_t byte, GrammarThreads& out) {
  out.clear();
  Stepper stepper(grammar, out);
  for (const GrammarThread& thread : in) stepper.step(thread, byte);
}

bool is_complete(const GrammarThreads& threads) {
  return std::any_of(threads.begin(), threads.end(), [](const GrammarThread& t) { return t.phase == Phase::kDone; });
}

const Terminal& terminal_of(const Grammar::Impl& grammar, const GrammarThread& thread) {
  if (thread.phase == Phase::kTerminal) return grammar.terminals[thread.what];
  return grammar.objects[thread.frame->spec].extras[thread.what].name;
}

GrammarThread after_terminal(const Grammar::Impl& grammar, const GrammarThread& thread) {
  if (thread.phase == Phase::kTerminal) {
    GrammarThreads out;
    Stepper(grammar, out).after_value(thread.frame);
    return out[0];
  }
  const ObjectSpec& o = grammar.objects[thread.frame->spec];
  GrammarFrame like;
  like.spec = thread.frame->spec;
  like.object = true;
  like.untracked = true;
  like.depth = thread.frame->depth;
  return {Phase::kColon,
          o.extras[thread.what].value,
          0,
          0,
          kNoValue,
          make_frame(thread.frame->parent, &like, o.count(), thread.frame->count + 1, thread.frame->written),
          nullptr};
}

std::uint32_t names_taken(const Grammar::Impl& grammar, const GrammarThread& thread, const std::string& typed,
                          std::uint32_t node) {
  const ObjectSpec& o = grammar.objects[thread.frame->spec];
  std::size_t count = node == kNoValue ? 0 : o.names[node].below.size();
  if (thread.frame->written) {
    const WrittenNames& names = *thread.frame->written;
    for (auto at = std::lower_bound(names.begin(), names.end(), typed); at != names.end() && at->starts_with(typed);
         ++at)
      ++count;
  }
  return static_cast<std::uint32_t>(count);
}

}  // namespace gov
