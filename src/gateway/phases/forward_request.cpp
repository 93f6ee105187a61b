#include "gateway/phases/forward_request.hpp"

namespace penstock::gateway {
namespace {

/// Fields of the caller that end here.
bool is_dropped(const http::Field& field, const Call& call, bool has_credential) noexcept {
  if (field.hop_by_hop) return true;
  switch (field.id) {
    case http::FieldId::host:            // the provider's
    case http::FieldId::content_length:  // framed anew
    case http::FieldId::expect:          // answered here
    case http::FieldId::forwarded:       // who calls is not the provider's business
    case http::FieldId::x_forwarded_for:
    case http::FieldId::penstock_cache:
    case http::FieldId::penstock_lane:
    case http::FieldId::penstock_tag:
    case http::FieldId::penstock_wait:
    case http::FieldId::x_penstock_key: return true;
    case http::FieldId::authorization:
    case http::FieldId::x_api_key:
    case http::FieldId::x_goog_api_key:
      // The caller's key never leaves, wherever it stands; its own credential only where we have none.
      return has_credential || field.id == call.key_field ||
             field.value.find("pk_") != std::string_view::npos;
    case http::FieldId::cookie: return has_credential;
    default: return false;
  }
}

/// The query with our credential last and no parameter of its name before: a provider may take the first.
void append_query_with_credential(std::string_view query, const ProviderPlan& provider, std::string& out) {
  const std::string_view name = provider.config->credential.query;
  char separator = '?';
  while (!query.empty()) {
    const std::size_t end = std::min(query.find('&'), query.size());
    const std::string_view parameter = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (parameter.substr(0, parameter.find('=')) == name) continue;
    out.push_back(separator);
    out.append(parameter);
    separator = '&';
  }
  out.push_back(separator);
  out.append(provider.credential_query);
}

}  // namespace

void build_request_head(const Call& call, const Attempt& attempt, std::optional<std::size_t> body_size,
                        std::string& out) {
  const http::RequestHead& request = call.exchange.request;
  const ProviderPlan& provider = *attempt.provider;
  const bool has_credential = !provider.config->credential.value.empty();
  out.clear();
  out.append(request.method).append(" ").append(provider.config->base_url.path).append(call.path);
  if (!provider.credential_query.empty())
    append_query_with_credential(request.query, provider, out);
  else if (request.has_query)
    out.append("?").append(request.query);
  out.append(" HTTP/1.1\r\n").append(provider.host_field);
  for (const http::Field& field : request.fields) {
    if (is_dropped(field, call, has_credential)) continue;
    // Usage is read out of the answer: it must not come compressed.
    if (field.id == http::FieldId::accept_encoding && attempt.endpoint->reads_answer) continue;
    if (has_credential && http::equals_ignoring_case(field.name, provider.config->credential.header))
      continue;
    http::append_field(out, field.name, field.value);
  }
  out.append(provider.credential_field);
  if (attempt.endpoint->reads_answer) out.append("Accept-Encoding: identity\r\n");
  if (request.accepts_trailers) out.append("TE: trailers\r\nConnection: TE\r\n");
  out.append("Via: 1.1 penstock\r\n");
  if (body_size) {
    // Methods that usually have a body say so even when it is empty.
    if (*body_size > 0 || request.body != http::BodyKind::none)
      http::append_number_field(out, "Content-Length", *body_size);
  } else if (request.body == http::BodyKind::length) {
    http::append_number_field(out, "Content-Length", request.content_length);
  } else {
    out.append("Transfer-Encoding: chunked\r\n");
  }
  out.append("\r\n");
}

}  // namespace penstock::gateway
