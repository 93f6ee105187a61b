#pragma once

#include <cstdint>

namespace penstock::app {

struct DemoOptions {
  std::uint16_t port = 8080;
  bool quiet = false;
  bool log_calls = false;
};

/// The gateway with mock providers in this process, two consumers and gentle traffic, until Ctrl-C. Returns
/// the exit code.
int run_demo(const DemoOptions& options);

}  // namespace penstock::app
