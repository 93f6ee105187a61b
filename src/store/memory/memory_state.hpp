#pragma once

#include <deque>
#include <mutex>

#include <boost/unordered/unordered_flat_map.hpp>

#include "store/shared_state.hpp"

namespace penstock::store {

/// SharedState in this process: one mutex around pure policies. A reservation holds it for well under a
/// microsecond; it is never held across I/O.
class MemoryState final : public SharedState {
 public:
  MemoryState();
  ~MemoryState() override;
  void listen(Listener listener) override;
  void set_history(const History* history) override;
  std::vector<SubjectId> declare(std::span<const SubjectSpec> specs, Now now) override;
  [[nodiscard]] Awaitable<std::expected<void, Refusal>> reserve(ReservationRequest request) override;
  void settle(const Settlement& settlement) noexcept override;
  void learn(const Lesson& lesson) noexcept override;
  void pause(SubjectId provider, MonotonicTime until) noexcept override;
  [[nodiscard]] bool try_retry(SubjectId provider, MonotonicTime now) noexcept override;
  void reap(Now now) override;
  [[nodiscard]] std::vector<SubjectView> view(Now now, std::span<const SubjectId> only) override;

  /// reserve() without the coroutine, for tests and benchmarks.
  [[nodiscard]] std::expected<void, Refusal> reserve_now(const ReservationRequest& request);
  /// As if the reservation had never been: another gate behind this one said no.
  void take_back(AttemptId id, Now now) noexcept;
  [[nodiscard]] std::size_t open_reservations() const;

 private:
  struct Subject;
  struct Hold;
  struct IdHash {
    std::size_t operator()(const AttemptId& id) const noexcept {
      return static_cast<std::size_t>(id.sequence * 0x9E3779B97F4A7C15ULL ^ id.epoch);
    }
  };

  [[nodiscard]] std::optional<Refusal> refusal_of(const ReservationRequest& request);
  void count_past(const SubjectSpec& subject, policy::WindowLimit& limit, Now now) const;
  void declare_budgets(SubjectId id, const SubjectSpec& spec, Now now);
  /// Lets the reservations of the new budget's window that name its subject end in it too. Returns the sum of
  /// those that are open.
  NanoUsd take_over_holds(SubjectId id, std::size_t budget);
  void finish(Hold& hold, const Settlement& settlement) noexcept;
  void expire(Hold& hold, Now now) noexcept;
  void end_gate(const Hold& hold, policy::ProviderGate::Ending ending) noexcept;
  void correct_expired(Hold& hold, const Settlement& settlement) noexcept;
  [[nodiscard]] static SubjectView view_of(SubjectId id, Subject& subject, Now now);
  void note_circuit(SubjectId id, Subject& subject, MonotonicTime now) noexcept;

  mutable std::mutex mutex_;
  Listener listener_;
  const History* history_ = nullptr;
  std::uint32_t next_number_ = 0;  // of limits, budgets and circuits
  std::deque<Subject> subjects_;   // never shrinks, so that ids stay valid; forgotten ones are marked
  boost::unordered_flat_map<AttemptId, Hold, IdHash> holds_;
  std::deque<std::pair<MonotonicTime, AttemptId>> expired_;  // order of expiry, for forgetting
};

/// Expired reservations that are remembered for a late settlement, at most. Beyond it the oldest stays
/// charged for good.
inline constexpr std::size_t kMaxExpiredHolds = 100'000;
/// ... and for so long.
inline constexpr std::chrono::minutes kExpiredHoldKept{60};

}  // namespace penstock::store
