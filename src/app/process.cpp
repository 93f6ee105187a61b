#include "app/process.hpp"

#include <condition_variable>
#include <deque>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "app/stores.hpp"
#include "app/surface.hpp"
#include "config/config.hpp"
#include "control/health.hpp"
#include "gateway/snapshot.hpp"
#include "gateway/worker.hpp"
#include "http/server.hpp"
#include "http/tls.hpp"
#include "observe/log.hpp"
#include "store/memory/memory_stores.hpp"

namespace penstock::app {
namespace {

constexpr seconds kUpdateEvery{15};  // gauges of providers
constexpr seconds kReapEvery{1};     // leases, idle connections
constexpr seconds kLedgerWait{3};    // for what is not in the database when the process ends

observe::Level level_of(config::LogLevel level) {
  switch (level) {
    case config::LogLevel::debug: return observe::Level::debug;
    case config::LogLevel::info: return observe::Level::info;
    case config::LogLevel::warn: return observe::Level::warn;
    case config::LogLevel::error: return observe::Level::error;
  }
  return observe::Level::info;
}

http::ServerOptions server_options(const config::Listen& listen) {
  return {.max_header_bytes = listen.max_header_bytes,
          .max_body_bytes = listen.max_body_bytes,
          .header_timeout = listen.header_timeout,
          .body_timeout = listen.body_timeout,
          .idle_timeout = listen.idle_timeout,
          .write_timeout = listen.write_timeout};
}

std::vector<control::ProviderInfo> provider_infos(const gateway::Snapshot& snapshot) {
  std::vector<control::ProviderInfo> infos;
  for (const gateway::ProviderPlan& provider : snapshot.providers) {
    control::ProviderInfo info{.name = provider.config->name, .subject = provider.subject, .endpoints = {}};
    for (const gateway::EndpointPlan& endpoint : provider.endpoints)
      info.endpoints.emplace_back(endpoint.name.view());
    infos.push_back(std::move(info));
  }
  return infos;
}

/// One worker: a thread, its io_context, and what runs on it. The order of members is the order of their
/// construction.
struct Lane {
  explicit Lane(gateway::Services& services, http::Server::Shared& shared,
                std::deque<gateway::Worker>& workers, std::size_t index)
      : watch(io),
        worker(workers.emplace_back(io, watch, services, index)),
        server(io, watch, shared, index),
        sweeper(io) {}

  boost::asio::io_context io{
      BOOST_ASIO_CONCURRENCY_HINT_UNSAFE_IO};  // only its own thread touches its sockets
  boost::asio::executor_work_guard<Executor> work{io.get_executor()};
  http::DeadlineWatch watch;
  gateway::Worker& worker;
  http::Server server;
  http::Timer sweeper;
  std::thread thread;

  void sweep_pools() {
    sweeper.expires_after(kReapEvery);
    sweeper.async_wait([this](http::error_code error) {
      if (error) return;
      const MonotonicTime now = std::chrono::steady_clock::now();
      for (const auto& pool : worker.generation->pools) pool->sweep(now);
      sweep_pools();
    });
  }
};

/// Changed ledgers and states are other ones: they take effect at the next start.
bool same_stores(const config::Config& a, const config::Config& b) {
  return a.ledger.directory == b.ledger.directory && a.ledger.database == b.ledger.database &&
         a.ledger.url.reveal() == b.ledger.url.reveal() && a.ledger.sync == b.ledger.sync &&
         a.ledger.sync_interval == b.ledger.sync_interval &&
         a.ledger.max_journal_bytes == b.ledger.max_journal_bytes &&
         a.ledger.retention_days == b.ledger.retention_days && a.state.redis == b.state.redis &&
         a.state.user == b.state.user && a.state.password.reveal() == b.state.password.reveal() &&
         a.state.domain == b.state.domain && a.state.replica == b.state.replica &&
         a.state.on_lost == b.state.on_lost && a.state.timeout == b.state.timeout &&
         a.state.allow_volatile == b.state.allow_volatile;
}

}  // namespace

struct Process::Impl {
  /// What stands on the stores, which only start() can open.
  struct Parts {
    Parts(Impl& self, store::SharedState& state)
        : health(state, self.metrics, PENSTOCK_VERSION),
          services{.state = state,
                   .caller_limits = self.stores->caller_limits(),
                   .ledger = self.stores->ledger(),
                   .metrics = self.metrics,
                   .log = self.log,
                   .clock = self.clock,
                   .epoch = self.epoch},
          surface(self.workers, health) {}
    control::Health health;
    gateway::Services services;
    Surface surface;
  };

  Impl(config::Config given, int log_fd)
      : config(std::move(given)),
        log(log_fd, level_of(config.log.level), &metrics.log_lines_dropped.with({})) {}

  config::Config config;
  observe::Metrics metrics;
  observe::Log log;
  gateway::GuardedClock clock;
  const std::uint64_t epoch = random_epoch();
  std::unique_ptr<Stores> stores;
  std::unique_ptr<Parts> parts;
  std::deque<gateway::Worker> workers;
  std::unique_ptr<http::Server::Shared> shared;
  std::deque<Lane> lanes;
  std::atomic<std::shared_ptr<const gateway::Snapshot>>
      snapshot;  // read by the state's listener from any thread
  std::shared_ptr<const store::Directory> directory;
  std::uint16_t port = 0;

  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  policy::ClockGuard::Trust told_trust = policy::ClockGuard::Trust::trusted;  // background's
  std::thread background;

  void listen_to_state() {
    stores->state().listen(
        {.circuit_changed =
             [this](store::SubjectId subject, policy::CircuitBreaker::State circuit) {
               parts->health.circuit_changed(subject, circuit);
             },
         .overrun =
             [this](store::SubjectId subject, NanoUsd amount) {
               const auto current = snapshot.load();
               const auto found = current->provider_by_subject.find(subject);
               std::string_view name = "other";
               if (found != current->provider_by_subject.end()) name = found->second->config->name;
               metrics.overrun.with({name}).add(amount.count);
             },
         .lease_expired = [this](AttemptId) { metrics.reservations_expired.with({}).add(); }});
  }

  Result<void> adopt(config::Config next) {
    auto made = gateway::Snapshot::make(std::move(next), stores->state(), parts->services.lines, metrics,
                                        clock.now());
    if (!made) return std::unexpected(made.error());
    const std::shared_ptr<const gateway::Snapshot> adopted = std::move(*made);
    if (auto kept = stores->check(adopted->subjects); !kept) return kept;
    const auto before = snapshot.exchange(adopted);
    if (before) stores->note_budgets(before->subjects, adopted->subjects, clock.now().wall);
    directory = std::make_shared<store::MemoryDirectory>(adopted->keys);
    parts->health.set_providers(provider_infos(*adopted));
    log.set_level(level_of(adopted->config.log.level));
    parts->health.update(clock.now());
    return {};
  }

  void watch_clock() {
    clock.tick();
    const auto trust = clock.trust();
    if (trust == told_trust) return;
    told_trust = trust;
    parts->health.clock_changed(trust);
    const std::string ahead =
        std::to_string((WallTime{std::chrono::system_clock::now()} - clock.now().wall) / seconds{1});
    switch (trust) {
      case policy::ClockGuard::Trust::trusted:
        return log.write(observe::Level::info, "the wall clock is trusted again");
      case policy::ClockGuard::Trust::suspect:
        return log.write(observe::Level::warn,
                         "the wall clock jumped; budgets keep to their windows until it is confirmed",
                         {{"ahead_seconds", ahead}});
      case policy::ClockGuard::Trust::refuted:
        return log.write(observe::Level::error, "the wall clock is wrong, as two providers say",
                         {{"ahead_seconds", ahead}});
    }
  }

  void run_background() {
    std::unique_lock lock(mutex);
    auto next_update = std::chrono::steady_clock::now() + kUpdateEvery;
    while (!wake.wait_for(lock, kReapEvery, [this] { return stopping; })) {
      lock.unlock();
      watch_clock();
      const Now now = clock.now();
      stores->tick(now);
      if (now.mono >= next_update) {
        parts->health.update(now);
        next_update = now.mono + kUpdateEvery;
      }
      lock.lock();
    }
  }
};

Process::Process(config::Config config, int log_fd)
    : impl_(std::make_unique<Impl>(std::move(config), log_fd)) {}

Process::~Process() {
  if (impl_->background.joinable()) stop(milliseconds{0});
}

Result<void> Process::start() {
  Impl& self = *impl_;
  const config::Listen listen = self.config.listen;
  self.metrics.build_info.with({PENSTOCK_VERSION}).set(1);
  auto stores = Stores::open(self.config, self.epoch, self.metrics, self.log);
  if (!stores) return std::unexpected(stores.error());
  self.stores = std::move(*stores);
  self.parts = std::make_unique<Impl::Parts>(self, self.stores->state());
  self.parts->health.set_stores(self.stores->ask_shared_state(), self.stores->ask_ledger());
  self.listen_to_state();
  if (auto started = self.stores->start(); !started) return started;
  if (auto adopted = self.adopt(self.config); !adopted) return adopted;

  self.shared = std::make_unique<http::Server::Shared>(self.parts->surface, server_options(listen),
                                                       listen.max_connections);
  self.shared->open = &self.metrics.connections.with({"downstream"});
  self.shared->opened = &self.metrics.connections_opened.with({"downstream"});
  if (listen.tls) {
    auto tls = http::make_server_tls(listen.tls->certificate_file, listen.tls->key_file);
    if (!tls) return std::unexpected(tls.error());
    self.shared->tls = *tls;
  }
  http::error_code error;
  const auto address = boost::asio::ip::make_address(listen.address, error);
  if (error) return refuse(Reason::gateway_error, "cannot listen", listen.address + " is not an address");
  boost::asio::ip::tcp::endpoint endpoint(address, listen.port);
  if (auto free = http::Server::check_free(endpoint); !free) return free;
  const std::size_t count =
      listen.workers != 0 ? listen.workers : std::max(1U, std::thread::hardware_concurrency());
  for (std::size_t i = 0; i < count; ++i) {
    Lane& lane = self.lanes.emplace_back(self.parts->services, *self.shared, self.workers, i);
    auto bound = lane.server.listen(endpoint);
    if (!bound) return std::unexpected(bound.error());
    endpoint = *bound;  // the others share the port that the first was given
    lane.worker.adopt(self.snapshot.load(), self.directory);
  }
  self.port = endpoint.port();
  for (Lane& lane : self.lanes) {
    lane.watch.start();
    lane.server.start();
    lane.sweep_pools();
    lane.thread = std::thread([&lane] { lane.io.run(); });
  }
  self.stores->tick(self.clock.now());
  self.background = std::thread([&self] { self.run_background(); });
  return {};
}

std::uint16_t Process::port() const noexcept { return impl_->port; }

Result<void> Process::reload(config::Config config) {
  Impl& self = *impl_;
  if (config.listen != self.config.listen)
    self.log.write(observe::Level::warn, "changed settings under `listen` take effect at the next start");
  if (!same_stores(config, self.config))
    self.log.write(observe::Level::warn,
                   "changed settings under `ledger` and `state` take effect at the next start");
  if (auto adopted = self.adopt(std::move(config)); !adopted) return adopted;
  for (Lane& lane : self.lanes)
    boost::asio::post(lane.io, [&lane, snapshot = self.snapshot.load(), directory = self.directory] {
      lane.worker.adopt(snapshot, directory);
    });
  return {};
}

bool Process::stop(milliseconds bound) {
  Impl& self = *impl_;
  self.parts->health.set_draining();
  self.parts->services.lines.close();  // who has not started must not keep the process
  for (Lane& lane : self.lanes) boost::asio::post(lane.io, [&lane] { lane.server.drain(); });
  // Each worker ends by itself once its last connection has.
  const auto deadline = std::chrono::steady_clock::now() + bound;
  bool all_idle = false;
  while (!all_idle && std::chrono::steady_clock::now() < deadline) {
    all_idle = self.shared->connections.load() == 0;
    if (!all_idle) std::this_thread::sleep_for(milliseconds{5});
  }
  for (Lane& lane : self.lanes) boost::asio::post(lane.io, [&lane] { lane.io.stop(); });
  for (Lane& lane : self.lanes)
    if (lane.thread.joinable()) lane.thread.join();
  {
    const std::scoped_lock lock(self.mutex);
    self.stopping = true;
  }
  self.wake.notify_all();
  if (self.background.joinable()) self.background.join();
  // Calls that did not finish in time end here: their reservations are settled by their destructors. Pools go
  // first, since their sockets belong to the io_contexts.
  for (gateway::Worker& worker : self.workers) worker.generation.reset();
  self.lanes.clear();
  self.stores->close(kLedgerWait);
  self.log.flush();
  return all_idle;
}

void Process::log_error(std::string_view message, std::string_view detail) {
  impl_->log.write(observe::Level::error, message, {{"detail", detail}});
}

void Process::log_info(std::string_view message, std::string_view detail) {
  impl_->log.write(observe::Level::info, message, {{"detail", detail}});
}

namespace {

sigset_t handled_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, number);
  return set;
}

}  // namespace

void block_signals() {
  const sigset_t set = handled_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int serve_until_signalled(Process& process, milliseconds shutdown_bound, const LoadAgain& load_again) {
  const sigset_t set = handled_signals();
  for (;;) {
    int number = 0;
    if (sigwait(&set, &number) != 0) return 1;
    if (number != SIGHUP) break;
    auto config = load_again(process);
    if (!config) continue;
    if (auto done = process.reload(std::move(*config)); done)
      process.log_info("configuration reloaded", "");
    else
      process.log_error("configuration not reloaded; the last good one keeps serving", done.error().detail);
  }
  // A second signal while running calls finish ends at once: the default action does that.
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  process.log_info("stopping", "");
  process.stop(shutdown_bound);
  return 0;
}

}  // namespace penstock::app
