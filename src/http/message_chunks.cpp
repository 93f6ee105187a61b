// Chunked framing, RFC 9112 7.1: a state machine over bytes, with bulk steps for payload and trailers.

#include <algorithm>
#include <array>
#include <cstring>

#include "http/message_syntax.hpp"

namespace penstock::http {
namespace {

using namespace syntax;

constexpr std::uint32_t kMaxSizeDigits = 16;
constexpr std::uint32_t kMaxChunkLine = 1024;
/// Chunk lines may exceed 16 bytes plus twice their payload by this much over a body: extensions are no
/// channel for data.
constexpr std::uint64_t kMaxOverhead = 16 * 1024;
constexpr std::size_t kMaxTrailers = 8 * 1024;

/// RFC 9110 6.5.1: fields that steer framing, routing, authentication, caching or the reading of the content
/// came too late.
bool may_be_trailer(const Field& field) noexcept {
  using namespace std::string_view_literals;
  static constexpr std::array kForbidden = {"age"sv,
                                            "cache-control"sv,
                                            "content-range"sv,
                                            "expires"sv,
                                            "if-match"sv,
                                            "if-modified-since"sv,
                                            "if-none-match"sv,
                                            "if-range"sv,
                                            "if-unmodified-since"sv,
                                            "location"sv,
                                            "pragma"sv,
                                            "range"sv,
                                            "set-cookie"sv,
                                            "vary"sv,
                                            "warning"sv,
                                            "www-authenticate"sv,
                                            "www-authorization"sv};
  if (field.hop_by_hop) return false;
  // Ours are never taken from a body's end, whoever wrote them.
  if (field.name.size() >= 9 && equals_ignoring_case(field.name.substr(0, 9), "penstock-")) return false;
  switch (field.id) {
    case FieldId::other:
      return std::ranges::none_of(kForbidden,
                                  [&](auto name) { return equals_ignoring_case(name, field.name); });
    case FieldId::via:
    case FieldId::server: return true;
    default: return false;
  }
}

}  // namespace

void ChunkDecoder::reset() noexcept {
  state_ = State::size_start;
  remaining_ = 0;
  line_bytes_ = 0;
  overhead_ = 0;
  trailer_bytes_ = 0;
  line_start_ = 0;
  what_ = {};
  trailers_.clear();
}

void ChunkDecoder::fail(std::string_view what) noexcept {
  state_ = State::failed;
  what_ = what;
}

ChunkDecoder::Step ChunkDecoder::decode(char* data, std::size_t size) {
  Step step;
  while (step.consumed < size && state_ != State::done && state_ != State::failed) {
    if (state_ == State::data) {
      const auto take = static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, size - step.consumed));
      if (step.payload != step.consumed) std::memmove(data + step.payload, data + step.consumed, take);
      step.payload += take;
      step.consumed += take;
      remaining_ -= take;
      if (remaining_ == 0) state_ = State::data_cr;
    } else if (state_ == State::trailers) {
      step.consumed += read_trailers({data + step.consumed, size - step.consumed});
    } else {
      const char c = data[step.consumed++];
      if (state_ == State::data_cr) {
        c == '\r' ? void(state_ = State::data_lf) : fail("chunk data is not followed by CRLF");
      } else if (state_ == State::data_lf) {
        c == '\n' ? void(state_ = State::size_start) : fail("chunk data is not followed by CRLF");
      } else {
        read_size(c);
      }
    }
  }
  step.done = state_ == State::done;
  step.failed = state_ == State::failed;
  step.what = what_;
  return step;
}

/// One byte of a chunk line: 1*HEXDIG [ ";" anything but controls ] CRLF. Blanks before ';' are refused too.
void ChunkDecoder::read_size(char c) noexcept {
  if (++line_bytes_ > kMaxChunkLine) return fail("the chunk line is too long");
  if (state_ == State::size_start || state_ == State::size) {
    const int digit = hex_value(c);
    if (digit >= 0) {
      remaining_ = remaining_ << 4 | static_cast<std::uint64_t>(digit);
      state_ = State::size;
      if (line_bytes_ > kMaxSizeDigits || remaining_ >> 63 != 0) fail("the chunk size is too large");
      return;
    }
    if (state_ == State::size && c == ';') {
      state_ = State::extension;
      return;
    }
    if (state_ == State::size && c == '\r') {
      state_ = State::size_end;
      return;
    }
    return fail("invalid chunk size");
  }
  if (state_ == State::extension) {
    if (c == '\r') {
      state_ = State::size_end;
    } else if (is_control(c)) {
      fail("control character in a chunk extension");
    }
    return;
  }
  c == '\n' ? end_size_line() : fail("the chunk line does not end with CRLF");
}

void ChunkDecoder::end_size_line() noexcept {
  const std::uint64_t allowance = 16 + 2 * std::min<std::uint64_t>(remaining_, kMaxOverhead);
  overhead_ += line_bytes_;
  overhead_ -= std::min(overhead_, allowance);
  if (overhead_ > kMaxOverhead) return fail("too much chunk framing for the payload");
  line_bytes_ = 0;
  state_ = remaining_ == 0 ? State::trailers : State::data;
}

/// Takes bytes up to the end of one trailer line, or all of them.
std::size_t ChunkDecoder::read_trailers(std::string_view bytes) {
  const std::size_t feed = bytes.find('\n');
  const std::size_t take = feed == std::string_view::npos ? bytes.size() : feed + 1;
  if (trailer_bytes_ + take > kMaxTrailers) {
    trailers_.resize(line_start_);
    fail("the trailer section is too long");
    return take;
  }
  trailer_bytes_ += take;
  trailers_.append(bytes.substr(0, take));
  if (feed != std::string_view::npos) end_trailer_line();
  return take;
}

void ChunkDecoder::end_trailer_line() {
  std::string_view line = std::string_view(trailers_).substr(line_start_);
  if (!line.ends_with("\r\n")) {
    trailers_.resize(line_start_);
    return fail("bare line feed");
  }
  line.remove_suffix(2);
  if (line.empty()) {
    trailers_.resize(line_start_);
    state_ = State::done;
    return;
  }
  Field field;
  const char* what =
      std::ranges::any_of(line, is_control) ? "control character" : split_field_line(line, field);
  std::string kept;
  if (what == nullptr && may_be_trailer(field)) append_field(kept, field.name, field.value);
  trailers_.resize(line_start_);
  trailers_ += kept;
  line_start_ = trailers_.size();
  if (what != nullptr) fail(what);
}

}  // namespace penstock::http
