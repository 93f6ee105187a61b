#include "store/redis/redis_state.hpp"

#include <atomic>
#include <cassert>
#include <charconv>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/unordered/unordered_flat_map.hpp>

#include "store/memory/memory_state.hpp"
#include "store/redis/functions.hpp"
#include "store/redis/link.hpp"

namespace penstock::store {

namespace asio = boost::asio;
using policy::BudgetMode;
using policy::LimitUnit;
using policy::RetryBudget;
using policy::WindowLimit;
using policy::WindowSpan;
using std::chrono::microseconds;

namespace {

/// The first element of every answer; functions.lua has the same list.
enum class Code : std::int64_t {
  denied = 0,
  ok = 1,
  duplicate = 2,
  ended = 3,
  new_epoch = -1,
  bad_arguments = -2,
  unknown = -4,
  undeclared = -5,
  other_window = -6,
  learning = -7,
  no_answer = -100,  ///< ours: down, too late, or an error
};

constexpr std::int64_t kMaxAmount = kMaxNanoUsd.count;
constexpr seconds kDeclareWait{5};
constexpr seconds kBeatEvery{1};
constexpr seconds kUnavailableRetry{1};
/// How far the shared database may lag behind a settlement, where nobody tells.
constexpr seconds kAssumedLag{60};
constexpr milliseconds kSyncBackoff{200};
/// Commands that wait for answers together when the server is brought up to date.
constexpr std::size_t kBatch = 512;
constexpr std::size_t kReapBatch = 128;
/// A window that changes between asking and answering is asked again; more often than once is a broken clock.
constexpr int kWindowTries = 3;

std::int64_t micros(nanoseconds time) { return std::chrono::floor<microseconds>(time).count(); }
std::int64_t micros(WallTime time) { return micros(time.time_since_epoch()); }
WallTime wall_time(std::int64_t count) { return WallTime{microseconds{count}}; }

std::int64_t element(const Reply& reply, std::size_t index) {
  if (reply->type != REDIS_REPLY_ARRAY || index >= reply->elements) return 0;
  const redisReply* each = reply->element[index];
  return each->type == REDIS_REPLY_INTEGER ? each->integer : 0;
}
std::string text_of(const redisReply* reply) {
  return reply->str == nullptr ? std::string{}
                               : std::string(reply->str, static_cast<std::size_t>(reply->len));
}
Code code_of(const Reply& reply) {
  if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements < 2) return Code::no_answer;
  return static_cast<Code>(element(reply, 0));
}
bool is_error(const Reply& reply) { return !reply || reply->type == REDIS_REPLY_ERROR; }

/// The names of its functions tell versions apart, so that old and new programs can share a server for a
/// while.
std::string library_name(bool tests_clock) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a
  for (const char c : kFunctions) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  std::array<char, 17> digits{};
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + 16, hash, 16);
  return std::string(tests_clock ? "penstock_v1_test_" : "penstock_v1_") + std::string(digits.data(), end);
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
  return text;
}

/// The line `name:value` of INFO.
std::string info_line(const std::string& info, std::string_view name) {
  std::size_t at = info.find("\n" + std::string(name) + ":");
  if (at == std::string::npos) return {};
  at += name.size() + 2;
  return info.substr(at, info.find_first_of("\r\n", at) - at);
}

/// What this replica's attempts of a process's life have cost in a budget's window.
struct OwnCount {
  WindowSpan span{WallTime::min(), WallTime::min()};
  NanoUsd spent{};
  NanoUsd recent{};  ///< of the last kAssumedLag, and of up to as much before
  NanoUsd earlier{};
  MonotonicTime recent_since{};

  void add(WindowSpan window, NanoUsd cost, MonotonicTime now) {
    if (window.start < span.start) return;
    if (window.start > span.start) {
      span = window;
      spent = recent = earlier = {};
    }
    rotate(now);
    spent = add_saturating(spent, cost);
    recent = add_saturating(recent, cost);
  }
  void rotate(MonotonicTime now) {
    if (now - recent_since < kAssumedLag) return;
    earlier = now - recent_since < 2 * kAssumedLag ? recent : NanoUsd{};
    recent = {};
    recent_since = now;
  }
};

struct BudgetPlan {
  std::string id;
  policy::BudgetSpec spec;
  std::shared_ptr<OwnCount> own;  ///< under the own mutex
};
struct LimitPlan {
  std::string id;
  policy::LimitSpec spec;
  std::int64_t bucket = 0;  ///< microseconds
};
struct SubjectPlan {
  SubjectId id = 0;
  SubjectSpec spec;
  std::string key;
  std::string ids;  ///< " d m c60000000 ", as functions.lua keeps them
  std::vector<BudgetPlan> budgets;
  std::vector<LimitPlan> limits;
  bool has_hard_budget = false;
  bool is_limited = false;
};
using SubjectPlanPtr = std::shared_ptr<const SubjectPlan>;
/// By SubjectId; null: forgotten.
using Plan = std::vector<SubjectPlanPtr>;

/// Of one attempt of this replica, until its settlement is confirmed.
struct Own {
  AttemptId id;
  std::array<SubjectPlanPtr, kMaxSubjects> subjects{};
  std::size_t size = 0;
  NanoUsd estimate{};
  std::int64_t tokens = 0;
  nanoseconds lease{};
  WallTime reserved_at{};  ///< by the server's clock
  MonotonicTime lease_end{};
  std::optional<MonotonicTime> expired_at;
  bool is_asked = false;     ///< the server may have it
  bool is_held = false;      ///< the server said so, in this epoch
  bool is_admitted = false;  ///< it runs
  bool is_counted = false;   ///< what was published of its subjects' limits has it already
  bool is_sending = false;   ///< its settlement is on the way
  std::optional<Settlement> end;
};

struct Answer {
  Code code = Code::no_answer;
  WallTime wall{};
  std::size_t subject = 0;
  bool is_budget = false;
  bool opens_early = false;
  nanoseconds retry_after{};
};

}  // namespace

struct RedisState::Impl {
  struct IdHash {
    std::size_t operator()(const AttemptId& id) const noexcept {
      return static_cast<std::size_t>(id.sequence * 0x9E3779B97F4A7C15ULL ^ id.epoch);
    }
  };
  enum class Mode : std::uint8_t { ask, adopt };

  explicit Impl(RedisOptions given);
  ~Impl();

  // ---- Keys and commands
  [[nodiscard]] std::string key(std::string_view rest) const { return prefix_ + std::string(rest); }
  [[nodiscard]] std::string attempt_key(AttemptId id) const {
    return prefix_ + "r:" + std::to_string(id.epoch) + "-" + std::to_string(id.sequence);
  }
  [[nodiscard]] std::vector<std::string> function(std::string_view name, std::vector<std::string> keys,
                                                  Now now) const;
  [[nodiscard]] std::string reserve_command(const Own& own, Mode mode, Now now, WallTime wall);
  [[nodiscard]] std::string settle_command(const Own& own) const;
  /// What the history tells of a subject's budgets and limits that `before` did not have.
  struct Known {
    struct Spend {
      NanoUsd database{};  ///< settled and overrun
      NanoUsd overrun{};
      NanoUsd unapplied{};
      bool is_told = false;
    };
    std::vector<Spend> budgets;
    std::vector<std::vector<Started>> started;  ///< of each limit
  };
  using OpenHolds = std::unordered_map<const OwnCount*, NanoUsd>;
  [[nodiscard]] Known known_of(const SubjectPlan& subject, const SubjectPlan* before, Now now, WallTime wall);
  [[nodiscard]] OpenHolds open_holds(WallTime wall, bool folds_ended);
  [[nodiscard]] std::string publish_command(const SubjectPlan& subject, const Known& known,
                                            const OpenHolds& open, bool in_new_epoch, Now now, WallTime wall);
  [[nodiscard]] WindowSpan window(const policy::BudgetSpec& budget, WallTime wall);

  // ---- Time
  /// The server's wall clock, as far as it is known here.
  [[nodiscard]] WallTime server_wall(Now now) const {
    return options_.tests_clock ? now.wall
                                : WallTime{now.mono.time_since_epoch() + nanoseconds{offset_.load()}};
  }
  [[nodiscard]] Now now() const {
    if (!options_.tests_clock) return read_clocks();
    const std::scoped_lock lock(now_mutex_);
    return last_now_;
  }
  void note_now(Now now) {
    if (!options_.tests_clock) return;
    const std::scoped_lock lock(now_mutex_);
    last_now_ = now;
  }
  void learn_offset(const Reply& reply) {
    if (code_of(reply) == Code::no_answer) return;
    offset_ = (wall_time(element(reply, 1)).time_since_epoch() -
               std::chrono::steady_clock::now().time_since_epoch())
                  .count();
  }

  // ---- On the link's thread
  [[nodiscard]] Awaitable<std::string> attach();
  void went_up();
  void went_down(const std::string& why);
  void beat();
  void send_settlement(AttemptId id);
  void send_settlements();
  void send_reap(Now now);

  /// Runs `work` on the link's thread.
  template <class Work>
  void on_link(Work work) {
    asio::post(io_, std::move(work));
  }
  /// Sends and waits for all answers, at most kDeclareWait. Not from the link's thread. Null where there is
  /// none.
  [[nodiscard]] std::vector<Reply> exchange(std::vector<std::string> commands);

  // ---- Bringing the server up to date, on the learner's thread
  void learn();
  [[nodiscard]] bool synchronise(const std::string& epoch, bool is_new);
  [[nodiscard]] bool publish(const Plan& plan, bool in_new_epoch);
  [[nodiscard]] bool adopt(bool all);
  void declare_locally(bool shares);

  // ---- Reserving
  [[nodiscard]] Awaitable<Answer> ask(std::shared_ptr<Own> own, std::string bytes);
  [[nodiscard]] std::expected<void, Refusal> admit_alone(const ReservationRequest& request,
                                                         const std::shared_ptr<Own>& own);
  void forget(AttemptId id) {
    const std::scoped_lock lock(own_mutex_);
    own_.erase(id);
  }

  RedisOptions options_;
  std::string prefix_;
  std::string library_;
  const History* history_ = nullptr;
  const Unapplied* unapplied_ = nullptr;
  Listener listener_;  // set before the first reservation

  /// Circuits, and limits as this replica alone sees them: without a bound while the server keeps them.
  MemoryState local_;
  std::atomic<bool> has_shares_{false};  ///< local_ has this replica's share of limits

  std::mutex declare_mutex_;  ///< one declare at a time; also guards specs_
  std::vector<SubjectSpec> specs_;
  std::atomic<std::shared_ptr<const Plan>> plan_{std::make_shared<const Plan>()};

  mutable std::mutex own_mutex_;
  boost::unordered_flat_map<AttemptId, std::shared_ptr<Own>, IdHash> own_;

  std::mutex small_mutex_;  ///< retries, pauses, windows and views below
  std::unordered_map<SubjectId, RetryBudget> retries_;
  std::unordered_map<SubjectId, MonotonicTime> pauses_;
  std::vector<std::pair<policy::BudgetSpec, WindowSpan>> windows_;  ///< one per kind of window and zone
  std::unordered_map<SubjectId, SubjectView> last_views_;

  mutable std::mutex now_mutex_;
  Now last_now_{};
  std::atomic<std::int64_t> offset_;  ///< nanoseconds from the monotonic to the server's clock

  mutable std::mutex status_mutex_;
  RedisStatus status_;
  std::vector<std::string> members_;  ///< names of replicas, as last heard
  std::string refused_;               ///< why the server was not taken
  std::condition_variable status_changed_;

  std::atomic<bool> link_up_{false};
  std::atomic<bool> synced_{false};  ///< the server has all that is declared and runs here

  // The learner's own; the mutex guards what others tell it.
  std::mutex learner_mutex_;
  std::condition_variable learner_wake_;
  bool wants_sync_ = false;
  bool wants_shares_ = false;
  bool is_stopping_ = false;
  bool is_declared_ = false;
  std::uint64_t asked_ = 0;  ///< declarations that were asked for, and that are done
  std::uint64_t done_ = 0;
  std::condition_variable learner_done_;
  std::string epoch_;            ///< that the link attached to
  std::string published_epoch_;  ///< learner only, as is the next
  std::map<SubjectId, SubjectPlanPtr> published_;

  // The link's thread's own.
  asio::io_context io_{1};
  asio::executor_work_guard<Executor> work_{io_.get_executor()};
  bool settles_ = false;  ///< the server knows of all that runs here: settlements may go out
  Link link_;
  asio::basic_waitable_timer<std::chrono::steady_clock, asio::wait_traits<std::chrono::steady_clock>,
                             Executor>
      beat_{io_.get_executor()};
  std::thread link_thread_;
  std::thread learner_;
};

RedisState::Impl::Impl(RedisOptions given)
    : options_(std::move(given)),
      prefix_("ps:{" + options_.domain + "}:"),
      library_(library_name(options_.tests_clock)),
      offset_((std::chrono::system_clock::now().time_since_epoch() -
               std::chrono::steady_clock::now().time_since_epoch())
                  .count()),
      link_(io_,
            {.url = options_.url,
             .command_timeout = options_.command_timeout,
             .connect_timeout = options_.connect_timeout},
            {.attach = [this] { return attach(); },
             .up = [this] { went_up(); },
             .down = [this](const std::string& why) { went_down(why); }}) {
  members_ = {options_.replica};
  status_.reason = "not connected yet";
  link_thread_ = std::thread([this] { io_.run(); });
  learner_ = std::thread([this] { learn(); });
}

RedisState::Impl::~Impl() {
  {
    const std::scoped_lock lock(learner_mutex_);
    is_stopping_ = true;
  }
  learner_wake_.notify_all();
  learner_.join();
  if (synced_) (void)exchange({command(function("leave", {key("m")}, now()))});
  io_.stop();
  link_thread_.join();
}

// ---- Commands

std::vector<std::string> RedisState::Impl::function(std::string_view name, std::vector<std::string> keys,
                                                    Now now) const {
  std::vector<std::string> words{"FCALL", library_ + "_" + std::string(name), std::to_string(keys.size())};
  words.reserve(words.size() + keys.size() + 40);
  for (std::string& each : keys) words.push_back(std::move(each));
  std::string epoch;
  {
    const std::scoped_lock lock(status_mutex_);
    epoch = status_.epoch;
  }
  words.push_back(std::move(epoch));
  words.push_back(options_.replica);
  words.push_back(std::to_string(micros(now.mono.time_since_epoch())));
  words.push_back(std::to_string(micros(now.wall)));
  return words;
}

WindowSpan RedisState::Impl::window(const policy::BudgetSpec& budget, WallTime wall) {
  const std::scoped_lock lock(small_mutex_);
  for (auto& [spec, span] : windows_) {
    if (spec.window != budget.window || spec.time_zone != budget.time_zone) continue;
    if (wall < span.start || wall >= span.end)
      span = policy::window_at(budget.window, budget.time_zone, wall);
    return span;
  }
  return windows_.emplace_back(budget, policy::window_at(budget.window, budget.time_zone, wall)).second;
}

std::string RedisState::Impl::reserve_command(const Own& own, Mode mode, Now now, WallTime wall) {
  // What is adopted counts for what its subjects have now: a reload may have changed that.
  const std::shared_ptr<const Plan> plan = mode == Mode::adopt ? plan_.load() : nullptr;
  const auto subject_at = [&](std::size_t i) -> const SubjectPlan& {
    const SubjectPlan& then = *own.subjects[i];
    return plan && then.id < plan->size() && (*plan)[then.id] ? *(*plan)[then.id] : then;
  };
  std::vector<std::string> keys{key("m"), attempt_key(own.id), key("rx")};
  for (std::size_t i = 0; i < own.size; ++i) keys.push_back(own.subjects[i]->key);
  auto words = function("reserve", std::move(keys), now);
  const auto number = [&](std::int64_t value) { words.push_back(std::to_string(value)); };
  const bool adopts = mode == Mode::adopt;
  number(own.estimate.count);
  number(own.tokens);
  number(adopts ? std::max<std::int64_t>(0, micros(own.lease_end - now.mono)) : micros(own.lease));
  number(!adopts ? 0 : own.is_counted ? 2 : 1);
  number(adopts ? micros(own.reserved_at) : 0);
  for (std::size_t i = 0; i < own.size; ++i) {
    const SubjectPlan& subject = subject_at(i);
    number(subject.spec.concurrency ? std::int64_t{*subject.spec.concurrency} : -1);
    number(subject.spec.kind == SubjectKind::provider ? 1 : 0);
    number(static_cast<std::int64_t>(subject.budgets.size()));
    for (const BudgetPlan& budget : subject.budgets) {
      const WindowSpan span = window(budget.spec, wall);
      words.push_back(budget.id);
      number(budget.spec.limit.count);
      number(budget.spec.mode == BudgetMode::hard ? 1 : 0);
      number(micros(span.start));
      number(micros(span.end));
    }
    number(static_cast<std::int64_t>(subject.limits.size()));
    for (const LimitPlan& limit : subject.limits) {
      words.push_back(limit.id);
      number(limit.spec.amount);
      number(limit.spec.unit == LimitUnit::tokens ? 1 : 0);
      number(limit.bucket);
    }
  }
  return command(words);
}

std::string RedisState::Impl::settle_command(const Own& own) const {
  const Settlement& end = *own.end;
  auto words = function("settle", {key("m"), attempt_key(own.id), key("rx"), key("xx")}, end.now);
  words.push_back(std::to_string(static_cast<int>(end.ending)));
  words.push_back(std::to_string(std::clamp<std::int64_t>(end.cost.count, 0, kMaxAmount)));
  words.push_back(std::to_string(std::clamp<std::int64_t>(end.tokens, -1, kMaxAmount)));
  return command(words);
}

RedisState::Impl::Known RedisState::Impl::known_of(const SubjectPlan& subject, const SubjectPlan* before,
                                                   Now now, WallTime wall) {
  const auto is_known = [](const auto& all, const std::string& id) {
    return std::ranges::any_of(all, [&](const auto& each) { return each.id == id; });
  };
  Known known;
  for (const BudgetPlan& budget : subject.budgets) {
    Known::Spend& spend = known.budgets.emplace_back();
    spend.is_told = before == nullptr || !is_known(before->budgets, budget.id);
    if (!spend.is_told || history_ == nullptr) continue;
    const WindowSpan span = window(budget.spec, wall);
    const Spent past = history_->spent(subject.spec.kind, subject.spec.name, span);
    spend.database = add_saturating(past.settled, past.overrun);
    spend.overrun = past.overrun;
    if (unapplied_ == nullptr) continue;
    const Spent mine = unapplied_->unapplied(subject.spec.kind, subject.spec.name, span);
    spend.unapplied = add_saturating(mine.settled, mine.overrun);
    spend.database.count = std::max<std::int64_t>(0, (spend.database - spend.unapplied).count);
  }
  for (const LimitPlan& limit : subject.limits) {
    auto& past = known.started.emplace_back();
    if (history_ == nullptr || (before != nullptr && is_known(before->limits, limit.id))) continue;
    const nanoseconds step = limit.spec.period / WindowLimit::kBuckets;
    past = history_->started(subject.spec.kind, subject.spec.name, now.wall - limit.spec.period - step, step);
  }
  return known;
}

RedisState::Impl::OpenHolds RedisState::Impl::open_holds(WallTime wall, bool folds_ended) {
  OpenHolds open;
  const std::scoped_lock lock(own_mutex_);
  if (folds_ended)  // their cost is in OwnCount; no hold of theirs is adopted
    boost::unordered::erase_if(own_,
                               [](const auto& each) { return each.second->end && each.second->is_admitted; });
  for (const auto& [id, own] : own_) {
    if (!own->is_admitted) continue;
    if (folds_ended) own->is_counted = true;
    for (std::size_t i = 0; i < own->size; ++i)
      for (const BudgetPlan& budget : own->subjects[i]->budgets) {
        if (own->reserved_at < window(budget.spec, wall).start) continue;
        NanoUsd& sum = open[budget.own.get()];
        sum = add_saturating(sum, own->estimate);
      }
  }
  return open;
}

std::string RedisState::Impl::publish_command(const SubjectPlan& subject, const Known& known,
                                              const OpenHolds& open, bool in_new_epoch, Now now,
                                              WallTime wall) {
  auto words = function("publish", {key("m"), subject.key, key("i:" + options_.replica)}, now);
  const auto number = [&](std::int64_t value) { words.push_back(std::to_string(value)); };
  words.push_back(subject.ids);
  number(static_cast<std::int64_t>(subject.budgets.size()));
  for (std::size_t b = 0; b < subject.budgets.size(); ++b) {
    const BudgetPlan& budget = subject.budgets[b];
    const Known::Spend& spend = known.budgets[b];
    const WindowSpan span = window(budget.spec, wall);
    NanoUsd own{};
    NanoUsd unapplied = spend.unapplied;
    if (spend.is_told) {
      const auto found = open.find(budget.own.get());
      own = found == open.end() ? NanoUsd{} : found->second;
      if (unapplied_ == nullptr) unapplied = own;
      const std::scoped_lock lock(own_mutex_);
      if (budget.own->span.start == span.start) {
        budget.own->rotate(now.mono);
        own = add_saturating(own, budget.own->spent);
        if (unapplied_ == nullptr)
          unapplied = add_saturating(unapplied, add_saturating(budget.own->recent, budget.own->earlier));
      }
    }
    words.push_back(budget.id);
    number(micros(span.start));
    number(micros(span.end));
    number(spend.database.count);
    number(spend.overrun.count);
    number(unapplied.count);
    number(own.count);
  }
  std::vector<SubjectView> mine;
  if (in_new_epoch) mine = local_.view(now, std::span(&subject.id, 1));
  number(static_cast<std::int64_t>(subject.limits.size()));
  for (std::size_t l = 0; l < subject.limits.size(); ++l) {
    const LimitPlan& limit = subject.limits[l];
    std::int64_t own = 0;
    if (!mine.empty())
      for (const LimitView& each : mine.front().limits)
        if (each.spec.unit == limit.spec.unit && each.spec.period == limit.spec.period) own = each.used;
    words.push_back(limit.id);
    number(limit.bucket);
    number(std::min(own, kMaxAmount));
    number(static_cast<std::int64_t>(known.started[l].size()));
    for (const Started& each : known.started[l]) {
      number(std::max<std::int64_t>(0, micros(now.wall - each.at)));
      number(std::clamp<std::int64_t>(limit.spec.unit == LimitUnit::calls ? each.calls : each.tokens, 0,
                                      kMaxAmount));
    }
  }
  return command(words);
}

// ---- The link's thread

Awaitable<std::string> RedisState::Impl::attach() {
  const auto failed = [](std::string_view what, const Reply& reply) {
    return std::string(what) + (reply ? ": " + text_of(reply.get()) : ": no answer");
  };
  const RedisUrl& url = options_.url;
  std::string refused;
  if (!url.password.empty()) {
    std::vector<std::string> words{"AUTH"};
    if (!url.user.empty()) words.push_back(url.user);
    words.push_back(url.password);
    const Reply reply = co_await link_.ask(command(words));
    if (is_error(reply)) refused = failed("the server refuses the user or password", reply);
  }
  if (refused.empty()) {
    const Reply reply = co_await link_.ask(command({"SELECT", std::to_string(url.database)}));
    if (is_error(reply)) refused = failed("the server refuses the database", reply);
  }
  std::string run_id;
  milliseconds grace = options_.grace;
  if (refused.empty()) {
    const Reply reply = co_await link_.ask(command({"INFO", "server"}));
    if (is_error(reply))
      refused = failed("the server does not tell about itself", reply);
    else {
      const std::string told = text_of(reply.get());
      run_id = info_line(told, "run_id");
      // A server that has been up and knows no domain is new to this one; one that has just begun may have
      // lost it.
      constexpr int kLongUp = 30;
      const std::string uptime = info_line(told, "uptime_in_seconds");
      if (std::atoi(uptime.c_str()) > kLongUp) grace = milliseconds{0};
    }
  }
  if (refused.empty()) {
    std::string code = replaced(std::string(kFunctions), "@LIBRARY@", library_);
    code = replaced(std::move(code), "@CLOCK@", options_.tests_clock ? "given_clock" : "server_clock");
    const Reply reply = co_await link_.ask(command({"FUNCTION", "LOAD", code}));
    if (is_error(reply) && (!reply || !text_of(reply.get()).contains("already exists")))
      refused = failed("the server does not take functions (Redis 7 or newer is needed)", reply);
  }
  std::string unsafe;
  if (refused.empty()) {
    std::map<std::string, std::string> settings;
    for (const char* name : {"maxmemory", "maxmemory-policy", "appendonly"}) {
      const Reply reply = co_await link_.ask(command({"CONFIG", "GET", name}));
      if (!is_error(reply) && reply->elements == 2) settings[name] = text_of(reply->element[1]);
    }
    if (settings.size() < 3)
      unsafe = "its settings cannot be read (CONFIG GET maxmemory-policy and appendonly)";
    else if (settings["maxmemory"] != "0" && settings["maxmemory-policy"] != "noeviction")
      unsafe = "maxmemory-policy is " + settings["maxmemory-policy"] +
               ": an evicted budget is a refund; set noeviction";
    else if (settings["appendonly"] != "yes")
      unsafe = "appendonly is " + settings["appendonly"] + ": a restart forgets; set appendonly yes";
  }
  std::string epoch;
  if (refused.empty()) {
    auto words = function("attach", {key("m")}, now());
    words.push_back(run_id);
    words.push_back(std::to_string(micros(options_.longest_lease)));
    words.push_back(std::to_string(micros(grace)));
    {
      const std::scoped_lock lock(status_mutex_);
      for (const std::string& each : members_) words.push_back(each);
    }
    const Reply reply = co_await link_.ask(command(words));
    if (code_of(reply) != Code::ok)
      refused = failed("the server does not attach", reply);
    else {
      learn_offset(reply);
      epoch = text_of(reply->element[2]);
    }
  }
  {
    const std::scoped_lock lock(status_mutex_);
    refused_ = refused;
    status_.unsafe = unsafe;
    if (refused.empty()) status_.epoch = epoch;
  }
  status_changed_.notify_all();
  co_return refused;
}

void RedisState::Impl::went_up() {
  {
    const std::scoped_lock lock(learner_mutex_, status_mutex_);
    status_.reason = "catching up";
    epoch_ = status_.epoch;
    wants_sync_ = true;
    link_up_ = true;
  }
  status_changed_.notify_all();
  learner_wake_.notify_all();
  beat();
}

void RedisState::Impl::went_down(const std::string& why) {
  synced_ = false;
  settles_ = false;
  beat_.cancel();
  {
    const std::scoped_lock lock(status_mutex_);
    status_.degraded = true;
    status_.reason = why;
  }
  status_changed_.notify_all();
  {
    const std::scoped_lock lock(learner_mutex_);
    wants_shares_ = true;
    wants_sync_ = false;
    link_up_ = false;
  }
  learner_wake_.notify_all();
}

void RedisState::Impl::beat() {
  if (!link_.is_up()) return;
  link_.send(command(function("beat", {key("m")}, now())), Link::Loss::fail, [this](Reply reply) {
    if (code_of(reply) == Code::new_epoch) return link_.drop("it has lost its memory");
    if (code_of(reply) != Code::ok) return;
    learn_offset(reply);
    {
      const std::scoped_lock lock(status_mutex_);
      status_.learning = element(reply, 3) > 0;
      status_.replicas = static_cast<std::uint32_t>(std::max<std::int64_t>(1, element(reply, 4)));
      members_.clear();
      for (std::size_t i = 5; i < reply->elements; ++i) members_.push_back(text_of(reply->element[i]));
    }
    // It took this replica for dead and forgot what it declares.
    if (element(reply, 2) == 0) link_.drop("it had forgotten this replica");
  });
  beat_.expires_after(kBeatEvery);
  beat_.async_wait([this](boost::system::error_code cancelled) {
    if (!cancelled) beat();
  });
}

void RedisState::Impl::send_settlement(AttemptId id) {
  if (!settles_ || !link_.is_up()) return;  // all go out when the server is in step again
  std::string adopting;
  std::string settling;
  {
    const std::scoped_lock lock(own_mutex_);
    const auto found = own_.find(id);
    if (found == own_.end() || !found->second->end || found->second->is_sending) return;
    Own& own = *found->second;
    own.is_sending = true;
    if (own.is_admitted && !own.is_held) {
      const Now when = options_.tests_clock ? own.end->now : now();
      adopting = reserve_command(own, Mode::adopt, when, server_wall(when));
    }
    settling = settle_command(own);
  }
  if (!adopting.empty()) link_.send(std::move(adopting), Link::Loss::fail, [](Reply) {});
  link_.send(std::move(settling), Link::Loss::fail, [this, id](Reply reply) {
    const Code code = code_of(reply);
    std::shared_ptr<Own> ended;
    {
      const std::scoped_lock lock(own_mutex_);
      const auto found = own_.find(id);
      if (found == own_.end()) return;
      found->second->is_sending = false;
      if (code == Code::no_answer) return;
      ended = found->second;
      own_.erase(found);
    }
    if (code != Code::ok) return;
    if (const NanoUsd overrun{element(reply, 2)}; overrun > NanoUsd{} && listener_.overrun)
      listener_.overrun(ended->subjects[static_cast<std::size_t>(element(reply, 3)) % kMaxSubjects]->id,
                        overrun);
  });
}

void RedisState::Impl::send_settlements() {
  std::vector<AttemptId> ended;
  {
    const std::scoped_lock lock(own_mutex_);
    for (const auto& [id, own] : own_)
      if (own->end) ended.push_back(id);
  }
  for (const AttemptId id : ended) send_settlement(id);
}

void RedisState::Impl::send_reap(Now now) {
  auto words = function("reap", {key("m"), key("rx"), key("xx")}, now);
  words.push_back(std::to_string(kReapBatch));
  link_.send(command(words), Link::Loss::fail, [this, now](Reply reply) {
    if (code_of(reply) == Code::ok && element(reply, 2) == 1) send_reap(now);  // there is more
  });
}

std::vector<Reply> RedisState::Impl::exchange(std::vector<std::string> commands) {
  struct Gathered {
    std::mutex mutex;
    std::condition_variable all;
    std::vector<Reply> replies;
    std::size_t missing = 0;
  };
  const auto gathered = std::make_shared<Gathered>();
  gathered->replies.resize(commands.size());
  gathered->missing = commands.size();
  on_link([this, gathered, commands = std::move(commands)]() mutable {
    for (std::size_t i = 0; i < commands.size(); ++i)
      link_.send(std::move(commands[i]), Link::Loss::fail, [gathered, i](Reply reply) {
        const std::scoped_lock lock(gathered->mutex);
        gathered->replies[i] = std::move(reply);
        if (--gathered->missing == 0) gathered->all.notify_all();
      });
  });
  std::unique_lock lock(gathered->mutex);
  gathered->all.wait_for(lock, kDeclareWait, [&] { return gathered->missing == 0; });
  return std::exchange(gathered->replies, std::vector<Reply>(gathered->replies.size()));
}

// ---- The learner's thread

void RedisState::Impl::learn() {
  std::unique_lock lock(learner_mutex_);
  for (;;) {
    learner_wake_.wait(lock, [&] { return is_stopping_ || wants_shares_ || (wants_sync_ && is_declared_); });
    if (is_stopping_) return;
    if (std::exchange(wants_shares_, false)) {
      lock.unlock();
      if (!synced_) declare_locally(true);
      lock.lock();
      done_ = asked_;  // nobody waits for a server that is gone
      learner_done_.notify_all();
      continue;
    }
    wants_sync_ = false;
    const std::uint64_t asked = asked_;
    const std::string epoch = epoch_;
    lock.unlock();
    const bool is_done = synchronise(epoch, epoch != published_epoch_);
    lock.lock();
    if (is_done || wants_shares_) done_ = asked;
    learner_done_.notify_all();
    if (!is_done && !wants_shares_ && !is_stopping_) {
      // The link is up and yet something did not go through: begin again, from the greeting.
      on_link([this] { link_.drop("it could not be brought up to date"); });
      learner_wake_.wait_for(lock, kSyncBackoff, [&] { return is_stopping_; });
    }
  }
}

bool RedisState::Impl::synchronise(const std::string& epoch, bool is_new) {
  if (is_new) published_.clear();
  const std::shared_ptr<const Plan> plan = plan_.load();
  if (!publish(*plan, is_new)) return false;
  if (!adopt(is_new)) return false;
  const auto replies = exchange({command(function("published", {key("m")}, now()))});
  if (code_of(replies.front()) != Code::ok) return false;
  published_epoch_ = epoch;
  if (has_shares_) declare_locally(false);
  // On the link's thread, so that what has ended is not sent before the server knows of it.
  std::promise<bool> done;
  on_link([&] {
    const bool is_up = link_.is_up();
    if (is_up) {
      settles_ = true;
      synced_ = true;
      {
        const std::scoped_lock lock(status_mutex_);
        status_.degraded = false;
        status_.reason.clear();
      }
      status_changed_.notify_all();
      send_settlements();
    }
    done.set_value(is_up);
  });
  return done.get_future().get() && adopt(false);
}

bool RedisState::Impl::publish(const Plan& plan, bool in_new_epoch) {
  std::vector<std::string> gone;
  for (auto each = published_.begin(); each != published_.end();) {
    const SubjectId id = each->first;
    if (id < plan.size() && plan[id]) {
      ++each;
      continue;
    }
    gone.push_back(
        command(function("undeclare", {key("m"), each->second->key, key("i:" + options_.replica)}, now())));
    each = published_.erase(each);
  }
  for (const Reply& reply : exchange(std::move(gone)))
    if (code_of(reply) != Code::ok) return false;

  std::vector<SubjectPlanPtr> wanted;
  for (const SubjectPlanPtr& subject : plan) {
    if (!subject) continue;
    const auto found = published_.find(subject->id);
    if (found == published_.end() || found->second != subject) wanted.push_back(subject);
  }
  if (wanted.empty()) return true;
  // In this order: an attempt that ends between the two counts at its estimate rather than not at all.
  std::vector<Known> known;
  Now when = now();
  for (const SubjectPlanPtr& subject : wanted) {
    const auto found = published_.find(subject->id);
    known.push_back(known_of(*subject, found == published_.end() ? nullptr : found->second.get(), when,
                             server_wall(when)));
  }
  when = now();
  const OpenHolds open = open_holds(server_wall(when), in_new_epoch);
  int tries = 0;
  for (std::size_t first = 0; first < wanted.size();) {
    const std::size_t last = std::min(first + kBatch, wanted.size());
    std::vector<std::string> commands;
    when = now();
    for (std::size_t i = first; i < last; ++i)
      commands.push_back(publish_command(*wanted[i], known[i], open, in_new_epoch, when, server_wall(when)));
    const auto replies = exchange(std::move(commands));
    bool must_repeat = false;
    for (std::size_t i = first; i < last; ++i) {
      const Reply& reply = replies[i - first];
      learn_offset(reply);
      if (code_of(reply) == Code::other_window) {
        must_repeat = true;  // publishing again changes nothing
        continue;
      }
      if (code_of(reply) != Code::ok) return false;
      published_[wanted[i]->id] = wanted[i];
    }
    if (must_repeat && ++tries >= kWindowTries) return false;
    if (!must_repeat) first = last;
  }
  return true;
}

bool RedisState::Impl::adopt(bool all) {
  std::vector<std::shared_ptr<Own>> wanted;
  {
    const std::scoped_lock lock(own_mutex_);
    for (const auto& [id, own] : own_) {
      if (all) own->is_held = false;
      if (own->is_admitted && !own->is_held) wanted.push_back(own);
    }
  }
  for (std::size_t first = 0; first < wanted.size(); first += kBatch) {
    const std::size_t last = std::min(first + kBatch, wanted.size());
    std::vector<std::string> commands;
    const Now when = now();
    for (std::size_t i = first; i < last; ++i)
      commands.push_back(reserve_command(*wanted[i], Mode::adopt, when, server_wall(when)));
    const auto replies = exchange(std::move(commands));
    const std::scoped_lock lock(own_mutex_);
    for (std::size_t i = first; i < last; ++i) {
      const Code code = code_of(replies[i - first]);
      if (code == Code::no_answer || code == Code::new_epoch) return false;
      wanted[i]->is_counted = false;
      wanted[i]->is_held = code == Code::ok || code == Code::duplicate;
    }
  }
  return true;
}

void RedisState::Impl::declare_locally(bool shares) {
  const std::scoped_lock lock(declare_mutex_);
  std::int64_t replicas = 1;
  {
    const std::scoped_lock status_lock(status_mutex_);
    replicas = status_.replicas;
  }
  std::vector<SubjectSpec> specs = specs_;
  for (SubjectSpec& spec : specs) {
    spec.budgets.clear();
    spec.retry.reset();
    if (!shares)
      spec.concurrency.reset();
    else if (spec.concurrency)
      spec.concurrency = static_cast<std::uint32_t>(*spec.concurrency / replicas);
    for (policy::LimitSpec& limit : spec.limits) {
      if (shares && limit.amount < replicas) spec.concurrency = 0;  // no share of it is a whole one
      limit.amount = shares ? std::max<std::int64_t>(1, limit.amount / replicas) : kMaxAmount;
    }
  }
  const Now when = now();
  local_.declare(specs, when);
  has_shares_ = shares;
  if (!shares) return;
  const std::scoped_lock small_lock(small_mutex_);
  for (const auto& [id, until] : pauses_) local_.pause(id, until);
}

// ---- Reserving

Awaitable<Answer> RedisState::Impl::ask(std::shared_ptr<Own> own, std::string bytes) {
  // By a pointer: the initiation may be copied.
  const auto shared = std::make_shared<std::string>(std::move(bytes));
  asio::use_awaitable_t<Executor> token;
  return asio::async_initiate<asio::use_awaitable_t<Executor>, void(Answer)>(
      [this, own, shared](auto handler) {
        const auto executor = asio::get_associated_executor(handler);
        auto work = asio::make_work_guard(executor);
        on_link([this, own, shared, executor, work = std::move(work),
                 handler = std::move(handler)]() mutable {
          const MonotonicTime sent_at = std::chrono::steady_clock::now();
          own->is_asked = own->is_asked || link_.is_up();
          link_.send(std::move(*shared), Link::Loss::resend,
                     [this, own, executor, sent_at, work = std::move(work),
                      handler = std::move(handler)](Reply reply) mutable {
                       Answer answer{.code = code_of(reply)};
                       if (answer.code != Code::no_answer) {
                         answer.wall = wall_time(element(reply, 1));
                         answer.subject = static_cast<std::size_t>(element(reply, 2));
                         answer.is_budget = element(reply, 3) == 1;
                         answer.opens_early = answer.code == Code::denied && element(reply, 5) == 1;
                         const std::int64_t wait =
                             answer.code == Code::learning ? element(reply, 2) : element(reply, 4);
                         answer.retry_after = wait < 0 ? nanoseconds::max() : nanoseconds{microseconds{wait}};
                         learn_offset(reply);
                         const std::scoped_lock lock(status_mutex_);
                         status_.last_latency = std::chrono::steady_clock::now() - sent_at;
                       }
                       if (answer.code == Code::new_epoch) link_.drop("it has lost its memory");
                       asio::post(executor, [handler = std::move(handler), answer]() mutable {
                         std::move(handler)(answer);
                       });
                     });
        });
      },
      token);
}

std::expected<void, Refusal> RedisState::Impl::admit_alone(const ReservationRequest& request,
                                                           const std::shared_ptr<Own>& own) {
  local_.take_back(request.id, request.now);
  Refusal refusal{.reason = Reason::policy_state_unavailable,
                  .subject = request.subjects.empty() ? 0 : request.subjects.front(),
                  .retry_after = kUnavailableRetry};
  const auto needs_server = [&](const SubjectPlan& subject) {
    return subject.has_hard_budget ||
           (subject.is_limited && (options_.on_lost == RedisOptions::OnLost::closed || !has_shares_));
  };
  for (std::size_t i = 0; i < own->size; ++i)
    if (needs_server(*own->subjects[i])) {
      refusal.subject = own->subjects[i]->id;
      const std::scoped_lock lock(own_mutex_);
      if (!own->is_asked) {
        own_.erase(own->id);
      } else {
        // The server may hold it: it is told that nobody wants it.
        own->end = Settlement{.id = own->id, .ending = Ending::released, .now = request.now};
        on_link([this, id = own->id] { send_settlement(id); });
      }
      return std::unexpected(refusal);
    }
  if (auto held = local_.reserve_now(request); !held) {
    refusal = held.error();
    const std::scoped_lock lock(own_mutex_);
    own->end = Settlement{.id = own->id, .ending = Ending::released, .now = request.now};
    on_link([this, id = own->id] { send_settlement(id); });
    return std::unexpected(refusal);
  }
  const std::scoped_lock lock(own_mutex_);
  own->is_admitted = true;
  return {};
}

RedisState::RedisState(RedisOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
RedisState::~RedisState() = default;

Awaitable<std::expected<void, Refusal>> RedisState::reserve(ReservationRequest request) {
  Impl& self = *impl_;
  self.note_now(request.now);
  const std::shared_ptr<const Plan> plan = self.plan_.load();
  // What this replica can refuse alone costs no round trip.
  if (auto held = self.local_.reserve_now(request); !held) co_return std::unexpected(held.error());

  auto own = std::make_shared<Own>();
  own->id = request.id;
  for (const SubjectId id : request.subjects) {
    if (id >= plan->size() || !(*plan)[id]) continue;
    own->subjects[own->size++] = (*plan)[id];
  }
  own->estimate = request.estimate;
  own->tokens = request.tokens;
  own->lease = request.lease;
  own->lease_end = request.now.mono + request.lease;
  own->reserved_at = self.server_wall(request.now);
  {
    const std::scoped_lock lock(self.own_mutex_);
    const auto [place, is_new] = self.own_.try_emplace(request.id, own);
    if (!is_new) own = place->second;
    if (own->end || self.own_.size() > kMaxOwnAttempts) {  // ended: it may not begin again
      if (is_new) self.own_.erase(place);
      self.local_.take_back(request.id, request.now);
      co_return std::unexpected(Refusal{.reason = Reason::policy_state_unavailable,
                                        .subject = request.subjects.front(),
                                        .retry_after = kUnavailableRetry});
    }
  }
  Answer answer{};
  WallTime wall = own->reserved_at;
  for (int tries = 0; tries < kWindowTries; ++tries) {
    std::string bytes = self.reserve_command(*own, Impl::Mode::ask, request.now, wall);
    answer = co_await self.ask(own, std::move(bytes));
    if (answer.code != Code::other_window) break;
    wall = answer.wall;
  }
  switch (answer.code) {
    case Code::ok:
    case Code::duplicate: {
      {
        const std::scoped_lock lock(self.own_mutex_);
        own->is_held = true;
        own->is_admitted = true;
      }
      if (request.is_retry) co_return std::expected<void, Refusal>{};
      const std::scoped_lock lock(self.small_mutex_);
      for (const SubjectId id : request.subjects)
        if (const auto found = self.retries_.find(id); found != self.retries_.end())
          found->second.deposit(request.now.mono);
      co_return std::expected<void, Refusal>{};
    }
    case Code::denied:
    case Code::learning:
    case Code::ended:
    case Code::bad_arguments: {
      self.forget(request.id);
      self.local_.take_back(request.id, request.now);
      Refusal refusal{
          .reason = answer.is_budget ? Reason::policy_budget_exceeded : Reason::policy_rate_limited,
          .subject = own->subjects[answer.subject % kMaxSubjects]->id,
          .retry_after = answer.retry_after,
          .opens_early = answer.opens_early};
      if (answer.code == Code::denied) co_return std::unexpected(refusal);
      refusal.reason = Reason::policy_state_unavailable;
      refusal.subject = request.subjects.front();
      refusal.retry_after = kUnavailableRetry;
      co_return std::unexpected(refusal);
    }
    default: co_return self.admit_alone(request, own);
  }
}

Result<void> RedisState::start() {
  Impl& self = *impl_;
  self.on_link([&self] { self.link_.start(); });
  std::unique_lock lock(self.status_mutex_);
  self.status_changed_.wait_for(lock, self.options_.connect_timeout,
                                [&] { return self.link_up_ || !self.refused_.empty(); });
  if (!self.link_up_ && !self.refused_.empty() && !self.refused_.ends_with(": no answer"))
    return refuse(Reason::policy_state_unavailable, "The shared state cannot be used.",
                  to_string(self.options_.url) + ": " + self.refused_);
  return {};
}

Result<void> RedisState::check(std::span<const SubjectSpec> specs) const {
  const bool has_hard = std::ranges::any_of(specs, [](const SubjectSpec& spec) {
    return std::ranges::any_of(
        spec.budgets, [](const policy::BudgetSpec& budget) { return budget.mode == BudgetMode::hard; });
  });
  const std::string unsafe = status().unsafe;
  if (!has_hard || unsafe.empty() || impl_->options_.allow_volatile) return {};
  return refuse(Reason::policy_state_unavailable, "Hard budgets cannot be kept in this shared state.",
                to_string(impl_->options_.url) + ": " + unsafe + ", or allow it with state.allow_volatile");
}

RedisStatus RedisState::status() const {
  RedisStatus status;
  {
    const std::scoped_lock lock(impl_->status_mutex_);
    status = impl_->status_;
  }
  const std::scoped_lock lock(impl_->own_mutex_);
  status.unsettled = impl_->own_.size();
  return status;
}

void RedisState::set_unapplied(const Unapplied* unapplied) { impl_->unapplied_ = unapplied; }

void RedisState::listen(Listener listener) {
  impl_->listener_ = listener;
  listener.overrun = nullptr;  // the server tells
  impl_->local_.listen(std::move(listener));
}

void RedisState::set_history(const History* history) { impl_->history_ = history; }

std::vector<SubjectId> RedisState::declare(std::span<const SubjectSpec> specs, Now now) {
  Impl& self = *impl_;
  self.note_now(now);
  std::vector<SubjectId> ids;
  {
    const std::scoped_lock lock(self.declare_mutex_);
    const bool has_shares = self.has_shares_;
    self.specs_.assign(specs.begin(), specs.end());
    std::vector<SubjectSpec> stripped(specs.begin(), specs.end());
    for (SubjectSpec& spec : stripped) {
      spec.budgets.clear();
      spec.retry.reset();
      spec.concurrency.reset();
      for (policy::LimitSpec& limit : spec.limits) limit.amount = kMaxAmount;
    }
    ids = self.local_.declare(stripped, now);

    const std::shared_ptr<const Plan> old = self.plan_.load();
    auto plan = std::make_shared<Plan>();
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const SubjectId id = ids[i];
      if (id >= plan->size()) plan->resize(id + 1);
      const SubjectPlanPtr before = id < old->size() ? (*old)[id] : nullptr;
      auto made = std::make_shared<SubjectPlan>();
      made->id = id;
      made->spec = specs[i];
      made->key = self.key("s:" + std::string(to_string(specs[i].kind)) + ":" + specs[i].name);
      made->ids = " ";
      // A second one that means the same has a number of its own.
      const auto unique = [&](std::string id_text) {
        std::string text = id_text;
        for (int n = 2; made->ids.contains(" " + text + " "); ++n) text = id_text + ":" + std::to_string(n);
        made->ids += text + " ";
        return text;
      };
      for (const policy::BudgetSpec& budget : specs[i].budgets) {
        BudgetPlan each{.id = unique(budget.window == policy::BudgetWindow::daily ? "d" : "m"),
                        .spec = budget,
                        .own = {}};
        if (before)
          for (const BudgetPlan& known : before->budgets)
            if (known.id == each.id) each.own = known.own;
        if (!each.own) each.own = std::make_shared<OwnCount>();
        made->has_hard_budget = made->has_hard_budget || budget.mode == BudgetMode::hard;
        made->budgets.push_back(std::move(each));
      }
      for (const policy::LimitSpec& limit : specs[i].limits) {
        const std::int64_t period = std::chrono::ceil<microseconds>(limit.period).count();
        constexpr auto kBuckets = static_cast<std::int64_t>(WindowLimit::kBuckets);
        made->limits.push_back(
            {.id = unique((limit.unit == LimitUnit::calls ? "c" : "t") + std::to_string(period)),
             .spec = limit,
             .bucket = (period + kBuckets - 1) / kBuckets});
      }
      made->is_limited = !specs[i].limits.empty() || specs[i].concurrency.has_value();
      // The same text again needs no word with the server.
      const bool is_same = before && before->ids == made->ids;
      (*plan)[id] = std::move(made);
      if (is_same && before->spec.budgets == specs[i].budgets && before->spec.limits == specs[i].limits &&
          before->spec.concurrency == specs[i].concurrency)
        (*plan)[id] = before;
    }
    // Those that are gone stay while something is held for them.
    for (SubjectId id = 0; id < old->size(); ++id) {
      if (!(*old)[id] || (id < plan->size() && (*plan)[id])) continue;
      if (self.local_.view(now, std::span(&id, 1)).empty()) continue;
      if (id >= plan->size()) plan->resize(id + 1);
      (*plan)[id] = (*old)[id];
    }
    self.plan_.store(std::move(plan));
    const std::scoped_lock small_lock(self.small_mutex_);
    std::unordered_map<SubjectId, RetryBudget> retries;
    for (std::size_t i = 0; i < specs.size(); ++i) {
      if (!specs[i].retry) continue;
      const policy::RetrySpec& retry = *specs[i].retry;
      const auto found = self.retries_.find(ids[i]);
      if (found == self.retries_.end()) {
        retries.emplace(ids[i], RetryBudget(retry.budget_ratio, retry.budget_per_second));
        continue;
      }
      found->second.reconfigure(retry.budget_ratio, retry.budget_per_second);
      retries.emplace(ids[i], found->second);
    }
    self.retries_ = std::move(retries);
    if (has_shares) self.has_shares_ = false;
  }
  std::unique_lock lock(self.learner_mutex_);
  self.is_declared_ = true;
  const std::uint64_t mine = ++self.asked_;
  if (!self.link_up_) {
    self.wants_shares_ = true;
    self.learner_wake_.notify_all();
    return ids;
  }
  self.wants_sync_ = true;
  self.learner_wake_.notify_all();
  self.learner_done_.wait_for(lock, kDeclareWait, [&] { return self.done_ >= mine; });
  return ids;
}

void RedisState::settle(const Settlement& settlement) noexcept {
  Impl& self = *impl_;
  self.note_now(settlement.now);
  self.local_.settle(settlement);
  {
    const std::scoped_lock lock(self.own_mutex_);
    const auto found = self.own_.find(settlement.id);
    if (found == self.own_.end() || found->second->end) return;
    Own& own = *found->second;
    own.end = settlement;
    const NanoUsd cost = settlement.ending == Ending::actual     ? settlement.cost
                         : settlement.ending == Ending::estimate ? own.estimate
                                                                 : NanoUsd{};
    for (std::size_t i = 0; i < own.size; ++i)
      for (const BudgetPlan& budget : own.subjects[i]->budgets)
        budget.own->add(self.window(budget.spec, own.reserved_at), cost, settlement.now.mono);
  }
  self.on_link([&self, id = settlement.id] { self.send_settlement(id); });
}

void RedisState::pause(SubjectId provider, MonotonicTime until) noexcept {
  Impl& self = *impl_;
  const std::shared_ptr<const Plan> plan = self.plan_.load();
  if (provider >= plan->size() || !(*plan)[provider]) return;
  {
    const std::scoped_lock lock(self.small_mutex_);
    MonotonicTime& paused = self.pauses_[provider];
    paused = std::max(paused, until);
  }
  if (self.has_shares_) self.local_.pause(provider, until);
  const Now now = self.now();
  const std::int64_t till = self.options_.tests_clock ? micros(until.time_since_epoch())
                                                      : micros(self.server_wall({.mono = until, .wall = {}}));
  auto words = self.function("pause", {self.key("m"), (*plan)[provider]->key}, now);
  words.push_back(std::to_string(till));
  self.on_link([&self, bytes = command(words)]() mutable {
    self.link_.send(std::move(bytes), Link::Loss::fail, [](Reply) {});
  });
}

bool RedisState::try_retry(SubjectId provider, MonotonicTime now) noexcept {
  const std::scoped_lock lock(impl_->small_mutex_);
  const auto found = impl_->retries_.find(provider);
  return found != impl_->retries_.end() && found->second.try_withdraw(now);
}

void RedisState::reap(Now now) {
  Impl& self = *impl_;
  self.note_now(now);
  self.local_.reap(now);
  {
    const std::scoped_lock lock(self.own_mutex_);
    boost::unordered::erase_if(self.own_, [&](const auto& each) {
      Own& own = *each.second;
      if (own.end || own.lease_end > now.mono) return false;
      if (!own.expired_at) own.expired_at = now.mono;
      return *own.expired_at + kExpiredHoldKept < now.mono;  // nobody will settle it any more
    });
  }
  self.on_link([&self, now] {
    if (self.link_.is_up()) self.send_reap(now);
  });
}

std::vector<SubjectView> RedisState::view(Now now, std::span<const SubjectId> only) {
  Impl& self = *impl_;
  self.note_now(now);
  std::vector<SubjectView> views = self.local_.view(now, only);
  const std::shared_ptr<const Plan> plan = self.plan_.load();
  std::vector<std::string> commands;
  std::vector<SubjectPlanPtr> subjects;
  for (const SubjectView& each : views) {
    subjects.push_back(each.id < plan->size() ? (*plan)[each.id] : nullptr);
    if (!subjects.back()) continue;
    const SubjectPlan& subject = *subjects.back();
    auto words = self.function("view", {self.key("m"), subject.key}, now);
    words.push_back(std::to_string(subject.budgets.size()));
    for (const BudgetPlan& budget : subject.budgets) words.push_back(budget.id);
    words.push_back(std::to_string(subject.limits.size()));
    for (const LimitPlan& limit : subject.limits) {
      words.push_back(limit.id);
      words.push_back(std::to_string(limit.bucket));
    }
    commands.push_back(command(words));
  }
  const std::vector<Reply> replies = self.exchange(std::move(commands));
  std::size_t next = 0;
  const std::scoped_lock lock(self.small_mutex_);
  for (std::size_t i = 0; i < views.size(); ++i) {
    SubjectView& view = views[i];
    if (!subjects[i]) continue;
    const SubjectPlan& subject = *subjects[i];
    const Reply& reply = replies[next++];
    view.concurrency = subject.spec.concurrency;
    view.budgets.clear();
    view.limits.clear();
    if (code_of(reply) != Code::ok) {
      // Gone: as last seen, which is better than nothing.
      if (const auto last = self.last_views_.find(view.id); last != self.last_views_.end()) {
        view.budgets = last->second.budgets;
        view.limits = last->second.limits;
      }
      continue;
    }
    view.in_flight = static_cast<std::uint32_t>(element(reply, 2));
    view.starts_this_minute = element(reply, 3);
    view.starts_today = element(reply, 4);
    std::size_t at = 5;
    const std::int64_t wall = element(reply, 1);
    for (const BudgetPlan& budget : subject.budgets) {
      BudgetView shown{.spec = budget.spec, .settled = {}, .held = {}, .overrun = {}, .span = {}};
      if (wall < element(reply, at + 1)) {
        shown.settled = {element(reply, at + 2)};
        shown.held = {element(reply, at + 3)};
        shown.overrun = {element(reply, at + 4)};
        shown.span = {.start = wall_time(element(reply, at)), .end = wall_time(element(reply, at + 1))};
      } else {
        shown.span = policy::window_at(budget.spec.window, budget.spec.time_zone, wall_time(wall));
      }
      view.budgets.push_back(shown);
      at += 5;
    }
    for (const LimitPlan& limit : subject.limits) {
      const std::int64_t used = element(reply, at++);
      view.limits.push_back({.spec = limit.spec,
                             .used = used,
                             .remaining = std::max<std::int64_t>(0, limit.spec.amount - used)});
    }
    self.last_views_[view.id] = view;
  }
  return views;
}

}  // namespace penstock::store
