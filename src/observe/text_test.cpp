#include "observe/text.hpp"

#include <limits>
#include <random>
#include <string>

#include <gtest/gtest.h>
#include <simdjson.h>

#include "base/money.hpp"

namespace penstock::observe {
namespace {

std::string decimal(std::int64_t value, int decimals) {
  char text[kMaxDecimal];
  return {text, write_decimal(value, decimals, text)};
}

std::string json_text(std::string_view text, std::size_t bound = 512) {
  std::string out(bound, '#');
  out.resize(static_cast<std::size_t>(write_json_text(text, bound, out.data()) - out.data()));
  return out;
}

/// What a strict JSON reader makes of `inside` between quotes.
std::string read_back(const std::string& inside) {
  simdjson::dom::parser parser;
  std::string_view text;
  const std::string document = "[\"" + inside + "\"]";
  const auto error = parser.parse(document).at(0).get_string().get(text);
  EXPECT_EQ(error, simdjson::SUCCESS) << document;
  return error ? std::string() : std::string(text);
}

/// Every byte that a text may hold, more of those that matter.
std::string random_text(std::mt19937_64& random, std::size_t most) {
  static constexpr std::string_view kPieces[] = {"a",        "\"", "\\", "\n", "\x7F",
                                                 "\xC2\x85", "é",  "€",  "😀", "\xED\xA0\x80"};
  std::string text;
  for (std::size_t n = random() % (most + 1); n > 0; --n) {
    if (const auto pick = random() % 12; pick < std::size(kPieces)) {
      text += kPieces[pick];
    } else {
      text += static_cast<char>(random() % 256);
    }
  }
  return text;
}

TEST(WriteDecimal, IsExactAndShort) {
  EXPECT_EQ(decimal(0, 0), "0");
  EXPECT_EQ(decimal(0, 9), "0");
  EXPECT_EQ(decimal(1, 9), "0.000000001");
  EXPECT_EQ(decimal(1'500'000'000, 9), "1.5");
  EXPECT_EQ(decimal(20'000'000'000, 9), "20");
  EXPECT_EQ(decimal(-5, 1), "-0.5");
  EXPECT_EQ(decimal(250'000, 6), "0.25");
  EXPECT_EQ(decimal(1'234, 3), "1.234");
  EXPECT_EQ(decimal(std::numeric_limits<std::int64_t>::max(), 9), "9223372036.854775807");
  EXPECT_EQ(decimal(std::numeric_limits<std::int64_t>::min(), 9), "-9223372036.854775808");
  EXPECT_EQ(decimal(std::numeric_limits<std::int64_t>::min(), 18), "-9.223372036854775808");
  EXPECT_EQ(decimal(-1, 18), "-0.000000000000000001");
}

// The exposition, the log, headers and the ledger must show the same digits.
TEST(WriteDecimal, AgreesWithMoney) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    const auto value = static_cast<std::int64_t>(random()) >> (random() % 64);
    ASSERT_EQ(decimal(value, 9), format_usd({value}));
  }
}

TEST(Utf8Sequence, TakesWellFormedSequencesOnly) {
  EXPECT_EQ(utf8_sequence(""), 0U);
  EXPECT_EQ(utf8_sequence("a"), 1U);
  EXPECT_EQ(utf8_sequence(std::string_view("\0", 1)), 1U);
  EXPECT_EQ(utf8_sequence("\xC2\x80"), 2U);
  EXPECT_EQ(utf8_sequence("\xE0\xA0\x80"), 3U);
  EXPECT_EQ(utf8_sequence("\xED\x9F\xBF"), 3U);
  EXPECT_EQ(utf8_sequence("\xEF\xBF\xBF"), 3U);
  EXPECT_EQ(utf8_sequence("\xF0\x90\x80\x80"), 4U);
  EXPECT_EQ(utf8_sequence("\xF4\x8F\xBF\xBF"), 4U);

  for (const std::string_view bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE2\x82",
        "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xF0\x9F\x98", "\xFF"})
    EXPECT_EQ(utf8_sequence(bad), 0U) << testing::PrintToString(bad);
}

TEST(WriteJsonText, EscapesWhatJsonAndTerminalsMustNotSee) {
  EXPECT_EQ(json_text({}), "");
  EXPECT_EQ(json_text("plain"), "plain");
  EXPECT_EQ(json_text("\"\\/"), R"(\"\\/)");
  EXPECT_EQ(json_text("a\nb\r\tc"), R"(a\nb\r\tc)");
  EXPECT_EQ(json_text(std::string_view("\0\x1b[31m\x7f", 7)), R"(\u0000\u001b[31m\u007f)");
  EXPECT_EQ(json_text("\xC2\x9B"), R"(\u009b)");  // CSI in one byte
  EXPECT_EQ(json_text("Zürich €😀"), "Zürich €😀");
  EXPECT_EQ(json_text("a\xFF\xED\xA0\x80z"), "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz");
}

TEST(WriteJsonText, EndsWhatIsTooLongAtACharactersBorder) {
  EXPECT_EQ(json_text("12345678", 8), "12345678");
  EXPECT_EQ(json_text("123456789", 8), "12345…");
  EXPECT_EQ(json_text("1234\n\n\n", 8), "1234…");  // half an escape is none
  EXPECT_EQ(json_text("1234€€", 8), "1234…");      // half a character neither
  EXPECT_EQ(json_text(std::string(10'000, 'x'), 512), std::string(509, 'x') + "…");
  EXPECT_EQ(json_text(std::string(10'000, '\x01'), 512).size(), 84U * 6 + 3);
}

TEST(WriteJsonText, IsJsonWithinItsBoundWhateverComes) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 5'000; ++i) {
    const std::string text = random_text(random, 80);
    const std::size_t bound = 3 + random() % 100;
    const std::string written = json_text(text, bound);
    ASSERT_LE(written.size(), bound);
    const std::string read = read_back(written);
    for (const char c : written)
      ASSERT_TRUE((c < 0 || c >= 0x20) && c != 0x7F) << testing::PrintToString(written);

    std::string valid;  // what a reader should see: `text` with each bad byte replaced
    for (std::string_view rest = text; !rest.empty();) {
      const std::size_t n = utf8_sequence(rest);
      valid += n == 0 ? kReplacement : rest.substr(0, n);
      rest.remove_prefix(std::max<std::size_t>(n, 1));
    }
    if (read == valid) continue;
    ASSERT_TRUE(read.ends_with("…"));  // only ever shortened
    ASSERT_TRUE(valid.starts_with(read.substr(0, read.size() - 3)));
    ASSERT_GT(json_text(text, 6 * text.size() + 3).size(), bound);  // and only where it had to be
  }
}

}  // namespace
}  // namespace penstock::observe
