#include "config/load.hpp"
#include "gateway/client_address.hpp"
#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

std::uint64_t mix(std::uint64_t value) noexcept {
  value ^= value >> 33;
  value *= 0xFF51AFD7ED558CCDULL;
  value ^= value >> 33;
  return value;
}

}  // namespace

Step limit_caller(Call& call) {
  const config::Inbound& inbound = call.snapshot->config.inbound;
  const http::RequestHead& request = call.exchange.request;
  for (const std::string& exempt : inbound.exempt)
    if (config::matches_path(exempt, request.path)) return Step::next;
  call.limit = inbound.limit;
  std::uint64_t rule = 0;
  for (std::size_t i = 0; i < inbound.overrides.size(); ++i) {
    const config::InboundOverride& each = inbound.overrides[i];
    if (!each.methods.empty() && std::ranges::find(each.methods, request.method) == each.methods.end())
      continue;
    if (!config::matches_path(each.path, request.path)) continue;
    call.limit = each.limit;
    rule = i + 1;
    break;
  }
  const std::uint64_t caller =
      call.key ? call.key->caller
               : std::hash<std::string_view>{}(client_address(call.exchange.peer, request.fields,
                                                              call.snapshot->config.trusted_proxies));
  call.limit_answer = call.services.caller_limits.count(mix(caller + rule * 0x9E3779B97F4A7C15ULL),
                                                        call.limit, call.now.mono);
  call.limited = true;
  if (call.limit_answer.allowed) return Step::next;
  return refuse_call(call, {.reason = Reason::caller_rate_limited,
                            .status = 0,
                            .message = "More than " + policy::to_string(call.limit) + " from this caller.",
                            .detail = {},
                            .retry_after = std::chrono::ceil<seconds>(call.limit_answer.retry_after)});
}

}  // namespace penstock::gateway
