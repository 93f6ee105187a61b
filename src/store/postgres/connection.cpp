#include "store/postgres/connection.hpp"

#include <cerrno>

#include <poll.h>

#include "store/sql/batch_plan.hpp"

namespace penstock::store::postgres {
namespace {

/// How much longer than the server's own time-out the answer is waited for.
constexpr seconds kGrace{1};
constexpr std::string_view kFailed = "the ledger's database failed";
constexpr std::string_view kUnreachable = "the ledger's database cannot be reached";

int hex_digit(char c) noexcept { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

/// A row of a result in text form.
class ResultRow final : public sql::Row {
 public:
  ResultRow(const PGresult* result, int row) : result_(result), row_(row) {}
  [[nodiscard]] bool is_null(int column) const override { return PQgetisnull(result_, row_, column) != 0; }
  [[nodiscard]] std::int64_t integer(int column) const override {
    const std::string_view digits = text(column);
    std::int64_t out = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), out);
    return out;
  }
  [[nodiscard]] std::string_view text(int column) const override {
    return {PQgetvalue(result_, row_, column), static_cast<std::size_t>(PQgetlength(result_, row_, column))};
  }
  [[nodiscard]] sql::RowId id(int column) const override {
    std::array<std::uint64_t, 2> parts{};
    std::size_t digits = 0;
    for (const char c : text(column)) {
      if (c == '-' || digits == 32) continue;
      std::uint64_t& part = parts[digits++ / 16];
      part = (part << 4) | static_cast<std::uint64_t>(hex_digit(c));
    }
    return {parts[0], parts[1]};
  }

 private:
  const PGresult* result_;
  int row_;
};

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
    text.replace(at, what.size(), with);
}

}  // namespace

Result<Target> Target::parse(std::string url, std::string application) {
  struct Free {
    void operator()(PQconninfoOption* options) const noexcept { PQconninfoFree(options); }
  };
  // libpq's own text would quote what it does not understand, and that may be a password.
  const auto refused = [] {
    return refuse(Reason::gateway_error, "the ledger's database URL is not valid",
                  "expected postgresql://user:password@host:port/database; what stands in user and password"
                  " beside letters and digits is written as %XX");
  };
  if (!url.starts_with("postgresql://") && !url.starts_with("postgres://")) return refused();
  char* complaint = nullptr;
  const std::unique_ptr<PQconninfoOption, Free> options(PQconninfoParse(url.c_str(), &complaint));
  PQfreemem(complaint);
  if (!options) return refused();
  Target made;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val == nullptr) continue;
    const std::string_view keyword = option->keyword;
    const std::string_view value = option->val;
    // An unescaped '@' in a password ends up here.
    if (keyword.starts_with("host") && value.find('@') != value.npos) return refused();
    if (option->dispchar[0] == '*' && !value.empty()) made.secrets_.emplace_back(value);
  }
  // As it is written too, with its escapes.
  const std::string_view written(url);
  const std::size_t begin = written.find("://") + 3;
  const std::string_view authority = written.substr(begin, written.find_first_of("/?", begin) - begin);
  const std::size_t colon = authority.find(':');
  const std::size_t at = authority.rfind('@');
  if (at != authority.npos && colon + 1 < at)
    made.secrets_.emplace_back(authority.substr(colon + 1, at - colon - 1));
  made.url_ = std::move(url);
  made.application_ = std::move(application);
  return made;
}

std::string Target::scrub(std::string text) const {
  for (const std::string& secret : secrets_) replace_all(text, secret, "***");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

Result<std::unique_ptr<Connection>> Connection::open(const Target& target, Use use, nanoseconds timeout) {
  const std::string user_timeout = std::to_string(std::chrono::ceil<milliseconds>(timeout).count());
  // What the URL says comes later and wins. Keepalives find a dead machine while nothing is sent, the user
  // time-out while something is; a server that stands still is found by our own deadline.
  const std::array keywords{"keepalives_idle",
                            "keepalives_interval",
                            "keepalives_count",
                            "tcp_user_timeout",
                            "target_session_attrs",
                            "fallback_application_name",
                            "client_encoding",
                            "dbname",
                            static_cast<const char*>(nullptr)};
  const std::array values{"5",
                          "2",
                          "3",
                          user_timeout.c_str(),
                          use == Use::write ? "read-write" : "any",
                          target.application().c_str(),
                          "UTF8",
                          target.url().c_str(),
                          static_cast<const char*>(nullptr)};
  std::unique_ptr<Connection> made(
      new Connection(target, PQconnectStartParams(keywords.data(), values.data(), 1)));
  made->timeout_ = timeout;
  made->start_timer();
  auto done = made->connect();
  if (!done) return std::unexpected(std::move(done.error()));
  PQsetnonblocking(made->handle_.get(), 1);
  PQsetNoticeProcessor(made->handle_.get(), [](void*, const char*) {}, nullptr);
  const std::string lock_timeout =
      std::to_string(std::max<std::int64_t>(std::chrono::ceil<milliseconds>(timeout).count() / 2, 1));
  std::string script =
      "SET lock_timeout = " + lock_timeout + "; SET idle_in_transaction_session_timeout = '1min';";
  // A commit that the caller is told of must be on the disk: the journal deletes what is applied.
  if (use == Use::write)
    script +=
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off';"
        // The writer only looks up single rows; a plan that reads a whole day would be a mistake of the
        // estimate.
        "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;";
  else
    script += "SET default_transaction_read_only = on;";
  if (done = made->run_script(script); !done) return std::unexpected(std::move(done.error()));
  return made;
}

void Connection::start_timer() { deadline_ = std::chrono::steady_clock::now() + timeout_ + kGrace; }

void Connection::set_timeout(nanoseconds timeout) {
  timeout_is_sent_ = timeout_is_sent_ && timeout == timeout_;
  timeout_ = timeout;
}

Result<void> Connection::send_timeout() {
  if (timeout_is_sent_) return {};
  timeout_is_sent_ = true;
  return run_script("SET statement_timeout = " +
                    std::to_string(std::chrono::ceil<milliseconds>(timeout_).count()));
}

std::unexpected<Error> Connection::fail(std::string_view during) {
  std::string detail = handle_ ? target_.scrub(PQerrorMessage(handle_.get())) : "out of memory";
  if (!during.empty()) detail += "; " + std::string(during.substr(0, 60));
  return refuse(Reason::gateway_error, std::string(is_usable() ? kFailed : kUnreachable), std::move(detail));
}

Result<void> Connection::wait(short events) {
  pollfd socket{.fd = PQsocket(handle_.get()), .events = events, .revents = 0};
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline_ - std::chrono::steady_clock::now());
    const int ready = left.count() <= 0 ? 0 : ::poll(&socket, 1, static_cast<int>(left.count()));
    if (ready > 0) return {};
    if (ready < 0 && errno == EINTR) continue;
    usable_ = false;
    return refuse(Reason::gateway_error, std::string(kUnreachable), "PostgreSQL did not answer in time");
  }
}

Result<void> Connection::connect() {
  if (!handle_ || PQstatus(handle_.get()) == CONNECTION_BAD) return fail({});
  for (PostgresPollingStatusType state = PGRES_POLLING_WRITING; state != PGRES_POLLING_OK;
       state = PQconnectPoll(handle_.get())) {
    if (state == PGRES_POLLING_FAILED) return fail({});
    if (auto ready = wait(state == PGRES_POLLING_READING ? POLLIN : POLLOUT); !ready) return ready;
  }
  return {};
}

Result<void> Connection::flush() {
  for (;;) {
    const int left = PQflush(handle_.get());
    if (left == 0) return {};
    if (left < 0) return fail({});
    // The server may have to be read from before it takes more.
    if (auto ready = wait(POLLIN | POLLOUT); !ready) return ready;
    if (PQconsumeInput(handle_.get()) == 0) return fail({});
  }
}

Result<Connection::Answer> Connection::receive(std::string_view during) {
  Answer last;
  std::optional<Error> error;
  for (;;) {
    while (PQisBusy(handle_.get()) != 0) {
      if (auto ready = wait(POLLIN); !ready) return std::unexpected(std::move(ready.error()));
      if (PQconsumeInput(handle_.get()) == 0) return fail(during);
    }
    Answer next(PQgetResult(handle_.get()));
    if (!next) break;
    const ExecStatusType status = PQresultStatus(next.get());
    if (status == PGRES_FATAL_ERROR) {
      const char* const state = PQresultErrorField(next.get(), PG_DIAG_SQLSTATE);
      const char* const text = PQresultErrorField(next.get(), PG_DIAG_MESSAGE_PRIMARY);
      if (error) continue;
      sqlstate_ = state == nullptr ? "" : state;
      std::string detail = state == nullptr
                               ? std::string(PQresultErrorMessage(next.get()))
                               : "PostgreSQL " + sqlstate_ + ": " + (text == nullptr ? "" : text);
      error = refuse(Reason::gateway_error, std::string(kFailed),
                     target_.scrub(std::move(detail)) + "; " + std::string(during.substr(0, 60)))
                  .error();
      continue;
    }
    last = std::move(next);
    if (status == PGRES_COPY_IN) break;
  }
  if (error) return std::unexpected(std::move(*error));
  if (!last) return fail(during);
  return last;
}

Result<void> Connection::run_script(const std::string& script) {
  start_timer();
  sqlstate_.clear();
  if (PQsendQuery(handle_.get(), script.c_str()) == 0) return fail(script);
  auto done = flush();
  if (!done) return done;
  auto answer = receive(script);
  if (!answer) return std::unexpected(std::move(answer.error()));
  return {};
}

Result<std::string> Connection::prepared(std::string_view statement) {
  if (const auto found = statements_.find(statement); found != statements_.end()) return found->second;
  std::string name = "s" + std::to_string(statements_.size());
  start_timer();
  const std::string text(statement);
  if (PQsendPrepare(handle_.get(), name.c_str(), text.c_str(), 0, nullptr) == 0) return fail(statement);
  auto done = flush();
  if (!done) return std::unexpected(std::move(done.error()));
  auto answer = receive(statement);
  if (!answer) return std::unexpected(std::move(answer.error()));
  statements_.emplace(text, name);
  return name;
}

Result<void> Connection::run(std::string_view statement, std::span<const sql::Value> values,
                             const sql::RowVisitor& visit) {
  sqlstate_.clear();
  if (!is_usable())
    return refuse(Reason::gateway_error, std::string(kUnreachable), "the connection is closed");
  if (auto done = send_timeout(); !done) return done;
  auto name = prepared(statement);
  if (!name) return std::unexpected(std::move(name.error()));
  std::vector<std::string> texts(values.size());
  std::vector<const char*> parameters(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (const auto* number = std::get_if<std::int64_t>(&values[i]))
      texts[i] = std::to_string(*number);
    else if (const auto* text = std::get_if<std::string_view>(&values[i]))
      texts[i] = sql::to_plain_utf8(*text);
    else if (const auto* id = std::get_if<sql::RowId>(&values[i]))
      texts[i] = to_string(CallId{id->epoch, id->sequence});
    else
      continue;
    parameters[i] = texts[i].c_str();
  }
  start_timer();
  if (PQsendQueryPrepared(handle_.get(), name->c_str(), static_cast<int>(values.size()), parameters.data(),
                          nullptr, nullptr, 0) == 0)
    return fail(statement);
  if (auto done = flush(); !done) return done;
  auto answer = receive(statement);
  if (!answer) return std::unexpected(std::move(answer.error()));
  if (!visit) return {};
  const int rows = PQntuples(answer->get());
  for (int row = 0; row < rows; ++row) visit(ResultRow(answer->get(), row));
  return {};
}

Result<void> Connection::copy(const std::string& statement, std::string_view data) {
  auto done = run_script(statement);
  if (!done) return done;
  start_timer();
  constexpr std::size_t kPiece = 256 * 1024;
  while (!data.empty()) {
    const std::string_view piece = data.substr(0, kPiece);
    const int put = PQputCopyData(handle_.get(), piece.data(), static_cast<int>(piece.size()));
    if (put < 0) return fail(statement);
    if (put > 0) data.remove_prefix(piece.size());
    // An error of the server's stops the copy early; it is told at the end.
    if (done = flush(); !done) return done;
  }
  for (int end = 0; end != 1;) {
    end = PQputCopyEnd(handle_.get(), nullptr);
    if (end < 0) return fail(statement);
    if (done = flush(); !done) return done;
  }
  auto answer = receive(statement);
  if (!answer) return std::unexpected(std::move(answer.error()));
  return {};
}

}  // namespace penstock::store::postgres
