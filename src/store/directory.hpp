#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/name.hpp"
#include "base/time.hpp"
#include "store/shared_state.hpp"

namespace penstock::store {

using KeyHash = std::array<std::uint8_t, 32>;  ///< SHA-256 of the key's text

/// A key and whose it is, ready for a call: names for records, subjects for admission.
struct KeyEntry {
  Name key;
  Name consumer;
  Name team;  ///< empty: none
  std::optional<WallTime> expires;
  bool revoked = false;
  std::vector<std::string> allow;   ///< "provider:openai", "route:chat"; empty: everything
  std::uint64_t caller = 0;         ///< identity for CallerLimits
  std::vector<SubjectId> subjects;  ///< key, consumer, team: those that have a budget or limit
};

/// Who may call. Thread-safe.
class Directory {
 public:
  Directory() = default;
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  virtual ~Directory() = default;

  [[nodiscard]] virtual std::shared_ptr<const KeyEntry> find_key(const KeyHash& hash) const = 0;
};

}  // namespace penstock::store
