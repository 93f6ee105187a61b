#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>

namespace penstock {

/// One worker is one thread with one io_context. Its concrete executor type keeps Asio from allocating a
/// type-erased one for every operation.
using Executor = boost::asio::io_context::executor_type;

template <class T>
using Awaitable = boost::asio::awaitable<T, Executor>;

}  // namespace penstock
