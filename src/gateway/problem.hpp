#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace penstock::gateway {

/// The one JSON shape of refusals: RFC 9457 problem+json that also holds an OpenAI-style `error`, so that
/// SDKs raise the right exception. Holds only what a caller may see.
[[nodiscard]] std::string problem_body(const Error& error, int status);

/// The status of an error: its own, else its reason's usual one.
[[nodiscard]] int status_of(const Error& error) noexcept;

/// Penstock-Reason, Retry-After where waiting helps, x-should-retry: false where it does not, Content-Type.
void append_problem_fields(const Error& error, std::string& head);

/// With its quotes; bytes that are not UTF-8 are replaced.
void append_json_string(std::string& out, std::string_view text);

}  // namespace penstock::gateway
