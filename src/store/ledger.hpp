#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/money.hpp"
#include "base/reason.hpp"
#include "base/time.hpp"
#include "store/shared_state.hpp"

namespace penstock::store {

/// One attempt of a call. Names are configured names, never what a caller typed.
struct AttemptRecord {
  AttemptId id;
  std::string provider;
  std::string endpoint;
  NanoUsd estimate{};
  NanoUsd cost{};
  Ending ending = Ending::released;
  int status = 0;  ///< the provider's; 0: no answer
  std::optional<Reason> reason;
};

struct CallRecord {
  CallId id;
  WallTime at{};
  std::string route;
  std::string consumer;
  std::string team;
  std::string key;
  std::string tag;
  std::string model;
  int status = 0;
  std::optional<Reason> reason;
  NanoUsd cost{};
  bool cost_estimated = false;
  nanoseconds total{};
  std::vector<AttemptRecord> attempts;
};

/// The record of calls and spend. `record` never delays a response: a backend appends and returns. Thread-safe.
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
