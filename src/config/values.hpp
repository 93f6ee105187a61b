#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "base/time.hpp"
#include "config/config.hpp"
#include "config/mistakes.hpp"

/// The texts of single values. Each parser is pure and strict: all of the text or a complaint.
namespace penstock::config {

/// Why a text was refused: "is not a duration; expected 250ms, …", to be put behind the text itself, and
/// perhaps a hint.
struct Complaint {
  std::string text;
  std::string hint;
};

template <class T>
using Parsed = std::expected<T, Complaint>;

[[nodiscard]] Parsed<bool> parse_boolean(std::string_view text);
[[nodiscard]] Parsed<std::int64_t> parse_integer(std::string_view text);
[[nodiscard]] Parsed<double> parse_number(std::string_view text);
/// `250ms`, `5s`, `10m`, `1h`
[[nodiscard]] Parsed<milliseconds> parse_duration(std::string_view text);
[[nodiscard]] std::string format_duration(milliseconds duration);
/// Bytes: `1048576`, `32KiB`, `4MiB`, `1GiB`
[[nodiscard]] Parsed<std::uint64_t> parse_size(std::string_view text);
[[nodiscard]] std::string format_size(std::uint64_t bytes);
[[nodiscard]] Parsed<NanoUsd> parse_amount(std::string_view text);
/// A quantity with at most nine decimals, in billionths.
[[nodiscard]] Parsed<std::int64_t> parse_nano_units(std::string_view text);
[[nodiscard]] Parsed<policy::LimitSpec> read_limit(std::string_view text);
[[nodiscard]] Parsed<std::string> parse_time_zone(std::string_view text);
/// `2027-01-01` (its first instant in UTC) or `2027-01-01T08:30:00Z`
[[nodiscard]] Parsed<WallTime> parse_expiry(std::string_view text);
/// [a-z0-9][a-z0-9_.-]{0,63}
[[nodiscard]] Parsed<std::string> parse_name(std::string_view text);
[[nodiscard]] Parsed<std::string> parse_path_pattern(std::string_view text);
[[nodiscard]] Parsed<std::string> parse_method(std::string_view text);
[[nodiscard]] Parsed<std::string> parse_header_name(
    std::string_view text);  ///< one that a configuration may set or read
[[nodiscard]] Parsed<std::string> parse_json_pointer(std::string_view text);
[[nodiscard]] Parsed<std::string> parse_host(
    std::string_view text);  ///< a name, in lower case, or an IP address

struct SocketAddress {
  std::string address;  ///< an IP address, without brackets
  std::uint16_t port = 0;
};
[[nodiscard]] Parsed<SocketAddress> parse_socket_address(std::string_view text);
[[nodiscard]] Parsed<Network> parse_network(std::string_view text);
[[nodiscard]] Parsed<BaseUrl> parse_base_url(std::string_view text);
/// A URL without what may be secret in it: user information, query and fragment.
[[nodiscard]] std::string url_without_secrets(std::string_view text);
/// localhost, or an address literal that is loopback, private, link-local, shared or unspecified.
[[nodiscard]] bool is_private_host(std::string_view host);

/// text × 10^scale, digits below that rounded up: a price may become dearer by less than its last unit, never
/// cheaper. Nothing for signs, other characters and what int64 cannot hold.
struct Scaled {
  std::int64_t value = 0;
  bool is_exact = true;
};
[[nodiscard]] std::optional<Scaled> parse_scaled(std::string_view text, int scale);

}  // namespace penstock::config
