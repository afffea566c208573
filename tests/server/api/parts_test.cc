// The parts behind the routes: errors, base64, pictures, the store, the workers.

#include <gtest/gtest.h>

#include <atomic>
#include <latch>

#include "base/base64.h"
#include "base/philox.h"
#include "base/timer.h"
#include "server/api_error.h"
#include "server/context.h"
#include "server/images.h"
#include "server/response_store.h"
#include "server/workers.h"
#include "tests/server/api/test_server.h"

namespace gov::test {
namespace {

using namespace server;

TEST(ApiErrors, CodesHaveTheirStatus) {
  const auto status = [](ErrorCode code, const char* message = "x") {
    return to_api_error(std::make_exception_ptr(Error(code, message))).status;
  };
  EXPECT_EQ(status(ErrorCode::kInvalidArgument), 400);
  EXPECT_EQ(status(ErrorCode::kContextLength), 400);
  EXPECT_EQ(status(ErrorCode::kOverloaded), 429);
  EXPECT_EQ(status(ErrorCode::kUnavailable), 503);
  EXPECT_EQ(status(ErrorCode::kDevice), 500);
  const ApiError numerical =
      to_api_error(std::make_exception_ptr(Error(ErrorCode::kDevice, "non-finite logits in row 3")));
  EXPECT_EQ(numerical.type, "numerical_error");
  // Nothing of the inside is told.
  const ApiError io =
      to_api_error(std::make_exception_ptr(Error(ErrorCode::kIo, "/home/someone/secret: no such file")));
  EXPECT_EQ(error_body(io).find("secret"), std::string::npos);
  EXPECT_EQ(to_api_error(std::make_exception_ptr(std::runtime_error("/root/key"))).message, "internal error");
}

TEST(Base64, GoesThereAndBack) {
  for (std::size_t size = 0; size < 70; ++size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(Philox{size}(i)[0]);
    std::string back = "other";
    const std::string text = base64_encode(bytes);
    EXPECT_EQ(base64_decode(text, back), size > 0);
    if (size > 0) {
      EXPECT_EQ(back, bytes);
    }
  }
  EXPECT_EQ(base64_encode("Man"), "TWFu");
  EXPECT_EQ(base64_encode("M"), "TQ==");
  std::string out;
  for (const char* bad : {"TQ=", "TQ", "T===", "TR==", "TW Fu", "TWFu\n", "TWF*", "=TWF", "TQ==TQ=="})
    EXPECT_FALSE(base64_decode(bad, out)) << bad;
}

ImageSource source(std::string url) {
  return {"messages[0].content[0].image_url", std::make_shared<const std::string>(std::move(url))};
}

TEST(ApiImages, OtherUrlsAreRefusedByField) {
  const ImageRules rules;
  for (const char* url :
       {"file:///etc/passwd", "FILE:///etc/passwd", "ftp://host/a.png", "http://127.0.0.1/",
        "https://example.com/a.png", "gopher://x", "//host/a", "a.png", "", "data:", "data:,", "data:image/png",
        "data:image/png,AAAA", "data:text/html;base64,AAAA", "data:image/png;charset=x,AAAA", "javascript:alert(1)",
        "blob:x", " data:image/png;base64,AAAA", "data:image/png;base64;x,AAAA"}) {
    try {
      check_image_url(source(url), rules);
      ADD_FAILURE() << url;
    } catch (const ApiError& error) {
      EXPECT_EQ(error.status, 400);
      EXPECT_EQ(error.param, "messages[0].content[0].image_url");
    }
  }
  check_image_url(source("data:image/png;base64,AAAA"), rules);
  check_image_url(source("DATA:image/PNG;base64,AAAA"), rules);
}

TEST(ApiImages, DamagedAndHugeOnesAreRefusedWithoutDecoding) {
  const Preprocessor preprocessor = Preprocessor::for_size(224);
  const auto load = [&](std::vector<ImageSource> sources) { return load_images(sources, preprocessor, {}); };
  EXPECT_THROW(load({source("data:image/png;base64,AAA*")}), ApiError);
  EXPECT_THROW(load({source("data:image/png;base64,AAAA")}), ApiError);
  EXPECT_EQ(load({source(picture_url("crab.jpg"))}).size(), 1u);
  // A PNG header of 60,000 x 60,000.
  std::string bomb = read_file(GOV_SOURCE_DIR "/models/nano/test_pictures/banana.png");
  for (const std::size_t at : {16u, 20u}) {
    bomb[at] = 0;
    bomb[at + 1] = 0;
    bomb[at + 2] = static_cast<char>(0xEA);
    bomb[at + 3] = 0x60;
  }
  const Timer timer;
  EXPECT_THROW(load({source("data:image/png;base64," + base64_encode(bomb))}), ApiError);
  EXPECT_LT(timer.seconds(), 0.2);
  const std::string large = "data:image/png;base64," + std::string(30u << 20, 'A');
  EXPECT_THROW(check_image_url(source(large), {}), ApiError);
}

TEST(ApiImages, MoreThanSixteenAreRefused) {
  TestServer server(ModelChoice::kNano);
  std::string parts;
  for (int i = 0; i < 17; ++i) parts += R"({"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},)";
  const Reply reply = server.post("/v1/chat/completions", R"({"messages":[{"role":"user","content":[)" + parts +
                                                              R"({"type":"text","text":"x"}]}]})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.error_param(), "messages[0].content[16].image_url") << reply.body;
}

StoredResponse stored(std::string id, std::string tenant, std::size_t bytes) {
  StoredResponse response;
  response.id = std::move(id);
  response.tenant = std::move(tenant);
  response.body = std::string(bytes, 'x');
  return response;
}

TEST(ResponseStore, IsBoundedAndFairToTenants) {
  ResponseStore store(100'000, 1000);
  for (int i = 0; i < 20; ++i) store.put(stored(fmt::format("a{}", i), "a", 8'000));
  EXPECT_LE(store.bytes(), 50'000u) << "one tenant has half of it";
  EXPECT_EQ(store.find("a", "a0"), nullptr);
  EXPECT_NE(store.find("a", "a19"), nullptr);
  EXPECT_EQ(store.find("b", "a19"), nullptr);
  for (int i = 0; i < 20; ++i) store.put(stored(fmt::format("b{}", i), "b", 8'000));
  EXPECT_LE(store.bytes(), 100'000u);
  EXPECT_NE(store.find("a", "a19"), nullptr) << "another tenant does not push it out";
  EXPECT_THROW(store.put(stored("big", "c", 60'000)), Error);
  EXPECT_TRUE(store.erase("a", "a19"));
  EXPECT_FALSE(store.erase("a", "a19"));
  store.update(stored("a19", "a", 10));
  EXPECT_EQ(store.find("a", "a19"), nullptr) << "what was deleted stays deleted";
}

TEST(ResponseStore, RunningOnesStay) {
  ResponseStore store(100'000, 0);
  StoredResponse running = stored("r", "a", 40'000);
  running.running = true;
  store.put(running);
  for (int i = 0; i < 5; ++i) store.put(stored(fmt::format("a{}", i), "a", 4'000));
  EXPECT_NE(store.find("a", "r"), nullptr);
}

TEST(Workers, AStrandKeepsOrder) {
  Workers workers(3, 1'000'000);
  std::vector<std::vector<int>> seen(50);
  std::latch done(50 * 200);
  std::vector<std::shared_ptr<Strand>> strands;
  for (int s = 0; s < 50; ++s) strands.push_back(std::make_shared<Strand>(workers));
  for (int i = 0; i < 200; ++i) {
    for (std::size_t s = 0; s < 50; ++s) {
      strands[s]->post([&, s, i] {
        seen[s].push_back(i);
        done.count_down();
      });
    }
  }
  done.wait();
  for (const std::vector<int>& order : seen) {
    for (int i = 0; i < 200; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }
}

TEST(Workers, AFullQueueRefuses) {
  std::latch hold(1);
  Workers workers(1, 2);
  std::atomic<int> started = 0;
  workers.post([&] {
    ++started;
    hold.wait();
  });
  while (started == 0) std::this_thread::yield();
  workers.post([] {});
  workers.post([] {});
  EXPECT_THROW(workers.post([] {}), Error);
  hold.count_down();
}

TEST(SpeedMeter, IsAMeanOverTheWindow) {
  SpeedMeter meter;
  meter.note(0, 0, 0);
  for (int i = 1; i <= 100; ++i) meter.note(i, i * 100, i * 10);
  const SpeedMeter::Speed busy = meter.speed(100, 10'000, 1'000);
  EXPECT_NEAR(busy.prompt, 100, 12);
  EXPECT_NEAR(busy.generated, 10, 1.2);
  const SpeedMeter::Speed idle = meter.speed(200, 10'000, 1'000);
  EXPECT_EQ(idle.prompt, 0);
  EXPECT_EQ(idle.generated, 0);
}

}  // namespace
}  // namespace gov::test
