#pragma once

#include <atomic>
#include <memory>
#include <random>
#include <vector>

#include "base/ids.hpp"
#include "gateway/guarded_clock.hpp"
#include "gateway/provider_line.hpp"
#include "gateway/snapshot.hpp"
#include "http/client.hpp"
#include "observe/log.hpp"
#include "observe/metrics.hpp"
#include "store/caller_limits.hpp"
#include "store/directory.hpp"
#include "store/ledger.hpp"
#include "store/shared_state.hpp"

namespace penstock::gateway {

namespace asio = boost::asio;

/// What all workers share, behind interfaces. Outlives them.
struct Services {
  store::SharedState& state;
  store::CallerLimits& caller_limits;
  store::Ledger& ledger;
  observe::Metrics& metrics;
  observe::Log& log;
  GuardedClock& clock;
  std::uint64_t epoch = 0;  ///< of this process, in every id
  observe::Histogram& overhead = metrics.overhead.with({});
  ProviderLines lines{metrics};
};

/// A configuration as one worker uses it. A call keeps the one it began with, so that a reload changes
/// nothing under it.
struct Generation {
  std::uint64_t number = 0;  ///< of this worker, from 1
  std::shared_ptr<const Snapshot> snapshot;
  std::shared_ptr<const store::Directory> directory;
  std::vector<std::shared_ptr<http::UpstreamPool>> pools;  ///< by ProviderPlan::index
};

/// What one worker's thread owns: nothing here is locked.
struct Worker {
  Worker(asio::io_context& io_context, http::DeadlineWatch& deadline_watch, Services& shared,
         std::size_t number)
      : io(io_context), watch(deadline_watch), services(shared), index(number), random(random_epoch()) {}

  asio::io_context& io;
  http::DeadlineWatch& watch;
  Services& services;
  std::size_t index;
  std::mt19937_64 random;
  std::shared_ptr<const Generation> generation;
  std::uint64_t next_sequence = 0;

  /// Takes a new configuration; pools whose destination is unchanged keep their connections.
  void adopt(std::shared_ptr<const Snapshot> next, std::shared_ptr<const store::Directory> keys);

  /// Unique in the process: the worker's number stands in the upper bits.
  [[nodiscard]] std::uint64_t sequence() noexcept {
    return (static_cast<std::uint64_t>(index) << 48) | ++next_sequence;
  }
};

}  // namespace penstock::gateway
