#include "tests/train/crash_disk.h"

#include <stdexcept>

namespace gov::test {

namespace fs = std::filesystem;

// The folder that holds the path, and the path's name in it.
std::pair<CrashDisk::Node*, std::string> CrashDisk::place(const fs::path& path) const {
  Node* at = top_.get();
  const fs::path relative = path.lexically_relative(root_);
  for (const fs::path& name : relative.parent_path()) at = at->names.at(name.native()).get();
  return {at, relative.filename().native()};
}

CrashDisk::Node& CrashDisk::node(const fs::path& path) const {
  if (path == root_) return *top_;
  const auto [folder, name] = place(path);
  return *folder->names.at(name);
}

void CrashDisk::change(Node& folder, Node::Names names) {
  for (const auto& [name, node] : names) {
    if (node) folder.names[name] = node;
    else folder.names.erase(name);
  }
  folder.unsynced.push_back(std::move(names));
}

void CrashDisk::apply(const DiskOp& op) {
  if (op.kind == DiskOp::kWrite) {
    std::string& bytes = node(op.path).bytes;
    bytes.resize(std::max(bytes.size(), static_cast<std::size_t>(op.offset) + op.data.size()));
    bytes.replace(static_cast<std::size_t>(op.offset), op.data.size(), op.data);
    return;
  }
  if (op.kind == DiskOp::kSync) {
    Node& synced = node(op.path);
    synced.synced_bytes = synced.bytes;
    synced.synced_names = synced.names;
    synced.unsynced.clear();
    return;
  }
  const auto [folder, name] = place(op.path);
  if (op.kind == DiskOp::kCreate || op.kind == DiskOp::kMakeFolder) {
    auto made = std::make_shared<Node>();
    made->folder = op.kind == DiskOp::kMakeFolder;
    change(*folder, {{name, std::move(made)}});
  } else if (op.kind == DiskOp::kRemove) {
    change(*folder, {{name, nullptr}});
  } else {
    const auto [to_folder, to_name] = place(op.to);
    if (to_folder != folder) throw std::logic_error("a rename between folders is not modelled");
    const auto there = folder->names.find(to_name);
    const bool refused = there != folder->names.end() && !there->second->names.empty();
    if (op.kind == DiskOp::kRename && refused) return;
    const auto from = folder->names.at(name);
    change(*folder, {{name, op.kind == DiskOp::kExchange ? folder->names.at(to_name) : nullptr}, {to_name, from}});
  }
}

void CrashDisk::collect(const Node& folder, const std::string& prefix, Loss loss, std::mt19937& random, Tree& out) {
  Node::Names names = folder.synced_names;
  for (const Node::Names& change : folder.unsynced) {
    if (loss == Loss::kAll || (loss == Loss::kRandom && random() % 2 == 0)) continue;
    for (const auto& [name, node] : change) names[name] = node;
  }
  for (const auto& [name, node] : names) {
    if (!node) continue;
    if (node->folder) {
      out[prefix + name + "/"];
      collect(*node, prefix + name + "/", loss, random, out);
      continue;
    }
    std::string bytes = loss == Loss::kNothing ? node->bytes : node->synced_bytes;
    if (loss == Loss::kRandom && node->bytes != node->synced_bytes) {
      const std::size_t size = node->bytes.size();
      switch (random() % 4) {
        case 0: break;
        case 1: bytes = node->bytes.substr(0, random() % (size + 1)); break;
        case 2: bytes.assign(size, '\0'); break;
        default: bytes = node->bytes;
      }
    }
    out[prefix + name] = std::move(bytes);
  }
}

CrashDisk::Tree CrashDisk::after(Loss loss, std::mt19937& random) const {
  Tree tree;
  collect(*top_, "", loss, random, tree);
  return tree;
}

}  // namespace gov::test
