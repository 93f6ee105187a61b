#include "script.hpp"

#include <algorithm>
#include <cmath>

#include "text.hpp"

namespace penstock::mock {

namespace {

constexpr double kMaxLatencyUs = 3600e6;

bool to_bool(std::string_view text, bool& value) {
  if (text != "1" && text != "true" && text != "0" && text != "false" && !text.empty()) return false;
  value = text != "0" && text != "false";
  return true;
}

bool to_range(std::string_view text, std::int64_t low, std::int64_t high, std::int64_t& value) {
  const auto number = to_int(text);
  if (!number || *number < low || *number > high) return false;
  value = *number;
  return true;
}

bool to_latency(std::string_view text, Latency& latency) {
  const std::string_view shape = take_until(text, ':');
  const auto a = to_double(take_until(text, ':'));
  if (!a || *a < 0 || *a > kMaxLatencyUs) return false;
  if (shape == "exp" && text.empty()) {
    latency = {Latency::Shape::exponential, *a, 0};
    return true;
  }
  const auto b = to_double(text);
  if (shape != "uniform" || !b || *b < *a || *b > kMaxLatencyUs) return false;
  latency = {Latency::Shape::uniform, *a, *b};
  return true;
}

bool to_fault(std::string_view text, Fault& fault) {
  const auto* found = std::find(std::begin(kFaultNames), std::end(kFaultNames), text);
  if (found == std::end(kFaultNames)) return false;
  fault = static_cast<Fault>(found - std::begin(kFaultNames));
  return true;
}

bool is_header_text(std::string_view text) { return text.find_first_of("\r\n") == std::string_view::npos; }

}  // namespace

std::int64_t Latency::draw_ns(Random& random) const {
  if (shape == Shape::constant) return static_cast<std::int64_t>(a_us * 1000);
  const double u = std::uniform_real_distribution<double>(0, 1)(random);
  const double us = shape == Shape::uniform ? a_us + (b_us - a_us) * u : -a_us * std::log1p(-u);
  return static_cast<std::int64_t>(std::min(us, kMaxLatencyUs) * 1000);
}

Rules::Rules(const Options& options) : chunks(options.chunks), gap_us(options.gap_us) {
  latency.a_us = static_cast<double>(options.latency_us);
}

Rules::Set Rules::set(std::string_view key, std::string_view value) {
  constexpr std::int64_t kMany = 1'000'000'000'000;
  std::int64_t number = 0;
  const auto count = [&](std::int64_t& field, std::int64_t high) { return to_range(value, 0, high, field); };
  const auto maybe = [&](std::optional<std::int64_t>& field) {
    if (!to_range(value, 0, kMany, number)) return false;
    field = number;
    return true;
  };
  bool good = false;
  if (key == "latency_us") {
    good = count(number, static_cast<std::int64_t>(kMaxLatencyUs));
    if (good) latency = {Latency::Shape::constant, static_cast<double>(number), 0};
  } else if (key == "latency") {
    good = to_latency(value, latency);
  } else if (key == "status") {
    good = to_range(value, 200, 599, number);
    if (good) status = static_cast<int>(number);
  } else if (key == "error_rate") {
    const auto rate = to_double(value);
    good = rate && *rate >= 0 && *rate <= 1;
    if (good) error_rate = *rate;
  } else if (key == "error_code") {
    good = is_header_text(value);
    if (good) error_code = value;
  } else if (key == "retry_after") {
    good = is_header_text(value);
    if (good) retry_after = value;
  } else if (key == "header") {
    good =
        is_header_text(value) && value.find(':') != std::string_view::npos && headers.size() < kMaxHeadBytes;
    if (good) append(headers, value, "\r\n");
  } else if (key == "prompt_tokens") {
    good = maybe(prompt_tokens);
  } else if (key == "completion_tokens") {
    good = maybe(completion_tokens);
  } else if (key == "cached_tokens") {
    good = count(cached_tokens, kMany);
  } else if (key == "reasoning_tokens") {
    good = count(reasoning_tokens, kMany);
  } else if (key == "credits") {
    good = maybe(credits);
  } else if (key == "chunks") {
    good = count(chunks, 1'000'000);
  } else if (key == "gap_us") {
    good = count(gap_us, static_cast<std::int64_t>(kMaxLatencyUs));
  } else if (key == "cut_after_bytes") {
    good = count(cut_after_bytes, kMany);
  } else if (key == "stall_after_bytes") {
    good = count(stall_after_bytes, kMany);
  } else if (key == "fault") {
    good = to_fault(value, fault);
  } else if (key == "bill") {
    bool on = false;
    good = to_bool(value, on);
    if (good) bill = on;
  } else if (key == "no_usage") {
    good = to_bool(value, no_usage);
  } else if (key == "over_max") {
    good = to_bool(value, over_max);
  } else if (key == "extra_usage") {
    good = to_bool(value, extra_usage);
  } else if (key == "stamp") {
    good = to_bool(value, stamp);
  } else if (key == "sse_error") {
    good = to_bool(value, sse_error);
  } else if (key == "cut_before_head") {
    good = to_bool(value, cut_before_head);
  } else if (key == "cut_reset") {
    good = to_bool(value, cut_reset);
  } else {
    return Set::unknown_key;
  }
  return good ? Set::done : Set::bad_value;
}

bool Scripts::add(Script script) {
  if (scripts_.size() >= kMax) return false;
  scripts_.push_back(std::move(script));
  return true;
}

void Scripts::apply(std::string_view path, Rules& rules) {
  for (auto script = scripts_.begin(); script != scripts_.end(); ++script) {
    if (!path.starts_with(script->match)) continue;
    for (const auto& [key, value] : script->rules) rules.set(key, value);
    if (script->times_left > 0 && --script->times_left == 0) scripts_.erase(script);
    return;
  }
}

void apply_query(std::string_view query, Rules& rules) {
  while (!query.empty()) {
    std::string_view value = take_until(query, '&');
    const std::string_view key = take_until(value, '=');
    rules.set(key, percent_decode(value));
  }
}

std::string apply_header(std::string_view x_mock, Rules& rules) {
  while (!x_mock.empty()) {
    std::string_view value = trim(take_until(x_mock, ';'));
    const std::string_view key = trim(take_until(value, '='));
    if (key.empty() || rules.set(key, trim(value)) == Rules::Set::done) continue;
    return "X-Mock: " + std::string(key) + "=" + std::string(trim(value));
  }
  return {};
}

}  // namespace penstock::mock
