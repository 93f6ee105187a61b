#include "http/client.hpp"

#include <boost/asio/co_spawn.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::http {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr std::string_view kSmallAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A provider on loopback whose side is played by hand, and a pool to it. Waits on what happens, never on
/// time.
class ClientTest : public testing::Test {
 protected:
  asio::io_context io_{1};
  DeadlineWatch watch_{io_};
  asio::basic_socket_acceptor<asio::ip::tcp, Executor> acceptor_{
      io_, asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  observe::Gauge open_;
  UpstreamPool pool_{io_, watch_, upstream()};

  void SetUp() override { watch_.start(); }

  Upstream upstream() {
    Upstream made;
    made.host = "127.0.0.1";
    made.port = acceptor_.local_endpoint().port();
    made.allow_private = true;
    made.idle_timeout = 10s;
    made.open = &open_;
    return made;
  }
  static MonotonicTime in(nanoseconds time) { return std::chrono::steady_clock::now() + time; }

  /// Runs a coroutine to its end.
  template <class T>
  T run(Awaitable<T> what) {
    std::optional<T> got;
    asio::co_spawn(io_, std::move(what), [&](std::exception_ptr thrown, T value) {
      EXPECT_EQ(thrown, nullptr);
      got = std::move(value);
    });
    while (!got) {
      io_.restart();
      io_.run_one();
    }
    return std::move(*got);
  }
  std::unique_ptr<UpstreamConnection> connect() {
    auto lease = run(pool_.acquire(UpstreamPool::Want::any, in(5s)));
    EXPECT_NE(lease.connection, nullptr) << lease.error.what;
    return std::move(lease.connection);
  }
  Socket accept() { return acceptor_.accept(); }
  static void say(Socket& provider, std::string_view text) {
    asio::write(provider, asio::buffer(text.data(), text.size()));
  }
  /// Until the kernel has told our side of the end of the other.
  static void await_end(UpstreamConnection& connection) {
    connection.transport().socket().wait(Socket::wait_read);
  }
  /// Reads a small answer whole.
  void read_answer(UpstreamConnection& connection) {
    ResponseHead head;
    const UpstreamError error = run(connection.read_head(head, false, in(5s)));
    ASSERT_EQ(error.fault, UpstreamFault::none) << error.what;
    UpstreamConnection::Piece piece;
    while (!piece.done) {
      piece = run(connection.read_body(in(5s)));
      ASSERT_EQ(piece.fault, UpstreamFault::none);
    }
  }
};

TEST_F(ClientTest, AConnectionWhoseAnswerWasReadIsUsedAgain) {
  auto connection = connect();
  Socket provider = accept();
  EXPECT_FALSE(connection->reused());
  say(provider, kSmallAnswer);
  read_answer(*connection);
  EXPECT_TRUE(connection->reusable());
  const UpstreamConnection* const first = connection.get();
  pool_.release(std::move(connection), std::chrono::steady_clock::now());
  connection = connect();
  EXPECT_EQ(connection.get(), first);
  EXPECT_TRUE(connection->reused());
  EXPECT_EQ(open_.value(), 1);
  auto fresh = run(pool_.acquire(UpstreamPool::Want::fresh, in(5s)));
  EXPECT_FALSE(fresh.connection->reused());
}

TEST_F(ClientTest, AConnectionThatIsNotCleanIsClosed) {
  struct Case {
    const char* what;
    std::string answer;
  };
  for (const Case& each :
       {Case{"says it closes", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
        Case{"sent more than asked for", std::string(kSmallAnswer) + "HTTP/1.1 200 OK\r\n"},
        Case{"old", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"}}) {
    auto connection = connect();
    Socket provider = accept();
    say(provider, each.answer);
    read_answer(*connection);
    EXPECT_FALSE(connection->reusable()) << each.what;
    pool_.release(std::move(connection), std::chrono::steady_clock::now());
    EXPECT_EQ(open_.value(), 0) << each.what;
    EXPECT_EQ(pool_.try_idle(in(0s), UpstreamPool::Trust::trusting), nullptr);
  }
}

// A provider may end an idle connection at any time: one that it has ended is not given out.
TEST_F(ClientTest, AnIdleConnectionThatTheProviderEndedIsDropped) {
  auto connection = connect();
  Socket provider = accept();
  say(provider, kSmallAnswer);
  read_answer(*connection);
  provider.close();
  await_end(*connection);
  pool_.release(std::move(connection), std::chrono::steady_clock::now());
  // Used a moment ago: taken unasked only by those who can repeat what they send.
  EXPECT_EQ(pool_.try_idle(in(0s), UpstreamPool::Trust::asking), nullptr);
  EXPECT_EQ(open_.value(), 0);
}

TEST_F(ClientTest, SweepClosesWhatWasIdleTooLong) {
  auto connection = connect();
  Socket provider = accept();
  say(provider, kSmallAnswer);
  read_answer(*connection);
  pool_.release(std::move(connection), std::chrono::steady_clock::now());
  pool_.sweep(in(9s));
  EXPECT_EQ(open_.value(), 1);
  pool_.sweep(in(11s));
  EXPECT_EQ(open_.value(), 0);
}

// Each wait has its deadline; the watch keeps it to a tick.
TEST_F(ClientTest, AProviderThatIsSilentIsATimeout) {
  auto connection = connect();
  Socket provider = accept();
  ResponseHead head;
  const MonotonicTime began = in(0s);
  EXPECT_EQ(run(connection->read_head(head, false, began + 60ms)).fault, UpstreamFault::timeout);
  EXPECT_GE(in(0s), began + 60ms);
  EXPECT_FALSE(connection->reusable());
}

TEST_F(ClientTest, AProviderThatReadsNothingIsATimeout) {
  auto connection = connect();
  Socket provider = accept();
  const std::string much(64 * 1024 * 1024, 'x');  // more than both kernels' buffers hold
  const std::string_view pieces[] = {much};
  EXPECT_EQ(run(connection->send(pieces, in(60ms))), UpstreamFault::timeout);
  EXPECT_FALSE(connection->reusable());
}

TEST_F(ClientTest, AnAnswerThatBreaksOffIsClosedNotDone) {
  auto connection = connect();
  Socket provider = accept();
  say(provider, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  provider.close();
  ResponseHead head;
  ASSERT_EQ(run(connection->read_head(head, false, in(5s))).fault, UpstreamFault::none);
  EXPECT_EQ(run(connection->read_body(in(5s))).data, "half");
  const auto piece = run(connection->read_body(in(5s)));
  EXPECT_EQ(piece.fault, UpstreamFault::closed);
  EXPECT_FALSE(piece.done);
}

// Where nobody allowed private addresses, none is connected to, whatever name led there.
TEST_F(ClientTest, PrivateAddressesAreRefusedUnlessAllowed) {
  for (const char* host : {"127.0.0.1", "localhost"}) {
    Upstream strict = upstream();
    strict.host = host;
    strict.allow_private = false;
    UpstreamPool pool(io_, watch_, strict);
    const auto lease = run(pool.acquire(UpstreamPool::Want::any, in(5s)));
    EXPECT_EQ(lease.connection, nullptr);
    EXPECT_EQ(lease.error.fault, UpstreamFault::unreachable);
    EXPECT_THAT(lease.error.what, HasSubstr("not a public address"));
  }
}

}  // namespace
}  // namespace penstock::http
