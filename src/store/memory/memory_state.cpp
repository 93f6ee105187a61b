#include "store/memory/memory_state.hpp"

#include <array>
#include <cassert>

#include "store/history.hpp"

namespace penstock::store {

using policy::Budget;
using policy::CircuitBreaker;
using policy::LimitUnit;
using policy::WindowLimit;

namespace {

/// Attempts in the last minute and in the UTC day, for people.
struct Starts {
  WindowLimit minute{{std::numeric_limits<std::int32_t>::max(), std::chrono::minutes{1}, LimitUnit::calls}};
  std::int64_t day = 0;
  std::int64_t today = 0;

  void count(Now now) noexcept {
    minute.take(1, now.mono);
    const auto this_day = std::chrono::floor<std::chrono::days>(now.wall).time_since_epoch().count();
    if (this_day != day) today = 0;
    day = this_day;
    ++today;
  }
  [[nodiscard]] std::int64_t of_today(WallTime now) const noexcept {
    return std::chrono::floor<std::chrono::days>(now).time_since_epoch().count() == day ? today : 0;
  }
};

/// A limit or budget with a number of its own: a hold finds it again by that after a reload moved or removed
/// it.
template <class T>
struct Numbered {
  T value;
  std::uint32_t number = 0;
};

template <class T>
T* find_number(std::vector<Numbered<T>>& all, std::uint32_t number) noexcept {
  for (auto& each : all)
    if (each.number == number) return &each.value;
  return nullptr;
}

/// Moves the entry that `same` accepts from `old` to the end of `kept`; false when there is none.
template <class T, class Same>
bool keep(std::vector<Numbered<T>>& old, std::vector<Numbered<T>>& kept, Same same) {
  const auto found =
      std::ranges::find_if(old, [&](const Numbered<T>& each) { return same(each.value.spec()); });
  if (found == old.end()) return false;
  kept.push_back(std::move(*found));
  old.erase(found);
  return true;
}

/// The budgets of before that go on as those of `specs`, each at the place of its successor. A limit, a mode
/// and an override may change; a window or zone only where nobody knows what the new one has cost so far.
std::vector<std::optional<Numbered<Budget>>> match_budgets(std::vector<Numbered<Budget>> old,
                                                           const std::vector<policy::BudgetSpec>& specs,
                                                           const History* history) {
  std::vector<std::optional<Numbered<Budget>>> matched(specs.size());
  enum class Same : std::uint8_t { all_but_limit, window_and_zone, window };
  for (const Same wanted : {Same::all_but_limit, Same::window_and_zone, Same::window}) {
    if (wanted == Same::window && history != nullptr) break;
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const auto is_same = [&](const Numbered<Budget>& before) {
        const policy::BudgetSpec& spec = before.value.spec();
        return spec.window == specs[i].window &&
               (wanted == Same::window || spec.time_zone == specs[i].time_zone) &&
               (wanted != Same::all_but_limit || spec.mode == specs[i].mode);
      };
      const auto found = matched[i] ? old.end() : std::ranges::find_if(old, is_same);
      if (found == old.end()) continue;
      matched[i] = std::move(*found);
      old.erase(found);
    }
  }
  return matched;
}

}  // namespace

struct MemoryState::Subject {
  SubjectSpec spec;
  std::vector<Numbered<WindowLimit>> limits;
  std::vector<Numbered<Budget>> budgets;
  std::optional<CircuitBreaker> circuit;
  std::uint32_t circuit_number = 0;  // of `circuit`, as of limits and budgets
  std::optional<policy::RetryBudget> retries;
  CircuitBreaker::State told = CircuitBreaker::State::closed;  // what the listener last heard
  std::uint32_t in_flight = 0;
  std::uint32_t holds = 0;  // open and expired reservations that name this subject
  MonotonicTime paused_until{};
  std::optional<Starts> starts;              // of providers
  std::optional<policy::ProviderGate> gate;  // of providers
  bool gone = false;
};

/// What one reservation took from each of its subjects, so that it can be given back exactly.
struct MemoryState::Hold {
  struct Part {
    SubjectId subject = 0;
    std::array<WindowLimit::Ticket, kMaxLimits> tickets{};
    std::array<std::uint32_t, kMaxLimits> limit_numbers{};
    std::array<Budget::Pin, kMaxBudgets> pins{};
    std::array<std::uint32_t, kMaxBudgets> budget_numbers{};
    CircuitBreaker::Permit permit{};
    std::uint32_t circuit_number = 0;  // 0: no permit
    std::uint8_t limits = 0;
    std::uint8_t budgets = 0;
  };
  std::array<Part, kMaxSubjects> parts{};
  std::uint8_t size = 0;
  bool expired = false;
  std::uint8_t gated = 0;  // the number of parts up to the one whose gate gave the ticket; 0: none
  policy::ProviderGate::Ticket gate_ticket;
  NanoUsd estimate{};
  std::int64_t tokens = 0;
  MonotonicTime lease_end{};
  WallTime reserved_at{};
};

namespace {

policy::ProviderGate::Ask ask_of(const ReservationRequest& request) noexcept {
  using Attempt = policy::LearnedLimit::Attempt;
  return {.limit_class = request.limit_class,
          .tokens = request.tokens,
          .input_tokens = request.input_tokens,
          .attempt = request.is_retry ? Attempt::retry : Attempt::first};
}

}  // namespace

MemoryState::MemoryState() = default;
MemoryState::~MemoryState() = default;

void MemoryState::listen(Listener listener) {
  const std::scoped_lock lock(mutex_);
  listener_ = std::move(listener);
}

void MemoryState::set_history(const History* history) {
  const std::scoped_lock lock(mutex_);
  history_ = history;
}

void MemoryState::count_past(const SubjectSpec& subject, WindowLimit& limit, Now now) const {
  if (history_ == nullptr) return;
  const policy::LimitSpec& spec = limit.spec();
  const nanoseconds bucket = spec.period / WindowLimit::kBuckets;
  for (const Started& past :
       history_->started(subject.kind, subject.name, now.wall - spec.period - bucket, bucket)) {
    // The monotonic clock may be younger than what is remembered.
    const nanoseconds age = std::clamp<nanoseconds>(now.wall - past.at, nanoseconds{0},
                                                    std::max(nanoseconds{0}, now.mono.time_since_epoch()));
    limit.count_past(spec.unit == LimitUnit::calls ? past.calls : past.tokens, now.mono - age);
  }
}

void MemoryState::declare_budgets(SubjectId id, const SubjectSpec& spec, Now now) {
  Subject& subject = subjects_[id];
  auto matched = match_budgets(std::move(subject.budgets), spec.budgets, history_);
  subject.budgets.clear();
  for (std::size_t i = 0; i < spec.budgets.size(); ++i) {
    if (matched[i]) {
      matched[i]->value.reconfigure(spec.budgets[i], now.wall);
      subject.budgets.push_back(std::move(*matched[i]));
    } else {
      subject.budgets.push_back({Budget(spec.budgets[i]), ++next_number_});
    }
    subject.budgets.back().value.advance(now.wall, now.doubtful_ahead);
  }
  if (history_ == nullptr) return;
  for (std::size_t i = 0; i < spec.budgets.size(); ++i) {
    if (matched[i]) continue;
    Numbered<Budget>& made = subject.budgets[i];
    const Spent past = history_->spent(spec.kind, spec.name, made.value.span());
    // What is open is in the history at its estimate; here it goes on as what it is.
    const NanoUsd open = take_over_holds(id, i);
    made.value.count_past(std::max(NanoUsd{}, past.settled - open), past.overrun);
  }
}

NanoUsd MemoryState::take_over_holds(SubjectId id, std::size_t index) {
  NanoUsd open{};
  Subject& subject = subjects_[id];
  Numbered<Budget>& made = subject.budgets[index];
  if (subject.holds == 0) return open;
  const policy::WindowSpan span = made.value.span();
  for (auto& [attempt, hold] : holds_) {
    if (hold.reserved_at < span.start || hold.reserved_at >= span.end) continue;
    for (std::size_t i = 0; i < hold.size; ++i) {
      Hold::Part& part = hold.parts[i];
      if (part.subject != id) continue;
      // There is a place: no more budgets are declared than a hold has places, and this one has none yet.
      std::size_t place = 0;
      while (place < part.budgets && find_number(subject.budgets, part.budget_numbers[place]) != nullptr)
        ++place;
      assert(place < kMaxBudgets);
      part.budgets = std::max<std::uint8_t>(part.budgets, static_cast<std::uint8_t>(place + 1));
      part.pins[place] = hold.expired ? made.value.pin() : made.value.take_over(hold.estimate);
      part.budget_numbers[place] = made.number;
      if (!hold.expired) open += hold.estimate;
    }
  }
  return open;
}

std::vector<SubjectId> MemoryState::declare(std::span<const SubjectSpec> specs, Now now) {
  const std::scoped_lock lock(mutex_);
  std::map<std::pair<SubjectKind, std::string>, SubjectId> known;
  for (SubjectId id = 0; id < subjects_.size(); ++id)
    if (!subjects_[id].gone) known.emplace(std::pair{subjects_[id].spec.kind, subjects_[id].spec.name}, id);
  std::vector<bool> kept(subjects_.size(), false);

  std::vector<SubjectId> ids;
  ids.reserve(specs.size());
  for (const SubjectSpec& spec : specs) {
    assert(spec.limits.size() <= kMaxLimits && spec.budgets.size() <= kMaxBudgets);
    const auto found = known.find({spec.kind, spec.name});
    SubjectId id = 0;
    if (found == known.end()) {
      id = static_cast<SubjectId>(subjects_.size());
      subjects_.emplace_back();
    } else {
      id = found->second;
      kept[id] = true;
    }
    Subject& subject = subjects_[id];
    // What means the same keeps its counts; a changed amount or mode is taken over.
    std::vector<Numbered<WindowLimit>> limits;
    for (const policy::LimitSpec& limit : spec.limits) {
      const auto same = [&](const policy::LimitSpec& s) {
        return s.unit == limit.unit && s.period == limit.period;
      };
      if (keep(subject.limits, limits, same))
        limits.back().value.reconfigure(limit, now.mono);
      else {
        limits.push_back({WindowLimit(limit), ++next_number_});
        count_past(spec, limits.back().value, now);
      }
    }
    subject.limits = std::move(limits);
    declare_budgets(id, spec, now);
    if (spec.kind == SubjectKind::provider) {
      if (!subject.starts) subject.starts.emplace();
      if (!subject.gate) subject.gate.emplace();
      subject.gate->reconfigure(spec.gate);
    }
    if (!spec.circuit)
      subject.circuit.reset();
    else if (subject.circuit)
      subject.circuit->reconfigure(*spec.circuit);
    else {
      subject.circuit.emplace(*spec.circuit);
      subject.circuit_number = ++next_number_;
    }
    if (!spec.retry)
      subject.retries.reset();
    else if (subject.retries)
      subject.retries->reconfigure(spec.retry->budget_ratio, spec.retry->budget_per_second);
    else
      subject.retries.emplace(spec.retry->budget_ratio, spec.retry->budget_per_second);
    subject.spec = spec;
    ids.push_back(id);
  }
  for (SubjectId id = 0; id < kept.size(); ++id)
    if (!kept[id] && subjects_[id].holds == 0) {
      subjects_[id] = Subject{};
      subjects_[id].gone = true;
    }
  return ids;
}

std::optional<Refusal> MemoryState::refusal_of(const ReservationRequest& request) {
  const MonotonicTime now = request.now.mono;
  // What no waiting mends comes first, then the longest wait.
  std::optional<Refusal> refusal;
  for (const SubjectId id : request.subjects) {
    const Subject& subject = subjects_[id];
    if (subject.circuit) {
      if (const nanoseconds wait = subject.circuit->retry_after(now); wait > nanoseconds::zero())
        return Refusal{Reason::policy_circuit_open, id, wait,
                       subject.circuit->state(now) == CircuitBreaker::State::half_open};
    }
  }
  for (const SubjectId id : request.subjects) {
    for (auto& [budget, number] : subjects_[id].budgets) {
      budget.advance(request.now.wall, request.now.doubtful_ahead);
      if (!budget.may_reserve(request.estimate))
        return Refusal{Reason::policy_budget_exceeded, id,
                       budget.wait_for(request.estimate, request.now.wall), false};
    }
  }
  // ... of what no settlement opens, where there is some: before that nothing starts, whatever ends until
  // then.
  const auto wait_longer = [&](SubjectId id, nanoseconds wait, bool opens_early) {
    if (wait <= nanoseconds::zero()) return;
    opens_early = opens_early && wait != nanoseconds::max();
    if (!refusal || (opens_early == refusal->opens_early ? wait > refusal->retry_after : !opens_early))
      refusal = Refusal{Reason::policy_rate_limited, id, wait, opens_early};
  };
  for (const SubjectId id : request.subjects) {
    Subject& subject = subjects_[id];
    if (subject.paused_until > now) wait_longer(id, subject.paused_until - now, false);
    if (subject.gate) wait_longer(id, subject.gate->wait_for(ask_of(request), now), true);
    // Nobody knows when a running attempt ends: a second is an honest guess that keeps callers from
    // hammering.
    if (subject.spec.concurrency && subject.in_flight >= *subject.spec.concurrency)
      wait_longer(id, seconds{1}, true);
    for (auto& [limit, number] : subject.limits) {
      const bool is_calls = limit.spec().unit == LimitUnit::calls;
      // Running attempts may have used fewer tokens than they hold.
      wait_longer(id, limit.wait_for(is_calls ? 1 : request.tokens, now), !is_calls && subject.in_flight > 0);
    }
  }
  return refusal;
}

std::expected<void, Refusal> MemoryState::reserve_now(const ReservationRequest& request) {
  assert(request.subjects.size() <= kMaxSubjects);
  const std::scoped_lock lock(mutex_);
  if (holds_.contains(request.id)) return {};  // asked again after a lost answer
  if (auto refusal = refusal_of(request)) return std::unexpected(*refusal);

  Hold hold;
  hold.estimate = request.estimate;
  hold.tokens = request.tokens;
  hold.lease_end = request.now.mono + request.lease;
  hold.reserved_at = request.now.wall;
  for (const SubjectId id : request.subjects) {
    Subject& subject = subjects_[id];
    Hold::Part& part = hold.parts[hold.size++];
    part.subject = id;
    if (subject.circuit) {
      const auto permit = subject.circuit->try_admit(request.now.mono);
      assert(permit);  // refusal_of asked at the same instant
      if (permit) {
        part.permit = *permit;
        part.circuit_number = subject.circuit_number;
      }
      note_circuit(id, subject, request.now.mono);
    }
    for (auto& [budget, number] : subject.budgets) {
      part.pins[part.budgets] = budget.reserve(request.estimate);
      part.budget_numbers[part.budgets++] = number;
    }
    for (auto& [limit, number] : subject.limits) {
      const std::int64_t cost = limit.spec().unit == LimitUnit::calls ? 1 : request.tokens;
      part.tickets[part.limits] = limit.take(cost, request.now.mono);
      part.limit_numbers[part.limits++] = number;
    }
    if (subject.retries && !request.is_retry) subject.retries->deposit(request.now.mono);
    if (subject.starts) subject.starts->count(request.now);
    if (subject.gate) {
      hold.gate_ticket = subject.gate->take(ask_of(request), request.now.mono);
      hold.gated = hold.size;
    }
    ++subject.in_flight;
    ++subject.holds;
  }
  holds_.emplace(request.id, hold);
  return {};
}

Awaitable<std::expected<void, Refusal>> MemoryState::reserve(ReservationRequest request) {
  co_return reserve_now(request);
}

void MemoryState::note_circuit(SubjectId id, Subject& subject, MonotonicTime now) noexcept {
  const auto state = subject.circuit->state(now);
  if (state == subject.told) return;
  subject.told = state;
  if (listener_.circuit_changed) listener_.circuit_changed(id, state);
}

void MemoryState::finish(Hold& hold, const Settlement& settlement) noexcept {
  using Gate = policy::ProviderGate;
  const bool is_well = settlement.outcome == CircuitBreaker::Outcome::success;
  end_gate(hold, is_well ? Gate::Ending::well : Gate::Ending::otherwise);
  NanoUsd worst_overrun{};
  SubjectId overrun_subject = 0;
  for (std::size_t i = 0; i < hold.size; ++i) {
    const Hold::Part& part = hold.parts[i];
    Subject& subject = subjects_[part.subject];
    for (std::size_t b = 0; b < part.budgets; ++b) {
      Budget* const budget = find_number(subject.budgets, part.budget_numbers[b]);
      if (budget == nullptr) continue;
      if (settlement.ending == Ending::released) {
        budget->release(part.pins[b], hold.estimate);
        continue;
      }
      const NanoUsd cost = settlement.ending == Ending::actual ? settlement.cost : hold.estimate;
      const NanoUsd overrun = budget->settle(part.pins[b], hold.estimate, cost);
      if (overrun > worst_overrun) {
        worst_overrun = overrun;
        overrun_subject = part.subject;
      }
    }
    for (std::size_t l = 0; l < part.limits; ++l) {
      // A call that started counts, whatever came of it; tokens become what was used.
      WindowLimit* const limit = find_number(subject.limits, part.limit_numbers[l]);
      if (limit == nullptr || limit->spec().unit != LimitUnit::tokens) continue;
      const std::int64_t used = settlement.ending == Ending::released ? 0 : settlement.tokens;
      if (used >= 0 && used != hold.tokens)
        limit->correct(part.tickets[l], used - hold.tokens, settlement.now.mono);
    }
    if (subject.circuit && part.circuit_number == subject.circuit_number) {
      subject.circuit->report(part.permit, settlement.outcome, settlement.first_byte, settlement.now.mono);
      note_circuit(part.subject, subject, settlement.now.mono);
    }
    --subject.in_flight;
    --subject.holds;
  }
  if (worst_overrun > NanoUsd{} && listener_.overrun) listener_.overrun(overrun_subject, worst_overrun);
}

void MemoryState::expire(Hold& hold, Now now) noexcept {
  end_gate(hold, policy::ProviderGate::Ending::otherwise);
  for (std::size_t i = 0; i < hold.size; ++i) {
    const Hold::Part& part = hold.parts[i];
    Subject& subject = subjects_[part.subject];
    for (std::size_t b = 0; b < part.budgets; ++b)
      if (Budget* const budget = find_number(subject.budgets, part.budget_numbers[b]))
        budget->settle(part.pins[b], hold.estimate, hold.estimate);
    if (subject.circuit && part.circuit_number == subject.circuit_number) {
      subject.circuit->report(part.permit, CircuitBreaker::Outcome::abandoned, {}, now.mono);
      note_circuit(part.subject, subject, now.mono);
    }
    --subject.in_flight;
  }
  hold.expired = true;
}

void MemoryState::correct_expired(Hold& hold, const Settlement& settlement) noexcept {
  const NanoUsd cost = settlement.ending == Ending::actual     ? settlement.cost
                       : settlement.ending == Ending::estimate ? hold.estimate
                                                               : NanoUsd{};
  for (std::size_t i = 0; i < hold.size; ++i) {
    const Hold::Part& part = hold.parts[i];
    Subject& subject = subjects_[part.subject];
    for (std::size_t b = 0; b < part.budgets; ++b) {
      Budget* const budget = find_number(subject.budgets, part.budget_numbers[b]);
      if (budget == nullptr) continue;
      const NanoUsd overrun = budget->correct(part.pins[b], hold.estimate, cost);
      if (overrun > NanoUsd{} && listener_.overrun) listener_.overrun(part.subject, overrun);
    }
    --subject.holds;
  }
}

void MemoryState::settle(const Settlement& settlement) noexcept {
  const std::scoped_lock lock(mutex_);
  const auto found = holds_.find(settlement.id);
  if (found == holds_.end()) return;
  if (found->second.expired)
    correct_expired(found->second, settlement);
  else
    finish(found->second, settlement);
  holds_.erase(found);
}

void MemoryState::take_back(AttemptId id, Now now) noexcept {
  const std::scoped_lock lock(mutex_);
  const auto found = holds_.find(id);
  if (found == holds_.end() || found->second.expired) return;
  Hold& hold = found->second;
  for (std::size_t i = 0; i < hold.size; ++i) {
    const Hold::Part& part = hold.parts[i];
    for (std::size_t l = 0; l < part.limits; ++l)
      if (WindowLimit* const limit = find_number(subjects_[part.subject].limits, part.limit_numbers[l]))
        limit->correct(part.tickets[l], limit->spec().unit == LimitUnit::calls ? -1 : -hold.tokens, now.mono);
  }
  finish(hold, {.id = id,
                .ending = Ending::released,
                .cost = {},
                .tokens = hold.tokens,  // given back above
                .outcome = CircuitBreaker::Outcome::abandoned,
                .first_byte = {},
                .now = now});
  holds_.erase(found);
}

void MemoryState::end_gate(const Hold& hold, policy::ProviderGate::Ending ending) noexcept {
  if (hold.gated == 0) return;
  subjects_[hold.parts[hold.gated - 1U].subject].gate->end(hold.gate_ticket, ending);
}

void MemoryState::learn(const Lesson& lesson) noexcept {
  const std::scoped_lock lock(mutex_);
  const auto found = holds_.find(lesson.id);
  if (found == holds_.end() || found->second.expired || found->second.gated == 0) return;
  const Hold& hold = found->second;
  subjects_[hold.parts[hold.gated - 1U].subject].gate->learn(hold.gate_ticket, lesson.signs, lesson.now);
}

void MemoryState::pause(SubjectId provider, MonotonicTime until) noexcept {
  const std::scoped_lock lock(mutex_);
  Subject& subject = subjects_[provider];
  subject.paused_until = std::max(subject.paused_until, until);
}

bool MemoryState::try_retry(SubjectId provider, MonotonicTime now) noexcept {
  const std::scoped_lock lock(mutex_);
  auto& retries = subjects_[provider].retries;
  return retries && retries->try_withdraw(now);
}

void MemoryState::reap(Now now) {
  const std::scoped_lock lock(mutex_);
  for (auto& [id, hold] : holds_) {
    if (hold.expired || hold.lease_end > now.mono) continue;
    expire(hold, now);
    expired_.emplace_back(now.mono, id);
    if (listener_.lease_expired) listener_.lease_expired(id);
  }
  while (!expired_.empty() &&
         (expired_.size() > kMaxExpiredHolds || expired_.front().first + kExpiredHoldKept < now.mono)) {
    if (const auto found = holds_.find(expired_.front().second); found != holds_.end()) {
      for (std::size_t i = 0; i < found->second.size; ++i) --subjects_[found->second.parts[i].subject].holds;
      holds_.erase(found);
    }
    expired_.pop_front();
  }
  for (SubjectId id = 0; id < subjects_.size(); ++id)
    if (subjects_[id].circuit) note_circuit(id, subjects_[id], now.mono);
}

SubjectView MemoryState::view_of(SubjectId id, Subject& subject, Now now) {
  SubjectView view{.id = id,
                   .kind = subject.spec.kind,
                   .name = subject.spec.name,
                   .budgets = {},
                   .limits = {},
                   .in_flight = subject.in_flight,
                   .concurrency = subject.spec.concurrency,
                   .circuit = CircuitBreaker::State::closed,
                   .circuit_failures = 0,
                   .starts_this_minute = 0,
                   .starts_today = 0};
  for (auto& [budget, number] : subject.budgets) {
    budget.advance(now.wall, now.doubtful_ahead);
    view.budgets.push_back({budget.spec(), budget.settled(), budget.held(), budget.overrun(), budget.span()});
    view.budgets.back().spec.limit = budget.limit();
  }
  for (auto& [limit, number] : subject.limits)
    view.limits.push_back({limit.spec(), limit.used(now.mono), limit.remaining(now.mono)});
  if (subject.circuit) {
    view.circuit = subject.circuit->state(now.mono);
    view.circuit_failures = subject.circuit->failure_count(now.mono);
  }
  if (subject.starts) {
    view.starts_this_minute = subject.starts->minute.used(now.mono);
    view.starts_today = subject.starts->of_today(now.wall);
  }
  if (subject.gate) {
    for (std::size_t i = 0; i < policy::kLimitDimensions; ++i) {
      const auto dimension = static_cast<policy::LimitDimension>(i);
      if (const auto learned = subject.gate->limit(dimension, now.mono))
        view.learned.push_back({dimension, learned->limit, learned->remaining});
    }
    view.learned_concurrency = subject.gate->concurrency();
  }
  return view;
}

std::vector<SubjectView> MemoryState::view(Now now, std::span<const SubjectId> only) {
  std::vector<SubjectId> wanted(only.begin(), only.end());
  std::ranges::sort(wanted);
  const auto repeated = std::ranges::unique(wanted);
  wanted.erase(repeated.begin(), repeated.end());
  std::vector<SubjectView> views;
  const std::scoped_lock lock(mutex_);
  views.reserve(only.empty() ? subjects_.size() : wanted.size());
  const auto add = [&](SubjectId id) {
    if (id < subjects_.size() && !subjects_[id].gone) views.push_back(view_of(id, subjects_[id], now));
  };
  if (only.empty())
    for (SubjectId id = 0; id < subjects_.size(); ++id) add(id);
  else
    for (const SubjectId id : wanted) add(id);
  return views;
}

std::size_t MemoryState::open_reservations() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<std::size_t>(
      std::ranges::count_if(holds_, [](const auto& entry) { return !entry.second.expired; }));
}

}  // namespace penstock::store
