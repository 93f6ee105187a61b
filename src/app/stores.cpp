#include "app/stores.hpp"

#include <array>
#include <condition_variable>
#include <thread>

#include <fmt/format.h>
#include <unistd.h>

#include "store/budget_changes.hpp"
#include "store/journal/journal_ledger.hpp"
#include "store/journal/journaled_state.hpp"
#include "store/journal/ledger_writer.hpp"
#include "store/journal/segment_files.hpp"
#include "store/memory/memory_state.hpp"
#include "store/memory/memory_stores.hpp"
#include "store/postgres/postgres_ledger.hpp"
#include "store/redis/redis_state.hpp"
#include "store/sqlite/sqlite_ledger.hpp"

namespace penstock::app {
namespace {

/// A lane has two of them; a smaller one is made more often, a larger one takes more of the disk from the
/// start.
constexpr std::uint64_t kSegmentBytes = std::uint64_t{16} << 20U;
constexpr std::chrono::hours kForgetEvery{1};

std::string hex(std::uint64_t number) { return fmt::format("{:016x}", number); }

/// What is durable. The order of members is the order of their construction; they end in the other one.
struct Durable {
  store::DataDirectory directory;
  store::Disk disk;
  std::unique_ptr<store::LedgerDatabase> database;
  std::unique_ptr<store::Journal> journal;
  std::unique_ptr<store::LedgerWriter> writer;
  std::unique_ptr<store::LedgerHistory> history;
  std::unique_ptr<store::JournalLedger> ledger;
};

store::JournalOptions journal_options(const config::Config& config, std::uint64_t epoch,
                                      observe::Metrics& metrics, observe::Log& log) {
  const std::size_t workers =
      config.listen.workers != 0 ? config.listen.workers : std::max(1U, std::thread::hardware_concurrency());
  return {.epoch = epoch,
          .lanes = workers + 1,  // and one for what runs in the background
          .segment_bytes = std::min(kSegmentBytes, config.ledger.max_journal_bytes / 4),
          .sync = config.ledger.sync == config::Ledger::Sync::always ? store::SyncMode::always
                                                                     : store::SyncMode::interval,
          .sync_interval = config.ledger.sync_interval,
          .max_bytes = config.ledger.max_journal_bytes,
          .sync_seconds = &metrics.journal_sync.with({}),
          .on_failed = [&log](const Error& error) {
            log.write(observe::Level::error,
                      "the journal cannot be written any more; ending, since nothing could be kept",
                      {{"detail", error.detail}});
            log.flush();
            ::_exit(1);  // no destructor: they would write
          }};
}

/// Budgets begin where the last process left them: everything is applied before anything is served.
Result<std::unique_ptr<Durable>> open_durable(const config::Config& config, std::uint64_t epoch,
                                              observe::Metrics& metrics, observe::Log& log) {
  auto directory = store::DataDirectory::open(config.ledger.directory);
  if (!directory) return std::unexpected(directory.error());
  auto durable = std::make_unique<Durable>(std::move(*directory));
  auto database = ledger_database_of(config.ledger, durable->directory.replica_name());
  if (!database) return std::unexpected(database.error());
  durable->database = std::move(*database);
  auto journal =
      store::Journal::open(durable->directory, journal_options(config, epoch, metrics, log), durable->disk);
  if (!journal) return std::unexpected(journal.error());
  durable->journal = std::move(*journal);
  durable->writer = std::make_unique<store::LedgerWriter>(
      *durable->journal, *durable->database,
      store::LedgerWriterOptions{.on_error = [&log](const Error& error) {
        log.write(observe::Level::error,
                  "the ledger's database does not answer; the journal keeps what it lacks",
                  {{"detail", error.detail}});
      }});
  if (auto recovered = durable->writer->recover(read_clocks().wall); !recovered)
    return std::unexpected(recovered.error());
  const store::LedgerStatus status = durable->writer->status(std::chrono::steady_clock::now());
  log.write(observe::Level::info, "recovered",
            {{"reservations", std::to_string(status.recovered_expired)},
             {"records", std::to_string(status.recovered_records)},
             {"cut_bytes", std::to_string(status.cut_bytes)},
             {"dropped_records", std::to_string(status.dropped_records)}});
  durable->writer->start();
  durable->history =
      std::make_unique<store::LedgerHistory>(*durable->journal, *durable->writer, *durable->database);
  durable->ledger =
      std::make_unique<store::JournalLedger>(*durable->journal, *durable->writer, *durable->database);
  return durable;
}

/// LedgerHistory counts what the database has, and brings this replica's journal there first.
class NothingUnapplied final : public store::Unapplied {
 public:
  [[nodiscard]] store::Spent unapplied(store::SubjectKind, std::string_view,
                                       policy::WindowSpan) const override {
    return {};
  }
};

/// Deletes what is past its retention, on a thread of its own: it may take a while, and nothing waits for it.
class Forgetter {
 public:
  Forgetter(store::LedgerDatabase& database, std::chrono::days retention, observe::Log& log)
      : thread_([this, &database, retention, &log] {
          std::unique_lock lock(mutex_);
          do {
            lock.unlock();
            const auto gone = database.forget_before(std::chrono::system_clock::now() - retention);
            if (!gone)
              log.write(observe::Level::warn, "what is past its retention could not be deleted",
                        {{"detail", gone.error().detail}});
            lock.lock();
          } while (!wake_.wait_for(lock, kForgetEvery, [this] { return stopping_; }));
        }) {}
  ~Forgetter() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  Forgetter(const Forgetter&) = delete;
  Forgetter& operator=(const Forgetter&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "replica";
}

/// `replica` names this one among those that share the server: the ledger's, where there is one.
Result<store::RedisOptions> redis_options(const config::State& config, std::string replica) {
  auto url = store::parse_redis_url(config.redis);
  if (!url) return refuse(Reason::gateway_error, "cannot use state.redis", url.error());
  url->user = config.user;
  url->password = config.password.reveal();
  if (!config.replica.empty()) replica = config.replica;
  return store::RedisOptions{.url = std::move(*url),
                             .domain = config.domain,
                             .replica = std::move(replica),
                             .command_timeout = config.timeout,
                             .on_lost = config.on_lost == config::OnLost::share
                                            ? store::RedisOptions::OnLost::share
                                            : store::RedisOptions::OnLost::closed,
                             .allow_volatile = config.allow_volatile};
}

}  // namespace

struct Stores::Impl {
  explicit Impl(observe::Metrics& its_metrics) : metrics(its_metrics) {}

  observe::Metrics& metrics;
  std::string database_kind;
  std::unique_ptr<Durable> durable;  // none: everything is in memory
  store::MemoryState memory;
  NothingUnapplied nothing_unapplied;
  std::unique_ptr<store::RedisState> redis;  // none: the state is in memory
  std::unique_ptr<store::JournaledState> journaled;
  store::MemoryCallerLimits caller_limits;
  store::MemoryLedger memory_ledger;
  std::unique_ptr<Forgetter> forgetter;

  [[nodiscard]] store::SharedState& state() {
    if (redis) return *redis;
    return memory;
  }
  /// Nothing may be admitted: the journal takes no reservations, or soon will not.
  [[nodiscard]] bool is_closed() const {
    return durable && (!durable->journal->accepts() || !durable->journal->space_error().empty());
  }
};

Stores::Stores(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Stores::~Stores() = default;

Result<std::unique_ptr<store::LedgerDatabase>> ledger_database_of(const config::Ledger& config,
                                                                  std::string replica) {
  switch (config.database) {
    case config::Ledger::Database::none: break;
    case config::Ledger::Database::sqlite:
      return std::make_unique<store::SqliteLedger>(config.directory + "/ledger.sqlite", std::move(replica));
    case config::Ledger::Database::postgresql:
      return std::make_unique<store::PostgresLedger>(config.url.reveal(), std::move(replica));
  }
  return refuse(Reason::gateway_error, "there is no ledger", "ledger.database is none");
}

Result<std::unique_ptr<Stores>> Stores::open(const config::Config& config, std::uint64_t epoch,
                                             observe::Metrics& metrics, observe::Log& log) {
  auto impl = std::make_unique<Impl>(metrics);
  if (config.ledger.database != config::Ledger::Database::none) {
    auto durable = open_durable(config, epoch, metrics, log);
    if (!durable) return std::unexpected(durable.error());
    impl->durable = std::move(*durable);
    impl->database_kind =
        config.ledger.database == config::Ledger::Database::sqlite ? "sqlite" : "postgresql";
    impl->forgetter = std::make_unique<Forgetter>(*impl->durable->database,
                                                  std::chrono::days{config.ledger.retention_days}, log);
  }
  if (!config.state.redis.empty()) {
    auto options =
        redis_options(config.state, impl->durable ? impl->durable->directory.replica_name() : host_name());
    if (!options) return std::unexpected(options.error());
    impl->redis = std::make_unique<store::RedisState>(std::move(*options));
  }
  if (impl->durable) {
    impl->state().set_history(impl->durable->history.get());
    if (impl->redis) impl->redis->set_unapplied(&impl->nothing_unapplied);
    store::JournaledState::ReserveNow at_once;
    if (!impl->redis)
      at_once = [&memory = impl->memory](const store::ReservationRequest& request) {
        return memory.reserve_now(request);
      };
    impl->journaled =
        std::make_unique<store::JournaledState>(impl->state(), *impl->durable->journal, std::move(at_once));
  }
  return std::unique_ptr<Stores>(new Stores(std::move(impl)));
}

store::SharedState& Stores::state() noexcept {
  if (impl_->journaled) return *impl_->journaled;
  return impl_->state();
}

store::CallerLimits& Stores::caller_limits() noexcept { return impl_->caller_limits; }

store::Ledger& Stores::ledger() noexcept {
  if (impl_->durable) return *impl_->durable->ledger;
  return impl_->memory_ledger;
}

Result<void> Stores::start() { return impl_->redis ? impl_->redis->start() : Result<void>{}; }

Result<void> Stores::check(std::span<const store::SubjectSpec> subjects) const {
  return impl_->redis ? impl_->redis->check(subjects) : Result<void>{};
}

control::AskStore Stores::ask_shared_state() {
  if (!impl_->redis) return {};
  return [&redis = *impl_->redis] {
    const store::RedisStatus now = redis.status();
    control::StoreStatus status;
    using State = control::StoreStatus::State;
    status.state = now.degraded || now.learning ? State::degraded : State::ok;
    status.problem = now.degraded   ? now.reason
                     : now.learning ? "hard budgets wait for what the other replicas know"
                                    : now.unsafe;
    status.texts = {{"epoch", now.epoch}};
    status.numbers = {
        {"replicas", now.replicas},
        {"latency_us", std::chrono::duration_cast<std::chrono::microseconds>(now.last_latency).count()},
        {"unsettled", static_cast<std::int64_t>(now.unsettled)}};
    return status;
  };
}

control::AskStore Stores::ask_ledger() {
  if (!impl_->durable) return {};
  return [&self = *impl_] {
    const store::LedgerStatus now = self.durable->writer->status(std::chrono::steady_clock::now());
    control::StoreStatus status;
    using State = control::StoreStatus::State;
    status.state = self.is_closed() ? State::closed : now.database_ok ? State::ok : State::degraded;
    status.problem = now.journal_failed         ? "the journal has failed"
                     : !now.space_error.empty() ? now.space_error
                     : !now.database_ok         ? now.database_error
                     : self.is_closed()         ? "the database is too far behind"
                                                : "";
    status.texts = {{"kind", self.database_kind},
                    {"replica", self.durable->directory.replica_name()},
                    {"epoch", hex(self.durable->journal->epoch())}};
    status.numbers = {{"up_to_date", now.behind == nanoseconds::zero() ? 1 : 0},
                      {"unapplied_bytes", static_cast<std::int64_t>(now.unapplied_bytes)},
                      {"behind_ms", std::chrono::duration_cast<milliseconds>(now.behind).count()},
                      {"lost_records", static_cast<std::int64_t>(now.lost_records)},
                      {"recovered_reservations", static_cast<std::int64_t>(now.recovered_expired)}};
    return status;
  };
}

void Stores::tick(Now now) {
  state().reap(now);
  impl_->metrics.state_degraded.with({"shared_state"})
      .set(impl_->redis && impl_->redis->status().degraded ? 1 : 0);
  if (!impl_->durable) return;
  const store::LedgerStatus status = impl_->durable->writer->status(now.mono);
  impl_->metrics.state_degraded.with({"ledger"}).set(impl_->is_closed() || !status.database_ok ? 1 : 0);
  impl_->metrics.journal_unapplied.with({}).set(static_cast<std::int64_t>(status.unapplied_bytes));
  impl_->metrics.ledger_behind.with({}).set(status.behind.count());
  observe::Counter& lost = impl_->metrics.journal_lost.with({});
  lost.add(static_cast<std::int64_t>(status.lost_records) - lost.value());
}

void Stores::note_budgets(std::span<const store::SubjectSpec> before,
                          std::span<const store::SubjectSpec> after, WallTime now) {
  if (!impl_->durable) return;
  for (const store::BudgetChange& change : store::budget_changes(before, after, now, "configuration file"))
    impl_->durable->journal->budget(change);
}

void Stores::close(nanoseconds bound) {
  if (!impl_->durable) return;
  impl_->forgetter.reset();
  impl_->durable->journal->close();
  impl_->durable->writer->stop(bound);
}

}  // namespace penstock::app
