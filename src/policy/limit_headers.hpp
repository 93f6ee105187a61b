#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/time.hpp"

/// What providers tell about their limits in the header fields of an answer:
///
///   OpenAI, Azure, Groq  x-ratelimit-{limit,remaining,reset}-{requests,tokens,project-tokens}
///   Anthropic            anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,…}
///   GitHub and many      x-ratelimit-{limit,remaining,reset}; without the x-: the older IETF drafts, GitLab
///   IETF drafts          RateLimit-Policy: "name";q=60;w=60 and RateLimit: "name";r=12;t=7
///
/// The values are a stranger's: what is absent, malformed or absurd is left out, field by field or whole.
namespace penstock::policy {

/// What a provider counts.
enum class LimitDimension : std::uint8_t { requests, tokens, input_tokens, output_tokens };
inline constexpr std::size_t kLimitDimensions = 4;
[[nodiscard]] std::string_view to_string(LimitDimension dimension) noexcept;

struct LimitReading {
  std::int64_t limit = 0;      ///< 0: not told
  std::int64_t remaining = 0;  ///< >= 0, and <= limit where that is told
  nanoseconds reset{};         ///< from the answer on, 1 s to 24 h; zero: not told
  /// How it comes back: bit by bit, being full at the reset (OpenAI, Anthropic), or all at once then.
  enum class Refill : std::uint8_t { gradual, at_once };
  Refill refill = Refill::at_once;
  std::int64_t rounding = 0;  ///< `remaining` may be told so much too high
  friend bool operator==(const LimitReading&, const LimitReading&) = default;
};
using LimitReadings = std::array<std::optional<LimitReading>, kLimitDimensions>;

/// Gathers the fields of one answer. Holds views of their values.
class LimitHeaders {
 public:
  /// Whether a field is worth `add`: all others cost no more than this comparison.
  [[nodiscard]] static bool concerns(std::string_view name) noexcept;
  void add(std::string_view name, std::string_view value) noexcept;
  [[nodiscard]] bool empty() const noexcept { return empty_; }

  /// `unix_now`: the provider's clock where it told it (Date), else ours; resets at a time of day are counted
  /// from it. Of several fields for one dimension the one with the least left counts.
  [[nodiscard]] LimitReadings readings(WallTime unix_now) const noexcept;

  /// How a reset is told: after a time (seconds, "1.5", "6m0s", "12ms"), or at one (Unix seconds or
  /// milliseconds, RFC 3339).
  struct Reset {
    nanoseconds after{-1};  ///< -1: told as `at`
    std::optional<WallTime> at;
  };
  /// Nothing: not a time, negative, or more than 24 h.
  [[nodiscard]] static std::optional<Reset> parse_reset(std::string_view text) noexcept;

 private:
  /// One group of fields; the numbers are -1 until told.
  enum class Group : std::uint8_t {
    openai_requests,
    openai_tokens,
    openai_project_tokens,
    anthropic_requests,
    anthropic_tokens,
    anthropic_input_tokens,
    anthropic_output_tokens,
    plain,
  };
  static constexpr std::size_t kGroups = 8;
  struct Told {
    std::int64_t limit = -1;
    std::int64_t remaining = -1;
    Reset reset;
    bool absurd = false;  ///< one of its numbers makes no sense: none is believed (Azure's -1/-1/0)
  };
  /// An item of RateLimit or RateLimit-Policy.
  struct Item {
    std::string_view name;
    std::int64_t amount = -1;   ///< r, or q
    std::int64_t seconds = -1;  ///< t, or w
    std::optional<LimitDimension> dimension =
        LimitDimension::requests;  ///< none: a unit that we do not count
  };
  static constexpr std::size_t kItems = 4;
  struct Items {
    std::array<Item, kItems> all;
    std::size_t size = 0;
  };

  void add_openai(std::string_view rest, std::string_view value) noexcept;
  void add_anthropic(std::string_view rest, std::string_view value) noexcept;
  void tell(Group group, std::string_view what, std::string_view value) noexcept;
  void add_items(std::string_view value, Items& items) noexcept;
  void add_item(std::string_view text, Items& items) noexcept;

  std::array<Told, kGroups> told_{};
  Items left_;      ///< RateLimit
  Items policies_;  ///< RateLimit-Policy
  bool empty_ = true;
};

}  // namespace penstock::policy
