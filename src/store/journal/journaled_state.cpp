#include "store/journal/journaled_state.hpp"

#include <array>

namespace penstock::store {
namespace {

/// For a caller who could come back: the disk, the database or an operator may have mended it.
constexpr seconds kTryAgainAfter{1};

std::unexpected<Refusal> unavailable(const ReservationRequest& request) {
  return std::unexpected(
      Refusal{.reason = Reason::policy_state_unavailable,
              .subject = request.subjects.empty() ? SubjectId{0} : request.subjects.front(),
              .retry_after = kTryAgainAfter});
}

}  // namespace

SubjectNames::~SubjectNames() {
  for (const auto& chunk : chunks_) delete chunk.load();
}

void SubjectNames::set(SubjectId id, SubjectKind kind, const std::string& name) {
  if (id / kChunk >= kChunks) return;  // find() says null, and reservations for it are refused
  const std::scoped_lock lock(mutex_);
  const SubjectRef* const ref = &*known_.insert({kind, name}).first;
  Chunk* chunk = chunks_[id / kChunk].load(std::memory_order_relaxed);
  if (chunk == nullptr) {
    chunk = std::make_unique<Chunk>().release();
    chunks_[id / kChunk].store(chunk, std::memory_order_release);
  }
  (*chunk)[id % kChunk].store(ref, std::memory_order_release);
}

const SubjectRef* SubjectNames::find(SubjectId id) const noexcept {
  if (id / kChunk >= kChunks) return nullptr;
  const Chunk* const chunk = chunks_[id / kChunk].load(std::memory_order_acquire);
  return chunk == nullptr ? nullptr : (*chunk)[id % kChunk].load(std::memory_order_acquire);
}

/// Ends a reservation of which nothing came: also when the coroutine is destroyed while it waits for the
/// disk.
class JournaledState::GiveBack {
 public:
  GiveBack(JournaledState& state, const ReservationRequest& request)
      : state_(state),
        released_{.id = request.id,
                  .ending = Ending::released,
                  .cost = {},
                  .tokens = -1,
                  .outcome = policy::CircuitBreaker::Outcome::abandoned,
                  .first_byte = {},
                  .now = request.now} {}
  ~GiveBack() {
    if (!is_armed_) return;
    if (is_written_)
      state_.settle(released_);
    else
      state_.inner_.settle(released_);
  }
  GiveBack(const GiveBack&) = delete;
  GiveBack& operator=(const GiveBack&) = delete;
  void written() noexcept { is_written_ = true; }
  void disarm() noexcept { is_armed_ = false; }

 private:
  JournaledState& state_;
  Settlement released_;
  bool is_armed_ = true;
  bool is_written_ = false;
};

JournaledState::JournaledState(SharedState& inner, Journal& journal, ReserveNow reserve_now)
    : inner_(inner), journal_(journal), reserve_now_(std::move(reserve_now)) {
  listen({});
}

void JournaledState::listen(Listener listener) {
  inner_.listen({.circuit_changed = std::move(listener.circuit_changed),
                 .overrun = std::move(listener.overrun),
                 .lease_expired = [this, told = std::move(listener.lease_expired)](AttemptId id) {
                   {
                     const std::scoped_lock lock(mutex_);
                     expired_.push_back(id);
                   }
                   if (told) told(id);
                 }});
}

std::vector<SubjectId> JournaledState::declare(std::span<const SubjectSpec> specs, Now now) {
  std::vector<SubjectId> ids = inner_.declare(specs, now);
  for (std::size_t i = 0; i < ids.size(); ++i) names_.set(ids[i], specs[i].kind, specs[i].name);
  return ids;
}

std::optional<Appended> JournaledState::write(const ReservationRequest& request) noexcept {
  std::array<const SubjectRef*, kMaxSubjects> names{};
  if (request.subjects.size() > names.size()) return std::nullopt;
  for (std::size_t i = 0; i < request.subjects.size(); ++i) {
    names[i] = names_.find(request.subjects[i]);
    if (names[i] == nullptr) return std::nullopt;
  }
  return journal_.reserve({.order = 0,
                           .id = request.id,
                           .at = request.now.wall,
                           .estimate = request.estimate,
                           .tokens = request.tokens,
                           .subjects = {}},
                          std::span(names).first(request.subjects.size()));
}

Awaitable<std::expected<void, Refusal>> JournaledState::reserve(ReservationRequest request) {
  if (!journal_.accepts()) co_return unavailable(request);
  std::expected<void, Refusal> held;
  if (reserve_now_)
    held = reserve_now_(request);
  else
    held = co_await inner_.reserve(request);
  if (!held) co_return held;
  GiveBack give_back(*this, request);
  const std::optional<Appended> written = write(request);
  if (!written) co_return unavailable(request);
  give_back.written();
  if (journal_.waits_for_sync()) {
    const bool is_safe = co_await journal_.synced(*written);
    if (!is_safe) co_return unavailable(request);
  }
  give_back.disarm();
  co_return held;
}

void JournaledState::settle(const Settlement& settlement) noexcept {
  // First in the journal: what is told to nobody else yet may be lost, what has taken effect may not.
  (void)journal_.settle({.order = 0,
                         .id = settlement.id,
                         .at = settlement.now.wall,
                         .ending = settlement.ending,
                         .cost = settlement.cost,
                         .tokens = settlement.tokens});
  inner_.settle(settlement);
}

void JournaledState::reap(Now now) {
  inner_.reap(now);
  std::vector<AttemptId> expired;
  {
    const std::scoped_lock lock(mutex_);
    expired.swap(expired_);
  }
  for (const AttemptId id : expired) (void)journal_.expire({.order = 0, .id = id, .at = now.wall});
}

}  // namespace penstock::store
