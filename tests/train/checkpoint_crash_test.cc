// Checkpoints under kill -9 at every call, a full disk at every call, and losses of power in every order.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>

#include "tests/io/temp_folder.h"
#include "tests/train/checkpoint_values.h"
#include "tests/train/crash_disk.h"

namespace gov::train::test {
namespace {

namespace fs = std::filesystem;
using namespace gov::test;

// What a run does in these tests: a save that removes an old checkpoint, and one that takes the place of another.
constexpr std::int64_t kSteps[] = {1, 2, 3, 3};
constexpr std::int64_t kKeep = 2;

void run(const fs::path& folder, std::span<const std::int64_t> steps) {
  CheckpointStore store(folder, kKeep, kSmallShard);
  for (const std::int64_t step : steps) save(store, step);
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

// Everything that looks complete is complete; returns the steps, newest first.
std::vector<std::int64_t> expect_all_whole(const fs::path& folder) {
  const CheckpointStore store(folder, kKeep, kSmallShard);
  std::vector<std::int64_t> steps;
  for (const auto& found : store.list()) {
    expect_whole(store, found);
    steps.push_back(found.step);
  }
  return steps;
}

std::vector<DiskOp> operations(std::span<const std::int64_t> before, std::span<const std::int64_t> steps) {
  const TempFolder folder;
  run(folder.path(), before);
  std::vector<DiskOp> all;
  const DiskWatch watch(folder.path(), [&](const DiskOp& op) {
    all.push_back(op);
    return DiskAnswer{};
  });
  run(folder.path(), steps);
  return all;
}

// Runs the program until its n-th call, half of which is done if it is a write, in a process that dies there.
void run_and_die(const fs::path& folder, std::span<const std::int64_t> steps, std::size_t n) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::size_t call = 0;
    const DiskWatch watch(folder, [&](const DiskOp& op) {
      return call++ == n ? DiskAnswer{.some = op.data.size() / 2, .cut = true} : DiskAnswer{};
    });
    run(folder, steps);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << n;
}

TEST(CheckpointCrash, KilledAtEveryCall) {
  const std::size_t calls = operations({}, kSteps).size();
  ASSERT_GT(calls, 100u);
  for (std::size_t n = 0; n < calls; ++n) {
    const TempFolder folder;
    ASSERT_NO_FATAL_FAILURE(run_and_die(folder.path(), kSteps, n));
    const auto steps = expect_all_whole(folder.path());
    // The next run goes on, and cleans up.
    const std::int64_t next[] = {steps.empty() ? 1 : steps.front() + 1};
    run(folder.path(), next);
    EXPECT_EQ(expect_all_whole(folder.path()).front(), next[0]);
    EXPECT_EQ(names_in(folder.path()).size(), steps.empty() ? 1u : 2u) << n;
  }
}

TEST(CheckpointCrash, KilledWhileTheThirdIsWrittenTheSecondIsThere) {
  const std::int64_t before[] = {1, 2}, third[] = {3};
  const std::size_t calls = operations(before, third).size();
  for (std::size_t n = 0; n < calls; ++n) {
    const TempFolder folder;
    run(folder.path(), before);
    ASSERT_NO_FATAL_FAILURE(run_and_die(folder.path(), third, n));
    const auto steps = expect_all_whole(folder.path());
    ASSERT_GE(steps.size(), 2u) << n;
    EXPECT_GE(steps.front(), 2) << n;
  }
}

bool makes_room(const DiskOp& op) { return op.kind == DiskOp::kRemove; }

// From the n-th call on the disk is full: only removing works. `once`: just that call fails.
void fail_at(std::size_t n, int error, bool once) {
  const TempFolder folder;
  const std::int64_t before[] = {1, 2};
  run(folder.path(), before);
  CheckpointStore store(folder.path(), kKeep, kSmallShard);
  bool renamed = false, failed = false;
  {
    std::size_t call = 0;
    const DiskWatch watch(folder.path(), [&](const DiskOp& op) -> DiskAnswer {
      const std::size_t mine = call++;
      if (mine == n || (!once && mine > n && !makes_room(op))) {
        failed = true;
        return {.error = error, .some = op.data.size() / 2};
      }
      renamed = renamed || (op.kind == DiskOp::kRename && op.to == folder / "step-00000003");
      return {};
    });
    store.save(3, Values(3).tensors(), state_of(3));
    expect_error(ErrorCode::kIo, "cannot ", [&] { store.wait(); });
  }
  ASSERT_TRUE(failed);
  const auto steps = expect_all_whole(folder.path());
  if (!renamed) {  // later the new one is there, and what failed is its sync or the removal of the oldest
    EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"step-00000001", "step-00000002"})) << n;
  }
  EXPECT_GE(steps.size(), 2u) << n;
  EXPECT_EQ(steps.front(), renamed ? 3 : 2) << n;
  save(store, 4);  // there is room again
  EXPECT_EQ(names_in(folder.path()).size(), 2u) << n;
  EXPECT_EQ(expect_all_whole(folder.path()).front(), 4);
}

TEST(CheckpointCrash, FullDiskAtEveryCall) {
  const std::int64_t before[] = {1, 2}, third[] = {3};
  const std::size_t calls = operations(before, third).size();
  for (std::size_t n = 0; n < calls; ++n) {
    fail_at(n, ENOSPC, false);
    fail_at(n, EIO, true);
  }
}

// Makes a folder what the tree says.
void put_tree(const fs::path& folder, const CrashDisk::Tree& tree) {
  for (const auto& [name, bytes] : tree) {
    if (name.ends_with('/')) fs::create_directory(folder / name);
    else put_file(folder / name, bytes);
  }
}

TEST(CheckpointCrash, LossOfPowerInAnyOrder) {
  const std::vector<DiskOp> all = operations({}, kSteps);
  const fs::path root = all.front().path.parent_path();
  CrashDisk disk(root);
  std::mt19937 random(1);
  std::set<std::string> seen;  // states that were tried
  std::int64_t tried = 0, durable = 0;
  const auto check = [&](CrashDisk::Loss loss, std::size_t call) {
    const CrashDisk::Tree tree = disk.after(loss, random);
    std::string key;
    for (const auto& [name, bytes] : tree) key += name + '\0' + bytes + '\0';
    if (!seen.insert(std::move(key)).second) return;
    ++tried;
    const TempFolder folder;
    put_tree(folder.path(), tree);
    const auto steps = expect_all_whole(folder.path());
    ASSERT_GE(steps.empty() ? 0 : steps.front(), durable) << "after call " << call;
  };
  std::int64_t renamed = 0;
  for (std::size_t call = 0; call <= all.size(); ++call) {
    check(CrashDisk::Loss::kAll, call);
    check(CrashDisk::Loss::kNothing, call);
    for (int i = 0; i < 200; ++i) check(CrashDisk::Loss::kRandom, call);
    if (HasFatalFailure() || call == all.size()) break;
    const DiskOp& op = all[call];
    disk.apply(op);
    if (op.kind == DiskOp::kRename && op.path.parent_path() == root && op.to.extension().empty())
      renamed = std::stoll(op.to.filename().native().substr(5));
    if (op.kind == DiskOp::kSync && op.path == root) durable = renamed;
  }
  EXPECT_EQ(durable, 3);
  EXPECT_GT(tried, 1000);
}

}  // namespace
}  // namespace gov::train::test
