// mock_provider [--port 0] [--latency-us 0] [--chunks 0] [--gap-us 0] [--seed 1]
#include <charconv>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string_view>

#include <sys/resource.h>

#include "mock_provider.hpp"

namespace {

// A signal handler takes no argument: this is the one place where the program needs a global.
penstock::mock::MockProvider* running = nullptr;

void on_signal(int) {
  if (running != nullptr) running->stop();
}

template <class T>
bool read_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

bool read_option(std::string_view key, std::string_view value, penstock::mock::Options& options) {
  if (key == "--port") return read_number(value, options.port);
  if (key == "--latency-us") return read_number(value, options.latency_us) && options.latency_us >= 0;
  if (key == "--chunks") return read_number(value, options.chunks) && options.chunks >= 0;
  if (key == "--gap-us") return read_number(value, options.gap_us) && options.gap_us >= 0;
  if (key == "--seed") return read_number(value, options.seed);
  return false;
}

// The usual soft limit of 1024 descriptors is too small for a load test.
void allow_many_connections() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int argc, char** argv) {
  penstock::mock::Options options;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 < argc && read_option(argv[i], argv[i + 1], options)) continue;
    std::fprintf(stderr,
                 "usage: mock_provider [--port 0] [--latency-us 0] [--chunks 0] [--gap-us 0] [--seed 1]\n"
                 "not understood: %s %s\n",
                 argv[i], i + 1 < argc ? argv[i + 1] : "");
    return 2;
  }
  allow_many_connections();
  try {
    penstock::mock::MockProvider provider(options);
    running = &provider;
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
    std::printf("listening on 127.0.0.1:%u\n", static_cast<unsigned>(provider.port()));
    std::fflush(stdout);
    provider.run();
    running = nullptr;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mock_provider: %s\n", error.what());
    return 1;
  }
}
