#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/system/error_code.hpp>
#include <hiredis/hiredis.h>

#include "base/async.hpp"
#include "base/time.hpp"
#include "store/redis/redis_url.hpp"

namespace penstock::store {

struct FreeReply {
  void operator()(redisReply* reply) const noexcept { freeReplyObject(reply); }
};
/// A server's answer; null: none came in time.
using Reply = std::unique_ptr<redisReply, FreeReply>;

/// A command in the protocol's form.
[[nodiscard]] std::string command(const std::vector<std::string>& words);

/// One pipelined connection, kept up: it reconnects by itself with a backoff of at most a second, and while
/// it is down everything fails at once. Answers come in the order of the commands. No answer within
/// `command_timeout` means that the server is stuck: the connection is given up, with all that waits for it.
///
/// All members but the constructor belong to the io_context's thread. It outlives the link.
class Link {
 public:
  struct Options {
    RedisUrl url;
    milliseconds command_timeout{250};
    milliseconds connect_timeout{1000};  ///< name, TCP, TLS and greeting together
  };
  struct Owner {
    /// Greets the server on a new connection by way of `ask`; an error text: it is not taken.
    std::function<Awaitable<std::string>()> attach;
    std::function<void()> up;
    std::function<void(const std::string& why)> down;  ///< also after each attempt that failed
  };
  using Done = std::move_only_function<void(Reply)>;
  enum class Loss : std::uint8_t {
    fail,    ///< a lost answer is reported
    resend,  ///< asked again on the next connection, if that comes in time: for what is idempotent
  };

  Link(boost::asio::io_context& io, Options options, Owner owner);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void start();
  /// `done` is called exactly once, now or later, unless the link is destroyed before.
  void send(std::string bytes, Loss loss, Done done);
  /// For `attach` only: goes out before the connection is up.
  [[nodiscard]] Awaitable<Reply> ask(std::string bytes);
  /// Drops the connection and makes a new one.
  void drop(const std::string& why);
  [[nodiscard]] bool is_up() const noexcept { return up_; }

 private:
  using Timer =
      boost::asio::basic_waitable_timer<std::chrono::steady_clock,
                                        boost::asio::wait_traits<std::chrono::steady_clock>, Executor>;
  struct Connection;
  struct Pending {
    std::string bytes;  ///< kept only for Loss::resend
    Loss loss = Loss::fail;
    MonotonicTime sent_at{};
    MonotonicTime give_up{};
    Done done;
  };

  [[nodiscard]] Awaitable<void> run();
  [[nodiscard]] Awaitable<std::string> connect();
  void write(std::string bytes, Pending pending);
  void flush();
  void read(std::shared_ptr<Connection> connection);
  void take_replies(Connection& connection);
  void watch();
  void break_off(const std::string& why, bool may_resend);
  void fail_backlog();

  boost::asio::io_context& io_;
  Options options_;
  Owner owner_;
  std::shared_ptr<Connection> connection_;  ///< null: none
  bool up_ = false;
  bool reconnects_ = false;  ///< a connection that was up broke, and the first attempt at another one runs
  std::string why_;          ///< the last connection broke
  std::string out_;
  std::deque<Pending> pending_;  ///< sent, in order
  std::deque<Pending> backlog_;  ///< waits for the next connection, in order
  Timer gone_;                   ///< cancelled when the connection breaks
  Timer deadline_;               ///< of connecting
  Timer watch_;                  ///< of the oldest command
  bool watching_ = false;
};

}  // namespace penstock::store
