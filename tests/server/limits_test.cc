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
  EXPECT_EQ(flood(1000), "1000000");
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
  Client silent(s.port()), head(s.port()), body(s.port()), trickle(s.port()), idle(s.port());
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
  EXPECT_EQ(trickle.answer(false, 2).status, 408);
  EXPECT_TRUE(silent.closed_within(2));
  EXPECT_TRUE(idle.closed_within(2));
  drip.join();
  EXPECT_TRUE(s.idle());
}

TEST(Limits, SlowlorisDoesNotKeepOthersWaiting) {
  TestServer s(impatient());
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 300; ++i) {
    slow.push_back(std::make_unique<Client>(s.port()));
    slow.back()->send("GET /echo HTTP/1.1\r\nHost: localhost\r\nX: ");
  }
  double worst = 0;
  for (int i = 0; i < 50; ++i) {
    const Timer timer;
    EXPECT_EQ(request(s.port(), "GET", "/echo").status, 200);
    worst = std::max(worst, timer.seconds());
  }
  EXPECT_LT(worst, 0.5);
  EXPECT_TRUE(s.idle(5));
}

TEST(Limits, UnreadStreamsAreBoundedAndEnd) {
  server::ServerOptions options = impatient();
  options.timeouts.write_stall = 1.5;
  options.stream.patience = std::chrono::milliseconds(1000);
  TestServer s(options);
  const std::size_t before = resident_bytes();
  std::vector<std::unique_ptr<Client>> deaf;
  for (int i = 0; i < 20; ++i) {
    deaf.push_back(std::make_unique<Client>(s.port(), 4096));
    deaf.back()->send("GET /stream?n=-1&size=4000&ms=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  EXPECT_TRUE(eventually([&] { return s.routes.started == 20; }));
  const Answer other = request(s.port(), "GET", "/stream?n=100&ms=1");
  EXPECT_TRUE(other.complete);
  EXPECT_TRUE(eventually([&] { return s.routes.cancelled == 20; }, 20));
  EXPECT_LT(resident_bytes(), before + 20 * 5 * kMiB);
  EXPECT_TRUE(s.idle());
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
