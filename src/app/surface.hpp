#pragma once

#include <deque>

#include "control/health.hpp"
#include "gateway/worker.hpp"
#include "http/server.hpp"

namespace penstock::app {

/// The one listener's paths: calls under /p/ and /r/ go to the gateway, health and metrics to control.
class Surface final : public http::Handler {
 public:
  Surface(std::deque<gateway::Worker>& workers, control::Health& health)
      : workers_(workers), health_(health) {}
  [[nodiscard]] Awaitable<void> handle(http::Exchange& exchange, std::size_t worker) override;
  void on_bad_request(const http::FramingError& error, std::string& out) override;

 private:
  std::deque<gateway::Worker>& workers_;
  control::Health& health_;
};

}  // namespace penstock::app
