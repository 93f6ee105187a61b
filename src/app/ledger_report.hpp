#pragma once

#include <functional>
#include <string_view>

#include "base/result.hpp"
#include "store/ledger_database.hpp"

namespace penstock::app {

enum class ExportFormat : std::uint8_t { csv, ndjson };
enum class ExportWhat : std::uint8_t { calls, attempts };

/// Takes text as it comes; false ends the export (a closed pipe).
using Write = std::function<bool(std::string_view)>;

/// Writes what began in [from, to), oldest first; memory stays bounded. CSV has a line of names first (RFC
/// 4180). Amounts are decimals of USD with nine digits, times RFC 3339 in UTC.
[[nodiscard]] Result<void> export_ledger(store::LedgerDatabase& database, ExportWhat what,
                                         ExportFormat format, WallTime from, WallTime to, const Write& write);

/// "2026-11-01" (its midnight in UTC) or "2026-11-01T12:30:00Z".
[[nodiscard]] std::optional<WallTime> parse_moment(std::string_view text);

}  // namespace penstock::app
