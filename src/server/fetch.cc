#include "server/fetch.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/timer.h"
#include "server/ascii.h"
#include "server/https_url.h"

namespace gov::server {
namespace {

std::vector<std::string> system_resolve(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &list) != 0) return {};
  std::vector<std::string> found;
  for (const addrinfo* at = list; at != nullptr; at = at->ai_next) {
    char text[INET6_ADDRSTRLEN] = "";
    const void* bytes = nullptr;
    if (at->ai_family == AF_INET) bytes = &reinterpret_cast<const sockaddr_in*>(at->ai_addr)->sin_addr;
    if (at->ai_family == AF_INET6) bytes = &reinterpret_cast<const sockaddr_in6*>(at->ai_addr)->sin6_addr;
    if (bytes != nullptr && inet_ntop(at->ai_family, bytes, text, sizeof text) != nullptr) found.emplace_back(text);
  }
  freeaddrinfo(list);
  return found;
}

bool host_allowed(const std::vector<std::string>& hosts, const std::string& host) {
  return hosts.empty() || std::any_of(hosts.begin(), hosts.end(), [&](const std::string& allowed) {
           return allowed.starts_with('.') ? host.ends_with(allowed) : host == allowed;
         });
}

std::optional<Address> address_of(const curl_sockaddr& to) {
  Address address;
  if (to.family == AF_INET) {
    std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in*>(&to.addr)->sin_addr, 4);
    return address;
  }
  if (to.family != AF_INET6) return std::nullopt;
  address.v6 = true;
  std::memcpy(address.bytes.data(), &reinterpret_cast<const sockaddr_in6*>(&to.addr)->sin6_addr, 16);
  return address;
}

// One request of a fetch, as curl's callbacks see it.
struct Transfer {
  const FetchOptions& options;
  const std::vector<Address>& pinned;
  const std::function<bool()>& cancelled;
  std::string body;
  bool too_large = false, forbidden = false;
};

bool same(const Address& a, const Address& b) {
  return a.v6 == b.v6 && std::equal(a.bytes.begin(), a.bytes.begin() + (a.v6 ? 16 : 4), b.bytes.begin());
}

bool may_reach(const FetchOptions& options, const Address& address) {
  return options.allowed ? options.allowed(address) : is_global(address);
}

// The last word on every connection, whatever curl has made of the URL.
curl_socket_t open_socket(void* context, curlsocktype purpose, curl_sockaddr* to) {
  Transfer& transfer = *static_cast<Transfer*>(context);
  const auto address = address_of(*to);
  const bool known = address && std::any_of(transfer.pinned.begin(), transfer.pinned.end(),
                                            [&](const Address& pin) { return same(pin, *address); });
  if (purpose != CURLSOCKTYPE_IPCXN || !known || !may_reach(transfer.options, *address)) {
    transfer.forbidden = true;
    return CURL_SOCKET_BAD;
  }
  if (transfer.options.connecting) transfer.options.connecting(*address);
  return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

std::size_t take_body(char* data, std::size_t size, std::size_t count, void* context) {
  Transfer& transfer = *static_cast<Transfer*>(context);
  if (transfer.body.size() + size * count > transfer.options.max_bytes) {
    transfer.too_large = true;
    return 0;
  }
  transfer.body.append(data, size * count);
  return size * count;
}

int watch(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const Transfer& transfer = *static_cast<Transfer*>(context);
  return transfer.cancelled && transfer.cancelled() ? 1 : 0;
}

struct CurlDelete {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

void set_options(CURL* curl, Transfer& transfer, const HttpsUrl& url, const curl_slist* pins, double seconds) {
  const FetchOptions& options = transfer.options;
  const auto set = [&](CURLoption option, auto value) {
    if (curl_easy_setopt(curl, option, value) != CURLE_OK)
      fail(ErrorCode::kUnsupported, "libcurl lacks a needed option");
  };
  const auto ms = [](double s) { return std::max(1L, static_cast<long>(s * 1000)); };
  set(CURLOPT_URL, url.str().c_str());
  set(CURLOPT_PROTOCOLS_STR, "https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_RESOLVE, pins);
  set(CURLOPT_PROXY, "");
  set(CURLOPT_NOPROXY, "*");
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_FRESH_CONNECT, 1L);
  set(CURLOPT_FORBID_REUSE, 1L);
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  if (!options.ca_file.empty()) set(CURLOPT_CAINFO, options.ca_file.c_str());
  set(CURLOPT_USERAGENT, "gpt-oss-vision");
  set(CURLOPT_CONNECTTIMEOUT_MS, ms(std::min(options.connect_seconds, seconds)));
  set(CURLOPT_TIMEOUT_MS, ms(seconds));
  set(CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(options.max_bytes));
  set(CURLOPT_OPENSOCKETFUNCTION, &open_socket);
  set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(&transfer));
  set(CURLOPT_WRITEFUNCTION, &take_body);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &watch);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&transfer));
}

// curl's global state must be there before threads use it.
void curl_once() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) fail(ErrorCode::kUnsupported, "libcurl cannot be started");
}

}  // namespace

struct Fetcher::Impl {
  FetchOptions options;

  // Text of the addresses, all of which may be reached.
  std::vector<Address> resolve(const HttpsUrl& url) const;
  // A redirect's target, or empty when `result` is complete.
  std::string one_request(const std::string& text, double seconds, const Timer& timer,
                          const std::function<bool()>& cancelled, std::string& result) const;
};

std::vector<Address> Fetcher::Impl::resolve(const HttpsUrl& url) const {
  std::vector<std::string> texts;
  if (url.v6 || is_ipv4(url.host)) texts = {url.host};
  else texts = options.resolve ? options.resolve(url.host) : system_resolve(url.host);
  std::vector<Address> addresses;
  for (const std::string& text : texts) {
    const auto address = parse_address(text);
    // One bad answer among good ones is as bad: which is used is not ours to know.
    if (!address || !may_reach(options, *address))
      fail(ErrorCode::kInvalidArgument, "the image URL's host may not be reached");
    addresses.push_back(*address);
  }
  if (addresses.empty()) fail(ErrorCode::kInvalidArgument, "the image URL's host is not known");
  return addresses;
}

std::string Fetcher::Impl::one_request(const std::string& text, double seconds, const Timer& timer,
                                       const std::function<bool()>& cancelled, std::string& result) const {
  const auto url = parse_https_url(text);
  if (!url) fail(ErrorCode::kInvalidArgument, "image URLs are plain https URLs");
  if (std::find(options.ports.begin(), options.ports.end(), url->port) == options.ports.end()) {
    fail(ErrorCode::kInvalidArgument, "image URLs with port {} are not allowed", url->port);
  }
  if (!host_allowed(options.hosts, url->host)) fail(ErrorCode::kInvalidArgument, "the image URL's host is not allowed");
  const std::vector<Address> addresses = resolve(*url);
  const double left = std::min(seconds, options.total_seconds) - timer.seconds();
  if (left <= 0) fail(ErrorCode::kInvalidArgument, "the image URL took too long");

  std::string pin = url->host_text() + ":" + std::to_string(url->port) + ":";
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    char buffer[INET6_ADDRSTRLEN] = "";
    inet_ntop(addresses[i].v6 ? AF_INET6 : AF_INET, addresses[i].bytes.data(), buffer, sizeof buffer);
    pin += (i > 0 ? "," : "") + (addresses[i].v6 ? "[" + std::string(buffer) + "]" : std::string(buffer));
  }
  const std::unique_ptr<curl_slist, CurlDelete> pins(curl_slist_append(nullptr, pin.c_str()));
  const std::unique_ptr<CURL, CurlDelete> curl(curl_easy_init());
  if (!pins || !curl) throw std::bad_alloc();
  Transfer transfer{options, addresses, cancelled, {}};
  set_options(curl.get(), transfer, *url, pins.get(), left);
  const CURLcode code = curl_easy_perform(curl.get());
  if (cancelled && cancelled()) fail(ErrorCode::kCancelled, "fetching the picture was cancelled");
  if (transfer.forbidden) fail(ErrorCode::kInvalidArgument, "the image URL's host may not be reached");
  if (transfer.too_large || code == CURLE_FILESIZE_EXCEEDED) {
    fail(ErrorCode::kInvalidArgument, "the image URL's answer has more than {} bytes", options.max_bytes);
  }
  if (code != CURLE_OK) fail(ErrorCode::kInvalidArgument, "the image URL cannot be fetched");
  long status = 0;
  const char* location = nullptr;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(curl.get(), CURLINFO_REDIRECT_URL, &location);
  if (status >= 300 && status < 400 && location != nullptr) return location;
  if (status != 200) fail(ErrorCode::kInvalidArgument, "the image URL was answered with status {}", status);
  result = std::move(transfer.body);
  return {};
}

Fetcher::Fetcher(FetchOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  for (std::string& host : impl_->options.hosts) host = lower(host);
  curl_once();
}

Fetcher::~Fetcher() = default;

std::string Fetcher::get(std::string_view url, double seconds, const std::function<bool()>& cancelled) const {
  if (!parse_https_url(url)) fail(ErrorCode::kInvalidArgument, "image URLs are plain https URLs");
  const Timer timer;
  std::string result;
  std::string next(url);
  for (int i = 0; i <= impl_->options.redirects; ++i) {
    next = impl_->one_request(next, seconds, timer, cancelled, result);
    if (next.empty()) return result;
  }
  fail(ErrorCode::kInvalidArgument, "the image URL leads through more than {} redirects", impl_->options.redirects);
}

}  // namespace gov::server
