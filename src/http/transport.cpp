#include "http/transport.hpp"

#include <array>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/container/static_vector.hpp>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace penstock::http {
namespace {

constexpr asio::use_awaitable_t<Executor> kAwait{};
constexpr std::size_t kMaxPieces = 8;

using TransportList = boost::intrusive::list<Transport, boost::intrusive::constant_time_size<false>>;

}  // namespace

DeadlineWatch::DeadlineWatch(asio::io_context& io) : timer_(io), transports_(new TransportList) {}

DeadlineWatch::~DeadlineWatch() {
  transports_->clear();
  delete transports_;
}

void DeadlineWatch::start() {
  running_ = true;
  timer_.expires_after(kTick);
  timer_.async_wait([this](error_code error) {
    if (error || !running_) return;
    tick();
    start();
  });
}

void DeadlineWatch::stop() {
  running_ = false;
  timer_.cancel();
}

void DeadlineWatch::add(Transport& transport) noexcept { transports_->push_back(transport); }

void DeadlineWatch::tick() {
  const MonotonicTime now = std::chrono::steady_clock::now();
  for (Transport& transport : *transports_) {
    if (transport.deadline_ > now) continue;
    transport.timed_out_ = true;
    transport.clear_deadline();
    transport.cancel();
  }
}

Transport::Transport(Socket socket, DeadlineWatch& watch) : socket_(std::move(socket)) {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.native_non_blocking(true, ignored);
  watch.add(*this);
}

Transport::~Transport() { close(); }

void Transport::use_tls(asio::ssl::context& context) {
  tls_ = std::make_unique<asio::ssl::stream<Socket&>>(socket_, context);
}

Awaitable<void> Transport::handshake(asio::ssl::stream_base::handshake_type type, error_code& error) {
  return tls_->async_handshake(type, asio::redirect_error(kAwait, error));
}

Awaitable<std::size_t> Transport::read_some(char* data, std::size_t size, error_code& error) {
  if (tls_) return tls_->async_read_some(asio::buffer(data, size), asio::redirect_error(kAwait, error));
  return socket_.async_read_some(asio::buffer(data, size), asio::redirect_error(kAwait, error));
}

std::size_t Transport::try_write(std::span<const std::string_view> pieces, error_code& error) noexcept {
  if (tls_) return 0;
  std::array<iovec, kMaxPieces> parts;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled below
  std::size_t count = 0;
  for (const std::string_view piece : pieces)
    if (!piece.empty()) parts[count++] = {const_cast<char*>(piece.data()), piece.size()};
  if (count == 0) return 0;
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  for (;;) {
    const ssize_t sent = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) error.assign(errno, boost::system::system_category());
    return 0;
  }
}

Awaitable<void> Transport::write_rest(std::span<const std::string_view> pieces, std::size_t written,
                                      error_code& error) {
  boost::container::static_vector<asio::const_buffer, kMaxPieces> rest;
  for (const std::string_view piece : pieces) {
    const std::size_t skip = std::min(written, piece.size());
    written -= skip;
    if (skip < piece.size()) rest.push_back(asio::buffer(piece.data() + skip, piece.size() - skip));
  }
  if (rest.empty()) co_return;
  if (tls_)
    co_await asio::async_write(*tls_, rest, asio::redirect_error(kAwait, error));
  else
    co_await asio::async_write(socket_, rest, asio::redirect_error(kAwait, error));
}

bool Transport::has_something_to_read() noexcept {
  char byte = 0;
  const ssize_t n = ::recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

bool Transport::peer_has_left() noexcept {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  return info.tcpi_state != TCP_ESTABLISHED;
}

void Transport::cancel() noexcept {
  error_code ignored;
  socket_.cancel(ignored);
}

void Transport::close() noexcept {
  error_code ignored;
  socket_.close(ignored);
}

}  // namespace penstock::http
