#pragma once

#include <expected>
#include <string>
#include <utility>

#include "base/reason.hpp"
#include "base/time.hpp"

namespace penstock {

/// What can be expected to fail, and did. `detail` is for operators and never reaches a caller;
/// `message` is for the caller and holds no secret.
struct Error {
  Reason reason = Reason::gateway_error;
  int status = 0;  ///< HTTP status; 0: the reason's usual one
  std::string message;
  std::string detail;
  std::optional<seconds> retry_after;  ///< when waiting helps
};

template <class T>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> refuse(Reason reason, std::string message,
                                                   std::string detail = {}) {
  return std::unexpected(Error{.reason = reason,
                               .status = 0,
                               .message = std::move(message),
                               .detail = std::move(detail),
                               .retry_after = {}});
}

}  // namespace penstock
