#pragma once

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/// A real PostgreSQL for tests. Throws where it cannot have one: the test then fails, and is not skipped.
namespace penstock::store::postgres {

/// A cluster of its own in a temporary folder, on a free port of the loopback, without fsync, gone with the
/// test. Started by root it runs as the user `postgres`, since the server refuses root.
class PostgresServer {
 public:
  /// An '@' and what a URL must escape, to see that it stays out of every text.
  static constexpr const char* kPassword = "s3cret-p@ss";
  static constexpr const char* kPasswordInUrl = "s3cret-p%40ss";

  PostgresServer() {
    programs_ = find_programs();
    std::string name = (std::filesystem::temp_directory_path() / "penstock-postgres-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
    std::ofstream(folder_ + "/password") << kPassword << '\n';
    if (geteuid() == 0) {
      const passwd* const user = getpwnam("postgres");
      if (user == nullptr) throw std::runtime_error("there is no user postgres");
      user_ = user->pw_uid;
      group_ = user->pw_gid;
      for (const std::string& path : {folder_, folder_ + "/password"})
        if (chown(path.c_str(), user_, group_) != 0) throw std::runtime_error("chown " + path);
    }
    const pid_t initdb =
        spawn({programs_ + "/initdb", "-D", folder_ + "/data", "-U", "postgres", "--no-sync", "-A",
               "scram-sha-256", "--pwfile", folder_ + "/password", "-E", "UTF8", "--locale", "C"});
    int status = 0;
    if (waitpid(initdb, &status, 0) != initdb || status != 0)
      throw std::runtime_error("initdb failed: see " + folder_ + "/log");
    port_ = free_port();
    start();
  }
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;
  ~PostgresServer() {
    stop();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  [[nodiscard]] std::string url(const std::string& database) const {
    return std::string("postgresql://postgres:") + kPasswordInUrl + "@127.0.0.1:" + std::to_string(port_) +
           "/" + database;
  }
  [[nodiscard]] int port() const { return port_; }
  /// A new database, empty; its URL.
  [[nodiscard]] std::string make_database() {
    const std::string name = "ledger" + std::to_string(++databases_);
    execute("postgres", "CREATE DATABASE " + name);
    return url(name);
  }
  void execute(const std::string& database, const std::string& statement) const {
    PGconn* const connection = PQconnectdb(url(database).c_str());
    PGresult* const result = PQexec(connection, statement.c_str());
    const ExecStatusType status = PQresultStatus(result);
    const std::string error = PQerrorMessage(connection);
    PQclear(result);
    PQfinish(connection);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
      throw std::runtime_error(statement + ": " + error);
  }

  void start() {
    process_ = spawn({programs_ + "/postgres", "-D", folder_ + "/data", "-k", folder_, "-c",
                      "listen_addresses=127.0.0.1", "-p", std::to_string(port_), "-c", "fsync=off", "-c",
                      "max_connections=60"});
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{60};
    while (PQping(url("postgres").c_str()) != PQPING_OK) {
      int status = 0;
      if (waitpid(process_, &status, WNOHANG) == process_ || std::chrono::steady_clock::now() > deadline)
        throw std::runtime_error("PostgreSQL does not start: see " + folder_ + "/log");
      std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }
  }
  /// At once; what was committed is there when it starts again.
  void stop() {
    if (process_ == 0) return;
    resume();
    kill(process_, SIGQUIT);
    int status = 0;
    waitpid(process_, &status, 0);
    process_ = 0;
  }
  void restart() {
    stop();
    start();
  }
  /// All its processes stand still: connections stay open and nothing answers. Until `resume`.
  void pause() const { signal_all(SIGSTOP); }
  void resume() const { signal_all(SIGCONT); }

 private:
  static std::string find_programs() {
    std::string newest;
    std::error_code ignored;
    for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", ignored))
      if (std::filesystem::exists(version.path() / "bin/initdb"))
        newest = std::max(newest, (version.path() / "bin").string());
    if (newest.empty())
      throw std::runtime_error("no PostgreSQL server in /usr/lib/postgresql: run 'make setup'");
    return newest;
  }

  static int free_port() {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const bool bound = bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                       getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0;
    close(listener);
    if (!bound) throw std::runtime_error("no free port");
    return ntohs(address.sin_port);
  }

  [[nodiscard]] pid_t spawn(const std::vector<std::string>& command) const {
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const std::string log = folder_ + "/log";
    const pid_t child = fork();
    if (child != 0) return child;
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    if (user_ != 0 && (setgid(group_) != 0 || setuid(user_) != 0)) _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);  // also when the test crashes
    if (chdir("/") != 0) _exit(126);
    execv(words[0], words.data());
    _exit(127);
  }

  void signal_all(int signal) const {
    std::vector<pid_t> all{process_};
    // A backend has a session of its own, so that the group's signal would miss it.
    std::ifstream children("/proc/" + std::to_string(process_) + "/task/" + std::to_string(process_) +
                           "/children");
    for (pid_t child = 0; children >> child;) all.push_back(child);
    for (const pid_t process : all) kill(process, signal);
  }

  std::string programs_;
  std::string folder_;
  uid_t user_ = 0;
  gid_t group_ = 0;
  int port_ = 0;
  pid_t process_ = 0;
  int databases_ = 0;
};

}  // namespace penstock::store::postgres
