#pragma once
// A disk as a loss of power finds it: what was synced is there; of what was not, anything may be.

#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/train/disk_watch.h"

namespace gov::test {

class CrashDisk {
 public:
  explicit CrashDisk(std::filesystem::path root) : root_(std::move(root)), top_(std::make_shared<Node>()) {}

  void apply(const DiskOp& op);

  // How to choose among what was not synced.
  enum class Loss { kAll, kNothing, kRandom };
  // Files (path -> bytes) and folders (path ending in '/') that remain, in one of the ways that the loss allows.
  using Tree = std::map<std::string, std::string>;
  Tree after(Loss loss, std::mt19937& random) const;

 private:
  struct Node {  // a file or a folder
    bool folder = true;
    std::string bytes, synced_bytes;
    using Names = std::map<std::string, std::shared_ptr<Node>>;  // null: the name is gone
    Names names, synced_names;
    std::vector<Names> unsynced;  // changes of names since the last sync, each all or nothing
  };
  std::pair<Node*, std::string> place(const std::filesystem::path& path) const;
  Node& node(const std::filesystem::path& path) const;
  static void change(Node& folder, Node::Names names);
  static void collect(const Node& folder, const std::string& prefix, Loss loss, std::mt19937& random, Tree& out);

  std::filesystem::path root_;
  std::shared_ptr<Node> top_;
};

}  // namespace gov::test
