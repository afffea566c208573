#pragma once
// Tokens as a tree of their bytes, laid out depth first, so that a walk runs forward through arrays and skips a subtree
// by one jump.

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace gov {

struct TokenTrie {
  struct Node {
    std::uint32_t end;          // the node behind this one's subtree
    std::uint32_t first_token;  // in `tokens`; the next node's is the end
    std::uint16_t depth;        // bytes from the root, which is node 0
    std::uint8_t byte;
  };
  std::vector<Node> nodes;  // and one behind the last
  std::vector<std::int32_t> tokens;

  std::uint32_t size() const { return static_cast<std::uint32_t>(nodes.size() - 1); }
  std::span<const std::int32_t> tokens_at(std::uint32_t node) const {
    return std::span(tokens).subspan(nodes[node].first_token, nodes[node + 1].first_token - nodes[node].first_token);
  }
  std::size_t bytes() const { return nodes.size() * sizeof(Node) + tokens.size() * 4; }
  // The child by this byte, or 0.
  std::uint32_t child(std::uint32_t node, std::uint8_t byte) const;

  // From texts and their tokens in any order; several tokens may have one text. Texts are shorter than 64 KiB.
  static TokenTrie build(std::vector<std::pair<std::string_view, std::int32_t>> entries);
};

}  // namespace gov
