#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/ip/tcp.hpp>

#include "base/result.hpp"
#include "config/config.hpp"

namespace penstock::app {

/// A running gateway: its stores, its workers (a thread each) and its listener. Made from one configuration,
/// changed by reload.
class Process {
 public:
  /// `log_fd`: where JSON lines go.
  Process(config::Config config, int log_fd);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Binds, starts all threads and returns. Errors: an address that cannot be bound, TLS files that cannot be
  /// read.
  [[nodiscard]] Result<void> start();
  [[nodiscard]] std::uint16_t port() const noexcept;

  /// Takes a new configuration whole, or leaves everything as it is (G11). What needs a restart (listen) is
  /// named in the log.
  [[nodiscard]] Result<void> reload(config::Config config);

  /// Accepts no more, lets running calls finish within `bound`, then ends. Returns whether all had finished.
  bool stop(milliseconds bound);

  void log_error(std::string_view message, std::string_view detail);
  void log_info(std::string_view message, std::string_view detail);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Serves until SIGINT or SIGTERM; SIGHUP reloads by `load_again`, which returns nothing where there is
/// nothing to reload, and logs its own mistakes. A second signal ends at once. Returns the exit code. Call
/// before any thread exists: it blocks the signals.
using LoadAgain = std::function<std::optional<config::Config>(Process&)>;
void block_signals();
int serve_until_signalled(Process& process, milliseconds shutdown_bound, const LoadAgain& load_again);

}  // namespace penstock::app
