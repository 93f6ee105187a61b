#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/ssl/context.hpp>

#include "base/async.hpp"
#include "base/time.hpp"
#include "http/message.hpp"
#include "http/transport.hpp"
#include "observe/metrics.hpp"

namespace penstock::http {

/// Where a pool connects to. Destinations come only from the configuration.
struct Upstream {
  std::string host;  ///< name or address
  std::uint16_t port = 0;
  bool allow_private = false;
  std::shared_ptr<asio::ssl::context> tls;  ///< null: plain
  std::string server_name;                  ///< SNI and verified name
  milliseconds connect_timeout{5'000};
  std::size_t max_idle = 512;         ///< kept per worker
  milliseconds idle_timeout{30'000};  ///< shorter than what servers keep, so that few are found dead
  std::size_t max_head_bytes = 64 * 1024;
  observe::Gauge* open = nullptr;
  observe::Counter* opened = nullptr;
};

enum class UpstreamFault : std::uint8_t {
  none,
  unreachable,  ///< name, address policy, TCP or TLS: nothing was sent
  timeout,
  closed,   ///< the connection ended before the answer was whole
  invalid,  ///< the answer is not valid HTTP
};

/// `what` is for operators.
struct UpstreamError {
  UpstreamFault fault = UpstreamFault::none;
  std::string what;
};

/// One connection to a provider, used for one attempt at a time.
class UpstreamConnection {
 public:
  UpstreamConnection(Socket socket, DeadlineWatch& watch, const Upstream& upstream);
  ~UpstreamConnection();
  UpstreamConnection(const UpstreamConnection&) = delete;
  UpstreamConnection& operator=(const UpstreamConnection&) = delete;

  /// Writes all pieces (at most 8) by `deadline`.
  [[nodiscard]] Awaitable<UpstreamFault> send(std::span<const std::string_view> pieces,
                                              MonotonicTime deadline);
  /// The same where the kernel takes all at once, without a coroutine; nothing: call `send_rest` with the
  /// same pieces.
  [[nodiscard]] std::optional<UpstreamFault> try_send(std::span<const std::string_view> pieces);
  [[nodiscard]] Awaitable<UpstreamFault> send_rest(std::span<const std::string_view> pieces,
                                                   MonotonicTime deadline);
  /// Reads the next head, interim ones (1xx) included; views of `head` are valid until the next read. May run
  /// beside a send with the same deadline, and be cancelled: what was read is kept for the next time.
  [[nodiscard]] Awaitable<UpstreamError> read_head(ResponseHead& head, bool to_head, MonotonicTime deadline);
  /// Reads the next bytes of the body; they are views of this connection's buffer until the next read.
  struct Piece {
    std::string_view data;
    bool done = false;
    UpstreamFault fault = UpstreamFault::none;
    std::string_view what;
  };
  [[nodiscard]] Awaitable<Piece> read_body(MonotonicTime deadline);
  /// What of the body is here already, without waiting; an empty piece that is not done when nothing is.
  [[nodiscard]] Piece buffered_body();
  [[nodiscard]] const std::string& trailers() const noexcept { return chunks_.trailers(); }

  /// Whether the answer was read to its end and the connection may be used again.
  [[nodiscard]] bool reusable() const noexcept {
    return body_done_ && keep_alive_ && begin_ == end_ && !spoilt_;
  }
  [[nodiscard]] bool reused() const noexcept { return uses_ > 1; }
  void cancel() noexcept { transport_.cancel(); }
  /// A buffer for the request's head that lives as long as the connection.
  [[nodiscard]] std::string& head_buffer() noexcept { return head_buffer_; }
  [[nodiscard]] Transport& transport() noexcept { return transport_; }

 private:
  friend class UpstreamPool;
  [[nodiscard]] Piece take_body();
  void grow();

  Transport transport_;
  const Upstream* upstream_;
  std::string head_buffer_;
  std::unique_ptr<char[]> data_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  BodyKind body_ = BodyKind::none;
  std::uint64_t body_left_ = 0;
  ChunkDecoder chunks_;
  std::uint64_t uses_ = 0;
  std::size_t sent_ = 0;  // of the pieces of a try_send
  MonotonicTime idle_since_{};
  bool body_done_ = false;
  bool keep_alive_ = false;
  bool spoilt_ = false;  // something went wrong: never reused
};

/// The connections of one worker to one upstream. The newest idle one is used first, so that those not needed
/// grow old and end.
class UpstreamPool {
 public:
  UpstreamPool(asio::io_context& io, DeadlineWatch& watch, Upstream upstream);
  ~UpstreamPool();
  UpstreamPool(const UpstreamPool&) = delete;
  UpstreamPool& operator=(const UpstreamPool&) = delete;

  struct Lease {
    std::unique_ptr<UpstreamConnection> connection;  ///< null: `error` says why
    UpstreamError error;
  };
  /// An idle connection, or a new one (`fresh`: always). The upstream's name is resolved for each new one,
  /// and every address is classified before it is connected to.
  enum class Want : std::uint8_t { any, fresh };
  [[nodiscard]] Awaitable<Lease> acquire(Want want, MonotonicTime deadline);
  /// An idle one or null, without waiting. `trusting`: one that was used a moment ago is taken unasked; for
  /// requests that are repeated anyway when the peer turns out to have ended it. `asking` always looks first,
  /// which costs a system call.
  enum class Trust : std::uint8_t { trusting, asking };
  [[nodiscard]] std::unique_ptr<UpstreamConnection> try_idle(MonotonicTime now, Trust trust) noexcept;
  /// Back for reuse if it may be, else closed.
  void release(std::unique_ptr<UpstreamConnection> connection, MonotonicTime now) noexcept;
  /// Closes what was idle for too long; called about once a second.
  void sweep(MonotonicTime now) noexcept;
  [[nodiscard]] const Upstream& upstream() const noexcept { return upstream_; }

 private:
  Awaitable<Lease> connect();

  asio::io_context& io_;
  DeadlineWatch& watch_;
  Upstream upstream_;
  std::vector<std::unique_ptr<UpstreamConnection>> idle_;
};

}  // namespace penstock::http
