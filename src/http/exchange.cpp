#include "http/exchange.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace penstock::http {
namespace {

/// Streamed bodies pass through a buffer of this size, both ways: what bounds a call's memory.
constexpr std::size_t kBodyBuffer = 16 * 1024;

}  // namespace

void InBuffer::grow(std::size_t new_capacity) {
  auto bigger = std::make_unique_for_overwrite<char[]>(new_capacity);
  if (end > begin) std::memcpy(bigger.get(), data.get() + begin, end - begin);
  end -= begin;
  begin = 0;
  data = std::move(bigger);
  capacity = new_capacity;
}

void InBuffer::compact() noexcept {
  if (begin == end) {
    begin = end = 0;
  } else if (begin > 0) {
    std::memmove(data.get(), data.get() + begin, end - begin);
    end -= begin;
    begin = 0;
  }
}

Exchange::Exchange(Transport& transport, InBuffer& in, std::string& out, const ServerOptions& options)
    : transport_(transport), in_(in), out_(out), options_(options) {}

void Exchange::start_request(Now now) {
  arrived = now;
  chunks_.reset();
  body_left_ = request.body == BodyKind::length ? request.content_length : 0;
  body_bytes_ = 0;
  whole_body_.clear();
  body_rest_.clear();
  status_ = 0;
  framing_ = Framing::none;
  bytes_sent_ = 0;
  response_left_ = 0;
  body_done_ = request.body == BodyKind::none || (request.body == BodyKind::length && body_left_ == 0);
  continue_pending_ = request.expects_continue && !body_done_;
  begun_ = head_sent_ = finished_ = client_gone_ = false;
  keep_alive_ = request.keep_alive;
}

Awaitable<bool> Exchange::write(std::span<const std::string_view> pieces) {
  if (client_gone_) co_return false;
  std::size_t total = 0;
  for (const std::string_view piece : pieces) total += piece.size();
  error_code error;
  const std::size_t written = transport_.try_write(pieces, error);
  if (!error && written < total) {
    transport_.set_deadline(std::chrono::steady_clock::now() + options_.write_timeout);
    co_await transport_.write_rest(pieces, written, error);
    transport_.clear_deadline();
  }
  if (error) {
    client_gone_ = true;
    keep_alive_ = false;
    co_return false;
  }
  bytes_sent_ += total;
  co_return true;
}

Awaitable<bool> Exchange::send_continue() {
  continue_pending_ = false;
  static constexpr std::string_view kContinue[] = {"HTTP/1.1 100 Continue\r\n\r\n"};
  const bool sent = co_await write(kContinue);
  bytes_sent_ = 0;
  co_return sent;
}

Awaitable<bool> Exchange::send_interim(std::string_view head) {
  if (request.minor_version == 0) co_return true;
  const std::string_view pieces[] = {head};
  const bool sent = co_await write(pieces);
  bytes_sent_ = 0;
  co_return sent;
}

bool Exchange::try_send_interim(std::string_view head) {
  if (request.minor_version == 0 || client_gone_) return true;
  error_code error;
  const std::string_view pieces[] = {head};
  const std::size_t written = transport_.try_write(pieces, error);
  if (error || (written > 0 && written < head.size())) {
    client_gone_ = true;
    keep_alive_ = false;
    return true;
  }
  return written > 0;
}

Awaitable<bool> Exchange::fill(char* data, std::size_t size, std::size_t& got, BodyFault& fault) {
  error_code error;
  transport_.set_deadline(std::chrono::steady_clock::now() + options_.body_timeout);
  got = co_await transport_.read_some(data, size, error);
  const bool timed_out = transport_.timed_out();
  transport_.clear_deadline();
  if (!error) co_return true;
  keep_alive_ = false;
  fault = timed_out ? BodyFault::timeout : BodyFault::client_gone;
  co_return false;
}

/// What of the body came together with the head.
BodyPiece Exchange::take_buffered() {
  BodyPiece piece;
  if (request.body == BodyKind::length) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(body_left_, in_.end - in_.begin));
    piece.data = {in_.data.get() + in_.begin, size};
    in_.begin += size;
    body_left_ -= size;
    body_done_ = body_left_ == 0;
  } else {
    const ChunkDecoder::Step step = chunks_.decode(in_.data.get() + in_.begin, in_.end - in_.begin);
    piece.data = {in_.data.get() + in_.begin, step.payload};
    in_.begin += step.consumed;
    body_done_ = step.done;
    if (step.failed) {
      piece.fault = BodyFault::invalid;
      piece.what = step.what;
    }
  }
  body_bytes_ += piece.data.size();
  piece.done = body_done_;
  return piece;
}

Awaitable<BodyPiece> Exchange::read_body() {
  if (body_done_) co_return BodyPiece{.data = {}, .done = true, .fault = BodyFault::none, .what = {}};
  BodyPiece piece;
  if (request.body == BodyKind::length && request.content_length > options_.max_body_bytes) {
    piece.fault = BodyFault::too_large;
    keep_alive_ = false;
    co_return piece;
  }
  if (in_.end > in_.begin) {
    piece = take_buffered();
  }
  while (piece.data.empty() && !piece.done && piece.fault == BodyFault::none) {
    if (continue_pending_ && !co_await send_continue()) {
      piece.fault = BodyFault::client_gone;
      break;
    }
    if (!body_buffer_) body_buffer_ = std::make_unique_for_overwrite<char[]>(kBodyBuffer);
    std::size_t want = kBodyBuffer;
    if (request.body == BodyKind::length)
      want = static_cast<std::size_t>(std::min<std::uint64_t>(want, body_left_));
    std::size_t got = 0;
    if (!co_await fill(body_buffer_.get(), want, got, piece.fault)) break;
    if (request.body == BodyKind::length) {
      piece.data = {body_buffer_.get(), got};
      body_left_ -= got;
      body_done_ = body_left_ == 0;
    } else {
      const ChunkDecoder::Step step = chunks_.decode(body_buffer_.get(), got);
      piece.data = {body_buffer_.get(), step.payload};
      body_done_ = step.done;
      if (step.failed) {
        piece.fault = BodyFault::invalid;
        piece.what = step.what;
      } else if (step.done && step.consumed < got) {
        body_rest_.assign(body_buffer_.get() + step.consumed, got - step.consumed);
      }
    }
    body_bytes_ += piece.data.size();
    piece.done = body_done_;
  }
  if (piece.fault == BodyFault::none && body_bytes_ > options_.max_body_bytes)
    piece.fault = BodyFault::too_large;
  if (piece.fault != BodyFault::none) keep_alive_ = false;
  co_return piece;
}

std::optional<std::string_view> Exchange::take_whole_body() {
  if (body_done_) return std::string_view{};
  if (request.body != BodyKind::length || body_left_ > in_.end - in_.begin ||
      body_left_ > options_.max_body_bytes)
    return std::nullopt;
  return take_buffered().data;
}

Awaitable<BodyPiece> Exchange::read_whole_body(std::uint64_t max_bytes) {
  max_bytes = std::min(max_bytes, options_.max_body_bytes);
  BodyPiece piece;
  if (request.body == BodyKind::length && request.content_length > max_bytes) {
    piece.fault = BodyFault::too_large;
    keep_alive_ = false;
    co_return piece;
  }
  piece = co_await read_body();
  if (piece.done || piece.fault != BodyFault::none) co_return piece;
  if (request.body == BodyKind::length) whole_body_.reserve(request.content_length);
  for (;;) {
    whole_body_.append(piece.data);
    if (whole_body_.size() > max_bytes) {
      piece.fault = BodyFault::too_large;
      keep_alive_ = false;
    }
    if (piece.done || piece.fault != BodyFault::none) break;
    piece = co_await read_body();
  }
  piece.data = whole_body_;
  co_return piece;
}

void Exchange::begin_response(int status) {
  assert(!head_sent_);
  begun_ = true;
  status_ = status;
  out_.clear();
  append_status_line(out_, status);
}

void Exchange::end_head(std::optional<std::uint64_t> length, Body body) {
  if (body == Body::bodiless) {
    framing_ = Framing::none;
    if (length) append_number_field(out_, "Content-Length", *length);
  } else if (length) {
    framing_ = Framing::length;
    response_left_ = *length;
    append_number_field(out_, "Content-Length", *length);
  } else if (request.minor_version >= 1) {
    framing_ = Framing::chunked;
    out_.append("Transfer-Encoding: chunked\r\n");
  } else {
    framing_ = Framing::until_close;
    keep_alive_ = false;
  }
  // A body that nobody read would be taken for the next request.
  if (!body_done_ && continue_pending_) keep_alive_ = false;
  if (!keep_alive_)
    out_.append("Connection: close\r\n");
  else if (request.minor_version == 0)
    out_.append("Connection: keep-alive\r\n");
  out_.append("\r\n");
}

Awaitable<bool> Exchange::send(std::string_view piece) {
  char size[24];
  const std::string_view head = head_sent_ ? std::string_view{} : std::string_view{out_};
  head_sent_ = true;
  if (framing_ == Framing::none) piece = {};
  if (framing_ == Framing::length) {
    assert(piece.size() <= response_left_);
    response_left_ -= piece.size();
  }
  if (framing_ == Framing::chunked && !piece.empty()) {
    const std::string_view pieces[] = {head, {size, write_chunk_header(piece.size(), size)}, piece, "\r\n"};
    co_return co_await write(pieces);
  }
  const std::string_view pieces[] = {head, piece};
  co_return co_await write(pieces);
}

/// The end of a response: the head if it has not gone, the last piece, and what ends the body. `size`: 24
/// bytes for a chunk's header.
Exchange::Pieces Exchange::last_pieces(std::string_view piece, std::string_view trailers, char* size) {
  finished_ = true;
  Pieces pieces;
  if (!head_sent_) pieces.push_back(out_);
  head_sent_ = true;
  if (framing_ == Framing::none) return pieces;
  if (framing_ == Framing::length) {
    response_left_ -= piece.size();
    // Short of what was announced: the client must see that by the end of the connection.
    if (response_left_ != 0) keep_alive_ = false;
  }
  if (framing_ != Framing::chunked) {
    pieces.push_back(piece);
    return pieces;
  }
  if (piece.empty()) {
    pieces.push_back("0\r\n");
  } else {
    pieces.push_back({size, write_chunk_header(piece.size(), size)});
    pieces.push_back(piece);
    pieces.push_back("\r\n0\r\n");
  }
  pieces.push_back(trailers);
  pieces.push_back("\r\n");
  return pieces;
}

Awaitable<bool> Exchange::finish(std::string_view piece, std::string_view trailers) {
  char size[24];
  const Pieces pieces = last_pieces(piece, trailers, size);
  co_return co_await write(pieces);
}

bool Exchange::try_finish(std::string_view piece, std::string_view trailers) {
  char size[24];
  const Pieces pieces = last_pieces(piece, trailers, size);
  if (client_gone_) return true;
  error_code error;
  std::size_t written = transport_.try_write(pieces, error);
  if (error) {
    client_gone_ = true;
    keep_alive_ = false;
    return true;
  }
  bytes_sent_ += written;
  unwritten_.clear();
  for (const std::string_view each : pieces) {
    const std::size_t skip = std::min(written, each.size());
    written -= skip;
    unwritten_.append(each.substr(skip));
  }
  return unwritten_.empty();
}

Awaitable<bool> Exchange::flush() {
  const std::string_view pieces[] = {unwritten_};
  co_return co_await write(pieces);
}

}  // namespace penstock::http
