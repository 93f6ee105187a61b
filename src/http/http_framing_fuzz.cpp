// Requests, responses and chunked bodies from any bytes. What is taken must lie in the buffer, stay the same
// when written out again, and not depend on how the bytes were split.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "http/message.hpp"

namespace {

using namespace penstock::http;

constexpr std::size_t kMaxHead = 4096;

void require(bool holds) {
  if (!holds) std::abort();
}

void require_inside(std::string_view view, std::string_view buffer) {
  require(view.empty() ||
          (view.data() >= buffer.data() && view.data() + view.size() <= buffer.data() + buffer.size()));
}

template <class Head>
void require_clean_fields(const Head& head, std::string_view buffer) {
  require(head.fields.size() <= 200);
  for (const Field& field : head.fields) {
    require_inside(field.name, buffer);
    require_inside(field.value, buffer);
    require(!field.name.empty() && field.id == field_id(field.name));
    require(field.name.find_first_of(" \t\r\n:") == std::string_view::npos);
    require(field.value.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos);
  }
}

template <class Head>
void require_same_fields(const Head& a, const Head& b) {
  require(a.fields.size() == b.fields.size());
  for (std::size_t i = 0; i < a.fields.size(); ++i) {
    require(a.fields[i].name == b.fields[i].name && a.fields[i].value == b.fields[i].value);
    require(a.fields[i].hop_by_hop == b.fields[i].hop_by_hop);
  }
  require(a.minor_version == b.minor_version && a.body == b.body && a.content_length == b.content_length);
  require(a.keep_alive == b.keep_alive);
}

std::string write_fields(std::string start_line, const FieldList& fields) {
  start_line += "\r\n";
  for (const Field& field : fields) append_field(start_line, field.name, field.value);
  return start_line + "\r\n";
}

/// Every shorter prefix asks for more or is refused, never taken; a refusal stands when more comes.
template <class Parse>
void check_prefixes(std::string_view text, const ParseResult& whole, Parse&& parse) {
  const std::size_t end = whole.state == ParseState::done ? whole.consumed : text.size();
  for (std::size_t size = 0; size < end; size += 1 + size / 16) {
    const ParseResult part = parse(text.substr(0, size));
    require(part.state != ParseState::done);
    if (part.state == ParseState::failed) require(whole.state == ParseState::failed);
  }
}

void fuzz_request(std::string_view text) {
  RequestHead head;
  const ParseResult result = parse_request_head(text, kMaxHead, head);
  check_prefixes(text, result, [](std::string_view part) {
    RequestHead partial;
    return parse_request_head(part, kMaxHead, partial);
  });
  if (result.state == ParseState::failed) require(result.error.status >= 400 && !result.error.what.empty());
  if (result.state != ParseState::done) return;
  require(result.consumed <= text.size() && result.consumed <= kMaxHead);
  const std::string_view buffer = text.substr(0, result.consumed);
  require(buffer.ends_with("\r\n\r\n"));
  require_inside(head.method, buffer);
  require_inside(head.target, buffer);
  require_inside(head.query, buffer);
  require(head.path == "*" || head.path.starts_with('/'));
  require(head.body != BodyKind::until_close);
  require_clean_fields(head, buffer);
  int lengths = 0;
  for (const Field& field : head.fields) {
    lengths += field.id == FieldId::content_length || field.id == FieldId::transfer_encoding ? 1 : 0;
  }
  require(lengths == (head.body == BodyKind::none ? 0 : 1));

  const std::string start = std::string(head.method) + " " + std::string(head.target) + " HTTP/1." +
                            std::to_string(head.minor_version);
  const std::string written = write_fields(start, head.fields);
  RequestHead again;
  const ParseResult second = parse_request_head(written, 2 * kMaxHead, again);
  require(second.state == ParseState::done && second.consumed == written.size());
  require(again.path == head.path && again.query == head.query && again.has_query == head.has_query);
  require(again.expects_continue == head.expects_continue && again.accepts_trailers == head.accepts_trailers);
  require_same_fields(head, again);
}

void fuzz_response(std::string_view text, bool to_head) {
  ResponseHead head;
  const ParseResult result = parse_response_head(text, kMaxHead, to_head, head);
  check_prefixes(text, result, [to_head](std::string_view part) {
    ResponseHead partial;
    return parse_response_head(part, kMaxHead, to_head, partial);
  });
  if (result.state == ParseState::failed) require(result.error.status == 502 && !result.error.what.empty());
  if (result.state != ParseState::done) return;
  require(result.consumed <= text.size() && result.consumed <= kMaxHead);
  require_inside(head.reason, text.substr(0, result.consumed));
  require(head.status >= 100 && head.status <= 599);
  require(!to_head || head.body == BodyKind::none);
  require(head.body != BodyKind::until_close || !head.keep_alive);
  require_clean_fields(head, text.substr(0, result.consumed));

  const std::string start = "HTTP/1." + std::to_string(head.minor_version) + " " +
                            std::to_string(head.status) + " " + std::string(head.reason);
  const std::string written = write_fields(start, head.fields);
  ResponseHead again;
  const ParseResult second = parse_response_head(written, 2 * kMaxHead, to_head, again);
  require(second.state == ParseState::done && second.consumed == written.size());
  require(again.status == head.status && again.reason == head.reason &&
          again.has_content_length == head.has_content_length);
  require_same_fields(head, again);
}

struct Body {
  std::string payload;
  std::string trailers;
  std::size_t consumed = 0;
  bool done = false;
  bool failed = false;
  friend bool operator==(const Body&, const Body&) = default;
};

Body decode(std::string_view text, std::size_t step_size) {
  ChunkDecoder decoder;
  Body body;
  while (body.consumed < text.size() && !body.done && !body.failed) {
    const std::string_view piece = text.substr(body.consumed, step_size);
    std::vector<char> bytes(piece.begin(), piece.end());  // of exact size: reading past it is seen
    const ChunkDecoder::Step step = decoder.decode(bytes.data(), bytes.size());
    require(step.payload <= step.consumed && step.consumed <= bytes.size());
    require(step.done || step.failed || step.consumed == bytes.size());
    require(step.failed == !step.what.empty());
    body.payload.append(bytes.data(), step.payload);
    body.consumed += step.consumed;
    body.done = step.done;
    body.failed = step.failed;
  }
  if (body.failed) body.consumed = 0;  // where in a line a fault is noticed may depend on the splitting
  body.trailers = decoder.trailers();
  return body;
}

void fuzz_chunks(std::string_view text, std::size_t step_size) {
  const Body whole = decode(text, text.size());
  require(whole == decode(text, step_size));
  require(whole == decode(text, 1));
  if (!whole.done) return;
  // Trailers that were kept are fields that a head would take.
  const std::string head_text = "GET / HTTP/1.1\r\nHost: a\r\n" + whole.trailers + "\r\n";
  RequestHead head;
  const ParseResult result = parse_request_head(head_text, 16 * 1024, head);
  require(result.state == ParseState::done || result.error.status == 431);

  std::string written;
  if (!whole.payload.empty()) {
    char header[18];
    written.append(header, write_chunk_header(whole.payload.size(), header));
    written += whole.payload + "\r\n";
  }
  written += "0\r\n" + whole.trailers + "\r\n";
  const Body again = decode(written, written.size());
  require(again.done && again.payload == whole.payload && again.trailers == whole.trailers);
}

}  // namespace

// The first byte picks the parser and its options, so that each keeps a corpus of its own.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::vector<char> copy(data + 1, data + size);
  const std::string_view text(copy.data(), copy.size());
  switch (data[0] % 4) {
    case 0: fuzz_request(text); break;
    case 1: fuzz_response(text, false); break;
    case 2: fuzz_response(text, true); break;
    default: fuzz_chunks(text, 1 + data[0] / 4); break;
  }
  (void)parse_http_date(text);
  (void)parse_retry_after_ms(text, 1'700'000'000);
  return 0;
}
