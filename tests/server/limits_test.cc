// What is too large, too slow or too much is refused cheaply, and nobody else suffers.

#include <sys/socket.h>

#include "base/timer.h"
#include "tests/server/http_client.h"

namespace gov::test {
namespace {

constexpr std::size_t kMiB = 1u << 20;

server::ServerOptions impatient() {
  server::ServerOptions options;
  options.timeouts.header = 0.3;
  options.timeouts.idle = 0.5;
  options.timeouts.body_grace = 0.3;
  options.timeouts.body_silence = 0.3;
  options.timeouts.write_stall = 0.4;
  options.timeouts.linger = 0.5;
  return options;
}

TEST(Limits, AGiantHeadIsCutEarly) {
  TestServer s;
  const std::size_t before = resident_bytes();
  Client client(s.port());
  client.send("GET / HTTP/1.1\r\nHost: localhost\r\n");
  const std::string line = "A: " + std::string(4000, 'x') + "\r\n";
  std::size_t sent = 0;
  const Timer timer;
  while (sent < 1024 * kMiB && timer.seconds() < 20 && client.send(line)) sent += line.size();
  EXPECT_LT(sent, 1024 * kMiB);
  EXPECT_LT(resident_bytes(), before + 4 * kMiB);
  EXPECT_EQ(client.answer().status == 431 || client.answer().status == 0, true);  // a reset may overtake the answer
  Client endless(s.port());
  endless.send("GET /" + std::string(70000, 'x'));
  EXPECT_EQ(endless.answer().status, 414);
}

TEST(Limits, AHundredMegabytesAreRefusedFromTheHead) {
  TestServer s;
  const std::size_t before = resident_bytes();
  Client client(s.port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
      "104857600\r\n\r\n[[[[");
  const Timer timer;
  const Answer a = client.answer();
  EXPECT_EQ(a.status, 413);
  EXPECT_LT(timer.seconds(), 1);
  EXPECT_LT(resident_bytes(), before + 4 * kMiB);
}

// Clients such as Python's send all of it before they look at the answer.
TEST(Limits, ARefusedBodyIsReadAwaySoThatTheAnswerArrives) {
  TestServer s;
  Client client(s.port());
  client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 41943040\r\n\r\n");
  const std::string part(1 * kMiB, 'x');
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(client.send(part));
  EXPECT_EQ(client.answer().status, 413);
}

TEST(Limits, ChunkedBodiesAreCountedToo) {
  server::ServerOptions options;
  options.max_body = 1000;
  TestServer s(options);
  Client client(s.port());
  client.send("POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 101; ++i) client.send("A\r\n0123456789\r\n");
  EXPECT_EQ(client.answer().status, 413);
  Client fits(s.port());
  fits.send("POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 100; ++i) fits.send("A\r\n0123456789\r\n");
  fits.send("0\r\n\r\n");
  EXPECT_EQ(fits.answer().body, "1000");
}

TEST(LimitsBomb, AMillionChunksOfOneByte) {
  TestServer s;
  std::string chunks;
  for (int i = 0; i < 1000; ++i) chunks += "1\r\nx\r\n";
  const auto flood = [&](int thousands) {
    Client client(s.port());
    client.send("POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < thousands; ++i) client.send(chunks);
    client.send("0\r\n\r\n");
    return client.answer(false, 60).body;
  };
  EXPECT_EQ(flood(1), "1000");
  const std::size_t before = resident_bytes();
  const Timer timer;
  const int thousands = kTsan ? 50 : 1000;
  EXPECT_EQ(flood(thousands), std::to_string(thousands) + "000");
  EXPECT_LT(timer.seconds(), 20);
  EXPECT_LT(resident_bytes(), before + 4 * kMiB);  // the body itself has one
}

TEST(Limits, BodiesOfTheFullSize) {
  TestServer s;
  Client client(s.port());
  const std::string body(32 * kMiB, 'y');
  client.send("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n");
  client.send(body);
  EXPECT_EQ(client.answer(false, 30).body, std::to_string(body.size()));
}

TEST(Limits, SlowHeadsAndBodiesEnd) {
  TestServer s(impatient());
  Client silent(s.port()), head(s.port()), body(s.port()), trickle(s.port()), idle(s.port()), almost(s.port());
  // All but the last byte at once: that speed is not to buy it hours.
  almost.send("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n");
  almost.send(std::string(kMiB, 'x'));
  head.send("GET /echo HTTP/1.1\r\nHost: local");
  body.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
  idle.send("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(idle.answer().status, 200);
  std::thread drip([&] {
    trickle.send("GET /echo HTTP/1.1\r\n");
    for (int i = 0; i < 100; ++i) {
      if (!trickle.send("A: b\r\n")) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  EXPECT_EQ(head.answer(false, 2).status, 408);
  EXPECT_EQ(body.answer(false, 2).status, 408);
  EXPECT_EQ(almost.answer(false, 2).status, 408);
  EXPECT_EQ(trickle.answer(false, 2).status, 408);
  EXPECT_TRUE(silent.closed_within(2));
  EXPECT_TRUE(idle.closed_within(2));
  drip.join();
  EXPECT_TRUE(s.idle());
}

// Whatever has no use for a body refuses it from the head, before anything is kept.
TEST(Limits, BodiesWhereNoneBelongAreRefused) {
  server::ServerOptions options;
  options.api_keys = {"key"};
  TestServer s(options);
  for (const char* path : {"/health", "/ready", "/", "/echo"}) {
    Client client(s.port());
    client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: localhost\r\nx-api-key: key\r\n" +
                "Content-Length: 30000000\r\n\r\n");
    const Answer a = client.answer();
    EXPECT_EQ(a.status, 413) << path;
    EXPECT_NE(a.body.find("has no body"), std::string::npos) << a.body;
  }
  EXPECT_EQ(request(s.port(), "GET", "/health", "", "Content-Length: 0\r\n").status, 200);
}

// What many bodies hold together is bounded, and room comes back when nobody uses them any more.
TEST(Limits, AllBodiesTogetherHaveABudget) {
  server::ServerOptions options;
  options.all_bodies = 3 * kMiB;
  TestServer s(options);
  const std::string head = "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\n";
  const std::string most(2 * kMiB - 1, 'x');
  Client first(s.port()), second(s.port());
  first.send(head + most);
  EXPECT_TRUE(
      eventually([&] { return s.server->metrics().find("gov_http_received_bytes_total 2097") != std::string::npos; }));
  second.send(head + most);
  EXPECT_EQ(second.answer().status, 503);
  first.send("x");
  EXPECT_EQ(first.answer().body, "2097152");
  EXPECT_TRUE(eventually([&] { return request(s.port(), "POST", "/length", most).body == "2097151"; }));
}

// Sends a byte to each from time to time, until the server has closed them all. The slowest answer to another client.
double drip(const TestServer& s, std::vector<std::unique_ptr<Client>>& slow, double seconds) {
  double worst = 0;
  const Timer timer;
  for (double next = 0; timer.seconds() < seconds && s.server->open_connections() > 0;) {
    const Timer one;
    EXPECT_EQ(request(s.port(), "GET", "/echo").status, 200);
    worst = std::max(worst, one.seconds());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (timer.seconds() < next) continue;
    next = timer.seconds() + 1;
    for (const auto& client : slow) client->send("x");
  }
  return worst;
}

TEST(LimitsManyTime, TwoThousandSlowHeadsDoNotKeepOthersWaiting) {
  server::ServerOptions options;
  options.timeouts.header = 4;
  TestServer s(options);
  const std::size_t count = kTsan ? 200 : 2000;
  std::vector<std::unique_ptr<Client>> slow;
  for (std::size_t i = 0; i < count; ++i) {
    slow.push_back(std::make_unique<Client>(s.port()));
    ASSERT_GE(slow.back()->descriptor(), 0) << i;
    slow.back()->send("GET /echo HTTP/1.1\r\nHost: localhost\r\nX: ");
  }
  EXPECT_TRUE(eventually([&] { return s.server->open_connections() >= count; }));
  const Timer timer;
  EXPECT_LT(drip(s, slow, 15), 1);
  EXPECT_TRUE(s.idle());
  EXPECT_GT(timer.seconds(), 1);
  EXPECT_LT(timer.seconds(), 10);  // bytes that come make no head last longer
}

TEST(LimitsManyTime, TwoHundredUnreadStreamsAreBoundedAndOthersGoOn) {
  server::ServerOptions options = impatient();
  options.timeouts.write_stall = 3;
  options.stream.soft = 64u << 10;
  options.stream.patience = std::chrono::milliseconds(2000);
  TestServer s(options);
  const int count = kTsan ? 30 : 200;
  const std::size_t before = resident_bytes();
  std::vector<std::unique_ptr<Client>> deaf;
  for (int i = 0; i < count; ++i) {
    deaf.push_back(std::make_unique<Client>(s.port(), 4096));
    deaf.back()->send("GET /stream?n=-1&size=4000&ms=10 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  EXPECT_TRUE(eventually([&] { return s.routes.started == count; }, 10));
  for (int i = 0; i < 10; ++i) {
    const Timer timer;
    EXPECT_TRUE(request(s.port(), "GET", "/stream?n=20&ms=1").complete);
    EXPECT_LT(timer.seconds(), 1);
  }
  EXPECT_TRUE(eventually([&] { return s.routes.cancelled == count; }, 15));
  EXPECT_LT(resident_bytes(), before + static_cast<std::size_t>(count) * 2 * kMiB);
  EXPECT_TRUE(s.idle());
}

// An answer for which there is no memory is one request's trouble.
TEST(Limits, AnAnswerThatFindsNoMemoryEndsAsARequest) {
  TestServer s;
  std::vector<server::Route> routes = s.routes.routes();
  routes.push_back({"GET", "/large", [](const server::HttpRequest&, const std::shared_ptr<server::Responder>& r) {
                      std::string large(64 * kMiB, 'x');
                      largest_allocation = 32 * kMiB;
                      r->bytes(200, "text/plain", std::move(large));
                    }});
  s.server->set_routes(std::move(routes));
  EXPECT_EQ(request(s.port(), "GET", "/large").status, 0);
  largest_allocation = SIZE_MAX;
  EXPECT_TRUE(s.idle());
  EXPECT_NE(s.server->metrics().find("gov_http_active_requests 0\n"), std::string::npos);
  EXPECT_NE(s.server->metrics().find("gov_http_cancelled_total 1\n"), std::string::npos);
  EXPECT_EQ(request(s.port(), "GET", "/echo").status, 200);
}

TEST(Limits, ConnectionsAboveTheLimitAreToldSo) {
  server::ServerOptions options;
  options.max_connections = 10;
  TestServer s(options);
  std::vector<std::unique_ptr<Client>> open;
  for (int i = 0; i < 10; ++i) {
    open.push_back(std::make_unique<Client>(s.port()));
    open.back()->send("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(open.back()->answer().status, 200);
  }
  Client more(s.port());
  const Answer a = more.answer();
  EXPECT_EQ(a.status, 503);
  EXPECT_TRUE(a.complete);
  EXPECT_EQ(a.headers.at("retry-after"), "1");
  open.clear();
  EXPECT_TRUE(eventually([&] { return request(s.port(), "GET", "/echo").status == 200; }));
  EXPECT_EQ(s.server->metrics().find("gov_http_refused_connections_total 0"), std::string::npos);
}

}  // namespace
}  // namespace gov::test
