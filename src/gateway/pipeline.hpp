#pragma once

#include "base/async.hpp"
#include "gateway/worker.hpp"
#include "http/exchange.hpp"

namespace penstock::gateway {

/// Takes one call its whole way, top to bottom, and replies.
///
///   authenticate - limit - match - read - { admit - forward - settle }* - record - respond
///
/// The list and the reason for its order stand in pipeline.cpp; docs/life-of-a-call.md tells it at length.
[[nodiscard]] Awaitable<void> run_call(http::Exchange& exchange, Worker& worker);

/// Refuses a request whose path is none of ours, within the inbound limit of its caller.
[[nodiscard]] Awaitable<void> run_unmatched(http::Exchange& exchange, Worker& worker);

}  // namespace penstock::gateway
