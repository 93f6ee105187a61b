#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <boost/container/small_vector.hpp>

#include "base/ids.hpp"
#include "base/money.hpp"
#include "base/name.hpp"
#include "base/reason.hpp"
#include "base/time.hpp"
#include "store/shared_state.hpp"

namespace penstock::store {

/// One attempt of a call.
struct AttemptRecord {
  AttemptId id;
  Name provider;
  Name endpoint;
  NanoUsd estimate{};
  NanoUsd cost{};
  Ending ending = Ending::released;
  int status = 0;  ///< the provider's; 0: no answer
  std::optional<Reason> reason;
};

struct CallRecord {
  CallId id;
  WallTime at{};
  Name route;
  Name consumer;
  Name team;
  Name key;
  Name model;       ///< the price entry's name, never what the caller typed
  std::string tag;  ///< the caller's Penstock-Tag, at most 64 bytes
  int status = 0;
  std::optional<Reason> reason;
  NanoUsd cost{};
  bool cost_estimated = false;
  nanoseconds total{};
  boost::container::small_vector<AttemptRecord, 1> attempts;
};

/// The record of calls and spend. `record` never delays a response: a backend appends and returns.
/// Thread-safe.
class Ledger {
 public:
  Ledger() = default;
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  virtual ~Ledger() = default;

  virtual void record(CallRecord call) = 0;
  /// The newest `count` calls, newest first.
  [[nodiscard]] virtual std::vector<CallRecord> recent(std::size_t count) const = 0;
  [[nodiscard]] virtual NanoUsd total_cost() const = 0;
};

}  // namespace penstock::store
