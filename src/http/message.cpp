// Heads of requests and responses.
//
// Two passes over the bytes: the first finds the line ends (memchr) and, on a complete head, counts control
// characters; the second splits the lines. A head is called for again from its start when more bytes come; an
// incomplete one costs only the first pass, over at most kMaxFields + 2 lines.

#include <algorithm>
#include <array>
#include <cstring>

#include "http/message_syntax.hpp"

namespace penstock::http {
namespace {

using namespace syntax;

constexpr std::size_t kMaxFields = 200;
constexpr std::size_t kMaxMethod = 32;
constexpr std::size_t kMaxConnectionOptions = 32;  // bounds options x fields

constexpr int kBadRequest = 400;
constexpr int kTargetTooLong = 414;
constexpr int kExpectationFailed = 417;
constexpr int kHeadTooLarge = 431;
constexpr int kNotImplemented = 501;
constexpr int kBadGateway = 502;
constexpr int kVersionNotSupported = 505;

constexpr const char* kTooManyFields = "too many fields";
constexpr const char* kHeadTooLong = "the head is too long";

ParseResult fail(int status, std::string_view what) {
  return {.state = ParseState::failed, .consumed = 0, .error = {.status = status, .what = what}};
}

/// The lines of a head, as offsets of their line feeds from the start of the buffer.
struct Lines {
  enum class State : std::uint8_t { complete, incomplete, bare_line_feed, too_many };
  std::array<std::uint32_t, kMaxFields + 2>
      line_feeds;  // start line, fields, the empty line; not initialised: hot
  std::size_t count = 0;
};

/// Finds the lines in `text` from `start` to the empty line.
Lines::State find_lines(std::string_view text, std::size_t start, Lines& lines) noexcept {
  while (true) {
    const void* const found = std::memchr(text.data() + start, '\n', text.size() - start);
    if (found == nullptr) return Lines::State::incomplete;
    const auto feed = static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    if (feed == start || text[feed - 1] != '\r') return Lines::State::bare_line_feed;
    const bool is_empty = feed == start + 1;
    if (!is_empty && lines.count == kMaxFields + 1) return Lines::State::too_many;
    lines.line_feeds[lines.count++] = static_cast<std::uint32_t>(feed);
    if (is_empty) return Lines::State::complete;
    start = feed + 1;
  }
}

/// In blocks short enough for a one-byte sum, which compilers vectorise well.
std::size_t count_controls(std::string_view text) noexcept {
  std::size_t total = 0;
  while (!text.empty()) {
    const std::string_view block = text.substr(0, 240);
    std::uint8_t sum = 0;
    for (const char c : block) {
      const auto u = static_cast<std::uint8_t>(c);
      sum = static_cast<std::uint8_t>(sum + ((u < 0x20) & (u != '\t')) + (u == 0x7f));
    }
    total += sum;
    text.remove_prefix(block.size());
  }
  return total;
}

/// What the fields say about framing and the connection, gathered while they are split.
struct Facts {
  std::string_view host;
  std::string_view content_length;
  std::string_view transfer_encoding;
  int hosts = 0;
  int content_lengths = 0;
  int transfer_encodings = 0;
  bool has_connection = false;
  bool has_te = false;
  bool has_expect = false;
  bool has_trailer = false;
  bool close = false;
  bool stay = false;
};

void note(const Field& field, Facts& facts) noexcept {
  switch (field.id) {
    case FieldId::host:
      ++facts.hosts;
      facts.host = field.value;
      break;
    case FieldId::content_length:
      ++facts.content_lengths;
      facts.content_length = field.value;
      break;
    case FieldId::transfer_encoding:
      ++facts.transfer_encodings;
      facts.transfer_encoding = field.value;
      break;
    case FieldId::connection: facts.has_connection = true; break;
    case FieldId::te: facts.has_te = true; break;
    case FieldId::expect: facts.has_expect = true; break;
    case FieldId::trailer: facts.has_trailer = true; break;
    default: break;
  }
}

/// Reads Connection: whether to close, and which fields end here. Returns what is wrong, or nullptr.
const char* apply_connection(FieldList& fields, Facts& facts) {
  std::size_t options = 0;
  for (const Field& field : fields) {
    if (field.id != FieldId::connection) continue;
    for_each_element(field.value, [&](std::string_view option) {
      if (++options > kMaxConnectionOptions) return;
      if (equals_ignoring_case(option, "close") || !is_token(option)) {
        facts.close = true;  // what is not a token may hide a "close"
      } else if (equals_ignoring_case(option, "keep-alive")) {
        facts.stay = true;
      } else {
        for (Field& named : fields) {
          // A sender must not name these (RFC 9110 7.6.1), and dropping them would change the message.
          if (named.id == FieldId::host || named.id == FieldId::content_length) continue;
          if (equals_ignoring_case(named.name, option)) named.hop_by_hop = true;
        }
      }
    });
  }
  return options > kMaxConnectionOptions ? "too many connection options" : nullptr;
}

/// Splits the field lines and reads Connection. Returns what is wrong, or nullptr.
const char* parse_fields(std::string_view text, const Lines& lines, FieldList& fields, Facts& facts) {
  for (std::size_t i = 1; i + 1 < lines.count; ++i) {
    const std::size_t begin = lines.line_feeds[i - 1] + std::size_t{1};
    Field& field = fields.emplace_back();
    if (const char* what = split_field_line(text.substr(begin, lines.line_feeds[i] - begin - 1), field))
      return what;
    note(field, facts);
  }
  return facts.has_connection ? apply_connection(fields, facts) : nullptr;
}

/// Trailer only makes sense with chunks, so without them it says nothing to the next hop.
void mark_trailer(FieldList& fields, const Facts& facts, BodyKind body) noexcept {
  if (!facts.has_trailer || body == BodyKind::chunked) return;
  for (Field& field : fields) {
    if (field.id == FieldId::trailer) field.hop_by_hop = true;
  }
}

struct Problem {
  int status = 0;  // 0: none
  const char* what = nullptr;
};

/// Transfer-Encoding must be the one word "chunked": other codings would have to be undone to meter the body.
Problem check_transfer_encoding(const Facts& facts, int minor_version) {
  if (minor_version == 0) return {kBadRequest, "Transfer-Encoding in HTTP/1.0"};
  if (facts.transfer_encodings > 1) return {kBadRequest, "repeated Transfer-Encoding"};
  if (facts.content_lengths != 0) return {kBadRequest, "both Transfer-Encoding and Content-Length"};
  std::string_view list = facts.transfer_encoding;
  if (equals_ignoring_case(list, "chunked")) return {};
  std::size_t chunked = 0;
  bool is_unknown = false;
  bool is_last_chunked = false;
  while (true) {
    const std::size_t comma = list.find(',');
    const std::string_view coding = trim(list.substr(0, comma));
    if (!is_token(coding)) return {kBadRequest, "invalid Transfer-Encoding"};
    is_last_chunked = equals_ignoring_case(coding, "chunked");
    chunked += is_last_chunked ? 1 : 0;
    is_unknown |= !is_last_chunked && !equals_ignoring_case(coding, "gzip") &&
                  !equals_ignoring_case(coding, "deflate") && !equals_ignoring_case(coding, "compress");
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  if (chunked > 1) return {kBadRequest, "chunked twice"};
  if (!is_unknown && !is_last_chunked) return {kBadRequest, "the last transfer coding is not chunked"};
  return {kNotImplemented, "unsupported transfer coding"};
}

/// Reads the length fields; `body` becomes none where there are none.
Problem read_framing(const Facts& facts, int minor_version, BodyKind& body, std::uint64_t& length) {
  if (facts.transfer_encodings != 0) {
    const Problem problem = check_transfer_encoding(facts, minor_version);
    body = BodyKind::chunked;
    return problem;
  }
  if (facts.content_lengths > 1) return {kBadRequest, "repeated Content-Length"};
  if (facts.content_lengths == 1) {
    if (!parse_length(facts.content_length, length)) return {kBadRequest, "invalid Content-Length"};
    body = BodyKind::length;
  }
  return {};
}

/// "HTTP/1.x", else what is wrong.
Problem parse_version(std::string_view text, int& minor_version) {
  constexpr std::string_view kPrefix = "HTTP/";
  if (text.size() != 8 || !text.starts_with(kPrefix) || !is(text[5], Class::digit) || text[6] != '.' ||
      !is(text[7], Class::digit)) {
    return {kBadRequest, "invalid HTTP version"};
  }
  if (text[5] != '1' || text[7] > '1') return {kVersionNotSupported, "unsupported HTTP version"};
  minor_version = text[7] - '0';
  return {};
}

void split_query(std::string_view text, RequestHead& head) noexcept {
  const std::size_t mark = text.find('?');
  head.path = text.substr(0, mark);
  head.has_query = mark != std::string_view::npos;
  if (head.has_query) head.query = text.substr(mark + 1);
}

/// RFC 9112 3.2: origin-form, absolute-form, and "*" for OPTIONS.
const char* parse_target(RequestHead& head) {
  const std::string_view target = head.target;
  if (target.starts_with('/')) {
    split_query(target, head);
    return nullptr;
  }
  if (target == "*") {
    head.path = target;
    return head.method == "OPTIONS" ? nullptr : "asterisk-form target without OPTIONS";
  }
  std::size_t scheme = 0;
  if (target.size() >= 8 && equals_ignoring_case(target.substr(0, 8), "https://")) {
    scheme = 8;
  } else if (target.size() >= 7 && equals_ignoring_case(target.substr(0, 7), "http://")) {
    scheme = 7;
  } else {
    return "invalid request target";
  }
  const std::size_t end = std::min(target.find_first_of("/?", scheme), target.size());
  if (!is_host_and_port(target.substr(scheme, end - scheme)))
    return "invalid authority in the request target";
  split_query(target.substr(end), head);
  if (head.path.empty())
    head.path = head.method == "OPTIONS" && !head.has_query ? "*" : "/";  // RFC 9112 3.2.4
  return nullptr;
}

Problem parse_request_line(std::string_view line, RequestHead& head) {
  std::size_t at = 0;
  while (at < line.size() && is(line[at], Class::token)) ++at;
  if (at > kMaxMethod) return {kNotImplemented, "the method is too long"};
  if (at == 0 || at == line.size() || line[at] != ' ') return {kBadRequest, "invalid method"};
  head.method = line.substr(0, at);
  const std::size_t target = ++at;
  while (at < line.size() && is(line[at], Class::target)) ++at;
  if (at == target || at == line.size() || line[at] != ' ') return {kBadRequest, "invalid request target"};
  head.target = line.substr(target, at - target);
  if (const Problem problem = parse_version(line.substr(at + 1), head.minor_version); problem.status != 0)
    return problem;
  if (head.method == "CONNECT") return {kBadRequest, "CONNECT is not served"};
  if (const char* what = parse_target(head)) return {kBadRequest, what};
  return {};
}

/// Expect and TE, which few requests have.
Problem read_rare_fields(const FieldList& fields, RequestHead& head) {
  for (const Field& field : fields) {
    if (field.id == FieldId::expect) {
      if (!equals_ignoring_case(field.value, "100-continue"))
        return {kExpectationFailed, "unknown expectation"};
      // HTTP/1.0 senders do not wait for it, and without a body there is nothing to go on with (RFC
      // 9110 10.1.1).
      head.expects_continue = head.minor_version > 0 && head.body != BodyKind::none &&
                              (head.body == BodyKind::chunked || head.content_length > 0);
    } else if (field.id == FieldId::te) {
      for_each_element(field.value, [&](std::string_view coding) {
        if (equals_ignoring_case(coding, "trailers")) head.accepts_trailers = true;
      });
    }
  }
  return {};
}

Problem check_host(const Facts& facts, int minor_version) {
  if (facts.hosts > 1) return {kBadRequest, "repeated Host"};
  if (facts.hosts == 0) return minor_version == 0 ? Problem{} : Problem{kBadRequest, "missing Host"};
  return is_host_and_port(facts.host) ? Problem{} : Problem{kBadRequest, "invalid Host"};
}

void clear(RequestHead& head) noexcept {
  head.method = head.target = head.path = head.query = {};
  head.has_query = head.expects_continue = head.accepts_trailers = false;
  head.keep_alive = true;
  head.minor_version = 1;
  head.fields.clear();
  head.body = BodyKind::none;
  head.content_length = 0;
}

void clear(ResponseHead& head) noexcept {
  head.status = 0;
  head.reason = {};
  head.minor_version = 1;
  head.fields.clear();
  head.body = BodyKind::none;
  head.content_length = 0;
  head.has_content_length = false;
  head.keep_alive = true;
}

Problem parse_status_line(std::string_view line, ResponseHead& head) {
  if (const Problem problem = parse_version(line.substr(0, 8), head.minor_version); problem.status != 0)
    return problem;
  if (line.size() < 12 || line[8] != ' ' || (line.size() > 12 && line[12] != ' '))
    return {kBadGateway, "invalid status line"};
  for (std::size_t i = 9; i < 12; ++i) {
    if (!is(line[i], Class::digit)) return {kBadGateway, "invalid status"};
    head.status = head.status * 10 + (line[i] - '0');
  }
  if (head.status < 100 || head.status > 599) return {kBadGateway, "status out of range"};
  if (line.size() > 13) head.reason = line.substr(13);
  return {};
}

/// RFC 9112 6.3 for responses: where the length fields do not count, and what follows for the connection.
const char* settle_response_body(const Facts& facts, bool to_head, ResponseHead& head) {
  head.has_content_length = head.body == BodyKind::length;
  const bool says_body = head.body == BodyKind::chunked || head.content_length > 0;
  if (head.status < 200) {
    if (says_body) return "an interim response with a body";
    head.body = BodyKind::none;
  } else if (to_head || head.status == 204 || head.status == 304) {
    // A 204 must not announce a body; whether one follows is anybody's guess, so the connection is not used
    // again.
    if (head.status == 204 && says_body) head.keep_alive = false;
    head.body = BodyKind::none;
  } else if (facts.content_lengths == 0 && facts.transfer_encodings == 0) {
    head.body = BodyKind::until_close;
    head.keep_alive = false;
  }
  return nullptr;
}

}  // namespace

ParseResult parse_request_head(std::string_view buffer, std::size_t max_bytes, RequestHead& head) {
  clear(head);
  max_bytes = std::min<std::size_t>(max_bytes, std::numeric_limits<std::uint32_t>::max());
  const std::size_t start = buffer.starts_with("\r\n") ? 2 : 0;
  if (buffer.size() == start || buffer == "\r") return {};
  if (!is(buffer[start], Class::token))
    return fail(kBadRequest, "invalid method");  // at once: TLS on a plain port, for one
  const std::string_view text = buffer.substr(0, max_bytes);
  Lines lines;
  switch (find_lines(text, std::min(start, text.size()), lines)) {
    case Lines::State::complete: break;
    case Lines::State::incomplete:
      if (buffer.size() < max_bytes) return {};
      return lines.count == 0 ? fail(kTargetTooLong, "the request line is too long")
                              : fail(kHeadTooLarge, kHeadTooLong);
    case Lines::State::bare_line_feed: return fail(kBadRequest, "bare line feed");
    case Lines::State::too_many: return fail(kHeadTooLarge, kTooManyFields);
  }
  const std::size_t size = lines.line_feeds[lines.count - 1] + std::size_t{1};
  if (count_controls(text.substr(start, size - start)) != 2 * lines.count)
    return fail(kBadRequest, "control character");

  const std::string_view line = text.substr(start, lines.line_feeds[0] - start - 1);
  if (const Problem problem = parse_request_line(line, head); problem.status != 0)
    return fail(problem.status, problem.what);
  Facts facts;
  if (const char* what = parse_fields(text, lines, head.fields, facts)) return fail(kBadRequest, what);
  if (const Problem problem = check_host(facts, head.minor_version); problem.status != 0)
    return fail(problem.status, problem.what);
  if (const Problem problem = read_framing(facts, head.minor_version, head.body, head.content_length);
      problem.status != 0) {
    return fail(problem.status, problem.what);
  }
  head.keep_alive = !facts.close && (head.minor_version == 1 || facts.stay);
  mark_trailer(head.fields, facts, head.body);
  if (facts.has_expect || facts.has_te) {
    if (const Problem problem = read_rare_fields(head.fields, head); problem.status != 0)
      return fail(problem.status, problem.what);
  }
  return {.state = ParseState::done, .consumed = size, .error = {}};
}

ParseResult parse_response_head(std::string_view buffer, std::size_t max_bytes, bool to_head,
                                ResponseHead& head) {
  clear(head);
  max_bytes = std::min<std::size_t>(max_bytes, std::numeric_limits<std::uint32_t>::max());
  if (buffer.empty()) return {};
  constexpr std::string_view kStart = "HTTP/1.";
  if (buffer.substr(0, kStart.size()) != kStart.substr(0, buffer.size()))
    return fail(kBadGateway, "not an HTTP/1 response");
  const std::string_view text = buffer.substr(0, max_bytes);
  Lines lines;
  switch (find_lines(text, 0, lines)) {
    case Lines::State::complete: break;
    case Lines::State::incomplete:
      return buffer.size() < max_bytes ? ParseResult{} : fail(kBadGateway, kHeadTooLong);
    case Lines::State::bare_line_feed: return fail(kBadGateway, "bare line feed");
    case Lines::State::too_many: return fail(kBadGateway, kTooManyFields);
  }
  const std::size_t size = lines.line_feeds[lines.count - 1] + std::size_t{1};
  if (count_controls(text.substr(0, size)) != 2 * lines.count) return fail(kBadGateway, "control character");

  const std::string_view line = text.substr(0, lines.line_feeds[0] - std::size_t{1});
  if (const Problem problem = parse_status_line(line, head); problem.status != 0)
    return fail(kBadGateway, problem.what);
  Facts facts;
  if (const char* what = parse_fields(text, lines, head.fields, facts)) return fail(kBadGateway, what);
  if (const Problem problem = read_framing(facts, head.minor_version, head.body, head.content_length);
      problem.status != 0) {
    return fail(kBadGateway, problem.what);
  }
  head.keep_alive = !facts.close && (head.minor_version == 1 || facts.stay);
  if (const char* what = settle_response_body(facts, to_head, head)) return fail(kBadGateway, what);
  mark_trailer(head.fields, facts, head.body);
  return {.state = ParseState::done, .consumed = size, .error = {}};
}

}  // namespace penstock::http
