#include "app/demo.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <unistd.h>

#include "app/process.hpp"
#include "config/key.hpp"
#include "config/load.hpp"
#include "mock_provider.hpp"

namespace penstock::app {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr milliseconds kShutdownBound{1'000};
constexpr milliseconds kBetweenCalls{400};
constexpr const char* kAliceKey = "pk_demo_alice";
constexpr const char* kBobKey = "pk_demo_bob";

/// A mock provider in a thread of its own.
class Mock {
 public:
  Mock() : provider_({.latency_us = 30'000, .gap_us = 20'000}), thread_([this] { provider_.run(); }) {}
  ~Mock() {
    provider_.stop();
    thread_.join();
  }
  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(provider_.port()); }

 private:
  mock::MockProvider provider_;
  std::thread thread_;
};

/// Where the demo's ledger lives: made and removed with it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "penstock-demo-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::string demo_config(std::uint16_t port, const std::string& mock, const std::string& data,
                        bool log_calls) {
  const auto hash = [](const char* key) { return config::format_hash(config::hash_key(key)); };
  return "listen: {address: \"127.0.0.1:" + std::to_string(port) + R"("}
log: {level: info, calls: )" +
         (log_calls ? "all" : "none") + R"(}
inbound: {limit: 300/minute}
ledger: {directory: ")" +
         data + R"("}
providers:
  llm:  # answers like OpenAI, streams included
    base_url: )" +
         mock + R"(
    allow_private: true
    api: openai
    credential: {value: sk-mock-demo}
    limits: [120/minute, 200000 tokens/minute]
    concurrency: 32
    budgets: [{window: daily, limit_usd: 5}, {window: monthly, limit_usd: 50}]
    prices:
      models:
        gpt-4o-mini: {input_usd_per_million: 0.15, output_usd_per_million: 0.60, max_output_tokens: 16384}
    endpoints: [{name: chat, path: /v1/chat/completions, methods: [POST]}]
  geocoder:  # half a cent a credit, as the answer says
    base_url: )" +
         mock + R"(
    allow_private: true
    credential: {query: key, value: geo-mock-demo}
    limits: 60/minute
    budgets: [{window: daily, limit_usd: 2}]
    prices:
      units: [{name: credits, pointer: /billing/credits, usd_per_unit: 0.005, max_per_call: 2}]
    endpoints: [{name: geocode, path: /geocode, methods: [GET]}]
  flaky:  # fails often: watch its circuit
    base_url: )" +
         mock + R"(
    allow_private: true
    circuit: {min_calls: 5, window: 30s, cooldown: 10s, half_open_trials: 2}
    prices: {per_call_usd: 0.001}
routes:
  chat: {targets: [{provider: llm}]}
teams:
  research: {budgets: [{window: daily, limit_usd: 3}]}
consumers:
  alice: {team: research, budgets: [{window: daily, limit_usd: 1}]}
  bob: {team: research, limits: 30/minute, allow: ["provider:llm", "provider:flaky", "route:chat"]}
keys:
  alice-1: {consumer: alice, hash: ")" +
         hash(kAliceKey) + R"("}
  bob-1: {consumer: bob, hash: ")" +
         hash(kBobKey) + R"("}
)";
}

/// A few calls a second through the gateway, so that there is something to see.
class Traffic {
 public:
  explicit Traffic(std::uint16_t port) : port_(port), thread_([this] { run(); }) {}
  ~Traffic() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (unsigned turn = 0; !wake_.wait_for(lock, kBetweenCalls, [this] { return stopping_; }); ++turn) {
      lock.unlock();
      call(turn);
      lock.lock();
    }
  }

  void call(unsigned turn) {
    switch (turn % 6) {
      case 0: return send("GET /p/geocoder/geocode?q=Paris", kAliceKey, "");
      case 1:
        return send(
            "POST /p/llm/v1/chat/completions", kBobKey,
            R"({"model":"gpt-4o-mini","max_tokens":64,"messages":[{"role":"user","content":"Name a river."}]})");
      case 3:
        return send(
            "POST /r/chat/v1/chat/completions", kAliceKey,
            R"({"model":"gpt-4o-mini","max_tokens":64,"stream":true,"stream_options":{"include_usage":true},)"
            R"("messages":[{"role":"user","content":"Name three rivers."}]})");
      default: return send("GET /p/flaky/anything/x?status=503&error_rate=0.4", kBobKey, "");
    }
  }

  void send(const std::string& what, const char* key, const std::string& body) {
    boost::system::error_code ignored;
    asio::io_context io;
    tcp::socket socket(io);
    socket.connect({asio::ip::address_v4::loopback(), port_}, ignored);
    const std::string request =
        what + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer " + key +
        "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
        body;
    asio::write(socket, asio::buffer(request), ignored);
    std::string answer;
    asio::read(socket, asio::dynamic_buffer(answer, 1 << 20), ignored);
  }

  std::uint16_t port_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

int run_demo(const DemoOptions& options) {
  block_signals();
  const Mock mock;
  const TemporaryDirectory data;
  auto config = config::parse_config(demo_config(options.port, mock.url(), data.path(), options.log_calls),
                                     "demo", config::real_sources());
  if (!config) {
    for (const config::Mistake& mistake : config.error())
      std::fprintf(stderr, "%s\n", config::to_string(mistake).c_str());
    return 1;
  }
  Process process(std::move(*config), STDERR_FILENO);
  if (auto started = process.start(); !started) {
    std::fprintf(stderr, "penstock: %s: %s\n", started.error().message.c_str(),
                 started.error().detail.c_str());
    if (options.port != 0)
      std::fprintf(stderr, "Is something else on this port? penstock demo --port 0 takes a free one.\n");
    return 1;
  }
  const std::string url = "http://127.0.0.1:" + std::to_string(process.port());
  std::printf(
      "Penstock %s, demo. Its ledger is in %s and is gone when this ends.\n\n"
      "  gateway    %s\n"
      "  health     %s/health/providers\n"
      "  metrics    %s/metrics\n\n"
      "Providers, all mocks: llm (like OpenAI), geocoder ($0.005 a credit), flaky (fails often).\n"
      "Keys: %s ($1 a day), %s (30 calls a minute, no geocoder).\n\n"
      "Try it:\n\n"
      "  curl -s -i '%s/p/geocoder/geocode?q=Paris' -H 'Authorization: Bearer %s'\n\n"
      "Ctrl-C stops.\n",
      PENSTOCK_VERSION, data.path().c_str(), url.c_str(), url.c_str(), url.c_str(), kAliceKey, kBobKey,
      url.c_str(), kAliceKey);
  std::fflush(stdout);
  std::optional<Traffic> traffic;
  if (!options.quiet) traffic.emplace(process.port());
  return serve_until_signalled(process, kShutdownBound, [](Process&) { return std::nullopt; });
}

}  // namespace penstock::app
