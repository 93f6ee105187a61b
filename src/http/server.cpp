#include "http/server.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace penstock::http {
namespace {

constexpr asio::use_awaitable_t<Executor> kAwait{};
constexpr std::size_t kFirstBuffer = 4 * 1024;
/// A response to a request whose body was not read: so much of it is read and thrown away to keep the
/// connection; beyond it, the connection ends.
constexpr std::uint64_t kMaxDiscardedBody = 64 * 1024;
/// After a response that ends the connection, the client gets so long to read it before a reset can destroy
/// it.
constexpr milliseconds kLinger{500};
constexpr int kBacklog = 4096;

std::unexpected<Error> cannot_listen(std::string_view step, const asio::ip::tcp::endpoint& endpoint,
                                     const error_code& error) {
  return refuse(Reason::gateway_error, "cannot listen",
                std::string(step) + " " + endpoint.address().to_string() + ":" +
                    std::to_string(endpoint.port()) + ": " + error.message());
}

}  // namespace

/// One client's connection, from accept to close.
class Connection
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  Connection(Server& server, Socket socket, std::string peer)
      : server_(server),
        shared_(server.shared_),
        transport_(std::move(socket), server.watch_),
        peer_(std::move(peer)) {
    if (shared_.open != nullptr) shared_.open->add(1);
    if (shared_.opened != nullptr) shared_.opened->add();
  }
  ~Connection() {
    // When an io_context is destroyed with running calls in it, its server is gone already.
    if (shared_.open != nullptr) shared_.open->add(-1);
    shared_.connections.fetch_sub(1, std::memory_order_relaxed);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  /// Closes it at once between two calls, else after the one that runs.
  void drain() noexcept {
    if (idle_)
      transport_.cancel();
    else if (exchange_ != nullptr)
      exchange_->close_after();
  }

  static Awaitable<void> run_owned(std::unique_ptr<Connection> self) { co_await self->run(); }

  Awaitable<void> run() {
    if (shared_.tls) {
      error_code error;
      transport_.use_tls(*shared_.tls);
      transport_.set_deadline(std::chrono::steady_clock::now() + shared_.options.header_timeout);
      co_await transport_.handshake(asio::ssl::stream_base::server, error);
      transport_.clear_deadline();
      if (error) co_return;
    }
    in_.grow(kFirstBuffer);
    Exchange exchange(transport_, in_, out_, shared_.options);
    exchange.peer = peer_;
    exchange_ = &exchange;
    while (co_await read_head(exchange)) {
      co_await shared_.handler.handle(exchange, server_.worker_);
      if (!exchange.finished() && !exchange.client_gone())
        exchange.close_after();  // cut: the client must see it
      if (exchange.body_finished() && exchange.keeps_alive() && exchange.body_rest_.empty())
        in_.compact();
      else if (!co_await end_request(exchange))
        break;
    }
    exchange_ = nullptr;
    if (lingers_) co_await linger();
  }

 private:
  /// Reads until a head is complete. False: the connection ends.
  Awaitable<bool> read_head(Exchange& exchange) {
    const ServerOptions& options = shared_.options;
    bool begun = in_.end > in_.begin;
    MonotonicTime head_deadline = MonotonicTime::max();
    for (;;) {
      if (in_.end > in_.begin) {
        const ParseResult result = parse_request_head(in_.view(), options.max_header_bytes, exchange.request);
        if (result.state == ParseState::done) {
          in_.begin += result.consumed;
          exchange.start_request(read_clocks());
          if (server_.draining_) exchange.close_after();
          co_return true;
        }
        if (result.state == ParseState::failed) {
          co_await refuse(result.error);
          co_return false;
        }
      }
      if (in_.space() == 0) {
        if (in_.begin > 0)
          in_.compact();
        else
          in_.grow(in_.capacity * 2);  // bounded: the parser fails heads above max_header_bytes
      }
      const MonotonicTime now = std::chrono::steady_clock::now();
      if (begun && head_deadline == MonotonicTime::max()) head_deadline = now + options.header_timeout;
      if (!begun && server_.draining_) co_return false;
      idle_ = !begun;
      transport_.set_deadline(begun ? head_deadline : now + options.idle_timeout);
      error_code error;
      const std::size_t got = co_await transport_.read_some(in_.data.get() + in_.end, in_.space(), error);
      idle_ = false;
      const bool timed_out = transport_.timed_out();
      transport_.clear_deadline();
      if (error) {
        if (timed_out && begun) co_await refuse({.status = 408, .what = "the request head took too long"});
        co_return false;
      }
      in_.end += got;
      begun = true;
    }
  }

  Awaitable<void> refuse(FramingError error) {
    out_.clear();
    shared_.handler.on_bad_request(error, out_);
    const std::string_view pieces[] = {out_};
    error_code failed;
    const std::size_t written = transport_.try_write(pieces, failed);
    if (!failed && written < out_.size()) {
      transport_.set_deadline(std::chrono::steady_clock::now() + shared_.options.write_timeout);
      co_await transport_.write_rest(pieces, written, failed);
      transport_.clear_deadline();
    }
    lingers_ = !failed;
  }

  /// Gets the connection ready for the next request. False: it ends.
  Awaitable<bool> end_request(Exchange& exchange) {
    if (!exchange.keeps_alive() || exchange.client_gone()) {
      // Bytes that nobody read would make the kernel reset the connection before the client has the answer.
      lingers_ = !exchange.client_gone() &&
                 (!exchange.body_finished() || in_.end > in_.begin || !exchange.body_rest_.empty());
      co_return false;
    }
    while (!exchange.body_finished()) {
      if (exchange.body_bytes() > kMaxDiscardedBody ||
          (exchange.request.body == BodyKind::length &&
           exchange.request.content_length > kMaxDiscardedBody)) {
        lingers_ = true;
        co_return false;
      }
      const BodyPiece piece = co_await exchange.read_body();
      if (piece.fault != BodyFault::none) co_return false;
    }
    if (!exchange.body_rest_.empty()) {
      // Part of the next request came with the end of a streamed chunked body.
      in_.begin = in_.end = 0;
      if (exchange.body_rest_.size() > in_.capacity) in_.grow(exchange.body_rest_.size());
      std::memcpy(in_.data.get(), exchange.body_rest_.data(), exchange.body_rest_.size());
      in_.end = exchange.body_rest_.size();
    }
    in_.compact();
    co_return true;
  }

  /// Ends our side and reads for a while, so that the client can read the response although it was still
  /// sending (RFC 9112 9.6).
  Awaitable<void> linger() {
    error_code error;
    transport_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
    const MonotonicTime end = std::chrono::steady_clock::now() + kLinger;
    in_.begin = in_.end = 0;
    while (!error) {
      transport_.set_deadline(end);
      co_await transport_.socket().async_read_some(asio::buffer(in_.data.get(), in_.capacity),
                                                   asio::redirect_error(kAwait, error));
      if (std::chrono::steady_clock::now() >= end) break;
    }
  }

  Server& server_;
  Server::Shared& shared_;
  Transport transport_;
  std::string peer_;
  InBuffer in_;
  std::string out_;
  Exchange* exchange_ = nullptr;  ///< run()'s, while there is one
  bool idle_ = false;
  bool lingers_ = false;
};

struct Server::Connections {
  boost::intrusive::list<Connection, boost::intrusive::constant_time_size<false>> list;
};

Server::Server(asio::io_context& io, DeadlineWatch& watch, Shared& shared, std::size_t worker)
    : io_(io),
      watch_(watch),
      shared_(shared),
      worker_(worker),
      acceptor_(io),
      connections_(new Connections) {}

Server::~Server() { connections_->list.clear(); }

Result<void> Server::check_free(const asio::ip::tcp::endpoint& endpoint) {
  boost::asio::io_context io;
  asio::basic_socket_acceptor<asio::ip::tcp, Executor> acceptor(io);
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);  // but not the port
  if (!error) acceptor.bind(endpoint, error);
  if (error) return cannot_listen("bind", endpoint, error);
  return {};
}

Result<asio::ip::tcp::endpoint> Server::listen(const asio::ip::tcp::endpoint& endpoint) {
  error_code error;
  const auto failed = [&](std::string_view step) { return cannot_listen(step, endpoint, error); };
  using ReusePort = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
  if (acceptor_.open(endpoint.protocol(), error)) return failed("open");
  acceptor_.set_option(asio::socket_base::reuse_address(true), error);
  if (acceptor_.set_option(ReusePort(true), error)) return failed("share");
  if (acceptor_.bind(endpoint, error)) return failed("bind");
  if (acceptor_.listen(kBacklog, error)) return failed("listen on");
  return acceptor_.local_endpoint();
}

void Server::start() { asio::co_spawn(io_, accept_loop(), asio::detached); }

Awaitable<void> Server::accept_loop() {
  while (!draining_) {
    error_code error;
    asio::ip::tcp::endpoint peer;
    Socket socket = co_await acceptor_.async_accept(peer, asio::redirect_error(kAwait, error));
    if (draining_) break;
    if (error) {
      if (error == asio::error::operation_aborted) break;
      // Out of descriptors or memory: give the others time to end instead of spinning.
      Timer pause(io_);
      pause.expires_after(milliseconds{50});
      co_await pause.async_wait(asio::redirect_error(kAwait, error));
      continue;
    }
    if (shared_.connections.fetch_add(1, std::memory_order_relaxed) >= shared_.max_connections) {
      shared_.connections.fetch_sub(1, std::memory_order_relaxed);
      continue;  // closed by its destructor
    }
    auto connection = std::make_unique<Connection>(*this, std::move(socket), peer.address().to_string());
    connections_->list.push_back(*connection);
    asio::co_spawn(io_, Connection::run_owned(std::move(connection)), asio::detached);
  }
}

void Server::drain() {
  draining_ = true;
  error_code ignored;
  acceptor_.close(ignored);
  for (Connection& connection : connections_->list) connection.drain();
}

bool Server::idle() const noexcept { return connections_->list.empty(); }

}  // namespace penstock::http
