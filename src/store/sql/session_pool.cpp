#include "store/sql/session_pool.hpp"

namespace penstock::store::sql {

Result<SessionPool::Lease> SessionPool::take() {
  {
    std::unique_lock lock(mutex_);
    if (!freed_.wait_for(lock, timeout_, [&] { return out_ < kMaxSessions; }))
      return refuse(Reason::gateway_error, "the ledger's database is busy",
                    "all " + std::to_string(kMaxSessions) + " reading sessions are in use");
    ++out_;
    if (!idle_.empty()) {
      auto session = std::move(idle_.back());
      idle_.pop_back();
      return Lease(this, std::move(session), false);
    }
  }
  auto made = make_();
  if (made) return Lease(this, std::move(*made), true);
  give_back(nullptr);
  return std::unexpected(std::move(made.error()));
}

void SessionPool::give_back(std::unique_ptr<Session> session) {
  {
    const std::scoped_lock lock(mutex_);
    --out_;
    if (session && session->is_usable() && idle_.size() < kMaxIdle) idle_.push_back(std::move(session));
  }
  freed_.notify_one();
}

void SessionPool::clear() {
  std::vector<std::unique_ptr<Session>> closing;
  const std::scoped_lock lock(mutex_);
  closing.swap(idle_);
}

}  // namespace penstock::store::sql
