#include "engine/prefix_cache.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace gov {

// Rows [depth - 1, depth) * block size of some sequences. Nodes that are not full have no children.
struct PrefixNode {
  PrefixNode* parent = nullptr;      // null: a root, or detached
  std::int64_t depth = 0;            // blocks up to this one, itself included; 0: a root, which has no rows
  const PrefixRows* rows = nullptr;  // the parent's key
  std::map<PrefixRows, PrefixNode*, PrefixOrder> children;  // none is the beginning of another
  std::int32_t full = -1, sliding = -1;
  std::int64_t sliding_rows = 0;  // rows of the sliding block that are kept
  bool strong = false;            // in which list of sliding blocks it is, if it has one
  std::list<PrefixNode*>::iterator window_place;
  std::uint64_t used = 0;  // distinct for every node
  std::int64_t users = 0;  // sequences that will put their next rows below it
  std::list<PrefixNode>::iterator place;
  std::map<std::string, PrefixNode*>::iterator root_place;  // of a root

  std::int64_t count() const { return rows ? static_cast<std::int64_t>(rows->values.size()) : 0; }
  bool is_root() const { return depth == 0; }
  bool detached() const { return !is_root() && parent == nullptr; }
};

std::int64_t common_rows(const PrefixRows& a, const PrefixRows& b) {
  const std::size_t most = std::min(a.values.size(), b.values.size());
  std::size_t images = 0;
  for (std::size_t i = 0; i < most; ++i) {
    if (a.values[i] != b.values[i]) return static_cast<std::int64_t>(i);
    if (a.values[i] >= 0) continue;
    if (a.images[images] != b.images[images]) return static_cast<std::int64_t>(i);
    ++images;
  }
  return static_cast<std::int64_t>(most);
}

bool PrefixOrder::operator()(const PrefixRows& a, const PrefixRows& b) const {
  const std::size_t i = static_cast<std::size_t>(common_rows(a, b));
  if (i == a.values.size() || i == b.values.size()) return a.values.size() < b.values.size();
  if (a.values[i] != b.values[i]) return a.values[i] < b.values[i];
  const auto images = static_cast<std::size_t>(std::count_if(
      a.values.begin(), a.values.begin() + static_cast<std::ptrdiff_t>(i), [](std::int32_t v) { return v < 0; }));
  return a.images[images] < b.images[images];
}

bool PrefixCache::Older::operator()(const PrefixNode* a, const PrefixNode* b) const { return a->used < b->used; }

namespace {

// The child that begins with most of `rows`, and how many these are. In the order of the children it stands beside the
// place where `rows` would.
std::pair<PrefixNode*, std::int64_t> longest(const PrefixNode& parent, const PrefixRows& rows) {
  std::pair<PrefixNode*, std::int64_t> best{nullptr, 0};
  const auto consider = [&](auto it) {
    const std::int64_t common = common_rows(it->first, rows);
    if (common > best.second) best = {it->second, common};
  };
  const auto at = parent.children.lower_bound(rows);
  if (at != parent.children.end()) consider(at);
  if (at != parent.children.begin()) consider(std::prev(at));
  return best;
}

// Of the children that begin as `rows` do, the one whose window reaches furthest in it, and how far. They stand beside
// each other; of very many some are not looked at.
std::pair<PrefixNode*, std::int64_t> longest_window(const PrefixNode& parent, const PrefixRows& rows) {
  constexpr int kMost = 32;  // to each side
  std::pair<PrefixNode*, std::int64_t> best{nullptr, 0};
  const auto consider = [&](auto it) {
    const std::int64_t common = common_rows(it->first, rows), end = std::min(common, it->second->sliding_rows);
    if (end > best.second) best = {it->second, end};
    return common > 0;
  };
  const auto at = parent.children.lower_bound(rows);
  int seen = 0;
  for (auto it = at; it != parent.children.end() && seen < kMost && consider(it); ++it) ++seen;
  seen = 0;
  for (auto it = at; it != parent.children.begin() && seen < kMost && consider(std::prev(it)); --it) ++seen;
  return best;
}

}  // namespace

PrefixCache::PrefixCache(BlockManager& blocks, bool on)
    : blocks_(blocks),
      on_(on),
      size_(blocks.block_size()),
      of_full_(static_cast<std::size_t>(blocks.full().size()), nullptr),
      of_sliding_(static_cast<std::size_t>(blocks.sliding().size()), nullptr) {}

PrefixCache::~PrefixCache() = default;

PrefixCache::Hit PrefixCache::find(const Sequence& s) const {
  Hit hit;
  const auto found = roots_.find(s.request->request.cache_salt);
  if (!on_ || found == roots_.end()) return hit;
  const std::int64_t most = s.rows() - 1;
  const PrefixNode* node = found->second;
  while (hit.known_rows < most) {
    const PrefixRows rows = s.prefix_rows(hit.known_rows, std::min(hit.known_rows + size_, most));
    const auto [child, common] = longest(*node, rows);
    if (common == 0) break;
    hit.path.push_back(child);
    hit.known_rows += common;
    if (common < size_) break;
    node = child;
  }
  // The longest part whose window is there.
  std::vector<std::int64_t> whole;  // for each node: how many sliding blocks up to it are complete without a gap
  for (const PrefixNode* n : hit.path) {
    whole.push_back(n->sliding_rows < size_ ? 0 : 1 + (whole.empty() ? 0 : whole.back()));
  }
  for (auto last = static_cast<std::int64_t>(hit.path.size()) - 1; last >= 0; --last) {
    PrefixNode* n = hit.path[static_cast<std::size_t>(last)];
    const std::int64_t begin = last * size_, known = std::min(hit.known_rows - begin, size_);
    std::int64_t rows = std::min(known, n->sliding_rows);
    if (rows < known) std::tie(n, rows) = longest_window(*n->parent, s.prefix_rows(begin, begin + known));
    if (rows == 0) continue;
    const std::int64_t before = last - blocks_.first_seen(begin + rows);
    if (before > 0 && whole[static_cast<std::size_t>(last - 1)] < before) continue;
    hit.rows = begin + rows;
    hit.path.resize(static_cast<std::size_t>(last + 1));
    hit.path.back() = n;
    break;
  }
  if (hit.rows == 0) hit.path.clear();
  for (const PrefixNode* n : hit.path) hit.owned_blocks += blocks_.full().owners(n->full) > 0;
  return hit;
}

void PrefixCache::take(Sequence& s, const Hit& hit) {
  s.branch_row = hit.known_rows > hit.rows ? hit.known_rows : -1;
  if (hit.rows == 0) return;
  const auto first = static_cast<std::size_t>(blocks_.first_seen(hit.rows));
  for (std::size_t i = 0; i < hit.path.size(); ++i) {
    PrefixNode& node = *hit.path[i];
    blocks_.full().retain(node.full);
    s.blocks.full.push_back(node.full);
    if (i >= first) {
      blocks_.sliding().retain(node.sliding);
      touch_window(node, true);
    }
    s.blocks.sliding.push_back(i >= first ? node.sliding : -1);
    touch(node);
  }
  s.blocks.sliding_begin = std::min(first, hit.path.size());
  s.computed = hit.rows;
  PrefixNode* const last = hit.path.back();
  move_cursor(s, hit.rows % size_ == 0 ? last : last->parent);
}

void PrefixCache::store(Sequence& s, std::int64_t begin) {
  if (!on_ || s.computed <= begin) return;
  const std::int64_t prompt = s.request->prompt.rows();
  const bool prompt_ends = begin < prompt && prompt <= s.computed;
  const bool branches = begin < s.branch_row && s.branch_row <= s.computed;
  if (!prompt_ends && !branches && s.computed / size_ == begin / size_) return;
  // One that was forgotten begins again: the sequence still has all its full blocks.
  if (!s.prefix_node || s.prefix_node->detached()) move_cursor(s, root(s.request->request.cache_salt));
  while ((s.prefix_node->depth + 1) * size_ <= s.computed)
    move_cursor(s, add(s.prefix_node, s, s.prefix_node->depth, size_));
  const auto keep = [&](std::int64_t border, bool strong) {
    PrefixNode* node = s.prefix_node;
    if (border > node->depth * size_) node = add(node, s, node->depth, s.computed - node->depth * size_);
    while ((node->depth - 1) * size_ >= border) node = node->parent;
    keep_window(s, node, border, strong);
  };
  const std::int64_t stride = kSnapshotBlocks * size_;
  for (std::int64_t border = (begin / stride + 1) * stride; border <= s.computed; border += stride) keep(border, false);
  if (branches) keep(std::exchange(s.branch_row, -1), true);
  if (prompt_ends) keep(prompt, true);
}

void PrefixCache::leave(Sequence& s, bool faulty) {
  if (!on_) return;
  if (faulty) {
    PrefixNode* node = s.prefix_node;
    if (!node || node->is_root() || node->detached()) return move_cursor(s, nullptr);
    while (!node->parent->is_root()) node = node->parent;
    drop_all(node);
  } else if (s.computed > 0) {
    if (!s.prefix_node || s.prefix_node->detached()) move_cursor(s, root(s.request->request.cache_salt));
    while ((s.prefix_node->depth + 1) * size_ <= s.computed)
      move_cursor(s, add(s.prefix_node, s, s.prefix_node->depth, size_));
    PrefixNode* node = s.prefix_node;
    if (const std::int64_t rest = s.computed - node->depth * size_; rest > 0) node = add(node, s, node->depth, rest);
    keep_window(s, node, s.computed, true);
  }
  move_cursor(s, nullptr);
}

void PrefixCache::make_room(const BlockManager::Shortage& shortage) {
  const std::int64_t full = blocks_.full().free_count() + shortage.full;
  const std::int64_t sliding = blocks_.sliding().free_count() + shortage.sliding;
  while (blocks_.sliding().free_count() < sliding && evict_sliding()) {
  }
  while (blocks_.full().free_count() < full && evict_full()) {
  }
}

void PrefixCache::unshare(const Sequence& s, std::int64_t row, const BlockManager::Shortage& shortage) {
  const auto index = static_cast<std::size_t>(row / size_);
  const auto node_of = [&](const BlockPool& pool, const std::vector<std::int32_t>& table,
                           const std::vector<PrefixNode*>& nodes) -> PrefixNode* {
    if (index >= table.size() || pool.owners(table[index]) > 1 || pool.writable(table[index], row % size_))
      return nullptr;
    return nodes[static_cast<std::size_t>(table[index])];
  };
  PrefixNode* const window = shortage.sliding > 0 ? node_of(blocks_.sliding(), s.blocks.sliding, of_sliding_) : nullptr;
  if (window) drop_window(*window);
  PrefixNode* const node = shortage.full > 0 ? node_of(blocks_.full(), s.blocks.full, of_full_) : nullptr;
  if (node) drop_all(node);
}

void PrefixCache::reset() {
  while (!leaves_.empty()) drop(*leaves_.begin());
}

void PrefixCache::count_query(std::int64_t rows, std::int64_t hit_rows) {
  if (!on_) return;
  ++stats_.queries;
  stats_.query_rows += rows;
  stats_.hits += hit_rows > 0;
  stats_.hit_rows += hit_rows;
}

PrefixNode* PrefixCache::root(const std::string& salt) {
  const auto [at, added] = roots_.try_emplace(salt, nullptr);
  if (added) {
    PrefixNode* const root = at->second = &nodes_.emplace_front();
    root->place = nodes_.begin();
    root->root_place = at;
  }
  return at->second;
}

// The child of `parent` for `count` rows of the sequence's block `index`, made if it is not there yet.
PrefixNode* PrefixCache::add(PrefixNode* parent, const Sequence& s, std::int64_t index, std::int64_t count) {
  PrefixRows rows = s.prefix_rows(index * size_, index * size_ + count);
  const std::int32_t block = s.blocks.full[static_cast<std::size_t>(index)];
  const auto [child, common] = longest(*parent, rows);
  if (child && common == count) {  // known, maybe as a part of more
    touch(*child);
    return child;
  }
  if (child && common == child->count()) {  // it ended here; now there is more
    auto entry = parent->children.extract(*child->rows);
    entry.key() = std::move(rows);
    child->rows = &parent->children.insert(std::move(entry)).position->first;
    set_full(*child, block, count);
    touch(*child);
    return child;
  }
  PrefixNode& node = nodes_.emplace_front();
  node.place = nodes_.begin();
  node.parent = parent;
  node.depth = parent->depth + 1;
  node.rows = &parent->children.emplace(std::move(rows), &node).first->first;
  node.used = ++now_;
  set_full(node, block, count);
  leaves_.erase(parent);
  leaves_.insert(&node);
  return &node;
}

// Keeps this block instead of what the node had.
void PrefixCache::set_full(PrefixNode& node, std::int32_t block, std::int64_t rows) {
  if (node.full != block && node.full >= 0) {
    of_full_[static_cast<std::size_t>(node.full)] = nullptr;
    blocks_.full().give_up(node.full);
  }
  node.full = block;
  of_full_[static_cast<std::size_t>(block)] = &node;
  blocks_.full().keep(block, static_cast<std::int32_t>(rows));
}

void PrefixCache::move_cursor(Sequence& s, PrefixNode* node) {
  if (node) ++node->users;
  if (PrefixNode* const old = std::exchange(s.prefix_node, node)) {
    --old->users;
    erase_if_unused(old);
  }
}

// Keeps the sliding blocks that rows `border` - 1 and later see, as far as the sequence still has them; `node` holds
// row border - 1. (The row before the border, because the last row of a sequence is never taken from the cache.)
void PrefixCache::keep_window(const Sequence& s, PrefixNode* node, std::int64_t border, bool strong) {
  const std::int64_t first =
      std::max(blocks_.first_seen(border - 1), static_cast<std::int64_t>(s.blocks.sliding_begin));
  for (std::int64_t index = node->depth - 1; index >= first; --index, node = node->parent) {
    const std::int64_t rows = std::min({size_, node->count(), s.computed - index * size_});
    const std::int32_t block = s.blocks.sliding[static_cast<std::size_t>(index)];
    if (rows > node->sliding_rows) {
      if (node->sliding != block && node->sliding >= 0) drop_window(*node);
      // A node that parts from this one later may have kept the block for what they have in common.
      PrefixNode* const other = of_sliding_[static_cast<std::size_t>(block)];
      if (other && other != node) drop_window(*other);
      if (node->sliding < 0) {
        node->strong = strong;
        auto& list = strong ? strong_ : weak_;
        node->window_place = list.insert(list.begin(), node);
      }
      node->sliding = block;
      node->sliding_rows = rows;
      of_sliding_[static_cast<std::size_t>(block)] = node;
      blocks_.sliding().keep(block, static_cast<std::int32_t>(rows));
    }
    touch_window(*node, strong);
  }
  ++stats_.snapshots;
}

void PrefixCache::touch(PrefixNode& node) {
  const bool leaf = leaves_.erase(&node) > 0;
  node.used = ++now_;
  if (leaf) leaves_.insert(&node);
}

// Weak ones become strong when they are used, never the other way round.
void PrefixCache::touch_window(PrefixNode& node, bool strong) {
  auto& from = node.strong ? strong_ : weak_;
  node.strong = node.strong || strong;
  auto& to = node.strong ? strong_ : weak_;
  to.splice(to.begin(), from, node.window_place);
}

void PrefixCache::drop_window(PrefixNode& node) {
  (node.strong ? strong_ : weak_).erase(node.window_place);
  of_sliding_[static_cast<std::size_t>(node.sliding)] = nullptr;
  blocks_.sliding().give_up(node.sliding);
  node.sliding = -1;
  node.sliding_rows = 0;
  node.strong = false;
  ++stats_.snapshot_evictions;
}

// Takes a leaf out of the tree. It stays at its address while a sequence points to it.
void PrefixCache::drop(PrefixNode* node) {
  GOV_DCHECK(node->children.empty() && node->parent);
  if (node->sliding >= 0) drop_window(*node);
  of_full_[static_cast<std::size_t>(node->full)] = nullptr;
  blocks_.full().give_up(node->full);
  leaves_.erase(node);
  PrefixNode* const parent = std::exchange(node->parent, nullptr);
  parent->children.erase(*node->rows);
  node->rows = nullptr;
  ++stats_.evictions;
  if (!parent->is_root() && parent->children.empty()) leaves_.insert(parent);
  erase_if_unused(node);
  erase_if_unused(parent);
}

void PrefixCache::drop_all(PrefixNode* node) {
  for (PrefixNode* at = node;;) {
    while (!at->children.empty()) at = at->children.begin()->second;
    PrefixNode* const parent = at->parent;
    const bool last = at == node;
    drop(at);
    if (last) return;
    at = parent;
  }
}

// Nodes that are out of the tree, and roots without children.
void PrefixCache::erase_if_unused(PrefixNode* node) {
  if (node->users > 0 || node->parent || !node->children.empty()) return;
  if (node->is_root()) roots_.erase(node->root_place);
  nodes_.erase(node->place);
}

bool PrefixCache::evict_full() {
  if (blocks_.full().idle_count() == 0) return false;
  for (PrefixNode* leaf : leaves_) {
    if (blocks_.full().owners(leaf->full) > 0 || leaf->users > 0) continue;
    drop(leaf);
    return true;
  }
  drop(*leaves_.begin());  // an idle block is above one that is in use
  return true;
}

bool PrefixCache::evict_sliding() {
  if (blocks_.sliding().idle_count() == 0) return false;
  for (auto* list : {&weak_, &strong_}) {
    for (auto it = list->rbegin(); it != list->rend(); ++it) {
      if (blocks_.sliding().owners((*it)->sliding) > 0) continue;
      drop_window(**it);
      return true;
    }
  }
  return false;
}

PrefixStats PrefixCache::stats() const {
  PrefixStats stats = stats_;
  stats.cached_full_blocks = blocks_.full().kept_count();
  stats.cached_sliding_blocks = blocks_.sliding().kept_count();
  return stats;
}

BlockManager::Kept PrefixCache::kept() const {
  BlockManager::Kept kept;
  for (const PrefixNode& node : nodes_) {
    if (node.full >= 0 && node.parent) kept.full.push_back(node.full);
    if (node.sliding >= 0) kept.sliding.push_back(node.sliding);
  }
  return kept;
}

std::string PrefixCache::check() const {
  std::size_t leaves = 0, windows = 0;
  for (const PrefixNode& node : nodes_) {
    if (node.detached() || node.is_root()) {
      if (node.sliding >= 0) return "a node outside the tree keeps a window";
      continue;
    }
    leaves += node.children.empty();
    windows += node.sliding >= 0;
    const std::int64_t rows = node.count();
    if (rows < 1 || rows > size_ || (rows < size_ && !node.children.empty()))
      return "a node has a wrong number of rows";
    if (blocks_.full().kept_rows(node.full) != rows) return "a full block keeps other rows than its node";
    if (node.sliding >= 0 && blocks_.sliding().kept_rows(node.sliding) != node.sliding_rows)
      return "a sliding block keeps other rows than its node";
    if (node.sliding_rows > rows) return "a window is longer than its node";
  }
  if (leaves != leaves_.size()) return fmt::format("{} leaves are listed as {}", leaves, leaves_.size());
  if (windows != weak_.size() + strong_.size()) return "sliding blocks are listed wrongly";
  return {};
}

}  // namespace gov
