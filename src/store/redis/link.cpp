#include "store/redis/link.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace penstock::store {

namespace asio = boost::asio;
using boost::system::error_code;
using Socket = asio::basic_stream_socket<asio::ip::tcp, Executor>;

namespace {

using Await = asio::use_awaitable_t<Executor>;
constexpr milliseconds kFirstBackoff{20};
constexpr milliseconds kMostBackoff{1000};
constexpr std::size_t kReadBytes = 64 * 1024;
/// Commands that may wait for a new connection.
constexpr std::size_t kMostBacklog = 10'000;

}  // namespace

std::string command(const std::vector<std::string>& words) {
  std::vector<const char*> texts;
  std::vector<std::size_t> lengths;
  texts.reserve(words.size());
  lengths.reserve(words.size());
  for (const std::string& word : words) {
    texts.push_back(word.data());
    lengths.push_back(word.size());
  }
  char* formatted = nullptr;
  const int size =
      redisFormatCommandArgv(&formatted, static_cast<int>(words.size()), texts.data(), lengths.data());
  if (size < 0) throw std::bad_alloc();
  std::string bytes(formatted, static_cast<std::size_t>(size));
  redisFreeCommand(formatted);
  return bytes;
}

/// Shared by the operations that run on it, so that it lives until the last of them has ended.
struct Link::Connection {
  explicit Connection(const Executor& executor) : socket(executor), buffer(kReadBytes) {}

  Socket socket;
  std::optional<asio::ssl::context> tls_context;
  std::optional<asio::ssl::stream<Socket&>> tls;
  std::unique_ptr<redisReader, decltype(&redisReaderFree)> reader{redisReaderCreate(), &redisReaderFree};
  std::vector<char> buffer;
  std::string writing;
  bool is_open = true;
};

Link::Link(asio::io_context& io, Options options, Owner owner)
    : io_(io),
      options_(std::move(options)),
      owner_(std::move(owner)),
      gone_(io.get_executor()),
      deadline_(io.get_executor()),
      watch_(io.get_executor()) {}

Link::~Link() = default;

void Link::start() { asio::co_spawn(io_, run(), asio::detached); }

Awaitable<std::string> Link::connect() {
  const auto connection = connection_;
  error_code error;
  const auto await = [&error] { return asio::redirect_error(Await{}, error); };
  std::vector<asio::ip::tcp::endpoint> endpoints;
  if (const auto address = asio::ip::make_address(options_.url.host, error); !error) {
    endpoints.emplace_back(address, options_.url.port);
  } else {
    asio::ip::basic_resolver<asio::ip::tcp, Executor> resolver(io_.get_executor());
    const auto found =
        co_await resolver.async_resolve(options_.url.host, std::to_string(options_.url.port), await());
    if (error) co_return "its name does not resolve: " + error.message();
    for (const auto& each : found) endpoints.push_back(each.endpoint());
  }
  co_await asio::async_connect(connection->socket, endpoints, await());
  if (error) co_return "cannot be reached: " + error.message();
  connection->socket.set_option(asio::ip::tcp::no_delay(true), error);
  if (!options_.url.tls) co_return "";

  connection->tls_context.emplace(asio::ssl::context::tls_client);
  connection->tls_context->set_default_verify_paths(error);
  connection->tls.emplace(connection->socket, *connection->tls_context);
  connection->tls->set_verify_mode(asio::ssl::verify_peer, error);
  connection->tls->set_verify_callback(asio::ssl::host_name_verification(options_.url.host), error);
  SSL_set_tlsext_host_name(connection->tls->native_handle(), options_.url.host.c_str());
  co_await connection->tls->async_handshake(asio::ssl::stream_base::client, await());
  if (error) co_return "TLS fails: " + error.message();
  co_return "";
}

Awaitable<void> Link::run() {
  error_code error;
  const auto await = [&error] { return asio::redirect_error(Await{}, error); };
  milliseconds backoff = kFirstBackoff;
  for (;;) {
    connection_ = std::make_shared<Connection>(io_.get_executor());
    const auto connection = connection_;
    deadline_.expires_after(options_.connect_timeout);
    deadline_.async_wait([this, connection](error_code cancelled) {
      if (!cancelled && connection == connection_ && !up_) break_off("no answer in time", false);
    });
    why_.clear();
    std::string failure = co_await connect();
    if (failure.empty() && connection->is_open) {
      read(connection);
      failure = co_await owner_.attach();
    }
    deadline_.cancel();
    if (failure.empty() && connection->is_open) {
      up_ = true;
      reconnects_ = false;
      backoff = kFirstBackoff;
      gone_.expires_at(MonotonicTime::max());
      owner_.up();
      for (auto waiting = std::exchange(backlog_, {}); !waiting.empty(); waiting.pop_front()) {
        std::string bytes = waiting.front().bytes;
        write(std::move(bytes), std::move(waiting.front()));
      }
      if (connection->is_open) co_await gone_.async_wait(await());
      owner_.down(why_);
      if (reconnects_) continue;  // a lost connection alone says little: try again at once
    } else {
      break_off(failure, false);
      reconnects_ = false;
      fail_backlog();
      owner_.down(why_.empty() ? failure : why_);
    }
    Timer timer(io_.get_executor(), backoff);
    backoff = std::min(backoff * 2, kMostBackoff);
    co_await timer.async_wait(await());
  }
}

void Link::send(std::string bytes, Loss loss, Done done) {
  Pending pending{.bytes = loss == Loss::resend ? bytes : std::string{},
                  .loss = loss,
                  .sent_at = {},
                  .give_up = std::chrono::steady_clock::now() + options_.command_timeout,
                  .done = std::move(done)};
  if (up_) return write(std::move(bytes), std::move(pending));
  if (!reconnects_ || loss == Loss::fail || backlog_.size() >= kMostBacklog) return pending.done(nullptr);
  backlog_.push_back(std::move(pending));
  watch();
}

Awaitable<Reply> Link::ask(std::string bytes) {
  // By a pointer: the initiation may be copied.
  auto shared = std::make_shared<std::string>(std::move(bytes));
  Await token;
  return asio::async_initiate<Await, void(Reply)>(
      [this, shared](auto handler) {
        Pending pending{.bytes = {}, .loss = Loss::fail, .sent_at = {}, .give_up = {}, .done = {}};
        pending.done = [handler = std::move(handler)](Reply reply) mutable {
          std::move(handler)(std::move(reply));
        };
        if (connection_ && connection_->is_open) return write(std::move(*shared), std::move(pending));
        asio::post(io_, [done = std::move(pending.done)]() mutable { done(nullptr); });
      },
      token);
}

void Link::drop(const std::string& why) { break_off(why, true); }

void Link::write(std::string bytes, Pending pending) {
  out_ += bytes;
  pending.sent_at = std::chrono::steady_clock::now();
  pending_.push_back(std::move(pending));
  flush();
  watch();
}

void Link::flush() {
  if (!connection_ || !connection_->is_open || !connection_->writing.empty() || out_.empty()) return;
  const auto connection = connection_;
  connection->writing = std::exchange(out_, {});
  const auto written = [this, connection](error_code error, std::size_t) {
    connection->writing.clear();
    if (connection != connection_ || !connection->is_open) return;
    if (error) return break_off("the connection broke: " + error.message(), true);
    flush();
  };
  if (connection->tls)
    asio::async_write(*connection->tls, asio::buffer(connection->writing), written);
  else
    asio::async_write(connection->socket, asio::buffer(connection->writing), written);
}

void Link::read(std::shared_ptr<Connection> connection) {
  const auto got = [this, connection](error_code error, std::size_t size) {
    if (connection != connection_ || !connection->is_open) return;
    if (error) return break_off("the connection broke: " + error.message(), true);
    redisReaderFeed(connection->reader.get(), connection->buffer.data(), size);
    take_replies(*connection);
    if (connection == connection_ && connection->is_open) read(connection);
  };
  if (connection->tls)
    connection->tls->async_read_some(asio::buffer(connection->buffer), got);
  else
    connection->socket.async_read_some(asio::buffer(connection->buffer), got);
}

void Link::take_replies(Connection& connection) {
  while (connection.is_open) {
    void* raw = nullptr;
    if (redisReaderGetReply(connection.reader.get(), &raw) != REDIS_OK)
      return break_off("it does not speak the protocol", false);
    if (raw == nullptr) return;
    Reply reply(static_cast<redisReply*>(raw));
    if (pending_.empty()) return break_off("it answers what nobody asked", false);
    Done done = std::move(pending_.front().done);
    pending_.pop_front();
    done(std::move(reply));
  }
}

void Link::watch() {
  if (watching_ || (pending_.empty() && backlog_.empty())) return;
  MonotonicTime next = MonotonicTime::max();
  // What greets a new connection has that connection's deadline.
  if (!pending_.empty())
    next = pending_.front().sent_at + (up_ ? options_.command_timeout : options_.connect_timeout);
  if (!backlog_.empty()) next = std::min(next, backlog_.front().give_up);
  watching_ = true;
  watch_.expires_at(next);
  watch_.async_wait([this](error_code) {
    watching_ = false;
    const MonotonicTime now = std::chrono::steady_clock::now();
    if (up_ && !pending_.empty() && pending_.front().sent_at + options_.command_timeout <= now)
      break_off("no answer in time", false);
    while (!backlog_.empty() && backlog_.front().give_up <= now) {
      Done done = std::move(backlog_.front().done);
      backlog_.pop_front();
      done(nullptr);
    }
    watch();
  });
}

void Link::break_off(const std::string& why, bool may_resend) {
  if (!connection_ || !connection_->is_open) return;
  connection_->is_open = false;
  error_code ignored;
  connection_->socket.close(ignored);
  reconnects_ = up_ && may_resend;
  up_ = false;
  why_ = why;
  out_.clear();
  auto lost = std::exchange(pending_, {});
  std::deque<Pending> kept;
  for (Pending& each : lost) {
    if (reconnects_ && each.loss == Loss::resend && kept.size() < kMostBacklog)
      kept.push_back(std::move(each));
    else
      each.done(nullptr);
  }
  for (Pending& each : kept) backlog_.push_back(std::move(each));
  gone_.cancel();
  watch();
}

void Link::fail_backlog() {
  for (auto lost = std::exchange(backlog_, {}); !lost.empty(); lost.pop_front()) lost.front().done(nullptr);
}

}  // namespace penstock::store
