#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <boost/container/small_vector.hpp>

/// HTTP/1.1 heads and chunks over a caller's buffer: strict, zero-copy (views into the buffer), no allocation
/// for a message of ordinary size. RFC 9110, RFC 9112. Ambiguous framing is refused, never repaired
/// (docs/decisions/0003-own-http-framing-over-asio.md).
namespace penstock::http {

/// Fields that the gateway looks at, so that names are compared once.
enum class FieldId : std::uint8_t {
  other,
  accept_encoding,
  authorization,
  connection,
  content_encoding,
  content_length,
  content_type,
  cookie,
  date,
  expect,
  forwarded,
  host,
  keep_alive,
  max_forwards,
  penstock_cache,
  penstock_lane,
  penstock_tag,
  penstock_wait,
  proxy_authenticate,
  proxy_authorization,
  proxy_connection,
  retry_after,
  server,
  te,
  trailer,
  transfer_encoding,
  upgrade,
  via,
  x_api_key,
  x_forwarded_for,
  x_goog_api_key,
  x_penstock_key,
};

[[nodiscard]] FieldId field_id(std::string_view name) noexcept;  ///< ASCII case-insensitive
[[nodiscard]] bool equals_ignoring_case(std::string_view a, std::string_view b) noexcept;

struct Field {
  std::string_view name;
  std::string_view value;  ///< without surrounding whitespace
  FieldId id = FieldId::other;
  /// Ends at the next hop: Connection, Keep-Alive, Proxy-Connection, TE, Transfer-Encoding, Upgrade, Trailer
  /// where the message is not chunked, Proxy-Authenticate/-Authorization, and every field that Connection
  /// names but Host and Content-Length.
  bool hop_by_hop = false;
};
using FieldList = boost::container::small_vector<Field, 24>;

[[nodiscard]] const Field* find(const FieldList& fields, FieldId id) noexcept;
[[nodiscard]] const Field* find(const FieldList& fields, std::string_view name) noexcept;

enum class BodyKind : std::uint8_t {
  none,
  length,  ///< Content-Length bytes
  chunked,
  until_close,  ///< responses only
};

struct RequestHead {
  std::string_view method;
  std::string_view target;  ///< as sent
  std::string_view path;    ///< origin-form path, also of an absolute-form target; "*" for asterisk-form
  std::string_view query;   ///< without '?'; empty: none
  bool has_query = false;
  int minor_version = 1;  ///< HTTP/1.x
  FieldList fields;
  BodyKind body = BodyKind::none;
  std::uint64_t content_length = 0;
  bool keep_alive = true;
  bool expects_continue = false;
  bool accepts_trailers = false;  ///< TE: trailers
};

struct ResponseHead {
  int status = 0;
  std::string_view reason;
  int minor_version = 1;
  FieldList fields;
  BodyKind body = BodyKind::none;
  std::uint64_t content_length = 0;  ///< of `length`; for HEAD what the field says
  bool has_content_length = false;
  bool keep_alive = true;
};

/// Why a head or chunk is not valid: the status for a request's sender and a sentence. For responses every
/// error is a 502.
struct FramingError {
  int status = 400;  ///< 400, 414, 417, 431, 501, 505; 502 for responses
  std::string_view what;
};

enum class ParseState : std::uint8_t { need_more, done, failed };
struct ParseResult {
  ParseState state = ParseState::need_more;
  std::size_t consumed = 0;  ///< done: bytes of the head, including the empty line
  FramingError error{};
};

/// Parses the head at the start of `buffer` (at most one CRLF before a request line is skipped, RFC
/// 9112 2.2). Heads above `max_bytes` fail with 431 (414 while the request line is not complete), also when
/// incomplete. More than 200 fields: 431.
[[nodiscard]] ParseResult parse_request_head(std::string_view buffer, std::size_t max_bytes,
                                             RequestHead& head);

/// `to_head`: the request was HEAD, so there is no body whatever the fields say.
[[nodiscard]] ParseResult parse_response_head(std::string_view buffer, std::size_t max_bytes, bool to_head,
                                              ResponseHead& head);

/// Takes chunked framing off a body as it comes.
class ChunkDecoder {
 public:
  struct Step {
    std::size_t consumed = 0;  ///< bytes of the input that were read (the rest belongs to what follows)
    std::size_t payload = 0;   ///< bytes of payload, moved together to the front of the input
    bool done = false;         ///< the last chunk and the trailers are read
    bool failed = false;
    std::string_view what;  ///< of a failure
  };
  /// Reads as much as it can. Chunk extensions are skipped (bounded), bare LF, signs, blanks and overflow
  /// refused.
  [[nodiscard]] Step decode(char* data, std::size_t size);
  /// The trailer section's field lines ("Name: value\r\n"...), without those that must not be in trailers
  /// (framing, routing, authentication, hop-by-hop fields). At most 8 KiB, else the decoder fails.
  [[nodiscard]] const std::string& trailers() const noexcept { return trailers_; }
  void reset() noexcept;

 private:
  enum class State : std::uint8_t {
    size_start,  ///< a chunk line, no digit yet
    size,
    extension,
    size_end,  ///< the LF of a chunk line
    data,
    data_cr,
    data_lf,
    trailers,
    done,
    failed,
  };
  void fail(std::string_view what) noexcept;
  void read_size(char c) noexcept;
  void end_size_line() noexcept;
  std::size_t read_trailers(std::string_view bytes);
  void end_trailer_line();

  State state_ = State::size_start;
  std::uint64_t remaining_ = 0;    ///< of the chunk; while its line is read: the size so far
  std::uint32_t line_bytes_ = 0;   ///< of the chunk line so far
  std::uint64_t overhead_ = 0;     ///< bytes of chunk lines beyond a fair share of their payload
  std::size_t trailer_bytes_ = 0;  ///< of the trailer section, dropped lines included
  std::size_t line_start_ = 0;     ///< of the unfinished line at the end of trailers_
  std::string_view what_;
  std::string trailers_;
};

[[nodiscard]] std::string_view reason_phrase(int status) noexcept;  ///< "OK"; "" when unknown

/// Writers that append to a reused buffer.
void append_status_line(std::string& out, int status);
void append_field(std::string& out, std::string_view name, std::string_view value);
void append_number_field(std::string& out, std::string_view name, std::uint64_t value);
/// "<hex size>\r\n"; returns the length written to `out` (at least 18 bytes).
std::size_t write_chunk_header(std::size_t size, char* out) noexcept;

/// An IMF-fixdate for the Date field, remade once a second by its owner.
[[nodiscard]] std::string format_http_date(std::int64_t unix_seconds);
/// IMF-fixdate, RFC 850 and asctime forms, to Unix seconds.
[[nodiscard]] std::optional<std::int64_t> parse_http_date(std::string_view text);

/// Retry-After as seconds or a date (given the wall clock), also the tolerant forms in the wild ("56.5");
/// retry-after-ms is the caller's business. Milliseconds, capped at 24 h.
[[nodiscard]] std::optional<std::int64_t> parse_retry_after_ms(std::string_view value,
                                                               std::int64_t now_unix_seconds);

}  // namespace penstock::http
