// The parts of the server that need no socket: the gate before the parser, targets, routes, who may ask, log lines, and
// the Responder.

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "server/access_log.h"
#include "server/access_rules.h"
#include "server/head_scan.h"
#include "server/http.h"
#include "server/http_metrics.h"
#include "server/http_write.h"
#include "server/router.h"
#include "server/static_files.h"

namespace gov::server {
namespace {

TEST(HeadScanner, FindsTheEndWhereverTheBytesAreSplit) {
  const std::string head = "POST /v1/x?y=1 HTTP/1.1\r\nHost: localhost\r\nA:\tb c\r\nEmpty:\r\n\r\n";
  const std::string text = "\r\n" + head + "body\n\r\nGET";
  for (std::size_t step = 1; step <= text.size(); ++step) {
    HeadScanner scanner;
    std::size_t given = 0;
    bool done = false;
    while (!done && given < text.size()) {
      given = std::min(text.size(), given + step);
      done = scanner.scan(std::string_view(text).substr(0, given));
    }
    ASSERT_TRUE(done) << step;
    EXPECT_EQ(scanner.status(), 0) << scanner.reason();
    EXPECT_EQ(text.substr(scanner.begin(), scanner.end() - scanner.begin()), head);
  }
}

TEST(HeadScanner, RefusesWhatTwoReadersCouldUnderstandDifferently) {
  const std::pair<std::string, int> cases[] = {
      {"GET / HTTP/1.1\nHost: a\n\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\rB: c\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost\r\n\r\n", 400},
      {std::string("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 29), 400},
      {"GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHo\x80st: a\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\n\r\n", 400},
      {"GET /a b HTTP/1.1\r\n\r\n", 400},
      {"GET /\t HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1 \r\n\r\n", 400},
      {"GET /\r\n\r\n", 400},
      {"GET\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\n\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"GET / http/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.10\r\n\r\n", 400},
      {"G=T / HTTP/1.1\r\n\r\n", 400},
      {"G\xc3\xa9T / HTTP/1.1\r\n\r\n", 400},
      {"\x16\x03\x01\x02", 400},
      {"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400},
      {"\rGET / HTTP/1.1\r\n\r\n", 400},
      {"GET /" + std::string(9000, 'a'), 414},
      {"GET / HTTP/1.1\r\nA: " + std::string(9000, 'a'), 431},
  };
  for (const auto& [text, status] : cases) {
    HeadScanner scanner;
    EXPECT_TRUE(scanner.scan(text)) << printable(text);
    EXPECT_EQ(scanner.status(), status) << printable(text) << " " << scanner.reason();
  }
}

TEST(HeadScanner, CountsHeadersAndBytes) {
  std::string many = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 100; ++i) many += "A: b\r\n";
  HeadScanner fits;
  EXPECT_TRUE(fits.scan(many + "\r\n"));
  EXPECT_EQ(fits.status(), 0);
  HeadScanner too_many;
  EXPECT_TRUE(too_many.scan(many + "A: b\r\n"));
  EXPECT_EQ(too_many.status(), 431);
  std::string large = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 9; ++i) large += "A: " + std::string(8000, 'x') + "\r\n";
  HeadScanner too_large;
  EXPECT_TRUE(too_large.scan(large));
  EXPECT_EQ(too_large.status(), 431);
}

TEST(Target, DecodesPathAndQuery) {
  const auto target = parse_target("/a%20b/c%2Fd/?x=1&y=a+b%26c&&flag&x=2");
  ASSERT_TRUE(target);
  EXPECT_EQ(target->segments, (std::vector<std::string>{"a b", "c/d", ""}));
  EXPECT_EQ(target->path, "/a b/c/d/");
  EXPECT_EQ(target->query, (std::map<std::string, std::string>{{"flag", ""}, {"x", "1"}, {"y", "a b&c"}}));
  EXPECT_EQ(parse_target("http://example.com:80/x")->authority, "example.com:80");
  EXPECT_EQ(parse_target("http://example.com")->path, "/");
  for (const char* bad : {"", "x", "/%", "/%4", "/%zz", "/%00", "/%0a", "/%ff", "/?a=%0d", "/#x", "ftp://a/",
                          "http:///x", "http://u@h/"}) {
    EXPECT_FALSE(parse_target(bad)) << bad;
  }
  std::string many = "/?";
  for (int i = 0; i < 65; ++i) many += "a=b&";
  EXPECT_FALSE(parse_target(many));
}

TEST(Router, PrefersLiteralComponentsAndNamesMethods) {
  const Handler none = [](const HttpRequest&, const std::shared_ptr<Responder>&) {};
  const Router router({{"GET", "/r/{id}", none},
                       {"GET", "/r/tokens", none},
                       {"DELETE", "/r/{id}", none},
                       {"POST", "/r/tokens", none},
                       {"POST", "/admin", none, false, true}});
  const auto match = [&](const char* method, const char* path, bool admin = false) {
    return router.match(method, *parse_target(path), admin);
  };
  EXPECT_EQ(match("GET", "/r/tokens").route->pattern, "/r/tokens");
  EXPECT_EQ(match("GET", "/r/a%2Fb").params.at("id"), "a/b");
  EXPECT_EQ(match("HEAD", "/r/1").route->method, "GET");
  EXPECT_EQ(match("DELETE", "/r/tokens").route->pattern, "/r/{id}");
  EXPECT_EQ(match("PUT", "/r/1").route, nullptr);
  EXPECT_EQ(match("PUT", "/r/1").allow, "DELETE, GET, HEAD, OPTIONS");
  for (const char* path : {"/r", "/r/", "/r/1/", "/R/1", "/", "//r/1", "/r/../r/1"}) {
    EXPECT_TRUE(match("GET", path).allow.empty()) << path;
  }
  EXPECT_TRUE(match("POST", "/admin").allow.empty());
  EXPECT_NE(match("POST", "/admin", true).route, nullptr);
  EXPECT_TRUE(match("GET", "/r/1", true).allow.empty());
  EXPECT_THROW(Router({{"GET", "/a", none}, {"GET", "/a", none}}), Error);
}

TEST(Access, HostsOfALoopbackBind) {
  const HostRule rule(true, {"My-Box.example"});
  for (const char* good : {"localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:99", "[::1]", "[::1]:8080",
                           "a.localhost", "my-box.example:8080", "localhost."}) {
    EXPECT_TRUE(rule.accepts(good)) << good;
  }
  for (const char* bad : {"", "evil.com", "127.0.0.1.evil.com", "localhost.evil.com", "10.0.0.1", "[::2]", "0.0.0.0",
                          "127.1", "2130706433", "localhost:x", "localhost:99999", "localhost@evil.com", "[::1",
                          "my-box.example.evil.com", "localhost evil", "[::1]x"}) {
    EXPECT_FALSE(rule.accepts(bad)) << bad;
  }
  const HostRule open(false, {});
  EXPECT_TRUE(open.accepts("anything.example"));
  EXPECT_FALSE(open.accepts("a b"));
  const HostRule named(false, {"api.example"});
  EXPECT_TRUE(named.accepts("api.example"));
  EXPECT_TRUE(named.accepts("192.168.1.5:8080"));
  EXPECT_FALSE(named.accepts("rebound.evil.com"));
  EXPECT_THROW(HostRule(true, {"a:80"}), Error);
}

TEST(Access, FortyPairsOfOriginAndHost) {
  using V = OriginRule::Verdict;
  const OriginRule rule({"https://chat.example.com", "http://localhost:3000"});
  struct Case {
    const char *origin, *host;
    V verdict;
  };
  const Case cases[] = {
      {"", "localhost:8080", V::kSame},
      {"http://localhost:8080", "localhost:8080", V::kSame},
      {"https://localhost:8080", "localhost:8080", V::kSame},
      {"http://LOCALHOST:8080", "localhost:8080", V::kSame},
      {"http://127.0.0.1:8080", "127.0.0.1:8080", V::kSame},
      {"http://[::1]:8080", "[::1]:8080", V::kSame},
      {"https://me.example", "me.example", V::kSame},
      {"https://me.example:443", "me.example", V::kSame},
      {"http://me.example", "me.example:80", V::kSame},
      {"https://chat.example.com", "localhost:8080", V::kAllowed},
      {"http://localhost:3000", "localhost:8080", V::kAllowed},
      {"https://chat.example.com", "chat.example.com", V::kAllowed},
      {"null", "localhost:8080", V::kForeign},
      {"http://localhost", "localhost:8080", V::kForeign},
      {"http://localhost:8081", "localhost:8080", V::kForeign},
      {"http://127.0.0.1:8080", "localhost:8080", V::kForeign},
      {"https://evil.com", "localhost:8080", V::kForeign},
      {"https://localhost:8080.evil.com", "localhost:8080", V::kForeign},
      {"http://localhost:8080@evil.com", "localhost:8080", V::kForeign},
      {"http://evil.com/localhost:8080", "localhost:8080", V::kForeign},
      {"http://localhost:8080/", "localhost:8080", V::kForeign},
      {"http://chat.example.com", "localhost:8080", V::kForeign},
      {"https://chat.example.com:444", "localhost:8080", V::kForeign},
      {"https://chat.example.com.", "localhost:8080", V::kForeign},
      {"https://CHAT.example.com", "localhost:8080", V::kForeign},
      {"https://chat.example.com.evil.com", "localhost:8080", V::kForeign},
      {"https://evilchat.example.com", "localhost:8080", V::kForeign},
      {"https://sub.chat.example.com", "localhost:8080", V::kForeign},
      {"file://", "localhost:8080", V::kForeign},
      {"chrome-extension://abcdef", "localhost:8080", V::kForeign},
      {"http://", "localhost:8080", V::kForeign},
      {"localhost:8080", "localhost:8080", V::kForeign},
      {"http:localhost:8080", "localhost:8080", V::kForeign},
      {"HTTP://localhost:8080", "localhost:8080", V::kForeign},
      {"http://localhost:3000 ", "localhost:8080", V::kForeign},
      {"http://localhost:3000, http://x", "localhost:8080", V::kForeign},
      {"*", "localhost:8080", V::kForeign},
      {"http://localhost:8080", "", V::kForeign},
      {"http://[::1]:8080", "localhost:8080", V::kForeign},
      {"http://me.example:8443", "me.example", V::kForeign},
  };
  static_assert(std::size(cases) == 40);
  for (const Case& c : cases) EXPECT_EQ(rule.judge(c.origin, c.host), c.verdict) << c.origin << " at " << c.host;
  EXPECT_EQ(OriginRule({"*"}).judge("https://any.example", "localhost"), V::kAllowed);
  EXPECT_THROW(OriginRule({"example.com"}), Error);
}

TEST(Access, Keys) {
  ApiKeys keys;
  EXPECT_TRUE(keys.empty());
  keys.add("first-key");
  keys.add("second");
  EXPECT_TRUE(keys.tenant_of("first-key"));
  EXPECT_NE(keys.tenant_of("first-key"), keys.tenant_of("second"));
  EXPECT_EQ(keys.tenant_of("first-key")->size(), 16u);
  for (const char* wrong : {"", "first-ke", "first-key ", "First-key", "second1"})
    EXPECT_FALSE(keys.tenant_of(wrong)) << wrong;
  EXPECT_FALSE(keys.tenant_of(std::string(1 << 20, 'k')));
  for (const std::string& bad :
       {std::string(), std::string("a b"), std::string("a\nb"), std::string(1025, 'k'), std::string("\xc3\xa9")}) {
    EXPECT_THROW(keys.add(bad), Error) << bad;
  }
  EXPECT_EQ(presented_key("Bearer abc", ""), "abc");
  EXPECT_EQ(presented_key("bearer  abc ", "x"), "abc");
  EXPECT_EQ(presented_key("Basic abc", "x"), "x");
  EXPECT_EQ(presented_key("", "x"), "x");
  EXPECT_EQ(presented_key("Bearer ", ""), "");

  const std::string path = testing::TempDir() + "gov_keys.txt";
  std::ofstream(path) << "# ours\n\n  one \r\ntwo\n";
  EXPECT_EQ(read_key_file(path), (std::vector<std::string>{"one", "two"}));
  std::ofstream(path) << "# none\n";
  EXPECT_THROW(read_key_file(path), Error);
  EXPECT_THROW(read_key_file("/nonexistent/keys"), Error);
}

TEST(AccessLog, LinesParseWhateverTheFieldsHold) {
  const std::string naughty[] = {"a\nb",
                                 "a\r\nb",
                                 "\x1b[31mred",
                                 std::string("nul\0byte", 8),
                                 "\"quote\" \\ {}",
                                 "\xff\xfe bad",
                                 "\xe2\x80\xa8",
                                 "\xc2\x9b"
                                 "1mC1",
                                 std::string(5000, 'x'),
                                 "",
                                 "' OR 1=1 --",
                                 "${jndi:ldap://x}",
                                 "%s%n%d",
                                 "\t tab"};
  for (const std::string& text : naughty) {
    AccessRecord r{text, "127.0.0.1", text, text, text, 200, 1, 2, 0.5};
    const std::string json = access_line(r, true), line = access_line(r, false);
    EXPECT_NO_THROW(Json::parse(json)) << json;
    EXPECT_LT(json.size(), 2000u);
    for (const std::string& out : {json, line}) {
      for (const char c : out) EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F) << out;
    }
    EXPECT_EQ(std::count(line.begin(), line.end(), ' '), 9) << line;
  }
}

TEST(AnswerHead, NoTextBeginsAHeader) {
  const std::string head = answer_head({}, {{"x-a", "b\r\nSet-Cookie: c"}}, {{"x-b", std::string("\0\n", 2)}});
  EXPECT_EQ(head.find("\r\nSet-Cookie"), std::string::npos);
  EXPECT_NE(head.find("x-a: b  Set-Cookie: c\r\n"), std::string::npos);
  EXPECT_EQ(chunk_of("", Framing::kChunked), "");
  EXPECT_EQ(chunk_of("abc", Framing::kChunked), "3\r\nabc\r\n");
}

TEST(HttpMetrics, CountsByRoute) {
  HttpMetrics metrics;
  metrics.add_request("/v1/x", "GET", 200, 0.002);
  metrics.add_request("/v1/x", "GET", 200, 1000);
  metrics.add_request("", "EVIL\"}", 404, 0);
  const std::string text = metrics.text();
  EXPECT_NE(text.find("gov_http_requests_total{route=\"/v1/x\",method=\"GET\",status=\"200\"} 2\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("gov_http_requests_total{route=\"unmatched\",method=\"other\",status=\"404\"} 1\n"),
            std::string::npos);
  EXPECT_NE(text.find("gov_http_request_seconds_bucket{route=\"/v1/x\",le=\"0.0025\"} 1\n"), std::string::npos);
  EXPECT_NE(text.find("gov_http_request_seconds_bucket{route=\"/v1/x\",le=\"+Inf\"} 2\n"), std::string::npos);
}

TEST(Responder, OneAnswerOnly) {
  int wakes = 0;
  Responder r([&] { ++wakes; });
  EXPECT_FALSE(r.event("too early"));
  r.json(200, "{}");
  r.json(500, "again");
  r.begin_events();
  EXPECT_FALSE(r.event("no stream"));
  r.end();
  const auto pending = r.take();
  EXPECT_EQ(pending.status, 200);
  EXPECT_EQ(pending.bytes, "{}");
  EXPECT_TRUE(pending.finished);
  EXPECT_EQ(wakes, 1);
}

TEST(Responder, EventsKeepTheirLines) {
  Responder r;
  r.begin_events();
  EXPECT_TRUE(r.event("a\nb\r\nc\rd", "name"));
  r.event("");
  r.end();
  EXPECT_EQ(r.take().bytes, "event: name\ndata: a\ndata: b\ndata: c\ndata: d\n\ndata: \n\n");
}

TEST(Responder, WakesOnceUntilTaken) {
  int wakes = 0;
  Responder r([&] { ++wakes; });
  r.begin_events();
  for (int i = 0; i < 5; ++i) r.event("x");
  EXPECT_EQ(wakes, 1);
  r.take();
  r.event("y");
  EXPECT_EQ(wakes, 2);
}

TEST(Responder, SlowReadersAreCutAfterPatienceOrTheHardLimit) {
  Responder::Limits limits;
  limits.soft = 100;
  limits.hard = 1000;
  limits.patience = std::chrono::milliseconds(50);
  for (const bool reads : {false, true}) {
    Responder r;
    r.set_limits(limits);
    r.begin_events();
    EXPECT_TRUE(r.event(std::string(500, 'x')));  // one large event is no sin
    EXPECT_TRUE(r.event("a"));                    // slow from here on
    std::this_thread::sleep_for(std::chrono::milliseconds(80));
    if (reads) r.take();
    EXPECT_EQ(r.event("b"), reads);
    EXPECT_EQ(r.cancelled(), !reads);
  }
  Responder r;
  r.set_limits(limits);
  r.begin_events();
  bool told = false;
  r.on_cancel([&] { told = true; });
  EXPECT_TRUE(r.event(std::string(2000, 'x')));
  EXPECT_FALSE(r.event("a"));
  EXPECT_TRUE(told);
  EXPECT_EQ(r.take().bytes, "");
  bool told_late = false;
  r.on_cancel([&] { told_late = true; });
  EXPECT_TRUE(told_late);
}

TEST(StaticFiles, NamesAreUniqueAndTyped) {
  for (const Route& route : static_routes()) {
    EXPECT_TRUE(route.open && route.method == "GET") << route.pattern;
    auto responder = std::make_shared<Responder>();
    route.handler({}, responder);
    const auto pending = responder->take();
    EXPECT_EQ(pending.status, 200);
    EXPECT_FALSE(pending.content_type.empty());
    HttpRequest again;
    for (const auto& [name, value] : pending.headers) {
      if (name == "ETag") again.headers["if-none-match"] = value;
    }
    auto unchanged = std::make_shared<Responder>();
    route.handler(again, unchanged);
    EXPECT_EQ(unchanged->take().status, 304);
  }
  EXPECT_NO_THROW(Router{static_routes()});
}

}  // namespace
}  // namespace gov::server
