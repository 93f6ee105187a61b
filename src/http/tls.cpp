#include "http/tls.hpp"

#include <openssl/ssl.h>

namespace penstock::http {
namespace {

namespace ssl = boost::asio::ssl;

std::unexpected<Error> cannot(const std::string& what, const boost::system::error_code& error) {
  return refuse(Reason::gateway_error, "TLS cannot be set up", what + ": " + error.message());
}

// ALPN: of what a client offers we take http/1.1, or go on without.
int select_http11(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in,
                  unsigned int in_length, void*) {
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, kHttp11, sizeof kHttp11 - 1, in, in_length) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_NOACK;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

Result<std::shared_ptr<ssl::context>> make_client_tls(const std::string& ca_file) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  boost::system::error_code error;
  if (ca_file.empty())
    context->set_default_verify_paths(error);
  else
    context->load_verify_file(ca_file, error);
  if (error) return cannot(ca_file.empty() ? "the system's certificates" : ca_file, error);
  context->set_verify_mode(ssl::verify_peer);
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  SSL_CTX_set_alpn_protos(context->native_handle(), kHttp11, sizeof kHttp11 - 1);
  return context;
}

Result<std::shared_ptr<ssl::context>> make_server_tls(const std::string& certificate_file,
                                                      const std::string& key_file) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  boost::system::error_code error;
  context->use_certificate_chain_file(certificate_file, error);
  if (error) return cannot(certificate_file, error);
  context->use_private_key_file(key_file, ssl::context::pem, error);
  if (error) return cannot(key_file, error);
  if (SSL_CTX_check_private_key(context->native_handle()) != 1)
    return refuse(Reason::gateway_error, "TLS cannot be set up",
                  key_file + " is not the key of " + certificate_file);
  SSL_CTX_set_alpn_select_cb(context->native_handle(), select_http11, nullptr);
  return context;
}

}  // namespace penstock::http
