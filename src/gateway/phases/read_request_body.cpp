#include "gateway/phases/phases.hpp"

namespace penstock::gateway {
namespace {

/// A body up to this size is kept, so that a failed attempt can be made again; a larger one that nothing
/// needs whole is streamed.
constexpr std::uint64_t kKeptBody = 64 * 1024;

Error fault_error(const http::BodyPiece& piece) {
  Error error{
      .reason = Reason::caller_invalid, .status = 400, .message = {}, .detail = {}, .retry_after = {}};
  switch (piece.fault) {
    case http::BodyFault::too_large:
      error.status = 413;
      error.message = "The request body is larger than this gateway takes.";
      break;
    case http::BodyFault::timeout:
      error.status = 408;
      error.message = "The request body came too slowly.";
      break;
    case http::BodyFault::client_gone:
      error.reason = Reason::caller_cancelled;
      error.status = 499;
      error.message = "The caller hung up inside the request body.";
      break;
    case http::BodyFault::invalid:
    case http::BodyFault::none:
      error.message = "The request body is not valid: " + std::string(piece.what) + ".";
      break;
  }
  return error;
}

bool anything_reads_it(const Call& call) noexcept {
  return std::ranges::any_of(call.targets, [&](const ProviderPlan* provider) {
    return provider->endpoint_of(call.exchange.request.method, call.path).reads_request;
  });
}

}  // namespace

bool take_request_body(Call& call) {
  const auto body = call.exchange.take_whole_body();
  if (!body) return false;
  call.body = *body;
  call.body_is_whole = true;
  return true;
}

Awaitable<Step> read_request_body(Call& call) {
  http::Exchange& exchange = call.exchange;
  const bool known_small =
      exchange.request.body == http::BodyKind::length && exchange.request.content_length <= kKeptBody;
  const bool needed = anything_reads_it(call);
  if (!known_small && !needed) co_return Step::next;
  const http::BodyPiece piece =
      co_await exchange.read_whole_body(call.snapshot->config.listen.max_body_bytes);
  if (piece.fault != http::BodyFault::none) co_return refuse_call(call, fault_error(piece));
  call.body = piece.data;
  call.body_is_whole = true;
  co_return Step::next;
}

}  // namespace penstock::gateway
