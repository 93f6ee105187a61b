// All interleavings of a few attempts at one hard budget, at small scope: every order in which workers
// reserve, lose the answer and ask again, write the journal, send, settle, settle twice, give up or die,
// while leases run out, a day ends and the process crashes and comes back from its journal. Each reachable
// state is found once, in an abstract model of a few bytes; each of its steps is then replayed on the real
// code, which must say what the model says.
//
// The order that is modelled is the one that G1 needs: an end is written to the journal before the state
// gives back what was held. The other way round, a crash in between charges both the attempt whose release
// nobody wrote down and the one that took its place.
#include <array>
#include <cstdio>
#include <deque>
#include <memory>
#include <unordered_map>

#include "store/contract/shared_state_testing.hpp"
#include "store/history.hpp"
#include "store/memory/memory_state.hpp"

namespace penstock::store::contract {
namespace {

constexpr std::int64_t kLimit = 10;
constexpr nanoseconds kTick = 30s;
constexpr nanoseconds kLease = 2 * kTick;

/// What an attempt may cost at most and what the provider bills, if it is sent.
struct Cost {
  std::int64_t estimate;
  std::int64_t billed;
};

/// How far the worker is with its attempt.
enum class Step : std::uint8_t {
  idle,
  unanswered,
  held,
  in_journal,
  sent,
  end_in_journal,
  done,
  refused,
  dead
};
/// What the shared state knows of it.
enum class Held : std::uint8_t { no, open, expired, charged, free };
/// The last that the journal says of it.
enum class Written : std::uint8_t { nothing, reserved, expired, charged, free };

struct AttemptModel {
  Step step = Step::idle;
  Held held = Held::no;
  Written written = Written::nothing;
  std::uint8_t window = 0;  // of the reservation
  std::uint8_t age = 0;     // ticks since
  bool is_billed = false;
};

enum class Act : std::uint8_t {
  reserve,
  reserve_unanswered,
  reserve_again,
  write_reservation,
  send,
  write_end,
  settle,
  settle_twice,
  tick,
  midnight,
  crash
};
struct Action {
  Act act;
  std::uint8_t who = 0;
};

template <std::size_t kAttempts>
struct Model {
  std::array<AttemptModel, kAttempts> attempts{};
  std::uint8_t window = 0;
  std::uint8_t ticks = 0;
  std::uint8_t crashes = 0;
  // What a new process began with, in the window of then.
  std::uint8_t past_window = 0;
  std::uint8_t past_settled = 0;
  std::uint8_t past_overrun = 0;

  [[nodiscard]] std::string key() const { return {reinterpret_cast<const char*>(this), sizeof *this}; }
};

struct Sums {
  std::int64_t settled = 0, held = 0, overrun = 0;
  friend bool operator==(const Sums&, const Sums&) = default;
};
void PrintTo(const Sums& sums, std::ostream* out) {
  *out << sums.settled << "+" << sums.held << "!" << sums.overrun;
}

/// The rules, in the plainest words.
template <std::size_t kAttempts>
class Rules {
 public:
  using State = Model<kAttempts>;
  explicit Rules(std::array<Cost, kAttempts> costs) : costs_(costs) {}
  std::array<Cost, kAttempts> costs_;

  /// Of the current window.
  [[nodiscard]] Sums sums(const State& s) const {
    Sums out;
    if (s.past_window == s.window) out = {s.past_settled, 0, s.past_overrun};
    for (std::size_t i = 0; i < kAttempts; ++i) {
      const AttemptModel& a = s.attempts[i];
      if (a.window != s.window) continue;
      if (a.held == Held::open) out.held += costs_[i].estimate;
      if (a.held == Held::expired) out.settled += costs_[i].estimate;
      if (a.held == Held::charged) {
        out.settled += std::min(costs_[i].estimate, costs_[i].billed);
        out.overrun += std::max<std::int64_t>(0, costs_[i].billed - costs_[i].estimate);
      }
    }
    return out;
  }
  [[nodiscard]] bool fits(const State& s, std::size_t i) const {
    const Sums now = sums(s);
    return now.settled + now.held + now.overrun + costs_[i].estimate <= kLimit;
  }
  /// What the journal makes of an attempt: reserved without an end is charged.
  [[nodiscard]] Sums charged(const AttemptModel& a, std::size_t i) const {
    switch (a.written) {
      case Written::nothing:
      case Written::free: return {};
      case Written::reserved:
      case Written::expired: return {costs_[i].estimate, 0, 0};
      case Written::charged:
        return {std::min(costs_[i].estimate, costs_[i].billed), 0,
                std::max<std::int64_t>(0, costs_[i].billed - costs_[i].estimate)};
    }
    return {};
  }

  [[nodiscard]] std::vector<Action> actions(const State& s) const {
    std::vector<Action> out;
    for (std::uint8_t i = 0; i < kAttempts; ++i) {
      const auto add = [&](Act act) { out.push_back({act, i}); };
      switch (s.attempts[i].step) {
        case Step::idle: add(Act::reserve), add(Act::reserve_unanswered); break;
        case Step::unanswered: add(Act::reserve_again); break;
        case Step::held: add(Act::write_reservation), add(Act::write_end); break;  // or it gives up
        case Step::in_journal: add(Act::send), add(Act::write_end); break;         // or it gives up
        case Step::sent: add(Act::write_end); break;
        case Step::end_in_journal: add(Act::settle); break;
        case Step::done: add(Act::settle_twice); break;
        case Step::refused:
        case Step::dead: break;
      }
    }
    if (s.ticks < 3) out.push_back({Act::tick});
    if (s.window < 1) out.push_back({Act::midnight});
    if (s.crashes < 1) out.push_back({Act::crash});
    return out;
  }

  [[nodiscard]] State after(State s, Action action) const {
    AttemptModel& a = s.attempts[action.who];
    const auto reserve = [&] {
      if (a.held != Held::no) return true;  // asked again
      if (!fits(s, action.who)) return false;
      a.held = Held::open;
      a.window = s.window;
      return true;
    };
    switch (action.act) {
      case Act::reserve:
      case Act::reserve_again: a.step = reserve() ? Step::held : Step::refused; break;
      case Act::reserve_unanswered:
        (void)reserve();
        a.step = Step::unanswered;
        break;
      case Act::write_reservation:
        // The journal's writer hears of an expiry, too, but had nothing to write it to.
        a.written = a.held == Held::expired ? Written::expired : Written::reserved;
        a.step = Step::in_journal;
        break;
      case Act::send:
        a.is_billed = true;
        a.step = Step::sent;
        break;
      case Act::write_end:
        if (a.written != Written::nothing) a.written = a.is_billed ? Written::charged : Written::free;
        a.step = Step::end_in_journal;
        break;
      case Act::settle:
        a.held = a.is_billed ? Held::charged : Held::free;
        a.step = Step::done;
        break;
      case Act::settle_twice: break;
      case Act::tick:
        ++s.ticks;
        for (AttemptModel& each : s.attempts) {
          if (each.held != Held::open || ++each.age * kTick < kLease) continue;
          each.held = Held::expired;
          if (each.written == Written::reserved) each.written = Written::expired;
        }
        break;
      case Act::midnight: ++s.window; break;
      case Act::crash: {
        ++s.crashes;
        s.past_window = s.window;
        for (std::size_t i = 0; i < kAttempts; ++i) {
          AttemptModel& each = s.attempts[i];
          const Sums sum = charged(each, i);
          if (each.window == s.window) {
            s.past_settled = static_cast<std::uint8_t>(s.past_settled + sum.settled);
            s.past_overrun = static_cast<std::uint8_t>(s.past_overrun + sum.overrun);
          }
          each.held = Held::no;
          each.age = 0;
          if (each.step != Step::idle) each.step = Step::dead;
        }
        break;
      }
    }
    return s;
  }
};

/// The real code, and a journal beside it.
template <std::size_t kAttempts>
class World final : public History {
 public:
  explicit World(const std::array<Cost, kAttempts>& costs) : costs_(costs) { start(); }

  /// False: refused.
  bool apply(Action action) {
    const std::size_t i = action.who;
    Written& written = written_[i];
    switch (action.act) {
      case Act::reserve:
      case Act::reserve_unanswered:
      case Act::reserve_again:
        if (!was_asked_[i]) reserved_at_[i] = now_.wall;
        return reserve(i);
      case Act::write_reservation: written = is_expired_[i] ? Written::expired : Written::reserved; break;
      case Act::send: is_sent_[i] = true; break;
      case Act::write_end:
        if (written != Written::nothing) written = is_sent_[i] ? Written::charged : Written::free;
        break;
      case Act::settle: settle(i, is_sent_[i] ? Ending::actual : Ending::released, costs_[i].billed); break;
      case Act::settle_twice:
        settle(i, Ending::released, 0);
        settle(i, Ending::actual, 9);
        settle(i, Ending::estimate, 0);
        break;
      case Act::tick:
        now_.mono += kTick;
        now_.wall += kTick;
        state_->reap(now_);
        break;
      case Act::midnight: now_.wall = kDay + 24h + (now_.mono - kStart); break;
      case Act::crash: start(); break;
    }
    return true;
  }
  [[nodiscard]] Sums sums() {
    const BudgetView view = state_->view(now_, {}).at(0).budgets.at(0);
    return {view.settled.count, view.held.count, view.overrun.count};
  }
  [[nodiscard]] std::size_t open() const { return state_->open_reservations(); }
  [[nodiscard]] int expiries(std::size_t i) const { return expiries_[i]; }

  [[nodiscard]] Spent spent(SubjectKind, std::string_view, policy::WindowSpan span) const override {
    Spent out;
    for (std::size_t i = 0; i < kAttempts; ++i) {
      if (written_[i] == Written::nothing || written_[i] == Written::free) continue;
      if (reserved_at_[i] < span.start || reserved_at_[i] >= span.end) continue;
      const std::int64_t cost = written_[i] == Written::charged ? costs_[i].billed : costs_[i].estimate;
      out.settled.count += std::min(cost, costs_[i].estimate);
      out.overrun.count += std::max<std::int64_t>(0, cost - costs_[i].estimate);
    }
    return out;
  }
  [[nodiscard]] std::vector<Started> started(SubjectKind, std::string_view, WallTime,
                                             nanoseconds) const override {
    return {};
  }

 private:
  static constexpr MonotonicTime kStart{1'000h};

  void start() {
    ++epoch_;
    state_ = std::make_unique<MemoryState>();
    state_->listen({.circuit_changed = {}, .overrun = {}, .lease_expired = [this](AttemptId id) {
                      ++expiries_[id.sequence];
                      is_expired_[id.sequence] = true;
                      if (written_[id.sequence] == Written::reserved)
                        written_[id.sequence] = Written::expired;
                    }});
    state_->set_history(this);
    ids_ = state_->declare(std::vector{with_budgets(SubjectKind::provider, "p", {daily(kLimit)})}, now_);
  }
  bool reserve(std::size_t i) {
    const auto held = state_->reserve_now({.id = {epoch_, i},
                                           .subjects = ids_,
                                           .estimate = {costs_[i].estimate},
                                           .tokens = 0,
                                           .lease = kLease,
                                           .is_retry = false,
                                           .now = now_});
    was_asked_[i] = was_asked_[i] || held.has_value();
    return held.has_value();
  }
  void settle(std::size_t i, Ending ending, std::int64_t cost) {
    state_->settle({.id = {epoch_, i},
                    .ending = ending,
                    .cost = {cost},
                    .tokens = -1,
                    .outcome = CircuitOutcome::success,
                    .first_byte = {},
                    .now = now_});
  }

  std::array<Cost, kAttempts> costs_;
  std::unique_ptr<MemoryState> state_;
  std::vector<SubjectId> ids_;
  Now now_{kStart, kDay};
  std::uint64_t epoch_ = 0;
  std::array<Written, kAttempts> written_{};
  std::array<WallTime, kAttempts> reserved_at_{};
  std::array<bool, kAttempts> was_asked_{};
  std::array<bool, kAttempts> is_sent_{};
  std::array<bool, kAttempts> is_expired_{};
  std::array<int, kAttempts> expiries_{};
};

/// Breadth first: so every state is reached by one of its shortest ways.
template <std::size_t kAttempts>
void explore(const std::array<Cost, kAttempts>& costs) {
  using State = Model<kAttempts>;
  const Rules<kAttempts> rules(costs);
  struct Found {
    State state;
    std::size_t parent;
    Action by;
  };
  std::deque<Found> found{{State{}, 0, {}}};
  std::unordered_map<std::string, std::size_t> known{{State{}.key(), 0}};
  std::size_t steps = 0;
  std::size_t refusals = 0;
  for (std::size_t at = 0; at < found.size(); ++at) {
    const State before = found[at].state;
    std::vector<Action> way;
    for (std::size_t i = at; i != 0; i = found[i].parent) way.push_back(found[i].by);
    for (const Action action : rules.actions(before)) {
      const State after = rules.after(before, action);
      ++steps;
      World<kAttempts> world(costs);
      for (std::size_t i = way.size(); i > 0; --i) world.apply(way[i - 1]);
      const Sums real_before = world.sums();
      const bool admitted = world.apply(action);
      const Sums real = world.sums();

      std::string trace;
      const auto told = [&] {
        for (std::size_t i = way.size(); i > 0; --i)
          trace +=
              std::to_string(static_cast<int>(way[i - 1].act)) + "/" + std::to_string(way[i - 1].who) + " ";
        return trace + std::to_string(static_cast<int>(action.act)) + "/" + std::to_string(action.who);
      };
      // B1, and the real code agrees with the model.
      ASSERT_LE(real.settled + real.held, kLimit) << told();
      ASSERT_EQ(real, rules.sums(after)) << told();
      // B2: what is held is what is open. D3: an expiry is told once.
      std::size_t open = 0;
      for (std::size_t i = 0; i < kAttempts; ++i) {
        open += after.attempts[i].held == Held::open ? 1 : 0;
        ASSERT_LE(world.expiries(i), 1) << told();
      }
      ASSERT_EQ(world.open(), open) << told();
      // B6: a refusal leaves no trace. B4, D3: nor does an end of what has ended.
      if (action.act == Act::reserve) {
        ASSERT_EQ(admitted, after.attempts[action.who].step == Step::held) << told();
        refusals += admitted ? 0 : 1;
      }
      if (!admitted || action.act == Act::settle_twice) ASSERT_EQ(real, real_before) << told();
      // G2: what a new process knows is no less than what was billed, and no more than that and what was
      // open.
      if (action.act == Act::crash) {
        std::int64_t billed = 0;
        std::int64_t in_doubt = 0;
        std::int64_t recovered = 0;
        for (std::size_t i = 0; i < kAttempts; ++i) {
          const AttemptModel& a = before.attempts[i];
          if (a.is_billed) billed += costs[i].billed;
          // Open: not ended as far as the journal knows, whether or not its lease has run out.
          if (a.written == Written::reserved || a.written == Written::expired) in_doubt += costs[i].estimate;
          const Sums sum = rules.charged(a, i);
          recovered += sum.settled + sum.overrun;
          // A bill above the estimate is known only once it is settled.
          if (a.is_billed && a.written != Written::charged)
            billed -= std::max<std::int64_t>(0, costs[i].billed - costs[i].estimate);
        }
        ASSERT_GE(recovered, billed) << told();
        ASSERT_LE(recovered, billed + in_doubt) << told();
      }
      if (known.emplace(after.key(), found.size()).second) found.push_back({after, at, action});
    }
  }
  std::printf("%zu states, %zu steps, %zu of them refusals\n", found.size(), steps, refusals);
  EXPECT_GT(found.size(), 5'000U);
  EXPECT_GT(refusals, 20U);
}

// Two that do not fit side by side, but do one after the other; the first costs less than it might.
TEST(MemoryStateModel, TwoAttemptsInEveryOrder) { explore<2>({Cost{6, 4}, Cost{6, 6}}); }

// A provider that bills more than its most.
TEST(MemoryStateModel, AnOverrunInEveryOrder) { explore<2>({Cost{5, 7}, Cost{4, 1}}); }

}  // namespace
}  // namespace penstock::store::contract
