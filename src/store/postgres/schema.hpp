#pragma once

#include <span>

namespace penstock::store::postgres {

/// What brings the schema from version i to i + 1. Append only.
[[nodiscard]] std::span<const char* const> migrations() noexcept;

}  // namespace penstock::store::postgres
