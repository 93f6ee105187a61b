#pragma once

#include <memory>
#include <span>
#include <string_view>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/intrusive/list.hpp>

#include "base/async.hpp"
#include "base/time.hpp"

namespace penstock::http {

namespace asio = boost::asio;
using boost::system::error_code;
using Socket = asio::basic_stream_socket<asio::ip::tcp, Executor>;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

class Transport;

/// Ends the waits of one worker that have outlived their deadline. One timer a worker instead of one a wait:
/// arming a deadline is a store, so that every read and write can have one. Deadlines are kept to kTick.
class DeadlineWatch {
 public:
  static constexpr milliseconds kTick{50};

  explicit DeadlineWatch(asio::io_context& io);
  ~DeadlineWatch();
  DeadlineWatch(const DeadlineWatch&) = delete;
  DeadlineWatch& operator=(const DeadlineWatch&) = delete;

  /// Calls itself every kTick until stop().
  void start();
  void stop();
  void add(Transport& transport) noexcept;

 private:
  void tick();

  Timer timer_;
  boost::intrusive::list<Transport, boost::intrusive::constant_time_size<false>>* transports_;
  bool running_ = false;
};

/// A TCP connection, with TLS or without. Owned by one coroutine of one worker.
///
/// A wait that outlives its deadline ends with operation_aborted and `timed_out()`. The caller closes it
/// then.
class Transport
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  Transport(Socket socket, DeadlineWatch& watch);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  void use_tls(asio::ssl::context& context);  ///< before the handshake
  [[nodiscard]] Awaitable<void> handshake(asio::ssl::stream_base::handshake_type type, error_code& error);
  [[nodiscard]] SSL* native_tls() noexcept { return tls_ ? tls_->native_handle() : nullptr; }

  /// At least one byte, or an error (eof included).
  [[nodiscard]] Awaitable<std::size_t> read_some(char* data, std::size_t size, error_code& error);

  /// Writes all pieces (at most 8) if the kernel takes them at once; else says how much it took. Sets `error`
  /// when the peer is gone. TLS never writes at once.
  [[nodiscard]] std::size_t try_write(std::span<const std::string_view> pieces, error_code& error) noexcept;
  /// Writes what comes after the first `written` bytes of the pieces.
  [[nodiscard]] Awaitable<void> write_rest(std::span<const std::string_view> pieces, std::size_t written,
                                           error_code& error);

  void set_deadline(MonotonicTime at) noexcept { deadline_ = at; }
  void clear_deadline() noexcept { deadline_ = MonotonicTime::max(); }
  [[nodiscard]] bool timed_out() const noexcept { return timed_out_; }

  /// Bytes or an end that nobody asked for: an idle connection in this state is of no use.
  [[nodiscard]] bool has_something_to_read() noexcept;
  /// The peer has ended the connection or its side of it, whatever it sent before that and nobody has read.
  [[nodiscard]] bool peer_has_left() noexcept;
  [[nodiscard]] Socket& socket() noexcept { return socket_; }
  void cancel() noexcept;  ///< ends the waits of now
  /// Sends what is left in the kernel's buffer and closes. `linger`: lets the peer read it although bytes of
  /// its own are unread.
  void close() noexcept;

 private:
  friend class DeadlineWatch;
  Socket socket_;
  std::unique_ptr<asio::ssl::stream<Socket&>> tls_;
  MonotonicTime deadline_ = MonotonicTime::max();
  bool timed_out_ = false;
};

}  // namespace penstock::http
