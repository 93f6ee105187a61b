#include "gateway/provider_line.hpp"

#include <boost/asio/post.hpp>

namespace penstock::gateway {
namespace {

using Id = policy::WaitingLine::Id;

/// A refusal that opens at once is asked again after this at the soonest: a clock that stands still must not
/// make a loop.
constexpr milliseconds kLeastGate{1};
/// Later than any wait; keeps sums of times from overflow.
constexpr std::chrono::hours kMostGate{24};

std::size_t index_of(policy::WaitLane lane) noexcept { return static_cast<std::size_t>(lane); }

}  // namespace

/// The lock, and what follows from a change once it is given back: counts and wakes.
class ProviderLine::Session {
 public:
  explicit Session(ProviderLine& line) : line_(line), lock_(line.mutex_) {}
  ~Session() {
    const std::size_t size = line_.line_.size();
    const std::size_t before = line_.waiting_.exchange(size, std::memory_order_relaxed);
    line_.all_waiting_.fetch_add(size - before, std::memory_order_relaxed);
    line_.wants_settlements_.store(line_.trying_ != 0 || line_.line_.has_early_gate(),
                                   std::memory_order_relaxed);
    for (const policy::WaitLane lane : policy::kAllWaitLanes)
      line_.depth_[index_of(lane)]->set(static_cast<std::int64_t>(line_.line_.size(lane)));
    lock_.unlock();
    for (const std::shared_ptr<Waiter>& waiter : woken_)
      boost::asio::post(waiter->executor, [timer = waiter->timer] {
        if (*timer != nullptr) (*timer)->cancel();
      });
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void wake(std::shared_ptr<Waiter> waiter) { woken_.push_back(std::move(waiter)); }

 private:
  ProviderLine& line_;
  std::unique_lock<std::mutex> lock_;
  std::vector<std::shared_ptr<Waiter>> woken_;
};

ProviderLine::ProviderLine(std::string_view provider, policy::LineSpec spec, observe::Metrics& metrics,
                           std::atomic<std::size_t>& all_waiting)
    : line_(std::move(spec)), all_waiting_(all_waiting) {
  for (const policy::WaitLane lane : policy::kAllWaitLanes) {
    depth_[index_of(lane)] = &metrics.queue_depth.with({provider, to_string(lane)});
    waited_[index_of(lane)] = &metrics.queue_wait.with({provider, to_string(lane)});
  }
}

policy::WaitingLine::Arrival ProviderLine::policy_arrival(const Arrival& arrival) const noexcept {
  return {.lane = arrival.lane,
          .consumer = arrival.consumer,
          .own = arrival.own,
          .deadline = arrival.deadline,
          .bytes = arrival.bytes,
          .tokens = arrival.tokens};
}

/// Pre: it is out of line_ already.
void ProviderLine::forget(Id id, MonotonicTime now) {
  const auto found = waiters_.find(id);
  if (found == waiters_.end()) return;
  Waiter& waiter = *found->second;
  waited_[index_of(waiter.lane)]->observe(now - waiter.entered);
  if (trying_ == id) trying_ = 0;
  if (timekeeper_ == &waiter) timekeeper_ = nullptr;
  waiter.id = 0;
  waiters_.erase(found);
}

/// Pre: it is out of line_ already. Tells it why.
void ProviderLine::take_out(Id id, const store::Refusal& refusal, MonotonicTime now, Session& session) {
  const std::shared_ptr<Waiter> waiter = waiters_.at(id);
  forget(id, now);
  waiter->state = State::out;
  waiter->refusal = refusal;
  session.wake(waiter);
}

/// Gives the turn to the next, or sees to it that somebody wakes when a gate opens.
void ProviderLine::pump(MonotonicTime now, Waiter* self, Session& session) {
  std::vector<Id> late;
  line_.expire(now, late);
  for (const Id id : late)
    take_out(id,
             {.reason = Reason::policy_deadline_exceeded, .subject = 0, .retry_after = {}, .opens_early = {}},
             now, session);
  if (trying_ != 0 || waiters_.empty()) return;
  if (const auto id = line_.next(now)) {
    const std::shared_ptr<Waiter>& waiter = waiters_.at(*id);
    trying_ = *id;
    waiter->state = State::turn;
    if (waiter.get() != self) session.wake(waiter);
    return;
  }
  const MonotonicTime opening = line_.next_opening();
  if (timekeeper_ != nullptr && wakes_at_ <= opening) return;
  wakes_at_ = opening;
  if (self != nullptr && self->id != 0) {
    timekeeper_ = self;
  } else {
    const std::shared_ptr<Waiter>& any = waiters_.begin()->second;
    timekeeper_ = any.get();
    session.wake(any);
  }
}

std::optional<ProviderLine::HeldBack> ProviderLine::holds_back(const Arrival& arrival, MonotonicTime now) {
  Session session(*this);
  const auto gate = line_.holds_back(arrival.lane, arrival.own, now);
  if (!gate) return std::nullopt;
  return HeldBack{.reason = gate->reason,
                  .gate = gate->opens_early ? nanoseconds{} : gate->until - now,
                  .estimate = line_.estimate(policy_arrival(arrival), now)};
}

void ProviderLine::passed(policy::WaitLane lane) {
  const Session session(*this);
  line_.passed(lane);
}

void ProviderLine::settled(std::span<const store::SubjectId> subjects, MonotonicTime now) {
  if (!wants_settlements_.load(std::memory_order_relaxed)) return;
  Session session(*this);
  settled_meanwhile_ = true;
  line_.open(subjects);
  pump(now, nullptr, session);
}

void ProviderLine::reconfigure(policy::LineSpec spec, MonotonicTime now) {
  Session session(*this);
  line_.reconfigure(std::move(spec));
  settled_meanwhile_ = true;
  line_.open_all();
  pump(now, nullptr, session);
}

void ProviderLine::close() {
  const MonotonicTime now = std::chrono::steady_clock::now();
  Session session(*this);
  closed_ = true;
  while (!waiters_.empty()) {
    const Id id = waiters_.begin()->first;
    line_.leave(id);
    take_out(id,
             {.reason = Reason::policy_deadline_exceeded,
              .subject = 0,
              .retry_after = seconds{1},
              .opens_early = {}},
             now, session);
  }
}

ProviderLine::Place::Place(std::shared_ptr<ProviderLine> line, const Arrival& arrival, Executor executor,
                           http::Timer& timer)
    : line_(std::move(line)), arrival_(arrival), waiter_(std::make_shared<Waiter>(executor, timer)) {}

ProviderLine::Place::~Place() {
  *waiter_->timer = nullptr;
  const MonotonicTime now = std::chrono::steady_clock::now();
  Session session(*line_);
  if (waiter_->id == 0) return;
  line_->line_.leave(waiter_->id);
  line_->forget(waiter_->id, now);
  line_->pump(now, nullptr, session);
}

std::shared_ptr<http::Timer*> ProviderLine::Place::timer() const { return waiter_->timer; }

std::expected<void, store::Refusal> ProviderLine::Place::enter(MonotonicTime now) {
  Session session(*line_);
  if (line_->closed_)
    return std::unexpected(store::Refusal{.reason = Reason::policy_deadline_exceeded,
                                          .subject = 0,
                                          .retry_after = seconds{1},
                                          .opens_early = false});
  std::vector<Id> displaced;
  const auto arrival = line_->policy_arrival(arrival_);
  const auto id = line_->line_.enter(arrival, displaced);
  const store::Refusal full{.reason = Reason::policy_queue_full,
                            .subject = 0,
                            .retry_after = line_->line_.estimate(arrival, now),
                            .opens_early = false};
  for (const Id victim : displaced) line_->take_out(victim, full, now, session);
  if (!id) return std::unexpected(full);
  waiter_->id = *id;
  waiter_->lane = arrival_.lane;
  waiter_->entered = now;
  waiter_->waits_for_circuit = arrival_.waits_for_circuit;
  line_->waiters_.emplace(*id, waiter_);
  return {};
}

ProviderLine::Place::Look ProviderLine::Place::look(MonotonicTime now) {
  Session session(*line_);
  if (line_->timekeeper_ == waiter_.get()) line_->timekeeper_ = nullptr;
  line_->pump(now, waiter_.get(), session);
  switch (waiter_->state) {
    case State::out:
      if (waiter_->refusal.retry_after == nanoseconds{})
        waiter_->refusal.retry_after = line_->line_.estimate(line_->policy_arrival(arrival_), now);
      return waiter_->refusal;
    case State::turn: line_->settled_meanwhile_ = false; return Turn{};
    case State::waiting: break;
  }
  const bool keeps_time = line_->timekeeper_ == waiter_.get();
  return Sleep{keeps_time ? std::min(arrival_.deadline, line_->wakes_at_) : arrival_.deadline};
}

void ProviderLine::Place::started(MonotonicTime now) {
  Session session(*line_);
  line_->line_.start(waiter_->id, now);
  line_->forget(waiter_->id, now);
  line_->pump(now, nullptr, session);
}

void ProviderLine::Place::refused(const store::Refusal& refusal, MonotonicTime now) {
  Session session(*line_);
  if (waiter_->id == 0) return;  // taken out while it asked
  line_->trying_ = 0;
  waiter_->state = State::waiting;
  // The room that was made while it asked may be what it was refused for.
  if (refusal.opens_early && line_->settled_meanwhile_) return;
  const policy::WaitingLine::Gate gate{
      .reason = refusal.reason,
      .until = now + std::clamp<nanoseconds>(refusal.retry_after, kLeastGate, kMostGate),
      .opens_early = refusal.opens_early};
  line_->line_.block(waiter_->id, refusal.subject, gate);
  const bool is_everybodys = std::ranges::find(arrival_.own, refusal.subject) == arrival_.own.end();
  std::vector<Id> out;
  store::Refusal told = refusal;
  if (!gate.opens_early) {
    // Who must start before it opens cannot: told now rather than at its deadline.
    if (told.reason == Reason::policy_rate_limited) told.reason = Reason::policy_deadline_exceeded;
    if (is_everybodys)
      line_->line_.expire(gate.until, out);
    else if (arrival_.deadline <= gate.until && line_->line_.leave(waiter_->id))
      out.push_back(waiter_->id);
  }
  if (is_everybodys && gate.reason == Reason::policy_circuit_open)
    for (const auto& [id, waiter] : line_->waiters_)
      if (!waiter->waits_for_circuit && line_->line_.leave(id)) out.push_back(id);
  for (const Id id : out) line_->take_out(id, told, now, session);
}

std::vector<std::shared_ptr<ProviderLine>> ProviderLines::declare(std::span<const Wanted> all,
                                                                  MonotonicTime now) {
  const std::scoped_lock lock(mutex_);
  auto before = std::exchange(lines_, {});
  std::vector<std::shared_ptr<ProviderLine>> lines;
  for (const Wanted& wanted : all) {
    std::shared_ptr<ProviderLine> line;
    if (auto known = before.extract(std::string(wanted.provider))) {
      line = std::move(known.mapped());
      line->reconfigure(wanted.spec, now);
    } else {
      line = std::make_shared<ProviderLine>(wanted.provider, wanted.spec, metrics_, all_waiting_);
    }
    lines_.emplace(wanted.provider, line);
    lines.push_back(std::move(line));
  }
  for (const auto& [name, line] : before) line->close();
  return lines;
}

void ProviderLines::close() {
  const std::scoped_lock lock(mutex_);
  for (const auto& [name, line] : lines_) line->close();
}

}  // namespace penstock::gateway
