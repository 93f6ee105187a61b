#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <libpq-fe.h>

#include "store/sql/session.hpp"

/// libpq, with a deadline on every wait and no password in any text. Not thread-safe: one thread at a time.
namespace penstock::store::postgres {

/// A connection URL, and what of it must never be shown.
class Target {
 public:
  /// Errors: not a URL that libpq takes; the text says nothing of its content.
  [[nodiscard]] static Result<Target> parse(std::string url, std::string application);
  [[nodiscard]] const std::string& url() const noexcept { return url_; }
  [[nodiscard]] const std::string& application() const noexcept { return application_; }
  /// `text` without the URL's secrets.
  [[nodiscard]] std::string scrub(std::string text) const;

 private:
  std::string url_;
  std::string application_;  ///< as the server's administrator sees it
  std::vector<std::string> secrets_;
};

class Connection final : public sql::Session {
 public:
  enum class Use : std::uint8_t { write, read };
  /// Connects within `timeout`, which also bounds every statement.
  [[nodiscard]] static Result<std::unique_ptr<Connection>> open(const Target& target, Use use,
                                                                nanoseconds timeout);

  using Session::run;
  [[nodiscard]] Result<void> run(std::string_view statement, std::span<const sql::Value> values,
                                 const sql::RowVisitor& visit) override;
  /// The server ends a statement after it; a server that does not answer at all is given up a second later.
  void set_timeout(nanoseconds timeout) override;
  [[nodiscard]] Result<void> begin_snapshot() override {
    return run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  }
  [[nodiscard]] bool is_usable() const override {
    return usable_ && PQstatus(handle_.get()) == CONNECTION_OK;
  }

  /// Several statements without parameters, or one that is not worth preparing.
  [[nodiscard]] Result<void> run_script(const std::string& script);
  /// `statement` is a COPY … FROM STDIN; `data` its whole input.
  [[nodiscard]] Result<void> copy(const std::string& statement, std::string_view data);
  /// Of the last statement, where the server refused it.
  [[nodiscard]] std::string_view sqlstate() const noexcept { return sqlstate_; }

 private:
  struct Close {
    void operator()(PGconn* handle) const noexcept { PQfinish(handle); }
  };
  struct Clear {
    void operator()(PGresult* result) const noexcept { PQclear(result); }
  };
  using Answer = std::unique_ptr<PGresult, Clear>;

  Connection(Target target, PGconn* handle) : target_(std::move(target)), handle_(handle) {}
  [[nodiscard]] Result<void> connect();
  [[nodiscard]] Result<void> wait(short events);
  [[nodiscard]] Result<void> flush();
  /// The last result of what was sent; the first error among them. None after `copy_in`.
  [[nodiscard]] Result<Answer> receive(std::string_view during);
  [[nodiscard]] Result<std::string> prepared(std::string_view statement);
  [[nodiscard]] Result<void> send_timeout();
  [[nodiscard]] std::unexpected<Error> fail(std::string_view during);
  void start_timer();

  Target target_;
  std::unique_ptr<PGconn, Close> handle_;
  std::map<std::string, std::string, std::less<>> statements_;  // text -> its name at the server
  std::string sqlstate_;
  bool usable_ = true;  // false: given up in the middle of an exchange
  bool timeout_is_sent_ = false;
  nanoseconds timeout_{};
  MonotonicTime deadline_;
};

}  // namespace penstock::store::postgres
