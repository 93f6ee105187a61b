#include "observe/log.hpp"

#include <array>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <simdjson.h>
#include <sys/resource.h>
#include <unistd.h>

#include "observe/metrics.hpp"

namespace penstock::observe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::Pair;
using testing::UnorderedElementsAre;

/// A pipe with the smallest buffer that the kernel gives, so that a test can fill it.
class Pipe {
 public:
  explicit Pipe(int flags = 0) {
    EXPECT_EQ(pipe2(ends_.data(), O_CLOEXEC), 0);
    EXPECT_GT(fcntl(ends_[1], F_SETPIPE_SZ, 4096), 0);
    if (flags != 0) EXPECT_EQ(fcntl(ends_[1], F_SETFL, flags), 0);
  }
  ~Pipe() {
    close_reader();
    close_writer();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  [[nodiscard]] int writer() const { return ends_[1]; }
  void close_reader() { close_end(0); }
  void close_writer() { close_end(1); }

  /// At most `most` bytes, waiting for the first.
  std::string read_some(std::size_t most = 65'536) {
    std::string bytes(most, '\0');
    const ssize_t n = ::read(ends_[0], bytes.data(), bytes.size());
    bytes.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return bytes;
  }
  std::string read_all(std::size_t piece = 65'536) {
    std::string all;
    for (std::string some; !(some = read_some(piece)).empty();) all += some;
    return all;
  }

 private:
  void close_end(std::size_t end) {
    if (ends_[end] >= 0) ::close(ends_[end]);
    ends_[end] = -1;
  }
  std::array<int, 2> ends_{};
};

/// What comes out of `use(log)`, in a file so that nothing waits for a reader.
template <class Use>
std::string logged(Use use, Level level = Level::info) {
  std::FILE* file = std::tmpfile();
  {
    Log log(fileno(file), level, nullptr);
    use(log);
  }
  std::rewind(file);
  std::string text;
  for (int c; (c = std::fgetc(file)) != EOF;) text += static_cast<char>(c);
  std::fclose(file);
  return text;
}

/// One flush gives up when its reader stands still for a second, which a busy machine can make of it.
void flush_patiently(Log& log) {
  for (int i = 0; i < 20; ++i) log.flush();
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t start = 0;
  for (std::size_t end; (end = text.find('\n', start)) != std::string::npos; start = end + 1)
    lines.push_back(text.substr(start, end - start));
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

/// The members of a line in a strict reader's eyes, values as they were written; empty where it is not one
/// JSON object.
std::map<std::string, std::string> members(const std::string& line) {
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  std::map<std::string, std::string> all;
  if (parser.parse(line).get_object().get(object) != simdjson::SUCCESS) return all;
  for (const auto [key, value] : object) {
    const auto text = value.is_string() ? std::string(value.get_string().value()) : simdjson::minify(value);
    EXPECT_TRUE(all.emplace(std::string(key), text).second) << "twice: " << key;
  }
  return all;
}

constexpr std::size_t kMembers = 27;  ///< of a line that leaves nothing out

CallLine full_line() {
  return {.call = {.epoch = 0x0123456789abcdef, .sequence = 42},
          .at = WallTime{nanoseconds{1'795'506'451'123'456'789}},
          .method = "POST",
          .provider = "openai",
          .endpoint = "chat",
          .route = "cheap",
          .consumer = "billing",
          .team = "finance",
          .key = "ci",
          .model = "gpt-4o-mini",
          .tag = "invoice-7",
          .status = 429,
          .reason = "policy_budget_exceeded",
          .detail = "daily of team finance",
          .attempts = 2,
          .cost = {5'000'000},
          .cost_estimated = true,
          .input_tokens = 1'000,
          .output_tokens = 20,
          .total = nanoseconds{1'234'567},
          .upstream = nanoseconds{1'000'000},
          .waited = nanoseconds{250'000'000},
          .first_byte = nanoseconds{999},
          .bytes_in = 512,
          .bytes_out = 18'446'744'073'709'551'615U};
}

TEST(LogCall, IsOneJsonLine) {
  const std::string text = logged([](Log& log) { log.call(full_line()); });
  EXPECT_EQ(
      text,
      R"({"time":"2026-11-24T07:47:31.123456Z","level":"info","message":"call",)"
      R"("call":"0123456789abcdef000000000000002a","method":"POST","provider":"openai","endpoint":"chat",)"
      R"("route":"cheap","consumer":"billing","team":"finance","key":"ci","model":"gpt-4o-mini",)"
      R"("tag":"invoice-7","status":429,"reason":"policy_budget_exceeded","detail":"daily of team finance",)"
      R"("attempts":2,"cost_usd":0.005,"cost_estimated":true,"input_tokens":1000,"output_tokens":20,)"
      R"("total_ms":1.234,"upstream_ms":1,"waited_ms":250,"first_byte_ms":0,"bytes_in":512,"bytes_out":18446744073709551615})"
      "\n");
  EXPECT_EQ(members(text).size(), kMembers);
}

TEST(LogCall, LeavesOutWhatIsEmpty) {
  const std::string text = logged([](Log& log) { log.call({.status = 200}); });
  EXPECT_EQ(
      text,
      R"({"time":"1970-01-01T00:00:00.000000Z","level":"info","message":"call",)"
      R"("call":"00000000000000000000000000000000","status":200,"attempts":0,"cost_usd":0,"total_ms":0,)"
      R"("upstream_ms":0,"bytes_in":0,"bytes_out":0})"
      "\n");
}

// A reader that sums the lines must get what the ledger holds.
TEST(LogCall, WritesMoneyExactlyAndWithoutAnExponent) {
  for (const auto& [nano, text] :
       std::map<std::int64_t, std::string>{{1, "0.000000001"},
                                           {1'000'000'000, "1"},
                                           {kMaxNanoUsd.count, "9007199.254740991"},
                                           {-1, "-0.000000001"}}) {
    const std::string line = logged([&](Log& log) { log.call({.cost = {nano}}); });
    EXPECT_THAT(line, HasSubstr("\"cost_usd\":" + text + ","));
    EXPECT_FALSE(members(line).empty());
  }
}

TEST(LogTime, IsRfc3339InMicroseconds) {
  const auto time_of = [](std::int64_t ns) {
    return members(logged([&](Log& log) { log.call({.at = WallTime{nanoseconds{ns}}}); }))["time"];
  };
  EXPECT_EQ(time_of(0), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(time_of(999), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(time_of(1'000), "1970-01-01T00:00:00.000001Z");
  EXPECT_EQ(time_of(-1), "1969-12-31T23:59:59.999999Z");
  EXPECT_EQ(time_of(1'709'251'199'999'999'999), "2024-02-29T23:59:59.999999Z");
  EXPECT_EQ(time_of(1'709'251'200'000'000'000), "2024-03-01T00:00:00.000000Z");
  EXPECT_EQ(time_of(4'102'444'799'000'001'000), "2099-12-31T23:59:59.000001Z");
}

// The second is kept between lines: going back and forth must not show a stale one.
TEST(LogTime, FollowsEachLine) {
  const auto lines = split(logged([](Log& log) {
    for (const int second : {7, 8, 8, 7}) log.call({.at = WallTime{seconds{second}}});
  }));
  std::vector<std::string> times;
  for (const auto& line : lines) times.push_back(members(line)["time"].substr(17, 2));
  EXPECT_THAT(times, ElementsAre("07", "08", "08", "07"));
}

TEST(LogWrite, IsOneJsonLine) {
  const std::string text =
      logged([](Log& log) { log.write(Level::warn, "slow", {{"provider", "a\"b"}, {"n", ""}}); });
  EXPECT_THAT(
      text,
      MatchesRegex("\\{\"time\":\"20..-..-..T..:..:..\\.......Z\",\"level\":\"warn\",\"message\":\"slow\","
                   "\"provider\":\"a\\\\\"b\",\"n\":\"\"\\}\n"));
}

TEST(LogLevels, HideWhatIsBelow) {
  const std::string text = logged(
      [](Log& log) {
        EXPECT_FALSE(log.enabled(Level::info));
        EXPECT_TRUE(log.enabled(Level::warn));
        log.write(Level::debug, "1");
        log.write(Level::info, "2");
        log.call({});
        log.write(Level::warn, "3");
        log.set_level(Level::debug);
        log.write(Level::debug, "4");
        log.set_level(Level::error);
        log.write(Level::warn, "5");
        log.write(Level::error, "6");
      },
      Level::warn);
  std::string shown;
  for (const auto& line : split(text)) shown += members(line)["level"] + members(line)["message"] + ' ';
  EXPECT_EQ(shown, "warn3 debug4 error6 ");
}

// G10 begins here: a line says what it was given and nothing else, so that what is never passed cannot leak.
TEST(LogRedact, ALineHoldsOnlyWhatWasPassed) {
  const std::set<std::string> known = {"time",
                                       "level",
                                       "message",
                                       "call",
                                       "method",
                                       "provider",
                                       "endpoint",
                                       "route",
                                       "consumer",
                                       "team",
                                       "key",
                                       "model",
                                       "tag",
                                       "status",
                                       "reason",
                                       "detail",
                                       "attempts",
                                       "cost_usd",
                                       "total_ms",
                                       "upstream_ms",
                                       "waited_ms",
                                       "first_byte_ms",
                                       "cost_estimated",
                                       "input_tokens",
                                       "output_tokens",
                                       "bytes_in",
                                       "bytes_out"};
  const std::string secret = "sk-this-must-not-appear";  // lives behind the views' ends
  const std::string around = "openai" + secret;
  CallLine line = full_line();
  line.provider = std::string_view(around).substr(0, 6);
  const std::string text = logged([&](Log& log) {
    log.call(line);
    log.write(Level::info, line.provider, {{line.provider, line.provider}, {"none", {}}});
  });
  EXPECT_THAT(text, Not(HasSubstr("sk-")));
  for (const auto& [key, value] : members(split(text)[0])) EXPECT_TRUE(known.contains(key)) << key;
  auto second = members(split(text)[1]);
  second.erase("time");
  EXPECT_THAT(second, UnorderedElementsAre(Pair("level", "info"), Pair("message", "openai"),
                                           Pair("openai", "openai"), Pair("none", "")));
}

TEST(LogBounds, NoInputBreaksOrBlowsUpALine) {
  std::vector<std::string> hostile = {std::string(10'000, 'x'), std::string(10'000, '\x01'),
                                      std::string(10'000, '\xFF'), std::string(10'000, '"'),
                                      std::string("\0\n\r\x7F\x1B]0;", 8)};
  std::string emoji;
  while (emoji.size() < 10'000) emoji += "😀";
  hostile.push_back(emoji);
  for (const auto& text : hostile) {
    CallLine line = full_line();
    for (auto* field : {&line.method, &line.provider, &line.endpoint, &line.route, &line.consumer, &line.team,
                        &line.key, &line.model, &line.tag, &line.reason, &line.detail})
      *field = text;
    const std::string all = logged([&](Log& log) {
      log.call(line);
      log.write(Level::error, text,
                {{text, text},
                 {"a", text},
                 {"b", text},
                 {"c", text},
                 {"d", text},
                 {"e", text},
                 {"f", text},
                 {"g", text},
                 {"h", text},
                 {"i", text},
                 {"j", text},
                 {"k", text},
                 {"l", text},
                 {"m", text},
                 {"n", text},
                 {"o", text},
                 {"p", text},
                 {"q", text}});
      log.call(full_line());
    });
    const auto lines = split(all);
    ASSERT_EQ(lines.size(), 3U);
    for (const auto& written : lines) {
      EXPECT_LE(written.size(), 8'192U);
      EXPECT_FALSE(members(written).empty()) << written;
      for (const auto& [key, value] : members(written)) EXPECT_LE(value.size(), 512U) << key;
    }
    EXPECT_EQ(members(lines[0]).size(), kMembers);  // the numbers still fit
    EXPECT_EQ(members(lines[0])["bytes_in"], "512");
  }
}

TEST(LogThreads, LinesStayWhole) {
  constexpr int kThreads = 4;
  constexpr int kLines = 400;  // all together fit the buffer, so that none may be dropped
  Counter dropped;
  Pipe pipe;
  std::string text;
  std::thread reader([&] { text = pipe.read_all(); });
  {
    Log log(pipe.writer(), Level::info, &dropped);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&] {
        for (int i = 0; i < kLines; ++i) log.call(full_line());
      });
    for (auto& thread : threads) thread.join();
    flush_patiently(log);
  }
  pipe.close_writer();
  reader.join();
  const auto lines = split(text);
  EXPECT_EQ(lines.size(), kThreads * kLines - static_cast<std::size_t>(dropped.value()));
  EXPECT_EQ(std::set<std::string>(lines.begin(), lines.end()).size(), 1U);
  EXPECT_EQ(dropped.value(), 0);
}

TEST(LogFlush, ReturnsWhenAllIsWritten) {
  std::FILE* file = std::tmpfile();
  Log log(fileno(file), Level::info, nullptr);
  for (int i = 1; i <= 20; ++i) {
    log.write(Level::info, "x");
    log.flush();
    std::rewind(file);
    int lines = 0;
    for (int c; (c = std::fgetc(file)) != EOF;) lines += c == '\n' ? 1 : 0;
    ASSERT_EQ(lines, i);
  }
  log.flush();  // nothing to do: returns
  std::fclose(file);
}

// The reader is slow and the descriptor does not block: the writer waits for it and loses nothing.
TEST(LogReader, SlowLosesNothing) {
  constexpr std::size_t kLines = 1'000;  // about 0.5 MB through a pipe of 4 KiB
  Counter dropped;
  Pipe pipe(O_NONBLOCK);
  std::string text;
  std::thread reader([&] { text = pipe.read_all(700); });
  {
    Log log(pipe.writer(), Level::info, &dropped);
    for (std::size_t i = 0; i < kLines; ++i) log.call(full_line());
    flush_patiently(log);
  }
  pipe.close_writer();
  reader.join();
  EXPECT_EQ(dropped.value(), 0);
  const auto lines = split(text);
  EXPECT_EQ(lines.size(), kLines);
  for (const auto& line : lines) ASSERT_EQ(members(line).size(), kMembers) << line;
}

// The reader takes nothing for a while: callers never wait, memory is bounded, and each line is either whole
// or counted.
TEST(LogReader, StalledLosesOnlyCountedLines) {
  constexpr std::size_t kLines = 10'000;  // about 5 MB, more than both buffers hold
  Counter dropped;
  Pipe pipe;
  std::string text;
  std::thread reader;
  {
    Log log(pipe.writer(), Level::info, &dropped);
    for (std::size_t i = 0; i < kLines; ++i) log.call(full_line());
    EXPECT_GT(dropped.value(), 0);
    log.flush();  // has a bound
    reader = std::thread([&] { text = pipe.read_all(); });
    flush_patiently(log);
    log.write(Level::info, "after");
    flush_patiently(log);
  }
  pipe.close_writer();
  reader.join();
  const auto lines = split(text);
  EXPECT_EQ(lines.size() + static_cast<std::size_t>(dropped.value()), kLines + 1);
  for (const auto& line : lines) ASSERT_FALSE(members(line).empty()) << line;
  EXPECT_GT(text.size(), 1'000'000U);  // what the buffers held was kept
  EXPECT_EQ(members(lines.back())["message"], "after");
}

TEST(LogReader, StalledDoesNotHoldUpTheEnd) {
  Pipe pipe;
  Counter dropped;
  const auto start = std::chrono::steady_clock::now();
  {
    Log log(pipe.writer(), Level::info, &dropped);
    for (int i = 0; i < 1'000; ++i) log.call(full_line());
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds{10});  // really 1 to 1.2
  EXPECT_GT(dropped.value(), 900);
}

// `penstock serve | head`: no signal, no spin, no wait; the gateway goes on without a log.
TEST(LogReader, GoneEndsLoggingQuietly) {
  Counter dropped;
  Pipe pipe;
  Log log(pipe.writer(), Level::info, &dropped);
  pipe.close_reader();
  log.write(Level::info, "1");
  log.flush();
  EXPECT_EQ(dropped.value(), 1);
  log.write(Level::info, "2");
  EXPECT_EQ(dropped.value(), 2);
  log.flush();
}

TEST(LogDisk, FullIsCountedAndTriedAgain) {
  const int fd = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  if (fd < 0) GTEST_SKIP() << "no /dev/full";
  Counter dropped;
  {
    Log log(fd, Level::info, &dropped);
    for (int i = 1; i <= 3; ++i) {
      log.write(Level::info, "x");
      log.flush();
      EXPECT_EQ(dropped.value(), i);
    }
  }
  ::close(fd);
}

// The disk takes half a line, then has room again: the half is ended and counted, and the next line stands
// alone.
TEST(LogDisk, HalfALineDoesNotSpoilTheNext) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  std::FILE* file = std::tmpfile();
  Counter dropped;
  {
    Log log(fileno(file), Level::info, &dropped);
    const rlimit small{.rlim_cur = 100, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    log.write(Level::info, std::string(200, 'x'));
    log.flush();
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(dropped.value(), 1);
    log.write(Level::info, "after");
  }
  std::rewind(file);
  std::string text;
  for (int c; (c = std::fgetc(file)) != EOF;) text += static_cast<char>(c);
  std::fclose(file);
  const auto lines = split(text);
  ASSERT_EQ(lines.size(), 2U) << text;
  EXPECT_EQ(lines[0].size(), 100U);
  EXPECT_EQ(members(lines[1])["message"], "after");
}

}  // namespace
}  // namespace penstock::observe
