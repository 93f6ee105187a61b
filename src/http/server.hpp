#pragma once

#include <atomic>
#include <memory>

#include <boost/asio/ip/tcp.hpp>
#include <boost/intrusive/list.hpp>

#include "base/result.hpp"
#include "http/exchange.hpp"
#include "http/transport.hpp"
#include "observe/metrics.hpp"

namespace penstock::http {

/// What a server does with requests. One for all workers: its members are called from every worker's thread.
class Handler {
 public:
  virtual ~Handler() = default;
  /// Replies exactly once. `worker` is the index of the calling worker.
  [[nodiscard]] virtual Awaitable<void> handle(Exchange& exchange, std::size_t worker) = 0;
  /// A request that is not valid HTTP: appends the whole response to `out`. The connection is closed after
  /// it.
  virtual void on_bad_request(const FramingError& error, std::string& out) = 0;
};

class Connection;

/// The listener of one worker and its connections. Several workers listen on one address (SO_REUSEPORT), the
/// kernel deals.
class Server {
 public:
  struct Shared {
    Handler& handler;
    ServerOptions options;
    std::uint32_t max_connections = 10'000;  ///< over all workers
    std::atomic<std::uint32_t> connections{0};
    std::shared_ptr<asio::ssl::context> tls;  ///< or null
    observe::Gauge* open = nullptr;
    observe::Counter* opened = nullptr;
  };

  Server(asio::io_context& io, DeadlineWatch& watch, Shared& shared, std::size_t worker);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Whether nobody listens there. Sharing a port (SO_REUSEPORT) would else let two programs of one user do
  /// so unnoticed.
  [[nodiscard]] static Result<void> check_free(const asio::ip::tcp::endpoint& endpoint);
  /// Binds and listens; port 0 takes a free one. Returns the endpoint.
  [[nodiscard]] Result<asio::ip::tcp::endpoint> listen(const asio::ip::tcp::endpoint& endpoint);
  void start();
  /// Accepts no more, closes idle connections, lets the others finish their call, which ends them. Call on
  /// the worker's thread.
  void drain();
  [[nodiscard]] bool idle() const noexcept;
  [[nodiscard]] bool draining() const noexcept { return draining_; }

 private:
  friend class Connection;
  Awaitable<void> accept_loop();

  asio::io_context& io_;
  DeadlineWatch& watch_;
  Shared& shared_;
  std::size_t worker_;
  asio::basic_socket_acceptor<asio::ip::tcp, Executor> acceptor_;
  struct Connections;
  std::unique_ptr<Connections> connections_;
  bool draining_ = false;
};

}  // namespace penstock::http
