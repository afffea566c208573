// The one way out: URLs from clients reach public servers over https or nothing at all. The resolver is injected, and
// every connection that is about to be made is recorded.

#include "server/fetch.h"

#include <set>

#include "base/error.h"
#include "base/timer.h"
#include "server/https_url.h"
#include "tests/server/http_client.h"
#include "tests/server/tls_files.h"

namespace gov::test {
namespace {

using server::Fetcher;
using server::FetchOptions;

std::string text_of(const server::Address& address) {
  if (address.v6) return "v6";
  std::string text;
  for (int i = 0; i < 4; ++i) text += (i > 0 ? "." : "") + std::to_string(address.bytes[static_cast<std::size_t>(i)]);
  return text;
}

// Hosts that mean an address inside to some reader, in the spellings that readers have disagreed about.
std::vector<std::string> inner_hosts() {
  std::vector<std::string> hosts = {"localhost",
                                    "LOCALHOST",
                                    "localhost.",
                                    "localhost.localdomain",
                                    "127.0.0.1",
                                    "127.0.0.1.",
                                    "127.1",
                                    "127.0.1",
                                    "127.000.000.001",
                                    "0127.0.0.1",
                                    "0177.0.0.1",
                                    "0x7f.0.0.1",
                                    "0x7f.1",
                                    "0X7F.1",
                                    "0x7f000001",
                                    "0x7F000001",
                                    "2130706433",
                                    "017700000001",
                                    "127.0.0.0x1",
                                    "127.0.0.01",
                                    "127.255.255.254",
                                    "0",
                                    "0.0.0.0",
                                    "0x0",
                                    "00.0.0.0",
                                    "10.0.0.1",
                                    "10.1",
                                    "012.0.0.1",
                                    "0xa.0.0.1",
                                    "167772161",
                                    "172.16.0.1",
                                    "172.31.255.255",
                                    "192.168.0.1",
                                    "192.168.1",
                                    "0xc0a80001",
                                    "3232235521",
                                    "169.254.169.254",
                                    "2852039166",
                                    "0xa9fea9fe",
                                    "0251.0376.0251.0376",
                                    "169.254.43518",
                                    "100.64.0.1",
                                    "100.127.255.255",
                                    "192.0.0.1",
                                    "192.0.2.1",
                                    "198.18.0.1",
                                    "198.19.255.255",
                                    "198.51.100.1",
                                    "203.0.113.1",
                                    "224.0.0.1",
                                    "239.255.255.255",
                                    "240.0.0.1",
                                    "255.255.255.255",
                                    "256.1.1.1",
                                    "1.2.3",
                                    "1.2.3.4.5",
                                    "127.0.0.1%00.example.com",
                                    "127.0.0.1%2f.example.com",
                                    "%31%32%37.0.0.1",
                                    "127%2e0%2e0%2e1",
                                    "[::1]",
                                    "[::]",
                                    "[0:0:0:0:0:0:0:1]",
                                    "[::ffff:127.0.0.1]",
                                    "[::ffff:7f00:1]",
                                    "[::127.0.0.1]",
                                    "[::ffff:10.0.0.1]",
                                    "[::ffff:a9fe:a9fe]",
                                    "[64:ff9b::7f00:1]",
                                    "[64:ff9b::a00:1]",
                                    "[64:ff9b:1::1]",
                                    "[2002:7f00:1::]",
                                    "[2002:a00:1::1]",
                                    "[2001::1]",
                                    "[2001:0:53aa:64c::1]",
                                    "[2001:db8::1]",
                                    "[2001:10::1]",
                                    "[2001:20::1]",
                                    "[3fff::1]",
                                    "[fc00::1]",
                                    "[fd00::1]",
                                    "[fe80::1]",
                                    "[fe80::1%25eth0]",
                                    "[fe80::1%eth0]",
                                    "[fec0::1]",
                                    "[ff02::1]",
                                    "[100::1]",
                                    "[::1%25lo]",
                                    "[0::1]",
                                    "[::1",
                                    "::1",
                                    "[127.0.0.1]",
                                    "[]",
                                    "[::1]x",
                                    "internal",
                                    "metadata",
                                    "db",
                                    "intranet",
                                    "metadata.google.internal",
                                    "kubernetes.default.svc",
                                    "a.internal",
                                    "router.local",
                                    "printer.lan",
                                    "x.localhost",
                                    "127.0.0.1\xe3\x80\x82",
                                    "\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1",
                                    "127\xe3\x80\x82"
                                    "0\xe3\x80\x82"
                                    "0\xe3\x80\x82"
                                    "1",
                                    "loc\xc2\xad"
                                    "alhost",
                                    "\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1",
                                    "ｌocalhost",
                                    "-a.example.com",
                                    "a-.example.com",
                                    "a..example.com",
                                    ".example.com",
                                    "a_b.example.com",
                                    "example.com.",
                                    "example",
                                    "xn--.1",
                                    "1.0x1",
                                    "a.0x7f",
                                    "a.1",
                                    "a.00",
                                    "example.com:0443",
                                    "example.com:+443",
                                    "example.com:-1",
                                    "example.com: 443",
                                    "example.com:443a",
                                    "example.com:65536",
                                    "example.com:99999999999",
                                    "example.com:",
                                    "example.com:22",
                                    "example.com:80",
                                    "example.com:8443",
                                    "example.com:6379",
                                    "example.com:25",
                                    "example.com\\@10.0.0.1",
                                    "user@example.com",
                                    "user:pass@example.com",
                                    "example.com@127.0.0.1",
                                    "127.0.0.1@example.com",
                                    ":@example.com",
                                    "@example.com",
                                    "exa mple.com",
                                    "exa\tmple.com",
                                    "exa\nmple.com",
                                    "example.com\r\n",
                                    "example.com\\",
                                    "example\\.com",
                                    "exam^ple.com",
                                    "exam|ple.com",
                                    "exam\"ple.com",
                                    "exam<ple.com",
                                    "exam`ple.com",
                                    "exam{ple.com",
                                    "example.com;a",
                                    "example.com,a",
                                    "*.example.com",
                                    "exam!ple.com",
                                    "$example.com",
                                    "(example.com)",
                                    "'example.com",
                                    std::string("exam\0ple.com", 12),
                                    "exam\x7fple.com",
                                    std::string(64, 'a') + ".example.com"};
  std::string longest;
  while (longest.size() < 260) longest += "aaaaaaaaa.";
  hosts.push_back(longest + "com");
  return hosts;
}

std::vector<std::string> hostile_urls() {
  std::vector<std::string> urls;
  for (const std::string& host : inner_hosts()) {
    urls.push_back("https://" + host + "/a.png");
    urls.push_back("https://" + host);
  }
  for (const char* rest : {"http://example.com/a.png",
                           "HTTP://example.com/",
                           "ftp://example.com/a",
                           "file:///etc/passwd",
                           "file://localhost/etc/passwd",
                           "gopher://example.com:70/_x",
                           "dict://example.com/",
                           "ldap://example.com/",
                           "tftp://example.com/",
                           "smb://example.com/x",
                           "scp://example.com/x",
                           "telnet://example.com/",
                           "data:image/png;base64,AAAA",
                           "javascript:alert(1)",
                           "blob:https://example.com/x",
                           "https:/example.com/",
                           "https:example.com/",
                           "https:///example.com/",
                           "https:////example.com/",
                           "https:\\\\example.com\\",
                           "https:/\\example.com/",
                           "//example.com/a",
                           "/etc/passwd",
                           "example.com/a.png",
                           "",
                           " ",
                           "https://",
                           "https:// ",
                           "https://?x",
                           "https://#x",
                           " https://example.com/",
                           "\thttps://example.com/",
                           "https ://example.com/",
                           "h\nttps://example.com/",
                           "https://example.com/\r\nX: y",
                           "https://example.com/ a",
                           "https://example.com/\xc3\xa9",
                           "https://example.com/a\\b",
                           "view-source:https://example.com",
                           "jar:https://example.com!/",
                           "url:https://example.com",
                           "https+unix://example.com",
                           "httpss://example.com/",
                           "xhttps://example.com/",
                           "https%3a//example.com/",
                           "https://https://example.com/",
                           "netdoc:///etc/passwd"}) {
    urls.emplace_back(rest);
  }
  urls.push_back("https://example.com/" + std::string(5000, 'a'));
  return urls;
}

TEST(Fetch, HostileSpellingsMakeNoConnection) {
  std::atomic<int> connections{0};
  FetchOptions options;
  // Names that look innocent lead inside.
  options.resolve = [](const std::string&) { return std::vector<std::string>{"10.0.0.1"}; };
  options.connecting = [&](const server::Address&) { ++connections; };
  const Fetcher fetcher(options);
  const auto urls = hostile_urls();
  int refused = 0;
  for (const std::string& url : urls) {
    try {
      fetcher.get(url);
      ADD_FAILURE() << url;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << url;
      EXPECT_EQ(std::string(error.what()).find("10.0.0.1"), std::string::npos);  // tells nothing about the inside
      ++refused;
    }
  }
  EXPECT_GE(urls.size(), 300u);
  EXPECT_EQ(refused, static_cast<int>(urls.size()));
  EXPECT_EQ(connections, 0);
}

TEST(Fetch, EveryAnswerOfTheResolverMustBeGlobal) {
  std::atomic<int> connections{0};
  FetchOptions options;
  options.connecting = [&](const server::Address&) { ++connections; };
  for (const std::vector<std::string>& answers : {std::vector<std::string>{},
                                                  {"127.0.0.1"},
                                                  {"8.8.8.8", "127.0.0.1"},
                                                  {"127.0.0.1", "8.8.8.8"},
                                                  {"::1"},
                                                  {"2606:4700::1111", "fd00::1"},
                                                  {"not an address"},
                                                  {"8.8.8.8", ""},
                                                  {"::ffff:8.8.8.8"},
                                                  {"fe80::1%eth0"},
                                                  {"0.0.0.0"},
                                                  {"169.254.169.254"}}) {
    options.resolve = [&](const std::string&) { return answers; };
    EXPECT_THROW(Fetcher(options).get("https://example.com/"), Error);
  }
  EXPECT_EQ(connections, 0);
}

// A name that is global when it is checked and something else a moment later. 127.0.0.2 stands for a global address.
TEST(Fetch, AThousandRebindingFlipsReachOnlyWhatWasChecked) {
  std::set<std::string> reached;
  std::mutex mutex;
  std::atomic<int> lookups{0};
  FetchOptions options;
  options.allowed = [](const server::Address& a) { return is_global(a) || text_of(a) == "127.0.0.2"; };
  options.ports = {1};  // where nobody listens
  options.connecting = [&](const server::Address& a) {
    const std::lock_guard lock(mutex);
    reached.insert(text_of(a));
  };
  options.resolve = [&](const std::string&) {
    static const std::vector<std::vector<std::string>> inside = {
        {"127.0.0.1"}, {"10.0.0.1"}, {"169.254.169.254"}, {"::1"}, {"127.0.0.2", "127.0.0.1"}};
    const int n = lookups++;
    if (n % 2 == 0) return std::vector<std::string>{"127.0.0.2"};
    return inside[static_cast<std::size_t>(n / 2) % inside.size()];
  };
  const Fetcher fetcher(options);
  const int flips = kTsan ? 50 : 1000;
  for (int i = 0; i < flips; ++i) EXPECT_THROW(fetcher.get("https://rebound.example:1/"), Error);
  EXPECT_EQ(lookups, flips);  // once for each fetch, never again behind the check
  EXPECT_EQ(reached, std::set<std::string>{"127.0.0.2"});
}

TEST(Fetch, GlobalAddresses) {
  for (const char* yes : {"8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1",
                          "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "9.255.255.255", "11.0.0.1",
                          "2606:4700::1111", "2a00:1450::1", "2001:200::1", "2003::1"}) {
    EXPECT_TRUE(is_global(*server::parse_address(yes))) << yes;
  }
  for (const char* no : {"0.1.2.3",     "10.255.255.255", "127.0.0.1",        "100.64.0.0",
                         "169.254.0.1", "172.16.0.0",     "172.31.255.255",   "192.168.255.255",
                         "198.18.0.0",  "224.0.0.1",      "255.255.255.255",  "::",
                         "::1",         "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::",
                         "2001::1",     "2001:1ff::1",    "2001:db8:1::",     "3fff:fff::1",
                         "fc00::",      "fe80::1",        "ff02::1",          "4000::1",
                         "1fff::1"}) {
    EXPECT_FALSE(is_global(*server::parse_address(no))) << no;
  }
  for (const char* none :
       {"", "1.2.3", "01.2.3.4", "1.2.3.4 ", "0x1.2.3.4", "1.2.3.256", ":::", "::1%lo", "[::1]", "1:2:3:4:5:6:7:8:9"}) {
    EXPECT_FALSE(server::parse_address(none)) << none;
  }
}

TEST(Fetch, UrlsAreWrittenAnew) {
  EXPECT_EQ(server::parse_https_url("HTTPS://Example.COM/A?b=c#frag")->str(), "https://example.com/A?b=c");
  EXPECT_EQ(server::parse_https_url("https://example.com")->str(), "https://example.com/");
  EXPECT_EQ(server::parse_https_url("https://example.com?x=1")->str(), "https://example.com/?x=1");
  EXPECT_EQ(server::parse_https_url("https://example.com:443/../a%2F")->str(), "https://example.com/../a%2F");
  EXPECT_EQ(server::parse_https_url("https://[2606:4700::1111]:8443/")->str(), "https://[2606:4700::1111]:8443/");
  EXPECT_EQ(server::parse_https_url("https://8.8.8.8/")->host, "8.8.8.8");
}

// A server with a certificate for pictures.example, which the injected resolver finds on this machine.
class PictureServer {
 public:
  PictureServer() : files_(make_tls_files("pictures.example")) {
    server::ServerOptions o;
    o.tls_cert = files_.cert;
    o.tls_key = files_.key;
    o.port = 0;
    o.allowed_hosts = {"pictures.example", "other.example"};
    server_ = std::make_unique<server::Server>(o);
    using Request = const server::HttpRequest&;
    using Answerer = const std::shared_ptr<server::Responder>&;
    std::vector<server::Route> routes;
    routes.push_back({"GET", "/a.png", [](Request, Answerer r) { r->bytes(200, "image/png", "picture"); }});
    routes.push_back({"GET", "/missing", [](Request, Answerer r) { r->bytes(404, "text/html", "secret page"); }});
    routes.push_back(
        {"GET", "/large", [](Request, Answerer r) { r->bytes(200, "image/png", std::string(2000, 'x')); }});
    routes.push_back({"GET", "/to", [](Request q, Answerer r) {
                        r->bytes(302, "", "", {{"Location", q.query.at("url")}});
                      }});
    routes.push_back({"GET", "/hop/{n}", [](Request q, Answerer r) {
                        const int n = std::stoi(q.params.at("n"));
                        if (n == 0) r->bytes(200, "image/png", "arrived");
                        else r->bytes(301, "", "", {{"Location", "/hop/" + std::to_string(n - 1)}});
                      }});
    for (server::Route& route : drips_.routes()) {
      if (route.pattern == "/stream" && route.method == "GET") routes.push_back(std::move(route));
    }
    server_->set_routes(std::move(routes));
    server_->start();
  }

  FetchOptions options() {
    FetchOptions o;
    o.ports = {server_->port()};
    o.ca_file = files_.cert;
    o.allowed = [](const server::Address& a) { return text_of(a) == "127.0.0.1"; };
    o.resolve = [](const std::string& host) {
      if (host == "inside.example") return std::vector<std::string>{"10.0.0.1"};
      return std::vector<std::string>{"127.0.0.1"};
    };
    o.connecting = [this](const server::Address& a) {
      const std::lock_guard lock(mutex_);
      reached_.push_back(text_of(a));
    };
    return o;
  }
  std::string url(const std::string& path, const std::string& host = "pictures.example") const {
    return "https://" + host + ":" + std::to_string(server_->port()) + path;
  }
  std::vector<std::string> reached() {
    const std::lock_guard lock(mutex_);
    return std::exchange(reached_, {});
  }

 private:
  TlsFiles files_;
  TestRoutes drips_;
  std::mutex mutex_;
  std::vector<std::string> reached_;
  std::unique_ptr<server::Server> server_;
};

std::string refusal(const Fetcher& fetcher, const std::string& url) {
  try {
    fetcher.get(url);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Fetch, GetsPicturesAndFollowsRedirects) {
  PictureServer pictures;
  const Fetcher fetcher(pictures.options());
  EXPECT_EQ(fetcher.get(pictures.url("/a.png")), "picture");
  EXPECT_EQ(fetcher.get(pictures.url("/hop/3")), "arrived");
  EXPECT_EQ(pictures.reached().size(), 5u);
  EXPECT_NE(refusal(fetcher, pictures.url("/hop/4")).find("redirects"), std::string::npos);
  EXPECT_NE(refusal(fetcher, pictures.url("/missing")).find("404"), std::string::npos);
  EXPECT_NE(refusal(fetcher, pictures.url("/a.png", "other.example")), "");  // not its certificate
}

TEST(Fetch, RedirectsAreCheckedLikeTheFirstUrl) {
  PictureServer pictures;
  const Fetcher fetcher(pictures.options());
  for (const std::string& target :
       {pictures.url("/a.png", "inside.example"), std::string("http://pictures.example/a.png"),
        std::string("file:///etc/passwd"), std::string("https://127.0.0.2/"),
        std::string("https://169.254.169.254/latest/meta-data"), std::string("https://pictures.example:22/"),
        std::string("https://u:p@pictures.example/"), std::string("//inside.example/x"), std::string("https://[::1]/"),
        std::string("gopher://x/")}) {
    pictures.reached();
    EXPECT_NE(refusal(fetcher, pictures.url("/to?url=" + target)), "") << target;
    EXPECT_EQ(pictures.reached(), std::vector<std::string>{"127.0.0.1"}) << target;  // the first request only
  }
}

TEST(Fetch, LimitsOfSizeTimeAndHosts) {
  PictureServer pictures;
  FetchOptions options = pictures.options();
  options.max_bytes = 1000;
  options.total_seconds = 0.5;
  options.hosts = {"Pictures.Example", ".allowed.example"};
  const Fetcher fetcher(options);
  EXPECT_EQ(fetcher.get(pictures.url("/a.png")), "picture");
  EXPECT_NE(refusal(fetcher, pictures.url("/large")).find("1000 bytes"), std::string::npos);
  EXPECT_NE(refusal(fetcher, pictures.url("/stream?n=-1&size=200&ms=0")).find("1000 bytes"), std::string::npos);
  const Timer timer;
  EXPECT_NE(refusal(fetcher, pictures.url("/stream?n=-1&size=1&ms=50")), "");  // a slow drip
  EXPECT_LT(timer.seconds(), 1.5);
  pictures.reached();
  EXPECT_NE(refusal(fetcher, pictures.url("/a.png", "other.example")).find("not allowed"), std::string::npos);
  EXPECT_NE(refusal(fetcher, pictures.url("/a.png", "pictures.example.evil.com")).find("not allowed"),
            std::string::npos);
  EXPECT_TRUE(pictures.reached().empty());
}

// A request has one time for all its pictures, and its client may go before it is over.
TEST(Fetch, EndsWithTheTimeThatIsLeftOrWithItsClient) {
  PictureServer pictures;
  const Fetcher fetcher(pictures.options());
  const std::string drip = pictures.url("/stream?n=-1&size=1&ms=50");
  const Timer timer;
  EXPECT_THROW(fetcher.get(drip, 0.3), Error);
  EXPECT_LT(timer.seconds(), 1.5);
  std::atomic<bool> gone{false};
  std::thread leave([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    gone = true;
  });
  try {
    fetcher.get(drip, 10, [&] { return gone.load(); });
    ADD_FAILURE() << "it ended";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCancelled);
  }
  leave.join();
  EXPECT_LT(timer.seconds(), 4);
}

}  // namespace
}  // namespace gov::test
