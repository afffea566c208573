// Keys, hosts, origins, the admin listener, TLS, what reaches logs and headers, and how the server stops.

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <fstream>

#include "base/error.h"
#include "base/json.h"
#include "base/timer.h"
#include "tests/server/http_client.h"
#include "tests/server/tls_files.h"

namespace gov::test {
namespace {

TEST(Keys, EveryRouteButTheOpenOnesWantsOne) {
  server::ServerOptions options;
  options.api_keys = {"correct-key", "other-key"};
  options.admin_port = 0;
  TestServer s(options);
  int refused = 0;
  std::vector<server::Route> all = s.routes.routes();
  all.push_back({"GET", "/metrics", {}});
  all.push_back({"GET", "/nothing/here", {}});
  for (const server::Route& route : all) {
    const int port = route.admin ? s.server->admin_port() : s.port();
    for (const std::string& extra :
         {std::string(), std::string("Authorization: Bearer wrong\r\n"), std::string("x-api-key: correct-ke\r\n"),
          std::string("Authorization: Basic correct-key\r\n"), std::string("Authorization: correct-key\r\n"),
          std::string("Cookie: api_key=correct-key\r\n")}) {
      const Answer a = request(port, route.method, route.pattern + "?api_key=correct-key", "", extra);
      EXPECT_EQ(a.status, 401) << route.pattern << " " << extra;
      EXPECT_EQ(a.headers.at("www-authenticate"), "Bearer");
      refused += a.status == 401 ? 1 : 0;
    }
  }
  EXPECT_EQ(refused, static_cast<int>(all.size()) * 6);
  EXPECT_EQ(request(s.port(), "GET", "/health").status, 200);
  EXPECT_EQ(request(s.port(), "GET", "/ready").status, 200);
  const Answer first = request(s.port(), "GET", "/tenant", "", "Authorization: Bearer correct-key\r\n");
  const Answer again = request(s.port(), "GET", "/tenant", "", "x-api-key: correct-key\r\nx-request-id: my.id_1\r\n");
  const Answer other = request(s.port(), "GET", "/tenant", "", "x-api-key: other-key\r\n");
  EXPECT_EQ(first.body.substr(0, 16), again.body.substr(0, 16));
  EXPECT_NE(first.body.substr(0, 16), other.body.substr(0, 16));
  EXPECT_EQ(again.body.substr(17), "my.id_1");
  EXPECT_EQ(again.headers.at("x-request-id"), "my.id_1");
  for (const std::string& line : s.log_lines()) EXPECT_EQ(line.find("correct"), std::string::npos) << line;
}

TEST(Keys, AdminRoutesAreOnTheirListenerOnly) {
  server::ServerOptions options;
  options.admin_port = 0;
  TestServer s(options);
  EXPECT_EQ(request(s.port(), "POST", "/admin/reset").status, 404);
  EXPECT_EQ(request(s.server->admin_port(), "POST", "/admin/reset").status, 200);
  EXPECT_EQ(request(s.server->admin_port(), "GET", "/echo").status, 404);
  EXPECT_EQ(request(s.server->admin_port(), "GET", "/health").status, 200);
}

TEST(Cors, OffByDefaultAndExactWhenOn) {
  TestServer closed;
  Answer a = request(closed.port(), "POST", "/echo", "x", "Origin: https://evil.com\r\n");
  EXPECT_EQ(a.status, 403);
  EXPECT_EQ(a.headers.count("access-control-allow-origin"), 0u);
  a = request(closed.port(), "OPTIONS", "/echo", "",
              "Origin: https://evil.com\r\nAccess-Control-Request-Method: POST\r\n");
  EXPECT_EQ(a.status, 403);
  a = request(closed.port(), "POST", "/echo", "x", "Origin: http://localhost\r\n");
  EXPECT_EQ(a.status, 200);
  EXPECT_EQ(request(closed.port(), "GET", "/health", "", "Origin: https://evil.com\r\n").status, 200);

  server::ServerOptions options;
  options.cors_origins = {"https://chat.example.com"};
  options.api_keys = {"key"};
  TestServer s(options);
  const std::string origin = "Origin: https://chat.example.com\r\n";
  a = request(
      s.port(), "OPTIONS", "/echo", "",
      origin +
          "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,x-stainless-os\r\n");
  EXPECT_EQ(a.status, 204);
  EXPECT_EQ(a.headers.at("access-control-allow-origin"), "https://chat.example.com");
  EXPECT_EQ(a.headers.at("access-control-allow-headers"), "authorization,x-stainless-os");
  a = request(s.port(), "POST", "/echo", "x", origin);
  EXPECT_EQ(a.status, 401);
  EXPECT_EQ(a.headers.at("access-control-allow-origin"), "https://chat.example.com");  // or the page could not read why
  a = request(s.port(), "POST", "/echo", "x", origin + "x-api-key: key\r\n");
  EXPECT_EQ(a.status, 200);
  EXPECT_EQ(a.headers.at("vary"), "Origin");
  EXPECT_EQ(request(s.port(), "POST", "/echo", "x", "Origin: https://evil.com\r\nx-api-key: key\r\n").status, 403);
}

TEST(Injection, NoFieldReachesALogOrAHeaderRaw) {
  server::ServerOptions options;
  options.log_json = true;
  TestServer s(options);
  const std::string fields[] = {"%0d%0aSet-Cookie:%20a", "%1b[31m", "%00", "\"'<script>", "%e2%80%a8", "%c2%9b", "%7f",
                                "$%7Bjndi:x%7D"};
  for (const std::string& field : fields) {
    request(s.port(), "GET", "/" + field);
    request(s.port(), "GET", "/inject?text=" + field);
    const Answer a =
        request(s.port(), "GET", "/echo", "", "x-request-id: " + field + " x\r\nUser-Agent: " + field + "\r\n");
    EXPECT_EQ(a.headers.count("set-cookie"), 0u);
    EXPECT_EQ(a.headers.at("x-request-id").substr(0, 4), "req-");
  }
  EXPECT_TRUE(eventually([&] { return s.log_lines().size() == std::size(fields) * 3; }));  // written after the answer
  for (const std::string& line : s.log_lines()) {
    EXPECT_NO_THROW(Json::parse(line)) << line;
    for (const char c : line) EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F) << line;
  }
}

TEST(Ready, FollowsLoadingFailureAndDraining) {
  server::ServerOptions options;
  options.port = 0;
  server::Server s(options);
  s.start();
  EXPECT_EQ(request(s.port(), "GET", "/health").status, 200);
  Answer a = request(s.port(), "GET", "/ready");
  EXPECT_EQ(a.status, 503);
  EXPECT_EQ(a.body, "{\"status\":\"loading\"}");
  EXPECT_EQ(request(s.port(), "GET", "/v1/models").status, 503);
  s.set_routes({});
  EXPECT_EQ(request(s.port(), "GET", "/ready").status, 200);
  EXPECT_EQ(request(s.port(), "GET", "/v1/models").status, 404);
  s.set_failed("the device is lost");
  a = request(s.port(), "GET", "/ready");
  EXPECT_EQ(a.status, 503);
  EXPECT_EQ(a.body, "{\"status\":\"the device is lost\"}");
}

TEST(Drain, OpenStreamsEndAndNothingElseBegins) {
  TestServer s;
  Client stream(s.port()), idle(s.port());
  idle.send("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(idle.answer().status, 200);
  stream.send("GET /stream?n=50&ms=5 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return s.routes.started == 1; }));
  std::thread drain([&] { EXPECT_TRUE(s.server->drain(10)); });
  EXPECT_TRUE(idle.closed_within(1));
  const Answer a = stream.answer();
  EXPECT_TRUE(a.complete);
  EXPECT_TRUE(a.body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(stream.closed_within(1));
  drain.join();
  EXPECT_EQ(Client(s.port()).descriptor(), -1);
  EXPECT_EQ(s.routes.cancelled, 0);
}

TEST(Drain, WhatIsLeftGetsAnErrorEvent) {
  TestServer s;
  Client stream(s.port()), waiting(s.port());
  stream.send("GET /stream?n=-1&ms=5 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  waiting.send("POST /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return s.routes.started == 2; }));
  EXPECT_FALSE(s.server->drain(0.2));
  std::thread stop([&] { s.server->stop(); });
  const Answer a = stream.answer(), b = waiting.answer();
  stop.join();
  EXPECT_TRUE(a.complete);
  EXPECT_NE(a.body.find("event: error\ndata: {\"error\":"), std::string::npos);
  EXPECT_TRUE(a.body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(b.status, 503);
  EXPECT_EQ(s.routes.cancelled, 2);
}

// Two hundred servers are told to end while their clients stream: not one stream is cut.
TEST(Drain, TwoHundredTimesNoStreamIsCut) {
  int cut = 0, streams = 0;
  const int runs = kTsan ? 20 : 200;
  for (int run = 0; run < runs; ++run) {
    TestServer s;
    std::vector<std::thread> clients;
    std::atomic<int> complete{0}, begun{0};
    for (int i = 0; i < 4; ++i) {
      clients.emplace_back([&, i] {
        Client client(s.port());
        client.send("GET /stream?n=" + std::to_string(3 + 5 * i) + "&ms=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        const Answer a = client.answer();
        if (a.status == 200) ++begun;
        if (a.complete && a.body.ends_with("data: [DONE]\n\n")) ++complete;
      });
    }
    EXPECT_TRUE(eventually([&] { return s.routes.started >= 1 + run % 4; }));
    EXPECT_TRUE(s.server->drain(10));
    for (std::thread& thread : clients) thread.join();
    streams += begun;
    cut += begun - complete;
  }
  EXPECT_EQ(cut, 0);
  EXPECT_GT(streams, 2 * runs);
}

TEST(Tls, AnswersStreamsAndRefusesOldVersions) {
  const TlsFiles files = make_tls_files("localhost");
  server::ServerOptions options;
  options.tls_cert = files.cert;
  options.tls_key = files.key;
  TestServer s(options);
  EXPECT_TRUE(s.server->address().starts_with("https://"));
  const Answer a = tls_request(
      s.port(), "GET /stream?n=200&ms=0&size=1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(a.status, 200);
  EXPECT_NE(a.body.find("data: [DONE]"), std::string::npos);
  EXPECT_EQ(tls_request(s.port(), "GET /items/5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").body,
            "item 5");
  EXPECT_EQ(tls_request(s.port(), "GET / HTTP/1.1\r\n\r\n", TLS1_1_VERSION).status, 0);
  Client plain(s.port());
  plain.send("GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(plain.closed_within(5));
  EXPECT_TRUE(s.idle());
  EXPECT_NE(s.server->metrics().find("gov_http_failed_handshakes_total 2"), std::string::npos) << s.server->metrics();
}

TEST(Tls, WrongFilesAreRefusedByName) {
  const TlsFiles a = make_tls_files("localhost"), b = make_tls_files("localhost");
  const auto refused = [](const std::string& cert, const std::string& key) {
    server::ServerOptions options;
    options.port = 0;
    options.tls_cert = cert;
    options.tls_key = key;
    try {
      server::Server s(options);
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_NE(refused(a.cert, "").find("both"), std::string::npos);
  EXPECT_NE(refused(a.cert, b.key).find("not the key"), std::string::npos);
  EXPECT_NE(refused("/nonexistent.pem", a.key).find("/nonexistent.pem"), std::string::npos);
  server::ServerOptions options;
  options.host = "no.such.host.invalid";
  EXPECT_THROW(server::Server{options}, Error);
}

}  // namespace
}  // namespace gov::test
