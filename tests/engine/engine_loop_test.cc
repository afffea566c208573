// The engine in a thread of its own: results, cancellation, limits, draining, failures.
#include "engine/engine_loop.h"

#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <thread>

#include "tests/engine/test_support.h"

namespace gov::test {
namespace {

using namespace std::chrono_literals;

// A request's end as a future.
struct Ending {
  std::promise<RequestResult> promise;
  std::future<RequestResult> future = promise.get_future();
  std::atomic<int> calls = 0;
  EngineLoop::Done done() {
    return [this](RequestResult result, std::exception_ptr error) {
      if (++calls > 1) return;
      if (error) promise.set_exception(error);
      else promise.set_value(std::move(result));
    };
  }
  RequestResult get() {
    return future.wait_for(60s) == std::future_status::ready ? future.get() : throw std::runtime_error("no end");
  }
  ErrorCode error() {
    try {
      get();
    } catch (const Error& e) {
      return e.code();
    }
    throw std::runtime_error("no error");
  }
};

template <class F>
ErrorCode code_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code();
  }
  throw std::runtime_error("no error");
}

// Waits until `yes()`; false after a minute.
template <class F>
bool eventually(F&& yes) {
  const Timer timer;
  while (!yes()) {
    if (timer.seconds() > 60) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class Loop : public testing::Test {
 protected:
  Loop() : model(random_model(small_config(), 5, pool)), tokenizer(byte_tokenizer()) {
    EngineOptions o;
    o.context = 4096;
    o.chunk = 16;
    o.block_size = 8;
    o.max_sequences = 4;
    o.check_blocks = true;
    engine.emplace(model, &tokenizer, std::vector<std::int32_t>{}, o, pool);
  }
  // A request that holds the engine's thread in its first token until opened.
  Request gate(std::shared_future<void> opened) {
    Request request = make_request({1, 2, 3}, greedy(3));
    request.on_token = [this, opened](const TokenEvent&) {
      held = true;
      opened.wait_for(60s);
    };
    return request;
  }
  void expect_all_free() const {
    EXPECT_EQ(engine->stats().free_full_blocks, engine->stats().full_blocks);
    EXPECT_EQ(engine->stats().free_sliding_blocks, engine->stats().sliding_blocks);
  }

  ThreadPool pool{1};
  Model model;
  Tokenizer tokenizer;
  std::optional<Engine> engine;
  std::atomic<bool> held = false;
};

TEST_F(Loop, ManyThreadsGetWhatTheEngineAloneGives) {
  constexpr int kThreads = 4, kEach = 6;
  const auto request_of = [](int i) {
    return make_request(random_prompt(5 + 7 * (i % 5), static_cast<std::uint64_t>(i)),
                        sampled(8 + i % 3, static_cast<std::uint64_t>(i)));
  };
  std::vector<Request> all;
  for (int i = 0; i < kThreads * kEach; ++i) all.push_back(request_of(i));
  const std::vector<RequestResult> expected = generate(*engine, all);

  std::vector<std::string> streamed(kThreads * kEach);
  EngineLoop loop(*engine);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = t * kEach; i < (t + 1) * kEach; ++i) {
        Request request = request_of(i);
        request.tenant = std::to_string(t);
        request.on_token = [&text = streamed[static_cast<std::size_t>(i)]](const TokenEvent& e) { text += e.text; };
        Ending ending;
        loop.submit(std::move(request), ending.done());
        const Completion got = ending.get().choices[0];
        expect_same(got, expected[static_cast<std::size_t>(i)].choices[0], std::to_string(i));
        EXPECT_EQ(streamed[static_cast<std::size_t>(i)], got.text);
        EXPECT_GE(loop.stats().steps, 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(loop.drain(60));
  const EngineStats stats = loop.stats();
  EXPECT_EQ(stats.finished, 2 * kThreads * kEach);  // those of generate() too
  EXPECT_EQ(stats.waiting + stats.running, 0);
  EXPECT_EQ(stats.first_token_seconds.count, 2 * kThreads * kEach);
  EXPECT_EQ(stats.first_token_seconds.count + stats.token_seconds.count, stats.tokens);
  EXPECT_EQ(stats.free_full_blocks, stats.full_blocks);
}

TEST_F(Loop, CancelEndsWhatRunsWhatWaitsAndWhatIsInTheQueue) {
  std::promise<void> open;
  std::atomic<int> tokens = 0;
  Ending first, queued, running, waiting[6];  // outlive the loop, whose end ends the requests
  EngineLoop loop(*engine);
  loop.submit(gate(open.get_future().share()), first.done());
  ASSERT_TRUE(eventually([&] { return held.load(); }));
  const auto queued_ticket = loop.submit(make_request({4}, greedy(1000)), queued.done());
  EXPECT_GE(loop.waiting(), 1);
  loop.cancel(queued_ticket);
  open.set_value();
  EXPECT_EQ(queued.get().choices[0].finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(first.get().choices[0].tokens.size(), 3u);

  Request endless = make_request({5}, greedy(4000));
  endless.on_token = [&](const TokenEvent&) { ++tokens; };
  const auto running_ticket = loop.submit(endless, running.done());
  for (Ending& one : waiting) loop.submit(make_request({6}, greedy(4000)), one.done());
  ASSERT_TRUE(eventually([&] { return tokens > 2; }));
  loop.cancel(running_ticket);
  const Completion cut = running.get().choices[0];
  EXPECT_EQ(cut.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(static_cast<int>(cut.tokens.size()), tokens);
  EXPECT_LT(tokens, 4000);
  EXPECT_FALSE(loop.drain(0));  // the others are not done
}

TEST_F(Loop, TheDestructorCancelsAndEveryRequestEndsOnce) {
  std::vector<Ending> endings(12);
  {
    EngineLoop loop(*engine);
    for (Ending& ending : endings) loop.submit(make_request({7, 8}, greedy(4000)), ending.done());
    ASSERT_TRUE(eventually([&] { return loop.stats().tokens > 4; }));
  }
  for (Ending& ending : endings) {
    EXPECT_EQ(ending.calls, 1);
    EXPECT_EQ(ending.get().choices[0].finish_reason, FinishReason::kCancelled);
  }
  expect_all_free();
}

TEST_F(Loop, FullQueuesRefuse) {
  std::promise<void> open;
  std::vector<Ending> endings(8);
  EngineLoop loop(*engine, {5, 3});
  loop.submit(gate(open.get_future().share()), endings[0].done());
  const auto of = [](std::string tenant) {
    Request request = make_request({1}, greedy(2));
    request.tenant = std::move(tenant);
    return request;
  };
  for (int i = 1; i < 4; ++i) loop.submit(of("a"), endings[static_cast<std::size_t>(i)].done());
  EXPECT_EQ(code_of([&] { loop.submit(of("a"), endings[6].done()); }), ErrorCode::kOverloaded);  // three of one
  loop.submit(of("b"), endings[4].done());
  EXPECT_EQ(code_of([&] { loop.submit(of("c"), endings[7].done()); }), ErrorCode::kOverloaded);  // five of all
  EXPECT_EQ(loop.stats().rejected, 2);
  open.set_value();
  for (int i = 0; i < 5; ++i) endings[static_cast<std::size_t>(i)].get();
  EXPECT_EQ(endings[6].calls + endings[7].calls, 0);
}

TEST_F(Loop, PlaceIsFreeAgainWhenARequestEnds) {
  EngineLoop loop(*engine, {1, 1});
  for (int i = 0; i < 5; ++i) {
    Ending ending;
    ASSERT_TRUE(eventually([&] {  // the place is given back after the callback
      try {
        loop.submit(make_request({1}, greedy(2)), ending.done());
        return true;
      } catch (const Error&) {
        return false;
      }
    }));
    EXPECT_EQ(ending.get().choices[0].tokens.size(), 2u);
  }
}

TEST_F(Loop, BadRequestsFailAlone) {
  EngineLoop loop(*engine);
  Ending empty, too_long, throws, good, self;
  loop.submit(make_request({}, greedy(2)), empty.done());
  loop.submit(make_request(random_prompt(5000, 1), greedy(2)), too_long.done());
  Request angry = make_request({1}, greedy(8));
  angry.on_token = [](const TokenEvent&) { fail(ErrorCode::kIo, "the client is gone"); };
  loop.submit(angry, throws.done());
  loop.submit(make_request({1}, greedy(8)), good.done());
  EXPECT_EQ(empty.error(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(too_long.error(), ErrorCode::kContextLength);
  EXPECT_EQ(throws.error(), ErrorCode::kIo);
  EXPECT_EQ(good.get().choices[0].tokens.size(), 8u);
  // A callback that throws at the end, and one that submits the next request.
  loop.submit(make_request({1}, greedy(2)), [&](RequestResult, std::exception_ptr) {
    loop.submit(make_request({2}, greedy(2)), self.done());
    throw std::runtime_error("dropped");
  });
  EXPECT_EQ(self.get().choices[0].tokens.size(), 2u);
  EXPECT_TRUE(loop.drain(60));
  EXPECT_EQ(loop.stats().rejected, 2);
  EXPECT_EQ(loop.stats().failed, 1);
  EXPECT_FALSE(loop.failed());
}

TEST_F(Loop, DrainLetsRunAndTakesNoMore) {
  EngineLoop loop(*engine);
  std::vector<Ending> endings(6);
  for (Ending& ending : endings) loop.submit(make_request({3}, greedy(20)), ending.done());
  std::thread waiting([&] { EXPECT_TRUE(loop.drain(60)); });
  ASSERT_TRUE(eventually([&] {
    try {
      loop.submit(make_request({3}, greedy(1)), [](RequestResult, std::exception_ptr) {});
      return false;
    } catch (const Error& error) {
      return error.code() == ErrorCode::kUnavailable;
    }
  }));
  waiting.join();
  for (Ending& ending : endings) EXPECT_EQ(ending.get().choices[0].tokens.size(), 20u);
}

TEST_F(Loop, AFaultOfTheEngineEndsEverythingAndReadiness) {
  engine->context().trace = [](std::string_view name, const Tensor&) {
    if (name == "hidden.1") fail(ErrorCode::kDevice, "unplugged");
  };
  EngineLoop loop(*engine);
  std::vector<Ending> endings(3);
  for (Ending& ending : endings) {
    try {
      loop.submit(make_request({3}, greedy(20)), ending.done());
    } catch (const Error& error) {  // it fell over before the last one came
      EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
      ending.promise.set_exception(std::current_exception());
      ending.calls = 1;
    }
  }
  for (Ending& ending : endings) {
    EXPECT_THROW(ending.get(), Error);
    EXPECT_EQ(ending.calls, 1);
  }
  ASSERT_TRUE(eventually([&] { return loop.failed(); }));
  EXPECT_TRUE(loop.stats().device_lost);
  EXPECT_EQ(code_of([&] { loop.submit(make_request({3}, greedy(1)), {}); }), ErrorCode::kUnavailable);
}

// What a lost device holds is not touched any more.
TEST_F(Loop, AFailedEngineIsLeftAlone) {
  std::atomic<bool> unplugged = false;
  engine->context().trace = [&](std::string_view name, const Tensor&) {
    if (unplugged && name == "hidden.1") fail(ErrorCode::kDevice, "unplugged");
  };
  {
    EngineLoop loop(*engine);
    Ending good, bad;
    loop.submit(make_request(random_prompt(20, 1), greedy(3)), good.done());
    good.get();
    unplugged = true;
    loop.submit(make_request(random_prompt(20, 2), greedy(3)), bad.done());
    EXPECT_EQ(bad.error(), ErrorCode::kDevice);
    ASSERT_TRUE(eventually([&] { return loop.failed(); }));
    loop.reset_prefix_cache();
  }
  EXPECT_GT(engine->stats().prefix.cached_full_blocks, 0);
}

TEST_F(Loop, NumbersThatAreNotFiniteEndOneRequestOnly) {
  // A bias as large as floats go makes the sum of logits infinite for one request only.
  EngineLoop loop(*engine);
  Ending bad, good;
  Request request = make_request({1, 2}, greedy(5));
  for (std::int32_t id = 0; id < 260; ++id) {
    request.options.logit_bias.push_back({id, 3e38f});
    request.options.logit_bias.push_back({id, 3e38f});
  }
  loop.submit(request, bad.done());
  loop.submit(make_request({1, 2}, greedy(5)), good.done());
  EXPECT_EQ(bad.error(), ErrorCode::kDevice);
  EXPECT_EQ(good.get().choices[0].tokens.size(), 5u);
  EXPECT_FALSE(loop.failed());
}

}  // namespace
}  // namespace gov::test
