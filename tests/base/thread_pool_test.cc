#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>

#include "tensor/arena.h"
#include "tensor/context.h"

namespace gov {
namespace {

TEST(ThreadPool, EveryItemOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
      for (const std::int64_t grain : {1, 3, 1000, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(count));
        pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
          EXPECT_LT(thread, threads);
          EXPECT_LE(end - begin, std::max(grain, count <= grain ? count : grain) + (threads == 1 ? count : 0));
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        for (const auto& hit : hits) EXPECT_EQ(hit, 1);
      }
    }
  }
}

TEST(ThreadPool, ManyShortLoopsAndSleepsBetween) {
  ThreadPool pool(3);
  std::atomic<std::int64_t> sum{0};
  for (int loop = 0; loop < 3000; ++loop) {
    pool.parallel_for(5, 1, [&](std::int64_t begin, std::int64_t end, int) { sum += end - begin; });
    if (loop % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long enough to fall asleep
  }
  EXPECT_EQ(sum, 15000);
}

// Many more threads than cores: a short loop must not wait for threads that are not running.
TEST(ThreadPool, OversubscriptionStaysFast) {
  ThreadPool pool(64);
  const auto start = std::chrono::steady_clock::now();
  std::atomic<std::int64_t> sum{0};
  for (int loop = 0; loop < 200; ++loop) {
    pool.parallel_for(2, 1, [&](std::int64_t begin, std::int64_t end, int) { sum += end - begin; });
  }
  EXPECT_EQ(sum, 400);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(ThreadPool, ExceptionsReachTheCaller) {
  ThreadPool pool(2);
  for (int loop = 0; loop < 20; ++loop) {
    EXPECT_THROW(pool.parallel_for(100, 1,
                                   [](std::int64_t begin, std::int64_t, int) {
                                     if (begin == 37) throw Error(ErrorCode::kCancelled, "x");
                                   }),
                 Error);
    std::atomic<int> done{0};
    pool.parallel_for(10, 1, [&](std::int64_t, std::int64_t, int) { ++done; });
    EXPECT_EQ(done, 10);
  }
}

TEST(ThreadPool, IdleWorkersUseNoProcessor) {
  ThreadPool pool(2);
  pool.parallel_for(4, 1, [](std::int64_t, std::int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC, 0.05);
}

TEST(Workspace, ViewsOfOneOpAreDisjointAndAligned) {
  Workspace workspace;
  for (int op = 0; op < 5; ++op) {
    workspace.reset();
    std::vector<std::pair<char*, std::size_t>> views;
    for (std::size_t size : {1u, 100u, 5000u, 70000u, 64u}) {
      char* view = workspace.take<char>(static_cast<std::int64_t>(size));
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view) % 64, 0u);
      std::fill(view, view + size, static_cast<char>(views.size()));
      views.emplace_back(view, size);
    }
    for (std::size_t i = 0; i < views.size(); ++i) {
      for (std::size_t b = 0; b < views[i].second; ++b) ASSERT_EQ(views[i].first[b], static_cast<char>(i));
    }
  }
}

TEST(Context, CancelWordEndsTheNextOp) {
  std::atomic<bool> cancel{false};
  Context ctx;
  ctx.cancel = &cancel;
  ctx.begin_op(10, 20);
  EXPECT_EQ(ctx.counters.bytes, 10);
  EXPECT_EQ(ctx.counters.flops, 20);
  cancel = true;
  EXPECT_THROW(ctx.begin_op(1, 1), Error);
}

TEST(Arena, OneAllocationForThePlan) {
  Arena arena;
  Tensor a, b;
  arena.plan(&a, "a", DType::kF32, {3, 5});
  arena.plan(&b, "b", DType::kU8, {7});
  EXPECT_EQ(arena.planned_bytes(), 512u);
  arena.commit(DeviceKind::kCpu, "a test");
  EXPECT_EQ(static_cast<char*>(b.data) - static_cast<char*>(a.data), 256);
  EXPECT_EQ(a.shape, (Shape{3, 5}));
  EXPECT_EQ(a.slice(1, 2).data, a.as<float>() + 5);
}

TEST(Buffer, AbsurdSizesAreErrors) {
  EXPECT_THROW(Buffer(SIZE_MAX, DeviceKind::kCpu, "a test"), Error);
  EXPECT_THROW(Buffer(std::size_t{1} << 60, DeviceKind::kCpu, "a test"), Error);
  EXPECT_THROW(Buffer(64, DeviceKind::kCuda, "a test"), Error);
}

}  // namespace
}  // namespace gov
