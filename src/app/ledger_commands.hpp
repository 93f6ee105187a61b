#pragma once

#include <string>

#include "app/ledger_report.hpp"
#include "config/config.hpp"

namespace penstock::app {

/// `penstock ledger verify`: recomputes every balance and prints what it found. With a `url` the running
/// gateway must agree: its budgets, and its counter of credit used. Without one, and with no gateway running,
/// what the journal still holds is applied first, as a start would. Returns the exit code: 1 where anything
/// differs.
int verify_ledger(const config::Config& config, const std::string& url);

struct ExportOptions {
  ExportFormat format = ExportFormat::csv;
  ExportWhat what = ExportWhat::calls;
  std::string from;  ///< empty: everything
  std::string to;
};
/// `penstock ledger export`: to standard output. Returns the exit code.
int print_ledger(const config::Config& config, const ExportOptions& options);

}  // namespace penstock::app
