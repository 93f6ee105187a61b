// Field names, field lines and the Host value.

#include <cassert>

#include "http/message_syntax.hpp"

namespace penstock::http {

using syntax::to_lower;

bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (to_lower(a[i]) != to_lower(b[i])) return false;
  }
  return true;
}

namespace {

/// `lower` is in lower case and as long as `name`.
template <std::size_t Size>
bool matches(std::string_view name, const char (&lower)[Size]) noexcept {
  assert(name.size() + 1 == Size);
  unsigned difference = 0;
  for (std::size_t i = 0; i + 1 < Size; ++i) {
    difference |= static_cast<unsigned char>(to_lower(name[i])) ^ static_cast<unsigned char>(lower[i]);
  }
  return difference == 0;
}

}  // namespace

// By length, then by a letter that tells the candidates apart: one comparison for a known name, none for most
// others.
FieldId field_id(std::string_view name) noexcept {
  const auto pick = [name](const auto& lower, FieldId id) {
    return matches(name, lower) ? id : FieldId::other;
  };
  switch (name.size()) {
    case 2: return pick("te", FieldId::te);
    case 3: return pick("via", FieldId::via);
    case 4: return to_lower(name[0]) == 'h' ? pick("host", FieldId::host) : pick("date", FieldId::date);
    case 6:
      switch (to_lower(name[0])) {
        case 'c': return pick("cookie", FieldId::cookie);
        case 'e': return pick("expect", FieldId::expect);
        case 's': return pick("server", FieldId::server);
        default: return FieldId::other;
      }
    case 7:
      return to_lower(name[0]) == 't' ? pick("trailer", FieldId::trailer) : pick("upgrade", FieldId::upgrade);
    case 9:
      return to_lower(name[0]) == 'f' ? pick("forwarded", FieldId::forwarded)
                                      : pick("x-api-key", FieldId::x_api_key);
    case 10:
      return to_lower(name[0]) == 'c' ? pick("connection", FieldId::connection)
                                      : pick("keep-alive", FieldId::keep_alive);
    case 11: return pick("retry-after", FieldId::retry_after);
    case 12:
      switch (to_lower(name[0])) {
        case 'c': return pick("content-type", FieldId::content_type);
        case 'm': return pick("max-forwards", FieldId::max_forwards);
        case 'p': return pick("penstock-tag", FieldId::penstock_tag);
        default: return FieldId::other;
      }
    case 13:
      if (to_lower(name[0]) == 'a') return pick("authorization", FieldId::authorization);
      return to_lower(name[9]) == 'l' ? pick("penstock-lane", FieldId::penstock_lane)
                                      : pick("penstock-wait", FieldId::penstock_wait);
    case 14:
      switch (to_lower(name[0])) {
        case 'c': return pick("content-length", FieldId::content_length);
        case 'p': return pick("penstock-cache", FieldId::penstock_cache);
        case 'x':
          return to_lower(name[2]) == 'g' ? pick("x-goog-api-key", FieldId::x_goog_api_key)
                                          : pick("x-penstock-key", FieldId::x_penstock_key);
        default: return FieldId::other;
      }
    case 15:
      switch (to_lower(name[2])) {
        case 'c': return pick("accept-encoding", FieldId::accept_encoding);
        case 'f': return pick("x-forwarded-for", FieldId::x_forwarded_for);
        default: return FieldId::other;
      }
    case 16:
      return to_lower(name[0]) == 'c' ? pick("content-encoding", FieldId::content_encoding)
                                      : pick("proxy-connection", FieldId::proxy_connection);
    case 17: return pick("transfer-encoding", FieldId::transfer_encoding);
    case 18: return pick("proxy-authenticate", FieldId::proxy_authenticate);
    case 19: return pick("proxy-authorization", FieldId::proxy_authorization);
    default: return FieldId::other;
  }
}

const Field* find(const FieldList& fields, FieldId id) noexcept {
  for (const Field& field : fields) {
    if (field.id == id) return &field;
  }
  return nullptr;
}

const Field* find(const FieldList& fields, std::string_view name) noexcept {
  for (const Field& field : fields) {
    if (equals_ignoring_case(field.name, name)) return &field;
  }
  return nullptr;
}

namespace syntax {

const char* split_field_line(std::string_view line, Field& field) noexcept {
  const char* const begin = line.data();
  const char* const end = begin + line.size();
  const char* colon = begin;
  while (colon != end && is(*colon, Class::token)) ++colon;
  if (colon == end || *colon != ':' || colon == begin) {
    if (begin != end && is_blank(*begin)) return "line folding or whitespace before a field";
    if (colon != end && is_blank(*colon)) return "whitespace in or after a field name";
    return colon == begin && colon != end && *colon == ':' ? "empty field name" : "invalid field name";
  }
  const char* first = colon + 1;
  const char* last = end;
  while (first != last && is_blank(*first)) ++first;
  while (first != last && is_blank(last[-1])) --last;
  field.name = {begin, colon};
  field.value = {first, last};
  field.id = field_id(field.name);
  field.hop_by_hop = is_hop_by_hop(field.id);
  return nullptr;
}

bool is_host_and_port(std::string_view text) noexcept {
  std::size_t end = 0;
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos) return false;
    const std::string_view address = text.substr(1, end - 1);
    if (address.find(':') == std::string_view::npos) return false;
    for (const char c : address) {
      if (hex_value(c) < 0 && c != ':' && c != '.') return false;
    }
    ++end;
  } else {
    while (true) {
      while (end < text.size() && is(text[end], Class::host)) ++end;
      if (end == text.size() || text[end] != '%') break;
      if (text.size() - end < 3 || hex_value(text[end + 1]) < 0 || hex_value(text[end + 2]) < 0) return false;
      end += 3;
    }
    if (end == 0) return false;
  }
  if (end == text.size()) return true;
  if (text[end] != ':') return false;
  const std::string_view port = text.substr(end + 1);  // may be empty, RFC 3986 3.2.3
  std::uint64_t number = 0;
  return port.empty() || (parse_length(port, number) && number <= 65535);
}

}  // namespace syntax
}  // namespace penstock::http
