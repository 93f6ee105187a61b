#include <sodium.h>

#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

constexpr std::string_view kBearer = "Bearer ";
constexpr std::string_view kKeyPrefix = "pk_";
constexpr std::size_t kMaxKeyLength = 256;

/// The key's text, or empty. A field that holds something else (the caller's own provider key) is not ours.
std::string_view key_in(const http::Field& field) {
  std::string_view value = field.value;
  if (field.id == http::FieldId::authorization) {
    if (value.size() <= kBearer.size() ||
        !http::equals_ignoring_case(value.substr(0, kBearer.size()), kBearer))
      return {};
    value.remove_prefix(kBearer.size());
    while (value.starts_with(' ')) value.remove_prefix(1);
  }
  return value.starts_with(kKeyPrefix) ? value : std::string_view{};
}

/// The key of the last request on a connection: callers keep connections, and a comparison is cheaper than a
/// hash.
struct LastKey final : http::Exchange::Memory {
  std::string text;
  std::uint64_t generation = 0;
  std::shared_ptr<const store::KeyEntry> entry;
};

std::shared_ptr<const store::KeyEntry> find_key(Call& call, std::string_view text) {
  if (text.size() > kMaxKeyLength) return nullptr;
  auto* last = static_cast<LastKey*>(call.exchange.memory.get());
  // In constant time: a proxy in front of us may put several callers on one connection.
  if (last != nullptr && last->generation == call.generation->number && last->text.size() == text.size() &&
      sodium_memcmp(last->text.data(), text.data(), text.size()) == 0)
    return last->entry;
  store::KeyHash hash;
  crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(text.data()), text.size());
  auto entry = call.generation->directory->find_key(hash);
  if (!entry) return nullptr;
  if (last == nullptr) {
    call.exchange.memory = std::make_unique<LastKey>();
    last = static_cast<LastKey*>(call.exchange.memory.get());
  }
  last->text = text;
  last->generation = call.generation->number;
  last->entry = entry;
  return entry;
}

}  // namespace

Step authenticate(Call& call) {
  std::string_view text;
  for (const http::Field& field : call.exchange.request.fields) {
    switch (field.id) {
      case http::FieldId::authorization:
      case http::FieldId::x_penstock_key:
      case http::FieldId::x_api_key:
      case http::FieldId::x_goog_api_key:
        // X-Penstock-Key wins, so that Authorization can be the caller's own.
        if (const std::string_view key = key_in(field);
            !key.empty() && (text.empty() || field.id == http::FieldId::x_penstock_key)) {
          text = key;
          call.key_field = field.id;
        }
        break;
      default: break;
    }
  }
  if (text.empty()) {
    if (call.snapshot->config.anonymous) return Step::next;
    return refuse_call(call, {.reason = Reason::caller_unauthenticated,
                              .status = 0,
                              .message = "No key: send Authorization: Bearer pk_... or X-Penstock-Key.",
                              .detail = {},
                              .retry_after = {}});
  }
  call.key = find_key(call, text);
  const bool usable =
      call.key && !call.key->revoked && (!call.key->expires || *call.key->expires > call.now.wall);
  if (usable) return Step::next;
  // One answer for all: a caller learns nothing about which keys exist.
  Error error{.reason = Reason::caller_unauthenticated,
              .status = 0,
              .message = "This key is not known, expired or revoked.",
              .detail = !call.key           ? "unknown key"
                        : call.key->revoked ? "revoked key"
                                            : "expired key",
              .retry_after = {}};
  return refuse_call(call, std::move(error));
}

}  // namespace penstock::gateway
