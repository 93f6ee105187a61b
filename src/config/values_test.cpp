#include "config/values.hpp"

#include "config/testing.hpp"

namespace penstock::config {
namespace {

using namespace std::chrono_literals;

/// The hint for a text that is refused.
template <class T>
std::string hint(const Parsed<T>& parsed) {
  EXPECT_FALSE(parsed.has_value());
  return parsed ? "" : parsed.error().hint;
}

TEST(Duration, ReadsEveryUnit) {
  EXPECT_EQ(parse_duration("250ms"), 250ms);
  EXPECT_EQ(parse_duration("5s"), 5s);
  EXPECT_EQ(parse_duration("10m"), 10min);
  EXPECT_EQ(parse_duration("1h"), 1h);
  EXPECT_EQ(parse_duration("0s"), 0s);
}

TEST(Duration, RefusesTheRestWithTheNearMiss) {
  EXPECT_EQ(hint(parse_duration("5 sec")), "did you mean \"5s\"?");
  EXPECT_EQ(hint(parse_duration("5 s")), "did you mean \"5s\"?");
  EXPECT_EQ(hint(parse_duration("10 minutes")), "did you mean \"10m\"?");
  EXPECT_EQ(hint(parse_duration("30")), "did you mean \"30s\"?");
  EXPECT_EQ(hint(parse_duration("5S")), "did you mean \"5s\"?");
  for (const char* text : {"", "s", "-5s", "+5s", "1.5s", "5s ", " 5s", "5d", "5ss", "0x5s",
                           "99999999999999999999s", "9007199254740993ms"}) {
    EXPECT_FALSE(parse_duration(text)) << text;
  }
}

TEST(Duration, PrintsInItsLargestUnit) {
  for (const char* text : {"250ms", "5s", "75s", "10m", "1h", "0s"})
    EXPECT_EQ(format_duration(*parse_duration(text)), text);
}

TEST(Size, ReadsBytesAndBinaryUnits) {
  EXPECT_EQ(parse_size("1048576"), 1048576U);
  EXPECT_EQ(parse_size("32KiB"), 32768U);
  EXPECT_EQ(parse_size("4MiB"), 4194304U);
  EXPECT_EQ(parse_size("1GiB"), 1073741824U);
  EXPECT_EQ(hint(parse_size("32kb")), "did you mean \"32KiB\"?");
  EXPECT_EQ(hint(parse_size("32 KiB")), "did you mean \"32KiB\"?");
  EXPECT_EQ(hint(parse_size("4M")), "did you mean \"4MiB\"?");
  for (const char* text : {"", "KiB", "-1", "1.5MiB", "99999999999GiB", "1TiB"})
    EXPECT_FALSE(parse_size(text)) << text;
  EXPECT_EQ(format_size(32768), "32KiB");
  EXPECT_EQ(format_size(1000), "1000");
}

TEST(Integer, IsWholeAndDecimal) {
  EXPECT_EQ(parse_integer("42"), 42);
  EXPECT_EQ(hint(parse_integer("1_000")), "did you mean \"1000\"?");
  for (const char* text : {"", "-1", "+1", "1.0", "1e3", "0x10", "9223372036854775808"})
    EXPECT_FALSE(parse_integer(text)) << text;
}

TEST(Boolean, IsTrueOrFalse) {
  EXPECT_EQ(parse_boolean("true"), true);
  EXPECT_EQ(parse_boolean("false"), false);
  EXPECT_EQ(hint(parse_boolean("yes")), "did you mean \"true\"?");
  EXPECT_EQ(hint(parse_boolean("Off")), "did you mean \"false\"?");
  EXPECT_EQ(hint(parse_boolean("ture")), "did you mean \"true\"?");
}

TEST(Amount, IsExactOrRefused) {
  EXPECT_EQ(parse_amount("0.005")->count, 5'000'000);
  EXPECT_EQ(parse_amount("1e-9")->count, 1);
  EXPECT_EQ(hint(parse_amount("$20")), "did you mean \"20\"?");
  EXPECT_EQ(hint(parse_amount("20 USD")), "did you mean \"20\"?");
  EXPECT_EQ(hint(parse_amount("-5")), "");
  EXPECT_FALSE(parse_amount("0.0000000001"));
}

TEST(Limit, NearMissesAreRepaired) {
  EXPECT_TRUE(read_limit("90000 tokens/minute"));
  EXPECT_EQ(hint(read_limit("60/minut")), "did you mean \"60/minute\"?");
  EXPECT_EQ(hint(read_limit("90000 tokns/minute")), "did you mean \"90000 tokens/minute\"?");
  EXPECT_EQ(hint(read_limit("60/fortnight")), "");
}

TEST(TimeZone, NearMissesAreRepaired) {
  EXPECT_EQ(parse_time_zone("Europe/Berlin"), "Europe/Berlin");
  EXPECT_EQ(hint(parse_time_zone("america/new york")), "did you mean \"America/New_York\"?");
  EXPECT_FALSE(parse_time_zone("Mars/Olympus"));
}

// parse_scaled reads prices: exact where it can be, and never below.
TEST(Scaled, IsExactOrRoundedUp) {
  const auto scaled = [](std::string_view text, int scale) {
    return parse_scaled(text, scale).value_or(Scaled{-1, false});
  };
  EXPECT_EQ(scaled("1.5e-07", 15).value, 150'000'000);
  EXPECT_TRUE(scaled("1.5e-07", 15).is_exact);
  EXPECT_EQ(scaled("0.00000015", 15).value, 150'000'000);
  EXPECT_EQ(scaled("7.5E-8", 15).value, 75'000'000);
  EXPECT_EQ(scaled("0.1", 15).value, 100'000'000'000'000);
  EXPECT_EQ(scaled("1e-16", 15).value, 1);
  EXPECT_FALSE(scaled("1e-16", 15).is_exact);
  EXPECT_EQ(scaled("1.00000000000000001e-7", 15).value, 100'000'001);
  EXPECT_EQ(scaled("1e-400", 15).value, 1);
  EXPECT_EQ(scaled("0", 15).value, 0);
  EXPECT_EQ(scaled("0e400", 15).value, 0);
  EXPECT_EQ(scaled("9223372036854775807", 0).value, std::numeric_limits<std::int64_t>::max());
  for (const char* text : {"", "-1", "+1", ".", ".5", "1.", "1e", "1e+", "e5", "1.2.3", "1 ", "nan", "0x1",
                           "9223372036854775808", "1e400", "1e99999"}) {
    EXPECT_FALSE(parse_scaled(text, 0)) << text;
  }
}

TEST(Expiry, IsADateOrATimeInUtc) {
  using std::chrono::sys_days;
  using namespace std::chrono;
  EXPECT_EQ(parse_expiry("2027-01-01"), WallTime{sys_days{2027y / 1 / 1}});
  EXPECT_EQ(parse_expiry("2027-01-01T08:30:05Z"), WallTime{sys_days{2027y / 1 / 1} + 8h + 30min + 5s});
  for (const char* text :
       {"", "2027-1-1", "2027-02-29", "2027-13-01", "2027-01-01T24:00:00Z", "2027-01-01T08:30:00",
        "2027-01-01T08:30:00+01:00", "2027-01-01 08:30:00Z", "1969-12-31", "2262-01-01", "tomorrow!!"}) {
    EXPECT_FALSE(parse_expiry(text)) << text;
  }
}

TEST(Name, IsOneOfTheClosedAlphabet) {
  for (const char* text : {"a", "openai", "gpt-4o.eu_1", "0"}) EXPECT_TRUE(parse_name(text)) << text;
  EXPECT_TRUE(parse_name(std::string(64, 'a')));
  EXPECT_FALSE(parse_name(std::string(65, 'a')));
  EXPECT_EQ(hint(parse_name("Open AI")), "did you mean \"open-ai\"?");
  for (const char* text : {"", "-a", ".a", "_a", "a/b", "ü", "a b"}) EXPECT_FALSE(parse_name(text)) << text;
}

TEST(BaseUrl, IsTakenApart) {
  const auto url = parse_base_url("https://API.example.com/v1/");
  ASSERT_TRUE(url);
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->host, "api.example.com");
  EXPECT_EQ(url->port, 443);
  EXPECT_EQ(url->path, "/v1");
  const auto v6 = parse_base_url("http://[::1]:9000");
  ASSERT_TRUE(v6);
  EXPECT_FALSE(v6->tls);
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->port, 9000);
  EXPECT_EQ(v6->path, "");
}

TEST(BaseUrl, RefusesWhatIsNoPlainDestination) {
  EXPECT_EQ(hint(parse_base_url("api.openai.com/v1")), "did you mean \"https://api.openai.com/v1\"?");
  EXPECT_EQ(hint(parse_base_url("htps://api.openai.com")), "did you mean \"https\"?");
  EXPECT_EQ(hint(parse_base_url("https://user:password@api.openai.com")), "put them under credential");
  for (const char* text : {"",
                           "https://",
                           "https:///v1",
                           "ftp://a.com",
                           "https://a.com?x=1",
                           "https://a.com#x",
                           "https://a b.com",
                           "https://a.com:0",
                           "https://a.com:65536",
                           "https://a.com:",
                           "https://a.com:80:80",
                           "https://[::1",
                           "https://::1",
                           "https://[1.2.3.4]",
                           "https://1.2.3",
                           "https://1.2.3.4.5",
                           "https://256.1.1.1",
                           "https://0x7f.1",
                           "https://-a.com",
                           "https://a..com",
                           "https://a.com./",
                           "https://a.com//b",
                           "https://a.com/../b",
                           "https://a.com/%zz",
                           "https://a.com/ü",
                           "https://a.com\\@b.com",
                           "https://[fe80::1%25eth0]"}) {
    EXPECT_FALSE(parse_base_url(text)) << text;
  }
}

TEST(BaseUrl, MessagesShowNoSecretsOfAUrl) {
  EXPECT_EQ(url_without_secrets("https://user:password@a.com/v1?key=secret#x"), "https://…@a.com/v1");
  EXPECT_EQ(url_without_secrets("https://a.com/v1"), "https://a.com/v1");
  EXPECT_EQ(url_without_secrets("user:pass@word@a.com"), "…@a.com");
}

TEST(PrivateHost, IsEverythingThatDoesNotLeaveTheNetwork) {
  for (const char* host : {"localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1",
                           "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
                           "::", "fc00::1", "fd12::1", "fe80::1", "::ffff:10.0.0.1"}) {
    EXPECT_TRUE(is_private_host(host)) << host;
  }
  for (const char* host : {"api.openai.com", "8.8.8.8", "172.32.0.1", "172.15.0.1", "100.128.0.1",
                           "2606:4700::1", "::ffff:8.8.8.8"}) {
    EXPECT_FALSE(is_private_host(host)) << host;
  }
}

TEST(SocketAddress, IsAnIpAddressAndAPort) {
  const auto v4 = parse_socket_address("127.0.0.1:8080");
  ASSERT_TRUE(v4);
  EXPECT_EQ(v4->address, "127.0.0.1");
  EXPECT_EQ(v4->port, 8080);
  const auto v6 = parse_socket_address("[::]:0");
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->address, "::");
  EXPECT_EQ(hint(parse_socket_address(":8080")), "did you mean \"0.0.0.0:8080\"?");
  EXPECT_EQ(hint(parse_socket_address("8080")), "did you mean \"127.0.0.1:8080\"?");
  EXPECT_EQ(hint(parse_socket_address("::1")), "did you mean \"[::1]:8080\"?");
  for (const char* text : {"", "a.com:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "[127.0.0.1]:80",
                           "::1:80", "[::1]80"}) {
    EXPECT_FALSE(parse_socket_address(text)) << text;
  }
}

TEST(Network, IsABlockWithItsFirstAddress) {
  const auto v4 = parse_network("10.0.0.0/8");
  ASSERT_TRUE(v4);
  EXPECT_EQ(v4->prefix_length, 104);  // IPv4-mapped
  EXPECT_EQ(v4->address[10], 0xFF);
  EXPECT_EQ(v4->address[12], 10);
  EXPECT_EQ(parse_network("::1")->prefix_length, 128);
  EXPECT_EQ(parse_network("192.0.2.1")->prefix_length, 128);
  EXPECT_EQ(parse_network("0.0.0.0/0")->prefix_length, 96);
  EXPECT_EQ(hint(parse_network("10.1.2.3/8")), "did you mean \"10.0.0.0/8\"?");
  for (const char* text :
       {"", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "a.com", "10.0.0.0/-1", "10.0.0.0/8/8"}) {
    EXPECT_FALSE(parse_network(text)) << text;
  }
}

TEST(PathPattern, IsStrict) {
  for (const char* text :
       {"/", "/v1/chat/completions", "/v1beta/models/*", "/files/**", "/**", "/*/x", "/a/", "/a%20b"}) {
    EXPECT_TRUE(parse_path_pattern(text)) << text;
  }
  EXPECT_EQ(hint(parse_path_pattern("v1/chat")), "did you mean \"/v1/chat\"?");
  EXPECT_EQ(hint(parse_path_pattern("/v1?x=1")), "did you mean \"/v1\"?");
  for (const char* text :
       {"", "/a//b", "/**/a", "/a*", "/***", "/a/../b", "/.", "/a b", "/a%2", "/a#b", "/ü"}) {
    EXPECT_FALSE(parse_path_pattern(text)) << text;
  }
}

TEST(HeaderName, IsATokenThatIsNotTheGatewaysOwn) {
  EXPECT_TRUE(parse_header_name("x-api-key"));
  for (const char* text :
       {"", "a b", "a:", "Host", "content-length", "Transfer-Encoding", "connection", "ä"}) {
    EXPECT_FALSE(parse_header_name(text)) << text;
  }
}

TEST(JsonPointer, FollowsRfc6901) {
  for (const char* text : {"/a", "/a/0/b", "/a~0b~1c", "/"}) EXPECT_TRUE(parse_json_pointer(text)) << text;
  EXPECT_EQ(hint(parse_json_pointer("$.billing.credits")), "did you mean \"/billing/credits\"?");
  EXPECT_EQ(hint(parse_json_pointer("usage")), "did you mean \"/usage\"?");
  for (const char* text : {"", "a", "/a~", "/a~2"}) EXPECT_FALSE(parse_json_pointer(text)) << text;
}

TEST(MatchesPath, SegmentBySegment) {
  EXPECT_TRUE(matches_path("/v1/chat", "/v1/chat"));
  EXPECT_FALSE(matches_path("/v1/chat", "/v1/chat/"));
  EXPECT_FALSE(matches_path("/v1/chat", "/v1/chats"));
  EXPECT_FALSE(matches_path("/v1/chat", "/v1"));
  EXPECT_FALSE(matches_path("/v1/chat", "/V1/chat"));
  EXPECT_TRUE(matches_path("/v1/*/x", "/v1/anything/x"));
  EXPECT_FALSE(matches_path("/v1/*/x", "/v1//x"));
  EXPECT_FALSE(matches_path("/v1/*", "/v1/a/b"));
  EXPECT_TRUE(matches_path("/v1beta/models/*", "/v1beta/models/gemini-pro:generateContent"));
  EXPECT_TRUE(matches_path("/files/**", "/files/a/b/c"));
  EXPECT_TRUE(matches_path("/files/**", "/files/"));
  EXPECT_FALSE(matches_path("/files/**", "/files"));
  EXPECT_FALSE(matches_path("/files/**", "/filesystem/a"));
  EXPECT_TRUE(matches_path("/**", "/"));
  EXPECT_TRUE(matches_path("/", "/"));
  EXPECT_FALSE(matches_path("/", ""));
  EXPECT_FALSE(matches_path("/a", "a"));
}

// A provider decodes /v1/%63hat to /v1/chat: it must not be priced as something else.
TEST(MatchesPath, AnEncodedLetterIsTheLetter) {
  EXPECT_TRUE(matches_path("/v1/chat", "/v1/%63hat"));
  EXPECT_TRUE(matches_path("/v1/ch%61t", "/v1/%63hat"));
  EXPECT_TRUE(matches_path("/v1/chat", "/%761/chat"));
  EXPECT_FALSE(matches_path("/v1/chat", "/v1%2Fchat"));  // an encoded slash is no separator
  EXPECT_FALSE(matches_path("/v1/chat", "/v1/%63ha"));
  EXPECT_FALSE(matches_path("/v1/a", "/v1/%"));
  EXPECT_FALSE(matches_path("/v1/a", "/v1/%6"));
  EXPECT_FALSE(matches_path("/v1/a", "/v1/%zz"));
  EXPECT_TRUE(matches_path("/a%20b", "/a%20b"));
}

}  // namespace
}  // namespace penstock::config
