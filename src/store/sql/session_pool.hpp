#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "store/sql/session.hpp"

namespace penstock::store::sql {

/// Sessions for readers: made when needed, kept for the next, bounded. Thread-safe; outlives what it gave
/// out.
class SessionPool {
 public:
  static constexpr std::size_t kMaxSessions = 8;  ///< at once; one more waits
  static constexpr std::size_t kMaxIdle = 2;  ///< kept: each costs memory here, and a process in PostgreSQL

  using Make = std::function<Result<std::unique_ptr<Session>>()>;
  SessionPool(Make make, nanoseconds timeout) : make_(std::move(make)), timeout_(timeout) {}

  /// A session that is given back when it goes.
  class Lease {
   public:
    Lease(SessionPool* pool, std::unique_ptr<Session> session, bool is_fresh)
        : pool_(pool), session_(std::move(session)), is_fresh_(is_fresh) {}
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (session_) pool_->give_back(std::move(session_));
    }
    [[nodiscard]] Session& operator*() const { return *session_; }
    [[nodiscard]] Session* operator->() const { return session_.get(); }
    /// Made for this lease: if it fails, another will not do better.
    [[nodiscard]] bool is_fresh() const { return is_fresh_; }

   private:
    SessionPool* pool_;
    std::unique_ptr<Session> session_;
    bool is_fresh_;
  };

  /// Errors: none came free in time; a new one cannot be made.
  [[nodiscard]] Result<Lease> take();
  /// Closes what is idle.
  void clear();

 private:
  void give_back(std::unique_ptr<Session> session);

  Make make_;
  nanoseconds timeout_;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::size_t out_ = 0;
  std::vector<std::unique_ptr<Session>> idle_;
};

}  // namespace penstock::store::sql
