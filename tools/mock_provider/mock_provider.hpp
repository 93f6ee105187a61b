// A scriptable fake provider: answers like OpenAI, Anthropic, Gemini and a paid JSON API, and counts what it
// would have billed. One thread, one epoll loop, loopback only. What it answers: README.md.
#pragma once

#include <cstdint>
#include <memory>

namespace penstock::mock {

struct Options {
  std::uint16_t port = 0;       // 0: any free port
  std::int64_t latency_us = 0;  // before the first byte of each answer
  std::int64_t chunks = 0;      // content events per stream; 0: one per completion token
  std::int64_t gap_us = 0;      // between two events of a stream
  std::uint64_t seed = 1;       // for error rates and latency distributions
};

class MockProvider {
 public:
  /// Binds and listens on 127.0.0.1; throws std::system_error if it cannot.
  explicit MockProvider(Options options);
  ~MockProvider();
  MockProvider(const MockProvider&) = delete;
  MockProvider& operator=(const MockProvider&) = delete;

  /// Serves until stop(). Connections are accepted by the kernel from construction on.
  void run();
  /// Safe from any thread and from a signal handler; run() returns soon after, also if called before run().
  void stop() noexcept;
  [[nodiscard]] std::uint16_t port() const noexcept;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace penstock::mock
