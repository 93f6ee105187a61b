// The endpoints under /_mock/: scripts, limits, prices and settings in; bill, log and counters out. They are
// neither billed nor logged nor delayed.
#include "provider.hpp"
#include "text.hpp"

namespace penstock::mock {

namespace {

bool to_amount(const std::string& text, std::int64_t& field) {
  const auto number = to_int(text);
  if (!number || *number < 0) return false;
  field = *number;
  return true;
}

// Each reads all members, or says which one is wrong.
std::string read_script(const CallReader::Members& members, const Rules& defaults, Scripts::Script& script) {
  Rules probe = defaults;
  for (const auto& [key, value] : members) {
    if (key == "match") {
      script.match = value;
    } else if (key == "times") {
      const auto times = to_int(value);
      if (!times || *times == 0 || *times < -1) return key;
      script.times_left = *times;
    } else if (key.starts_with("rules.") && probe.set(key.substr(6), value) == Rules::Set::done) {
      script.rules.emplace_back(key.substr(6), value);
    } else if (key != "rules") {
      return key;
    }
  }
  return {};
}

std::string read_limits(const CallReader::Members& members, LimitSettings& settings) {
  for (const auto& [key, value] : members) {
    std::int64_t status = 0;
    bool good = false;
    if (key == "requests_per_minute")
      good = to_amount(value, settings.requests_per_minute) &&
             settings.requests_per_minute <= TokenBucket::kMaxPerMinute;
    else if (key == "tokens_per_minute")
      good = to_amount(value, settings.tokens_per_minute) &&
             settings.tokens_per_minute <= TokenBucket::kMaxPerMinute;
    else if (key == "status")
      good = to_amount(value, status) && (status == 429 || status == 403);
    else if (key == "match")
      good = true;
    else if (key == "style")
      good = value == "openai" || value == "anthropic" || value == "github" || value == "silent";
    if (!good) return key;
    if (key == "status") settings.status = static_cast<int>(status);
    if (key == "match") settings.match = value;
    if (key == "style")
      settings.style = value == "openai"      ? LimitStyle::openai
                       : value == "anthropic" ? LimitStyle::anthropic
                       : value == "github"    ? LimitStyle::github
                                              : LimitStyle::silent;
  }
  return {};
}

std::string read_prices(const CallReader::Members& members, Prices& prices) {
  for (const auto& [key, value] : members) {
    std::int64_t* field = key == "input_nano_usd_per_token"          ? &prices.input_nano_usd_per_token
                          : key == "output_nano_usd_per_token"       ? &prices.output_nano_usd_per_token
                          : key == "cached_input_nano_usd_per_token" ? &prices.cached_input_nano_usd_per_token
                          : key == "credit_nano_usd"                 ? &prices.credit_nano_usd
                          : key == "call_nano_usd"                   ? &prices.call_nano_usd
                                                                     : nullptr;
    if (field == nullptr || !to_amount(value, *field)) return key;
  }
  return {};
}

std::string read_settings(const CallReader::Members& members, BillOnDisconnect& on_disconnect) {
  for (const auto& [key, value] : members) {
    if (key != "bill_on_disconnect" || (value != "full" && value != "sent")) return key;
    on_disconnect = value == "full" ? BillOnDisconnect::full : BillOnDisconnect::sent;
  }
  return {};
}

}  // namespace

void Provider::admin(const Request& request, Answer& answer) {
  answer.admin = true;
  if (request.method == "POST")
    admin_post(request, answer);
  else
    admin_get(request, answer);
}

void Provider::admin_get(const Request& request, Answer& answer) {
  std::string& out = answer.body;
  if (request.path == "/_mock/bill") {
    bill_.append_json(out);
  } else if (request.path == "/_mock/log") {
    const auto last = to_int(query_value(request.query, "n").value_or("100"));
    log_.append_json(out, last && *last > 0 ? static_cast<std::size_t>(*last) : 0);
  } else if (request.path == "/_mock/stats") {
    append(out, R"({"requests":)", requests_, R"(,"streams":)", streams_, R"(,"connections":)",
           traffic.connections, R"(,"open_connections":)", traffic.open_connections, R"(,"in_flight":)",
           traffic.in_flight, R"(,"max_in_flight":)", traffic.max_in_flight, R"(,"disconnects":)",
           traffic.disconnects, R"(,"bytes_in":)", traffic.bytes_in, R"(,"bytes_out":)", traffic.bytes_out,
           R"(,"answers":{"none":)", by_class_[0]);
    for (int i = 2; i < 6; ++i) append(out, ",\"", i, "xx\":", by_class_[i]);
    out += "}}";
  } else {
    complain_plain({404, "not_found", "", "No such admin endpoint."}, answer);
  }
}

void Provider::admin_post(const Request& request, Answer& answer) {
  CallReader::Members members;
  if (!reader_.read_members(request.body, members))
    return complain_plain({400, "invalid", "", "The body is not a JSON object."}, answer);
  std::string wrong;
  if (request.path == "/_mock/reset") {
    reset();
  } else if (request.path == "/_mock/script") {
    Scripts::Script script;
    wrong = read_script(members, defaults_, script);
    if (wrong.empty() && !scripts_.add(std::move(script))) wrong = "too many scripts";
  } else if (request.path == "/_mock/limits") {
    LimitSettings settings;
    wrong = read_limits(members, settings);
    if (wrong.empty()) limits_.set(std::move(settings));
  } else if (request.path == "/_mock/prices") {
    Prices prices;
    wrong = read_prices(members, prices);
    if (wrong.empty()) bill_.prices = prices;
  } else if (request.path == "/_mock/settings") {
    wrong = read_settings(members, bill_.on_disconnect);
  } else {
    return complain_plain({404, "not_found", "", "No such admin endpoint."}, answer);
  }
  if (!wrong.empty()) return complain_plain({400, "invalid", "", "Not understood: " + wrong}, answer);
  answer.body = R"({"ok":true})";
}

void Provider::reset() {
  scripts_.clear();
  limits_.clear();
  bill_.clear();
  bill_.prices = {};
  bill_.on_disconnect = BillOnDisconnect::full;
  log_.clear();
  random_.seed(options_.seed);
  requests_ = streams_ = 0;
  for (auto& count : by_class_) count = 0;
  // Gauges go on; in-flight answers of before still end.
  traffic.connections = traffic.disconnects = traffic.bytes_in = traffic.bytes_out = 0;
  traffic.max_in_flight = traffic.in_flight;
}

}  // namespace penstock::mock
