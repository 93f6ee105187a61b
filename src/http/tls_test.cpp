#include "http/tls.hpp"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

namespace penstock::http {
namespace {

using testing::HasSubstr;

/// A folder with certificates made for this test.
class TlsTest : public testing::Test {
 protected:
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("tls_test." + std::to_string(::getpid()));
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  /// Writes NAME.pem and NAME.key: a certificate for itself.
  std::pair<std::string, std::string> make_pair(const std::string& name) {
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
    X509_set_version(certificate.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
    X509_set_pubkey(certificate.get(), key.get());
    X509_sign(certificate.get(), key.get(), EVP_sha256());
    const auto text_of = [](auto put) {
      const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
      put(out.get());
      char* data = nullptr;
      const auto size = static_cast<std::size_t>(BIO_get_mem_data(out.get(), &data));
      return std::string(data, size);
    };
    return {write(name + ".pem", text_of([&](BIO* out) { PEM_write_bio_X509(out, certificate.get()); })),
            write(name + ".key", text_of([&](BIO* out) {
                    PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
                  }))};
  }
};

TEST_F(TlsTest, TakesGoodFiles) {
  const auto [certificate, key] = make_pair("a");
  const auto server = make_server_tls(certificate, key);
  ASSERT_TRUE(server.has_value()) << server.error().detail;
  EXPECT_EQ(SSL_CTX_get_min_proto_version((*server)->native_handle()), TLS1_2_VERSION);
  const auto client = make_client_tls(certificate);
  ASSERT_TRUE(client.has_value()) << client.error().detail;
  EXPECT_EQ(SSL_CTX_get_min_proto_version((*client)->native_handle()), TLS1_2_VERSION);
  EXPECT_EQ(SSL_CTX_get_verify_mode((*client)->native_handle()), SSL_VERIFY_PEER);
  EXPECT_TRUE(make_client_tls("").has_value());
}

TEST_F(TlsTest, ErrorsNameTheFileAndNothingOfTheKey) {
  const auto [certificate, key] = make_pair("a");
  const auto [other_certificate, other_key] = make_pair("b");
  const std::string missing = folder_ / "missing.pem";
  const std::string garbage =
      write("garbage.pem", "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n");
  const auto detail = [](const auto& made) {
    EXPECT_FALSE(made.has_value());
    return made ? std::string() : made.error().detail;
  };
  EXPECT_THAT(detail(make_client_tls(missing)), HasSubstr(missing));
  EXPECT_THAT(detail(make_client_tls(garbage)), HasSubstr(garbage));
  EXPECT_THAT(detail(make_server_tls(missing, key)), HasSubstr(missing));
  EXPECT_THAT(detail(make_server_tls(certificate, missing)), HasSubstr(missing));
  EXPECT_THAT(detail(make_server_tls(certificate, garbage)), HasSubstr(garbage));
  EXPECT_THAT(detail(make_server_tls(certificate, garbage)), testing::Not(HasSubstr("canary")));
  EXPECT_THAT(detail(make_server_tls(certificate, other_key)), HasSubstr(other_key));
}

}  // namespace
}  // namespace penstock::http
