#include "store/sqlite/schema.hpp"

#include <array>

namespace penstock::store::sqlite {
namespace {

// Moments are nanoseconds since 1970, money is nano-USD, an id is 16 bytes. Tables that grow with the calls
// are kept in the order of time: new rows go to their end, retention takes from their beginning.
constexpr const char* kFirst = R"(
CREATE TABLE replicas (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE subjects (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  UNIQUE (kind, name)
) STRICT;
-- What attempts count for repeats: a set has a number.
CREATE TABLE subject_sets (
  id INTEGER PRIMARY KEY,
  subjects TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE subject_set_members (
  subject_id INTEGER NOT NULL REFERENCES subjects,
  set_id INTEGER NOT NULL REFERENCES subject_sets,
  PRIMARY KEY (subject_id, set_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX subject_set_members_by_set ON subject_set_members (set_id);

CREATE TABLE attempts (
  reserved_at INTEGER NOT NULL,
  id BLOB NOT NULL,
  replica_id INTEGER NOT NULL,
  set_id INTEGER NOT NULL,
  estimate INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  state INTEGER NOT NULL,      -- 0 open, 1 settled with its cost, 2 settled with its estimate, 3 released
  ended_at INTEGER,
  expired INTEGER NOT NULL,    -- 1: nobody settled it
  cost INTEGER,
  used INTEGER,                -- tokens
  corrected INTEGER NOT NULL,  -- 1: a late settlement changed its end
  PRIMARY KEY (reserved_at, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_open ON attempts (replica_id, reserved_at) WHERE state = 0;

CREATE TABLE calls (
  at INTEGER NOT NULL,
  id BLOB NOT NULL,
  route TEXT NOT NULL,
  consumer TEXT NOT NULL,
  team TEXT NOT NULL,
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  tag TEXT NOT NULL,
  status INTEGER NOT NULL,
  reason INTEGER,              -- its number in contracts/reasons.yaml, from 0
  cost INTEGER NOT NULL,
  cost_estimated INTEGER NOT NULL,
  total INTEGER NOT NULL,      -- nanoseconds
  PRIMARY KEY (at, id)
) STRICT, WITHOUT ROWID;
-- A call's attempts as the call tells of them; what was charged stands in `attempts`.
CREATE TABLE call_attempts (
  at INTEGER NOT NULL,
  call_id BLOB NOT NULL,
  place INTEGER NOT NULL,
  attempt_id BLOB NOT NULL,
  provider TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  estimate INTEGER NOT NULL,
  cost INTEGER NOT NULL,
  ending INTEGER NOT NULL,     -- as attempts.state
  status INTEGER NOT NULL,
  reason INTEGER,
  PRIMARY KEY (at, call_id, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE call_totals (
  day INTEGER PRIMARY KEY,
  calls INTEGER NOT NULL,
  cost INTEGER NOT NULL
) STRICT;

CREATE TABLE batches (
  id INTEGER PRIMARY KEY,      -- 0: balances carried forward from what retention took
  replica_id INTEGER REFERENCES replicas,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX batches_by_time ON batches (at);
CREATE TABLE entries (
  batch_id INTEGER NOT NULL,
  set_id INTEGER NOT NULL,
  quarter INTEGER NOT NULL,
  available INTEGER NOT NULL,
  reserved INTEGER NOT NULL,
  spent INTEGER NOT NULL,
  overrun INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  PRIMARY KEY (batch_id, set_id, quarter),
  CHECK (available + reserved + spent + overrun = 0)
) STRICT, WITHOUT ROWID;
-- Sums of the entries.
CREATE TABLE spend (
  set_id INTEGER NOT NULL,
  quarter INTEGER NOT NULL,
  reserved INTEGER NOT NULL,
  spent INTEGER NOT NULL,
  overrun INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  tokens INTEGER NOT NULL,
  last_at INTEGER NOT NULL,    -- the latest reservation
  PRIMARY KEY (set_id, quarter)
) STRICT, WITHOUT ROWID;
CREATE INDEX spend_by_quarter ON spend (quarter);

CREATE TABLE journal_positions (
  replica_id INTEGER NOT NULL REFERENCES replicas,
  lane INTEGER NOT NULL,
  segment INTEGER NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (replica_id, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE budget_changes (
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  before TEXT NOT NULL,
  after TEXT NOT NULL,
  who TEXT NOT NULL,
  PRIMARY KEY (at, kind, name, before, after, who)
) STRICT, WITHOUT ROWID;
-- One row: attempts and calls before it may be gone.
CREATE TABLE retention (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  forgotten_before INTEGER NOT NULL
) STRICT;
INSERT INTO retention VALUES (1, 0);
INSERT INTO batches VALUES (0, NULL, 0);
)";

constexpr std::array kMigrations{kFirst};

}  // namespace

std::span<const char* const> migrations() noexcept { return kMigrations; }

}  // namespace penstock::store::sqlite
