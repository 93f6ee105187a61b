#include "http/client.hpp"

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "http/address.hpp"

namespace penstock::http {
namespace {

constexpr asio::use_awaitable_t<Executor> kAwait{};
constexpr std::size_t kBuffer = 16 * 1024;
/// An idle connection that was used a moment ago may be taken as it is; an older one is first asked whether
/// the peer has ended it.
constexpr milliseconds kTrusted{50};

}  // namespace

UpstreamConnection::UpstreamConnection(Socket socket, DeadlineWatch& watch, const Upstream& upstream)
    : transport_(std::move(socket), watch), upstream_(&upstream) {
  if (upstream.open != nullptr) upstream.open->add(1);
  if (upstream.opened != nullptr) upstream.opened->add();
}

UpstreamConnection::~UpstreamConnection() {
  if (upstream_->open != nullptr) upstream_->open->add(-1);
}

std::optional<UpstreamFault> UpstreamConnection::try_send(std::span<const std::string_view> pieces) {
  std::size_t total = 0;
  for (const std::string_view piece : pieces) total += piece.size();
  error_code error;
  sent_ = transport_.try_write(pieces, error);
  if (error) {
    spoilt_ = true;
    return UpstreamFault::closed;
  }
  if (sent_ == total) return UpstreamFault::none;
  return std::nullopt;
}

Awaitable<UpstreamFault> UpstreamConnection::send_rest(std::span<const std::string_view> pieces,
                                                       MonotonicTime deadline) {
  error_code error;
  transport_.set_deadline(deadline);
  co_await transport_.write_rest(pieces, sent_, error);
  const bool timed_out = transport_.timed_out();
  transport_.clear_deadline();
  if (!error) co_return UpstreamFault::none;
  spoilt_ = true;
  co_return timed_out ? UpstreamFault::timeout : UpstreamFault::closed;
}

Awaitable<UpstreamFault> UpstreamConnection::send(std::span<const std::string_view> pieces,
                                                  MonotonicTime deadline) {
  if (const auto fault = try_send(pieces)) co_return *fault;
  co_return co_await send_rest(pieces, deadline);
}

void UpstreamConnection::grow() {
  const std::size_t bigger = capacity_ == 0 ? kBuffer : capacity_ * 2;
  auto data = std::make_unique_for_overwrite<char[]>(bigger);
  if (end_ > begin_) std::memcpy(data.get(), data_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  data_ = std::move(data);
  capacity_ = bigger;
}

Awaitable<UpstreamError> UpstreamConnection::read_head(ResponseHead& head, bool to_head,
                                                       MonotonicTime deadline) {
  for (;;) {
    if (end_ > begin_) {
      const ParseResult result = parse_response_head({data_.get() + begin_, end_ - begin_},
                                                     upstream_->max_head_bytes, to_head, head);
      if (result.state == ParseState::failed) {
        spoilt_ = true;
        co_return UpstreamError{UpstreamFault::invalid, std::string(result.error.what)};
      }
      if (result.state == ParseState::done) {
        begin_ += result.consumed;
        body_ = head.body;
        body_left_ = head.content_length;
        keep_alive_ = head.keep_alive;
        body_done_ = body_ == BodyKind::none || (body_ == BodyKind::length && body_left_ == 0);
        chunks_.reset();  // also forgets the trailers of the answer before
        if (head.status >= 100 && head.status < 200) body_done_ = false;
        co_return UpstreamError{};
      }
    }
    if (end_ == capacity_) {
      if (begin_ > 0 && begin_ == end_)
        begin_ = end_ = 0;
      else
        grow();
    }
    error_code error;
    transport_.set_deadline(deadline);
    const std::size_t got = co_await transport_.read_some(data_.get() + end_, capacity_ - end_, error);
    const bool timed_out = transport_.timed_out();
    transport_.clear_deadline();
    if (error) {
      spoilt_ = spoilt_ || timed_out || error != asio::error::operation_aborted;
      if (timed_out) co_return UpstreamError{UpstreamFault::timeout, "no answer in time"};
      co_return UpstreamError{UpstreamFault::closed, end_ > begin_
                                                         ? "closed inside the head of the answer"
                                                         : "closed without an answer: " + error.message()};
    }
    end_ += got;
  }
}

UpstreamConnection::Piece UpstreamConnection::take_body() {
  Piece piece;
  switch (body_) {
    case BodyKind::none: break;
    case BodyKind::length: {
      const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(body_left_, end_ - begin_));
      piece.data = {data_.get() + begin_, size};
      begin_ += size;
      body_left_ -= size;
      body_done_ = body_left_ == 0;
      break;
    }
    case BodyKind::chunked: {
      const ChunkDecoder::Step step = chunks_.decode(data_.get() + begin_, end_ - begin_);
      piece.data = {data_.get() + begin_, step.payload};
      begin_ += step.consumed;
      body_done_ = step.done;
      if (step.failed) {
        spoilt_ = true;
        piece.fault = UpstreamFault::invalid;
        piece.what = step.what;
      }
      break;
    }
    case BodyKind::until_close:
      piece.data = {data_.get() + begin_, end_ - begin_};
      begin_ = end_;
      break;
  }
  piece.done = body_done_;
  return piece;
}

UpstreamConnection::Piece UpstreamConnection::buffered_body() {
  if (body_done_) return {.data = {}, .done = true, .fault = UpstreamFault::none, .what = {}};
  if (begin_ == end_) return {};
  return take_body();
}

Awaitable<UpstreamConnection::Piece> UpstreamConnection::read_body(MonotonicTime deadline) {
  Piece piece = buffered_body();
  while (piece.data.empty() && !piece.done && piece.fault == UpstreamFault::none) {
    begin_ = end_ = 0;
    error_code error;
    transport_.set_deadline(deadline);
    const std::size_t got = co_await transport_.read_some(data_.get(), capacity_, error);
    const bool timed_out = transport_.timed_out();
    transport_.clear_deadline();
    if (error) {
      if (error == asio::error::eof && body_ == BodyKind::until_close) {
        body_done_ = true;
        piece.done = true;
        break;
      }
      spoilt_ = true;
      piece.fault = timed_out ? UpstreamFault::timeout : UpstreamFault::closed;
      piece.what = timed_out ? "no more of the answer in time" : "closed inside the answer";
      break;
    }
    end_ = got;
    piece = take_body();
  }
  co_return piece;
}

UpstreamPool::UpstreamPool(asio::io_context& io, DeadlineWatch& watch, Upstream upstream)
    : io_(io), watch_(watch), upstream_(std::move(upstream)) {}

UpstreamPool::~UpstreamPool() = default;

std::unique_ptr<UpstreamConnection> UpstreamPool::try_idle(MonotonicTime now, Trust trust) noexcept {
  while (!idle_.empty()) {
    auto connection = std::move(idle_.back());
    idle_.pop_back();
    const bool asks = trust == Trust::asking || now - connection->idle_since_ > kTrusted;
    if (asks && connection->transport_.has_something_to_read()) continue;
    ++connection->uses_;
    return connection;
  }
  return nullptr;
}

Awaitable<UpstreamPool::Lease> UpstreamPool::acquire(Want want, MonotonicTime deadline) {
  using namespace asio::experimental::awaitable_operators;
  const MonotonicTime now = std::chrono::steady_clock::now();
  if (want == Want::any)
    if (auto connection = try_idle(now, Trust::asking)) co_return Lease{std::move(connection), {}};
  Timer timer(io_);
  timer.expires_at(std::min(deadline, now + upstream_.connect_timeout));
  error_code ignored;
  auto either = co_await (connect() || timer.async_wait(asio::redirect_error(kAwait, ignored)));
  if (either.index() == 1)
    co_return Lease{nullptr, {UpstreamFault::unreachable, "no connection to " + upstream_.host + " in time"}};
  Lease lease = std::move(std::get<0>(either));
  if (lease.connection) ++lease.connection->uses_;
  co_return lease;
}

Awaitable<UpstreamPool::Lease> UpstreamPool::connect() {
  error_code error;
  const auto failed = [this](std::string_view step, const std::string& what) {
    return Lease{nullptr,
                 {UpstreamFault::unreachable, std::string(step) + " " + upstream_.host + ": " + what}};
  };
  std::vector<asio::ip::tcp::endpoint> endpoints;
  if (const auto literal = asio::ip::make_address(upstream_.host, error); !error) {
    endpoints.emplace_back(literal, upstream_.port);
  } else {
    asio::ip::basic_resolver<asio::ip::tcp, Executor> resolver(io_);
    const auto found = co_await resolver.async_resolve(upstream_.host, std::to_string(upstream_.port),
                                                       asio::ip::resolver_base::numeric_service,
                                                       asio::redirect_error(kAwait, error));
    if (error) co_return failed("resolve", error.message());
    for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  }
  // The address that was classified is the one that is connected to: no second look-up in between.
  std::string last = "no address";
  for (const asio::ip::tcp::endpoint& endpoint : endpoints) {
    if (!upstream_.allow_private && !is_public(endpoint.address())) {
      last = endpoint.address().to_string() + " is not a public address; allow_private: true permits it";
      continue;
    }
    Socket socket(io_);
    co_await socket.async_connect(endpoint, asio::redirect_error(kAwait, error));
    if (error) {
      last = error.message();
      continue;
    }
    auto connection = std::make_unique<UpstreamConnection>(std::move(socket), watch_, upstream_);
    if (upstream_.tls) {
      Transport& transport = connection->transport_;
      transport.use_tls(*upstream_.tls);
      SSL* const tls = transport.native_tls();
      SSL_set_hostflags(tls, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
      error_code not_an_address;
      asio::ip::make_address(upstream_.server_name, not_an_address);
      if (not_an_address) {
        SSL_set_tlsext_host_name(tls, upstream_.server_name.c_str());
        SSL_set1_host(tls, upstream_.server_name.c_str());
      } else {
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), upstream_.server_name.c_str());
      }
      co_await transport.handshake(asio::ssl::stream_base::client, error);
      if (error) {
        last = "TLS: " + error.message();
        continue;
      }
    }
    connection->grow();
    co_return Lease{std::move(connection), {}};
  }
  co_return failed("connect to", last);
}

void UpstreamPool::release(std::unique_ptr<UpstreamConnection> connection, MonotonicTime now) noexcept {
  if (!connection || !connection->reusable() || idle_.size() >= upstream_.max_idle) return;
  connection->idle_since_ = now;
  connection->begin_ = connection->end_ = 0;
  idle_.push_back(std::move(connection));
}

void UpstreamPool::sweep(MonotonicTime now) noexcept {
  // Oldest first: the vector is in the order of release.
  const auto fresh = std::ranges::find_if(
      idle_, [&](const auto& connection) { return now - connection->idle_since_ < upstream_.idle_timeout; });
  idle_.erase(idle_.begin(), fresh);
}

}  // namespace penstock::http
