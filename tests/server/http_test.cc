// HTTP over real sockets: what is understood, what is refused, connections that go on, streams, clients that leave.

#include "base/error.h"
#include "base/json.h"
#include "base/timer.h"
#include "tests/server/http_client.h"

namespace gov::test {
namespace {

TEST(Http, AnswersAndKeepsTheConnection) {
  TestServer s;
  Client client(s.port());
  for (int i = 0; i < 3; ++i) {
    client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    const Answer a = client.answer();
    EXPECT_EQ(a.status, 200);
    EXPECT_EQ(a.body, "hello");
    EXPECT_EQ(a.headers.count("connection"), 0u);
  }
  client.send("GET /echo/?a=%41 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.answer().status, 404);
  EXPECT_TRUE(client.closed_within(2));
  EXPECT_EQ(request(s.port(), "GET", "/echo?b=%C3%A9&a=x+y").body, "/echo|a=x y|b=\xc3\xa9");
  EXPECT_EQ(request(s.port(), "GET", "/items/a%2Fb").body, "item a/b");
  EXPECT_EQ(request(s.port(), "GET", "/items/special").body, "special");
  EXPECT_EQ(request(s.port(), "DELETE", "/items/1").status, 204);
  EXPECT_EQ(request(s.port(), "GET", "http://localhost/echo").body, "/echo");
  EXPECT_TRUE(s.idle());
}

TEST(Http, BodiesByChunks) {
  TestServer s;
  Client client(s.port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;ext=\"1\"\r\n, "
      "world\r\n0\r\nTrailer: x\r\n\r\n");
  EXPECT_EQ(client.answer().body, "hello, world");
  client.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n");
  EXPECT_EQ(client.answer().status, 200);
  // A byte at a time, across every border.
  const std::string text =
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n00\r\n\r\n";
  for (const char c : text) client.send(std::string(1, c));
  EXPECT_EQ(client.answer().body, "0123456789");
}

TEST(Http, PipelinedRequestsAreAnsweredInOrder) {
  TestServer s;
  Client client(s.port());
  std::string all;
  for (int i = 0; i < 200; ++i) all += "GET /items/" + std::to_string(i) + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
  all +=
      "GET /stream?n=20 HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
      "4\r\n\r\nlast";
  client.send(all);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(client.answer().body, "item " + std::to_string(i));
  EXPECT_TRUE(client.answer().body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(client.answer().body, "last");
}

TEST(Http, HeadOptionsAndUnknownMethods) {
  TestServer s;
  const Answer head = request(s.port(), "HEAD", "/echo");
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers.at("content-length"), "5");
  EXPECT_EQ(head.body, "");
  const Answer options = request(s.port(), "OPTIONS", "/items/1");
  EXPECT_EQ(options.status, 204);
  EXPECT_EQ(options.headers.at("allow"), "DELETE, GET, HEAD, OPTIONS");
  EXPECT_EQ(request(s.port(), "OPTIONS", "*").status, 204);
  for (const char* method : {"PUT", "PATCH", "TRACE", "BREW", "CONNECT"}) {
    const Answer a = request(s.port(), method, "/items/1");
    EXPECT_EQ(a.status, 405) << method;
    EXPECT_EQ(Json::parse(a.body).find("error")->find("type")->string(), "invalid_request_error");
  }
  EXPECT_EQ(request(s.port(), "GET", "/nothing").status, 404);
  EXPECT_EQ(request(s.port(), "HEAD", "/stream?n=3").status, 200);
}

TEST(Http, ErrorsOfHandlersAreAnswers) {
  TestServer s;
  const Answer thrown = request(s.port(), "GET", "/throw");
  EXPECT_EQ(thrown.status, 429);
  EXPECT_EQ(thrown.headers.count("retry-after"), 1u);
  EXPECT_EQ(request(s.port(), "GET", "/forget").status, 500);  // nobody will ever answer
}

struct Vector {
  const char* what;
  std::string text;
  int status;
};

const std::string kHost = "Host: localhost\r\n";

std::vector<Vector> malformed() {
  const std::string get = "GET /echo HTTP/1.1\r\n", post = "POST /echo HTTP/1.1\r\n" + kHost;
  std::vector<Vector> list = {
      {"no host", get + "\r\n", 400},
      {"two hosts", get + kHost + kHost + "\r\n", 400},
      {"foreign host", get + "Host: evil.com\r\n\r\n", 403},
      {"foreign host in the target", "GET http://evil.com/echo HTTP/1.1\r\n" + kHost + "\r\n", 403},
      {"foreign host in 1.0", "GET /echo HTTP/1.0\r\nHost: evil.com\r\n\r\n", 403},
      {"CL and TE", post + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"TE and CL", post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
      {"two CL", post + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
      {"two CL alike", post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
      {"CL list", post + "Content-Length: 3, 3\r\n\r\nabc", 400},
      {"CL plus", post + "Content-Length: +3\r\n\r\nabc", 400},
      {"CL minus", post + "Content-Length: -3\r\n\r\nabc", 400},
      {"CL hex", post + "Content-Length: 0x3\r\n\r\nabc", 400},
      {"CL space", post + "Content-Length: 3 3\r\n\r\nabc", 400},
      {"CL empty", post + "Content-Length:\r\n\r\n", 400},
      {"CL overflow", post + "Content-Length: 18446744073709551617\r\n\r\n", 400},
      {"CL huge", post + "Content-Length: 18446744073709551615\r\n\r\n", 413},
      {"two TE", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"TE identity", post + "Transfer-Encoding: identity\r\n\r\n", 501},
      {"TE gzip, chunked", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
      {"TE chunked, chunked", post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
      {"TE xchunked", post + "Transfer-Encoding: xchunked\r\n\r\n", 501},
      {"TE quoted", post + "Transfer-Encoding: \"chunked\"\r\n\r\n", 501},
      {"TE in 1.0", "POST /echo HTTP/1.0\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"TE with space before the colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
      {"TE folded", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
      {"TE with a vertical tab",
       post + "Transfer-Encoding: \x0b"
              "chunked\r\n\r\n0\r\n\r\n",
       400},
      {"chunk size not hex", post + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
      {"chunk size signed", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400},
      {"chunk size with 0x", post + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400},
      {"chunk size too long", post + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 400},
      {"chunk size huge", post + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", 413},
      {"chunk size empty", post + "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n", 400},
      {"chunk line with bare LF", post + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400},
      {"chunk without CRLF behind it", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400},
      {"chunk extension endless",
       post + "Transfer-Encoding: chunked\r\n\r\n3;" + std::string(200000, 'a') + "\r\nabc\r\n0\r\n\r\n", 400},
      {"trailers endless", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + std::string(200000, 'a') + "\r\n\r\n",
       400},
      {"compressed body", post + "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415},
      {"unknown expectation", post + "Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 417},
      {"two authorizations", get + kHost + "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400},
      {"bad escape", "GET /echo%zz HTTP/1.1\r\n" + kHost + "\r\n", 400},
      {"NUL in the path", "GET /echo%00 HTTP/1.1\r\n" + kHost + "\r\n", 400},
      {"relative target", "GET echo HTTP/1.1\r\n" + kHost + "\r\n", 400},
      {"fragment", "GET /echo#x HTTP/1.1\r\n" + kHost + "\r\n", 400},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"HTTP/0.9", "GET /echo\r\n\r\n", 400},
      {"HTTP/3.0", "GET /echo HTTP/3.0\r\n" + kHost + "\r\n", 505},
      {"bare LF", "GET /echo HTTP/1.1\n" + kHost + "\n", 400},
      {"a TLS hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), 400},
      {"an SSH hello", "SSH-2.0-OpenSSH_9.2\r\n", 400},
      {"an SMTP hello", "EHLO me\r\n", 400},
      {"101 headers",
       get + kHost +
           [] {
             std::string t;
             for (int i = 0; i < 100; ++i) t += "A: b\r\n";
             return t;
           }() +
           "\r\n",
       431},
      {"a long header line", get + kHost + "A: " + std::string(9000, 'x') + "\r\n\r\n", 431},
      {"a long target", "GET /" + std::string(9000, 'x') + " HTTP/1.1\r\n\r\n", 414},
  };
  for (int c = 0; c < 0x20; ++c) {
    if (c == '\t' || c == '\n') continue;
    list.push_back({"control byte in a value", get + kHost + "A: b" + static_cast<char>(c) + "c\r\n\r\n", 400});
    list.push_back({"control byte in a name", get + kHost + "A" + static_cast<char>(c) + ": c\r\n\r\n", 400});
    list.push_back({"control byte in the target",
                    "GET /e" + std::string(1, static_cast<char>(c)) + " HTTP/1.1\r\n" + kHost + "\r\n", 400});
  }
  for (const char c : std::string("()<>@,;\\\"/[]?={} \x7f\x80\xff")) {
    list.push_back({"no token in a name", get + kHost + "A" + c + "B: c\r\n\r\n", 400});
    list.push_back({"no token in the method", std::string("G") + c + "T /echo HTTP/1.1\r\n" + kHost + "\r\n", 400});
  }
  return list;
}

TEST(Http, MalformedRequestsAreRefusedAndEndTheConnection) {
  TestServer s;
  int count = 0;
  for (const Vector& v : malformed()) {
    Client client(s.port());
    client.send(v.text);
    const Answer a = client.answer();
    EXPECT_EQ(a.status, v.status) << v.what << ": " << printable(v.text, 200);
    if (a.status != 403) {  // a whole request, whose refusal leaves no doubt where the next one begins
      EXPECT_TRUE(a.headers.count("connection") != 0 && client.closed_within(5)) << v.what;
    }
    EXPECT_EQ(Json::parse(a.body).find("error")->find("message")->is_string(), true);
    ++count;
  }
  EXPECT_GT(count, 170);
  EXPECT_EQ(request(s.port(), "GET", "/echo").status, 200);
  EXPECT_TRUE(s.idle());
}

// A refused request must not leave bytes that are read as the next one.
TEST(Http, NothingIsSmuggled) {
  TestServer s;
  const std::string second = "GET /items/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (const std::string& first : {
           std::string("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\nTransfer-Encoding: "
                       "chunked\r\n\r\n0\r\n\r\n"),
           std::string("POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 49\r\n\r\n"),
           std::string("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 0\r\n\r\n"),
           std::string(
               "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
           std::string("POST /echo HTTP/1.1\r\nHost: evil.com\r\nContent-Length: 49\r\n\r\n"),
           std::string("GET /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"),
       }) {
    Client client(s.port());
    client.send(first + second);
    const std::string all = client.receive_until_closed();
    EXPECT_EQ(all.find("smuggled"), std::string::npos) << first << all;
    EXPECT_EQ(all.find("HTTP/1.1", 8), std::string::npos) << first << all;
  }
}

TEST(Http, Version10) {
  TestServer s;
  Client client(s.port());
  client.send("GET /echo HTTP/1.0\r\n\r\n");
  const Answer a = client.answer();
  EXPECT_EQ(a.status, 200);
  EXPECT_EQ(a.headers.at("connection"), "close");
  EXPECT_TRUE(client.closed_within(2));
  Client kept(s.port());
  kept.send("GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(kept.answer().headers.at("connection"), "keep-alive");
  kept.send("GET /stream?n=3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const Answer stream = kept.answer();
  EXPECT_EQ(stream.headers.count("transfer-encoding"), 0u);
  EXPECT_TRUE(stream.body.ends_with("data: [DONE]\n\n"));
}

TEST(Http, ContinueIsSaidOnlyToWhomMayGoOn) {
  server::ServerOptions options;
  options.api_keys = {"key"};
  TestServer s(options);
  const std::string head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n";
  Client client(s.port());
  client.send(head + "x-api-key: key\r\n\r\n");
  EXPECT_EQ(client.answer().status, 100);
  client.send("hello");
  EXPECT_EQ(client.answer().body, "hello");
  Client stranger(s.port());
  stranger.send(head + "\r\n");
  EXPECT_EQ(stranger.answer().status, 401);
  Client large(s.port());
  large.send(
      "POST /echo HTTP/1.1\r\nHost: localhost\r\nx-api-key: key\r\nContent-Length: 99999999\r\nExpect: "
      "100-continue\r\n\r\n");
  EXPECT_EQ(large.answer().status, 413);
}

TEST(Stream, EveryEventArrivesOnce) {
  TestServer s;
  const Answer a = request(s.port(), "GET", "/stream?n=500&size=300&ms=0");
  EXPECT_TRUE(a.complete);
  EXPECT_EQ(a.headers.at("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(a.headers.at("cache-control"), "no-cache");
  std::string expected;
  for (int i = 0; i < 500; ++i) expected += "data: " + std::to_string(i) + " " + std::string(300, 'x') + "\n\n";
  EXPECT_EQ(a.body, expected + "data: [DONE]\n\n");
}

TEST(Stream, SilenceIsFilledWithComments) {
  server::ServerOptions options;
  options.timeouts.keep_alive = 0.05;
  TestServer s(options);
  const Answer a = request(s.port(), "GET", "/stream?n=2&ms=300");
  EXPECT_TRUE(a.complete);
  EXPECT_NE(a.body.find(": keep-alive\n\n"), std::string::npos);
  EXPECT_TRUE(a.body.ends_with("data: [DONE]\n\n"));
}

TEST(Stream, ClientsThatLeaveAreNoticed) {
  TestServer s;
  const Timer timer;
  {
    Client streaming(s.port()), waiting(s.port()), resetting(s.port());
    streaming.send("GET /stream?n=-1&ms=5 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_NE(streaming.receive(), "");
    waiting.send("POST /wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}");
    resetting.send("POST /wait HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}");
    EXPECT_TRUE(eventually([&] { return s.routes.started == 3; }));
    resetting.reset();
    EXPECT_TRUE(eventually([&] { return s.routes.cancelled == 1; }, 0.25));
  }
  EXPECT_TRUE(eventually([&] { return s.routes.cancelled == 3; }, 0.25));
  EXPECT_TRUE(s.idle());
  int gone = 0;
  for (const std::string& line : s.log_lines()) gone += line.find(" 499 ") != std::string::npos ? 1 : 0;
  EXPECT_EQ(gone, 3);
}

// Says that it sends no more and still wants the answer: given if it is there at once.
TEST(Http, HalfClosedClientsGetQuickAnswers) {
  TestServer s;
  for (int i = 0; i < 50; ++i) {
    Client client(s.port());
    client.send("GET /items/7 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.finish_sending();
    EXPECT_EQ(client.answer().body, "item 7");
  }
}

TEST(Stream, ManyAtOnceWithRandomDepartures) {
  TestServer s;
  const std::size_t files = open_files();
  std::atomic<int> complete{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const bool leaves = (t + i) % 3 == 0;
        Client client(s.port());
        client.send("GET /stream?n=" + std::string(leaves ? "-1" : "30") + "&ms=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if (leaves) client.receive();
        else if (client.answer().complete) ++complete;
      }
    });
  }
  for (std::thread& thread : clients) thread.join();
  EXPECT_EQ(complete, 8 * 40 - 107);
  EXPECT_TRUE(s.idle());
  EXPECT_TRUE(eventually([&] { return s.routes.ended == s.routes.started; }));
  EXPECT_EQ(s.routes.started, 320);
  EXPECT_LE(open_files(), files);
}

}  // namespace
}  // namespace gov::test
