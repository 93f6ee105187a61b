#pragma once

#include <set>

#include "store/journal/journal.hpp"
#include "store/shared_state.hpp"

namespace penstock::store {

/// What a SubjectId names, for every thread without a lock. Only declare() writes. Names are kept for the
/// life of the process, as the configuration's are (see Name).
class SubjectNames {
 public:
  SubjectNames() = default;
  ~SubjectNames();
  SubjectNames(const SubjectNames&) = delete;
  SubjectNames& operator=(const SubjectNames&) = delete;

  void set(SubjectId id, SubjectKind kind, const std::string& name);
  [[nodiscard]] const SubjectRef* find(SubjectId id) const noexcept;  ///< null: never declared

 private:
  static constexpr std::size_t kChunk = 4096;
  static constexpr std::size_t kChunks = 4096;  // 16 million ids
  using Chunk = std::array<std::atomic<const SubjectRef*>, kChunk>;
  std::mutex mutex_;
  std::set<SubjectRef> known_;  // its nodes never move
  std::array<std::atomic<Chunk*>, kChunks> chunks_{};
};

/// A SharedState whose reservations and their endings stand in the journal: a reservation that was granted is
/// written before it is answered, an ending before it takes effect. What is refused writes nothing.
///
/// While the journal takes no reservations (it has failed, its disk is full, the database is too far behind),
/// every reservation is refused with policy_state_unavailable; endings are taken as long as they can be.
class JournaledState final : public SharedState {
 public:
  /// `inner` and `journal` outlive it. `reserve_now` is inner's answer where that needs no waiting (a state
  /// in this process); it spares a coroutine frame for each attempt.
  using ReserveNow = std::function<std::expected<void, Refusal>(const ReservationRequest&)>;
  JournaledState(SharedState& inner, Journal& journal, ReserveNow reserve_now = {});

  void listen(Listener listener) override;
  void set_history(const History* history) override { inner_.set_history(history); }
  std::vector<SubjectId> declare(std::span<const SubjectSpec> specs, Now now) override;
  [[nodiscard]] Awaitable<std::expected<void, Refusal>> reserve(ReservationRequest request) override;
  void settle(const Settlement& settlement) noexcept override;
  void pause(SubjectId provider, MonotonicTime until) noexcept override { inner_.pause(provider, until); }
  void learn(const Lesson& lesson) noexcept override { inner_.learn(lesson); }
  [[nodiscard]] bool try_retry(SubjectId provider, MonotonicTime now) noexcept override {
    return inner_.try_retry(provider, now);
  }
  void reap(Now now) override;
  [[nodiscard]] std::vector<SubjectView> view(Now now, std::span<const SubjectId> only) override {
    return inner_.view(now, only);
  }

 private:
  class GiveBack;
  [[nodiscard]] std::optional<Appended> write(const ReservationRequest& request) noexcept;

  SharedState& inner_;
  Journal& journal_;
  ReserveNow reserve_now_;
  SubjectNames names_;
  std::mutex mutex_;
  std::vector<AttemptId> expired_;  // told by inner under its lock, written by reap()
};

}  // namespace penstock::store
