#pragma once

#include "base/result.hpp"
#include "store/history.hpp"
#include "store/redis/redis_url.hpp"
#include "store/shared_state.hpp"

namespace penstock::store {

/// What History::spent counts of this replica's own attempts although the database that the replicas share
/// does not have it yet: it stands in this replica's journal only. Thread-safe.
class Unapplied {
 public:
  Unapplied() = default;
  Unapplied(const Unapplied&) = delete;
  Unapplied& operator=(const Unapplied&) = delete;
  virtual ~Unapplied() = default;
  [[nodiscard]] virtual Spent unapplied(SubjectKind kind, std::string_view name,
                                        policy::WindowSpan span) const = 0;
};

struct RedisOptions {
  RedisUrl url;
  std::string domain = "default";  ///< replicas of one domain share; [a-z0-9_.-]
  std::string replica;             ///< stays the same over restarts, and no two have the same
  milliseconds command_timeout{250};
  milliseconds connect_timeout{1000};
  /// What limits do while the server is gone: this replica's share of them, or nothing passes.
  enum class OnLost : std::uint8_t { share, closed } on_lost = OnLost::share;
  /// Hard budgets wait so long at most for replicas that do not come back after the server lost its memory.
  seconds longest_lease{660};
  /// ... and so long at least when it has just been started, for replicas that this one does not know of.
  milliseconds grace{1000};
  /// Hard budgets although the server may forget them.
  bool allow_volatile = false;
  bool tests_clock = false;  ///< the time is what callers say, not the server's
};

/// For /health and metrics.
struct RedisStatus {
  bool degraded = true;   ///< the server is gone, or this replica is not in step with it yet
  bool learning = false;  ///< hard budgets wait for what other replicas know
  std::string reason;     ///< of `degraded`; empty: none
  std::string
      unsafe;  ///< why hard budgets cannot be kept in this server, naming the setting; empty: they can
  std::uint32_t replicas = 1;  ///< this one included; the last known count while degraded
  std::string epoch;
  nanoseconds last_latency{};  ///< of the last reservation
  std::size_t unsettled = 0;  ///< attempts whose settlement has not been confirmed, the running ones included
};

/// SharedState in a Redis (7 or newer) or Valkey server, for several replicas. Budgets, limits, concurrency
/// and pauses are the server's, one function call per step, on the server's clock; circuits and retry budgets
/// are this replica's, for its own broken network says nothing about a provider.
///
/// One thread of its own has the connection; reservations of all workers share its pipeline, so that each
/// sees the settlements made before it. Another reads the history and brings the server up to date. Nothing
/// waits longer than the command timeout (`declare`: 5 s), and settlements never wait.
///
/// Server gone: hard budgets refuse (policy_state_unavailable), warn budgets admit, limits fall to limit /
/// replicas or close. What was admitted and settled meanwhile is delivered after, by id. Design:
/// docs/decisions/0008-shared-state-in-redis.md
class RedisState final : public SharedState {
 public:
  explicit RedisState(RedisOptions options);
  ~RedisState() override;

  /// Connects; waits for it at most the connect timeout. Without an answer it goes on trying, degraded.
  /// Errors: it answers and refuses (password, no functions); never that it is gone.
  [[nodiscard]] Result<void> start();
  /// Whether these subjects' hard budgets can be kept in this server. Errors: names the setting.
  [[nodiscard]] Result<void> check(std::span<const SubjectSpec> specs) const;
  [[nodiscard]] RedisStatus status() const;
  /// Null: open attempts and those settled in the last minute count as unapplied. Before `declare`.
  void set_unapplied(const Unapplied* unapplied);

  void listen(Listener listener) override;
  void set_history(const History* history) override;
  std::vector<SubjectId> declare(std::span<const SubjectSpec> specs, Now now) override;
  [[nodiscard]] Awaitable<std::expected<void, Refusal>> reserve(ReservationRequest request) override;
  void settle(const Settlement& settlement) noexcept override;
  void pause(SubjectId provider, MonotonicTime until) noexcept override;
  [[nodiscard]] bool try_retry(SubjectId provider, MonotonicTime now) noexcept override;
  void reap(Now now) override;
  [[nodiscard]] std::vector<SubjectView> view(Now now, std::span<const SubjectId> only) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Attempts that this replica remembers until their settlement is confirmed, at most; with more, it refuses.
inline constexpr std::size_t kMaxOwnAttempts = 200'000;

}  // namespace penstock::store
