// The ledger's settings: where what was spent is kept.
#include "config/fields.hpp"

namespace penstock::config {

using namespace std::chrono_literals;

void read_ledger(Reader& reader, const Node& node, Ledger& out) {
  Fields fields(reader, node, kLedger, "ledger");
  fields.text("directory", out.directory);
  out.directory = reader.resolve(out.directory);
  std::string database;
  const auto parse = [&](std::string_view text) -> Parsed<std::string> {
    if (text == "none" || text == "sqlite") {
      out.database = text == "none" ? Ledger::Database::none : Ledger::Database::sqlite;
      return std::string();
    }
    if (!text.starts_with("postgresql://") && !text.starts_with("postgres://")) {
      return std::unexpected(
          Complaint{"is no database; expected sqlite, none, or postgresql://USER@HOST/NAME",
                    "a password may stand in the URL as ${NAME}"});
    }
    out.database = Ledger::Database::postgresql;
    return substitute(text, reader.sources);
  };
  fields.value("database", database, parse, Show::nothing);
  out.url = Secret(std::move(database));
  fields.choice("sync", out.sync, {{"interval", Ledger::Sync::interval}, {"always", Ledger::Sync::always}});
  fields.duration("sync_interval", out.sync_interval, {.least = 1ms, .most = 10s});
  fields.size("max_journal", out.max_journal_bytes, {.least = 1ULL << 20U, .most = 1ULL << 40U});
  fields.integer("retention_days", out.retention_days, {.least = 1, .most = 3'660});
}

}  // namespace penstock::config
