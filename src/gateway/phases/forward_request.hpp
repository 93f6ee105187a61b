#pragma once

#include <string>
#include <string_view>

#include "gateway/call.hpp"

namespace penstock::gateway {

/// Builds the head of the attempt's request in `out`: re-serialised, without hop-by-hop fields, with the
/// provider's credential in place of the caller's. `body_size`: of a body that is sent whole; none: as the
/// caller framed it.
void build_request_head(const Call& call, const Attempt& attempt, std::optional<std::size_t> body_size,
                        std::string& out);

}  // namespace penstock::gateway
