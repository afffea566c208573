#include "text/token_trie.h"

#include <algorithm>

namespace gov {

std::uint32_t TokenTrie::child(std::uint32_t node, std::uint8_t byte) const {
  for (std::uint32_t i = node + 1; i < nodes[node].end; i = nodes[i].end) {
    if (nodes[i].byte == byte) return i;
  }
  return 0;
}

TokenTrie TokenTrie::build(std::vector<std::pair<std::string_view, std::int32_t>> entries) {
  std::sort(entries.begin(), entries.end());
  TokenTrie trie;
  trie.nodes.push_back({0, 0, 0, 0});
  std::vector<std::uint32_t> path{0};  // the nodes of the text before
  std::string_view before;
  const auto close = [&](std::size_t depth) {  // leaves the nodes below this depth
    while (path.size() > depth + 1) {
      trie.nodes[path.back()].end = trie.size() + 1;
      path.pop_back();
    }
  };
  for (const auto& [text, token] : entries) {
    std::size_t common = 0;
    while (common < std::min(text.size(), before.size()) && text[common] == before[common]) ++common;
    close(common);
    for (std::size_t i = common; i < text.size(); ++i) {
      path.push_back(static_cast<std::uint32_t>(trie.nodes.size()));
      trie.nodes.push_back({0, static_cast<std::uint32_t>(trie.tokens.size()), static_cast<std::uint16_t>(i + 1),
                            static_cast<std::uint8_t>(text[i])});
    }
    trie.tokens.push_back(token);
    before = text;
  }
  close(0);
  trie.nodes[0].end = static_cast<std::uint32_t>(trie.nodes.size());
  trie.nodes.push_back({0, static_cast<std::uint32_t>(trie.tokens.size()), 0, 0});
  return trie;
}

}  // namespace gov
