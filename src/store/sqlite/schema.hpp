#pragma once

#include <span>

namespace penstock::store::sqlite {

/// What brings the schema from version i to i + 1. Append only.
[[nodiscard]] std::span<const char* const> migrations() noexcept;

}  // namespace penstock::store::sqlite
