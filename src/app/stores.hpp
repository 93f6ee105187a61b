#pragma once

#include <memory>

#include "base/result.hpp"
#include "config/config.hpp"
#include "control/health.hpp"
#include "observe/log.hpp"
#include "observe/metrics.hpp"
#include "store/caller_limits.hpp"
#include "store/ledger.hpp"
#include "store/ledger_database.hpp"
#include "store/shared_state.hpp"

namespace penstock::app {

/// What one process remembers, as its configuration asks for it: in memory alone, or behind a journal in
/// SQLite or PostgreSQL. The only place that names backends.
class Stores {
 public:
  /// Opens what is durable, applies what the last process left, and charges what it left open. Everything
  /// given outlives the stores. A journal that fails later ends the process: what is on the disk is not known
  /// any more. Errors: a directory that another process has; damage; a database that is unreachable or newer
  /// than this program.
  [[nodiscard]] static Result<std::unique_ptr<Stores>> open(const config::Config& config, std::uint64_t epoch,
                                                            observe::Metrics& metrics, observe::Log& log);
  ~Stores();
  Stores(const Stores&) = delete;
  Stores& operator=(const Stores&) = delete;

  [[nodiscard]] store::SharedState& state() noexcept;
  [[nodiscard]] store::CallerLimits& caller_limits() noexcept;
  [[nodiscard]] store::Ledger& ledger() noexcept;
  [[nodiscard]] control::AskStore ask_shared_state();  ///< null: it is in this process
  [[nodiscard]] control::AskStore ask_ledger();        ///< null: there is none

  /// After state().listen(): connects to what is elsewhere. Errors: a server that answers and refuses; never
  /// that it is gone.
  [[nodiscard]] Result<void> start();
  /// Whether these subjects' hard budgets can be kept where they are. Errors: names the setting of the
  /// server.
  [[nodiscard]] Result<void> check(std::span<const store::SubjectSpec> subjects) const;

  /// Ends leases and sets the stores' gauges. About once a second.
  void tick(Now now);
  /// Writes down how budgets changed from one configuration to the next.
  void note_budgets(std::span<const store::SubjectSpec> before, std::span<const store::SubjectSpec> after,
                    WallTime now);
  /// After the last call: applies what is left within `bound`. What is not applied then is at the next start.
  void close(nanoseconds bound);

 private:
  struct Impl;
  explicit Stores(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The ledger's database of a configuration, for `penstock ledger ...`; not opened. Errors: there is none.
[[nodiscard]] Result<std::unique_ptr<store::LedgerDatabase>> ledger_database_of(const config::Ledger& config,
                                                                                std::string replica);

}  // namespace penstock::app
