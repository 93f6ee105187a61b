#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load.hpp"
#include "gateway/call.hpp"
#include "gateway/phases/phases.hpp"

/// What the tests of this folder share: a call at rest between two phases, without a socket or a store behind
/// it.
namespace penstock::gateway::testing {

/// Keeps what was declared; says yes to everything else, where a test does not say otherwise.
class FakeState final : public store::SharedState {
 public:
  std::vector<store::SubjectSpec> declared;

  void listen(Listener) override {}
  void set_history(const store::History*) override {}
  std::vector<store::SubjectId> declare(std::span<const store::SubjectSpec> specs, Now) override {
    declared.assign(specs.begin(), specs.end());
    std::vector<store::SubjectId> ids;
    for (std::size_t i = 0; i < specs.size(); ++i) ids.push_back(static_cast<store::SubjectId>(100 + i));
    return ids;
  }
  Awaitable<std::expected<void, store::Refusal>> reserve(store::ReservationRequest request) override {
    co_return on_reserve ? on_reserve(request) : std::expected<void, store::Refusal>{};
  }
  void settle(const store::Settlement&) noexcept override {}
  void pause(store::SubjectId, MonotonicTime) noexcept override {}
  bool try_retry(store::SubjectId, MonotonicTime) noexcept override { return may_retry; }
  void reap(Now) override {}
  std::vector<store::SubjectView> view(Now, std::span<const store::SubjectId>) override { return {}; }
  bool may_retry = true;
  std::function<std::expected<void, store::Refusal>(const store::ReservationRequest&)> on_reserve;

  /// The name and kind of a subject by the id that `declare` gave it.
  [[nodiscard]] std::string name(store::SubjectId id) const {
    const store::SubjectSpec& spec = declared.at(id - 100);
    return std::string(to_string(spec.kind)) + " " + spec.name;
  }
};

/// Answers what the test put in; keeps who asked.
class FakeCallerLimits final : public store::CallerLimits {
 public:
  Answer answer;
  std::vector<std::pair<std::uint64_t, policy::LimitSpec>> asked;
  Answer count(std::uint64_t caller, const policy::LimitSpec& limit, MonotonicTime) override {
    asked.emplace_back(caller, limit);
    return answer;
  }
};

class FakeLedger final : public store::Ledger {
 public:
  std::vector<store::CallRecord> calls;
  void record(store::CallRecord call) override { calls.push_back(std::move(call)); }
  [[nodiscard]] std::vector<store::CallRecord> recent(std::size_t) const override { return calls; }
  [[nodiscard]] NanoUsd total_cost() const override { return {}; }
};

class FakeDirectory final : public store::Directory {
 public:
  std::map<store::KeyHash, std::shared_ptr<const store::KeyEntry>> keys;
  [[nodiscard]] std::shared_ptr<const store::KeyEntry> find_key(const store::KeyHash& hash) const override {
    const auto found = keys.find(hash);
    return found == keys.end() ? nullptr : found->second;
  }
};

inline config::Config config_of(std::string_view yaml) {
  const config::Sources none{.environment = [](std::string_view) { return std::optional<std::string>{}; },
                             .read_file = [](const std::string&) -> std::expected<std::string, std::string> {
                               return std::unexpected("no files here");
                             }};
  auto config = config::parse_config(yaml, "test.yaml", none);
  if (!config)
    for (const config::Mistake& mistake : config.error()) ADD_FAILURE() << to_string(mistake);
  return config ? std::move(*config) : config::Config{};
}

/// A gateway with a configuration, and one call of it.
class Gateway {
 public:
  explicit Gateway(std::string_view yaml) {
    auto made = Snapshot::make(config_of(yaml), state, services.lines, metrics,
                               {MonotonicTime{std::chrono::hours{1'000}}, WallTime{}});
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().detail);
    if (!made) return;
    directory = std::make_shared<FakeDirectory>();
    for (const auto& [hash, entry] : (*made)->keys)
      directory->keys.emplace(hash, std::make_shared<const store::KeyEntry>(entry));
    worker.adopt(*made, directory);
  }

  /// A call that has arrived: `request` is its head, lines ending with LF. Replaces the one before.
  Call& call(std::string_view request, std::string peer = "192.0.2.1") {
    call_.reset();
    text_.clear();
    for (const char c : request) text_.append(c == '\n' ? "\r\n" : std::string(1, c));
    text_ += "\r\n";
    peer_ = std::move(peer);
    exchange_ = std::make_unique<http::Exchange>(transport_, in_, out_, options_);
    const auto parsed = http::parse_request_head(text_, 64 * 1024, exchange_->request);
    EXPECT_EQ(parsed.state, http::ParseState::done) << request << parsed.error.what;
    exchange_->peer = peer_;
    exchange_->arrived = {MonotonicTime{std::chrono::hours{1'000}}, WallTime{std::chrono::hours{500'000}}};
    call_ = std::make_unique<Call>(*exchange_, worker);
    call_->now = exchange_->arrived;
    return *call_;
  }
  [[nodiscard]] const Snapshot& snapshot() const { return *worker.generation->snapshot; }
  [[nodiscard]] const ProviderPlan& provider(std::string_view name) const {
    return *snapshot().provider_by_name.at(name);
  }

  FakeState state;
  FakeCallerLimits limits;
  FakeLedger ledger;
  observe::Metrics metrics;
  observe::Log log{-1, observe::Level::error, nullptr};
  policy::ClockReading clocks{MonotonicTime{std::chrono::hours{1'000}},
                              WallTime{std::chrono::hours{500'000}}};
  GuardedClock clock{[this] { return clocks; }};
  Services services{state, limits, ledger, metrics, log, clock};
  asio::io_context io{1};
  http::DeadlineWatch watch{io};
  Worker worker{io, watch, services, 0};
  std::shared_ptr<FakeDirectory> directory;

 private:
  http::Transport transport_{http::Socket(io), watch};
  http::InBuffer in_;
  std::string out_;
  http::ServerOptions options_;
  std::string text_;
  std::string peer_;
  std::unique_ptr<http::Exchange> exchange_;
  std::unique_ptr<Call> call_;
};

/// "ok", or the status of the refusal.
inline std::string outcome(Step step, const Call& call) {
  if (step == Step::next) return "ok";
  const Error& error = call.refusal.value();
  return std::to_string(error.status != 0 ? error.status : info(error.reason).status);
}

}  // namespace penstock::gateway::testing
