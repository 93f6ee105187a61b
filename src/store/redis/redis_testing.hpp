#pragma once

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/redis/redis_state.hpp"

/// A redis-server of a test's own, on a free port, in a folder that goes with it.
namespace penstock::store {

/// Waits for `is_so` with a bound far above what it should take.
template <class Condition>
[[nodiscard]] bool eventually(Condition is_so, seconds bound = seconds{10}) {
  const auto end = std::chrono::steady_clock::now() + bound;
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > end) return false;
    ::usleep(2'000);
  }
  return true;
}

class RedisServer {
 public:
  explicit RedisServer(std::vector<std::string> settings = {"--appendonly", "yes", "--appendfsync", "no",
                                                            "--enable-debug-command", "yes"})
      : settings_(std::move(settings)) {
    std::string name = (std::filesystem::temp_directory_path() / "penstock-redis-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    port_ = free_port();
    start();
  }
  ~RedisServer() {
    stop(SIGKILL);
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  void start() {
    std::vector<std::string> words{
        "redis-server", "--port", std::to_string(port_), "--bind", "127.0.0.1", "--dir", folder_,
        "--save",       "",       "--daemonize",         "no"};
    words.insert(words.end(), settings_.begin(), settings_.end());
    process_ = ::fork();
    if (process_ == 0) {
      const int log = ::open((folder_ + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
      ::dup2(log, 1);
      ::dup2(log, 2);
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execvp("redis-server", arguments.data());
      ::_exit(127);
    }
    if (!eventually([&] {
          const std::string answer = ask("PING");
          return answer == "PONG" || answer.starts_with("NOAUTH");
        }))
      ADD_FAILURE() << "redis-server does not start";
  }
  void stop(int signal) {
    if (process_ <= 0) return;
    ::kill(process_, SIGCONT);
    ::kill(process_, signal);
    ::waitpid(process_, nullptr, 0);
    process_ = -1;
  }
  void pause() const { ::kill(process_, SIGSTOP); }
  void resume() const { ::kill(process_, SIGCONT); }
  /// What it would find at a start, put aside or put back.
  void keep_files(const std::string& name) const {
    std::filesystem::remove_all(folder_ + "/" + name);
    std::filesystem::copy(folder_ + "/appendonlydir", folder_ + "/" + name);
  }
  void restore_files(const std::string& name) const {
    forget_files();
    std::filesystem::copy(folder_ + "/" + name, folder_ + "/appendonlydir");
  }
  void forget_files() const { std::filesystem::remove_all(folder_ + "/appendonlydir"); }

  /// A reply as text; arrays one element a line.
  std::string ask(const char* words) const {
    redisContext* const context = ::redisConnectWithTimeout("127.0.0.1", port_, {2, 0});
    if (context == nullptr || context->err != 0) {
      if (context != nullptr) ::redisFree(context);
      return "";
    }
    ::redisSetTimeout(context, {5, 0});
    auto* const select = ::redisCommand(context, "SELECT 1");
    if (select != nullptr) ::freeReplyObject(select);
    auto* const reply = static_cast<redisReply*>(::redisCommand(context, words));
    const std::string text = reply == nullptr ? "" : text_of(*reply);
    if (reply != nullptr) ::freeReplyObject(reply);
    ::redisFree(context);
    return text;
  }
  [[nodiscard]] std::uint16_t port() const { return static_cast<std::uint16_t>(port_); }
  [[nodiscard]] RedisUrl url() const {
    RedisUrl url;
    url.port = port();
    return url;
  }

 private:
  static std::string text_of(const redisReply& reply) {
    if (reply.type == REDIS_REPLY_INTEGER) return std::to_string(reply.integer);
    if (reply.str != nullptr) return std::string(reply.str, static_cast<std::size_t>(reply.len));
    std::string text;
    for (std::size_t i = 0; i < reply.elements; ++i) text += text_of(*reply.element[i]) + "\n";
    return text;
  }
  static int free_port() {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    void* const raw = &address;
    ::bind(socket, static_cast<sockaddr*>(raw), size);
    ::getsockname(socket, static_cast<sockaddr*>(raw), &size);
    ::close(socket);
    return ntohs(address.sin_port);
  }

  std::vector<std::string> settings_;
  std::string folder_;
  int port_ = 0;
  pid_t process_ = -1;
};

/// A domain that no other test has.
inline std::string new_domain() {
  static int count = 0;
  return "test-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

/// For tests that give the time themselves.
inline RedisOptions tests_options(const RedisServer& redis, const std::string& domain,
                                  const std::string& replica = "a") {
  RedisOptions options;
  options.url = redis.url();
  options.domain = domain;
  options.replica = replica;
  options.command_timeout = milliseconds{5'000};  // a sanitised build on a busy machine
  options.connect_timeout = milliseconds{5'000};
  options.grace = milliseconds{0};
  options.tests_clock = true;
  return options;
}

inline std::unique_ptr<RedisState> started(RedisOptions options) {
  auto state = std::make_unique<RedisState>(std::move(options));
  const auto result = state->start();
  EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().detail);
  return state;
}

}  // namespace penstock::store
