#include "gateway/meter/refusal_reader.hpp"

#include "gateway/meter/json_text.hpp"
#include "policy/limit_headers.hpp"

namespace penstock::gateway {
namespace {

using simdjson::ondemand::json_type;
using simdjson::ondemand::value;

std::string_view text_of(value each) {
  std::string_view text;
  if (!is_type(each, json_type::string) || each.get_string().get(text) != simdjson::SUCCESS) return {};
  return text;
}

void read_violation(value violation, RefusalFacts& facts) {
  if (!is_type(violation, json_type::object)) return;
  (void)for_each_member(violation, [&](std::string_view key, value each) {
    if (key == "quotaId" && text_of(each).contains("PerDay")) facts.is_daily = true;
    return true;
  });
}

void read_detail(value detail, RefusalFacts& facts) {
  if (!is_type(detail, json_type::object)) return;
  (void)for_each_member(detail, [&](std::string_view key, value each) {
    if (key == "retryDelay") {
      const auto delay = policy::LimitHeaders::parse_reset(text_of(each));
      if (delay && delay->after >= nanoseconds{0}) facts.retry_after = delay->after;
    } else if (key == "violations" && is_type(each, json_type::array)) {
      (void)for_each_element(each, [&](value violation) { return read_violation(violation, facts), true; });
    }
    return true;
  });
}

void read_error(value error, RefusalFacts& facts) {
  if (!is_type(error, json_type::object)) return;
  (void)for_each_member(error, [&](std::string_view key, value each) {
    if (key == "code" || key == "type") {
      const std::string_view code = text_of(each);
      if (code == "insufficient_quota" || code == "enforced_spend_limit_reached")
        facts.is_quota_exhausted = true;
    } else if (key == "details" && is_type(each, json_type::array)) {
      (void)for_each_element(each, [&](value detail) { return read_detail(detail, facts), true; });
    }
    return true;
  });
}

bool read_answer(value answer, RefusalFacts& facts) {
  return for_each_member(answer, [&](std::string_view key, value each) {
    if (key == "error") read_error(each, facts);
    return true;
  });
}

}  // namespace

RefusalFacts read_refusal(std::string_view body) {
  RefusalFacts facts;
  const bool is_whole = with_json(body, [&](value root) {
    // Gemini's streams are arrays.
    if (is_type(root, json_type::array))
      return for_each_element(root, [&](value each) { return read_answer(each, facts); });
    return read_answer(root, facts);
  });
  return is_whole ? facts : RefusalFacts{};
}

}  // namespace penstock::gateway
