#include "tests/server/tls_files.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <cstdio>

namespace gov::test {

TlsFiles make_tls_files(const std::string& name) {
  static std::atomic<int> count{0};
  const std::string base = testing::TempDir() + "gov_tls_" + std::to_string(getpid()) + "_" + std::to_string(count++);
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* cert = X509_new();
  X509_set_version(cert, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
  X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
  X509_set_pubkey(cert, key);
  X509_NAME* subject = X509_get_subject_name(cert);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(cert, subject);
  const std::string names = "DNS:" + name + ",IP:127.0.0.1";
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
  X509_add_ext(cert, extension, -1);
  X509_EXTENSION_free(extension);
  X509_sign(cert, key, EVP_sha256());
  TlsFiles files{base + ".cert.pem", base + ".key.pem"};
  std::FILE* out = std::fopen(files.cert.c_str(), "w");
  PEM_write_X509(out, cert);
  std::fclose(out);
  out = std::fopen(files.key.c_str(), "w");
  PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(out);
  X509_free(cert);
  EVP_PKEY_free(key);
  return files;
}

Answer tls_request(int port, const std::string& text, int max_version) {
  Client client(port);
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  if (max_version != 0) {
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_max_proto_version(context, max_version);
  }
  SSL* ssl = SSL_new(context);
  SSL_set_fd(ssl, client.descriptor());
  Answer answer;
  if (SSL_connect(ssl) == 1) {
    SSL_write(ssl, text.data(), static_cast<int>(text.size()));
    std::string all(1 << 20, '\0');
    std::size_t size = 0;
    for (int count;
         size < all.size() && (count = SSL_read(ssl, all.data() + size, static_cast<int>(all.size() - size))) > 0;) {
      size += static_cast<std::size_t>(count);
    }
    all.resize(size);
    answer.complete = SSL_get_shutdown(ssl) == SSL_RECEIVED_SHUTDOWN;  // a proper end, not a cut
    SSL_shutdown(ssl);
    const std::size_t end = all.find("\r\n\r\n");
    if (end != std::string::npos) {
      answer.status = std::stoi(all.substr(9, 3));
      answer.body = all.substr(end + 4);
    }
  }
  SSL_free(ssl);
  SSL_CTX_free(context);
  return answer;
}

}  // namespace gov::test
