// The journal's own thread: syncs, makes spare segments, answers those who wait for a sync.

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "store/journal/journal.hpp"

namespace penstock::store {
namespace {

namespace asio = boost::asio;
using Timer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                         asio::wait_traits<std::chrono::steady_clock>, Executor>;

constexpr seconds kSpaceRetry{1};

/// What a coroutine waits for. Only its own thread touches it.
struct Signal {
  Timer* timer = nullptr;  // null: the coroutine is gone
  bool is_safe = false;
};

}  // namespace

/// In the frame of the coroutine that waits, so that nothing of it stays when the coroutine is destroyed.
struct Journal::Waiter {
  Waiter(Journal& journal, Appended record, Executor executor)
      : owner(journal),
        at(record),
        timer(executor),
        signal(std::make_shared<Signal>(Signal{.timer = &timer})) {
    const std::scoped_lock lock(owner.mutex_);
    place = owner.waiters_.insert(owner.waiters_.end(), this);
    owner.dirty_.store(true, std::memory_order_relaxed);
  }
  ~Waiter() {
    signal->timer = nullptr;
    const std::scoped_lock lock(owner.mutex_);
    if (is_listed) owner.waiters_.erase(place);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  Journal& owner;
  const Appended at;
  Timer timer;
  std::shared_ptr<Signal> signal;
  std::list<Waiter*>::iterator place;
  bool is_listed = true;  // under the journal's lock
};

Awaitable<bool> Journal::synced(Appended record) {
  if (options_.sync == SyncMode::interval) co_return true;
  const Executor executor = co_await asio::this_coro::executor;
  Waiter waiter(*this, record, executor);
  wake_.notify_one();
  // Ended early by the answer, which comes over this thread's own queue.
  waiter.timer.expires_after(options_.sync_wait);
  boost::system::error_code ended;
  co_await waiter.timer.async_wait(asio::redirect_error(asio::use_awaitable_t<Executor>(), ended));
  co_return waiter.signal->is_safe;
}

void Journal::mark_dirty() noexcept {
  if (dirty_.load(std::memory_order_acquire)) return;
  {
    const std::scoped_lock lock(mutex_);  // the thread is before its look at the flag, or waits already
    dirty_.store(true, std::memory_order_relaxed);
  }
  wake_.notify_one();
}

void Journal::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto has_work = [this] { return stopping_ || dirty_.load(std::memory_order_relaxed); };
    if (space_error_.empty())
      wake_.wait(lock, has_work);
    else
      wake_.wait_for(lock, kSpaceRetry, has_work);
    // Those who wait for the disk share a sync with all that came while the last one ran; the others can
    // wait.
    if (waiters_.empty())
      wake_.wait_for(lock, options_.sync_interval, [this] { return stopping_ || !waiters_.empty(); });
    dirty_.store(false, std::memory_order_relaxed);
    const bool is_last = stopping_;
    lock.unlock();
    tick();
    lock.lock();
    answer_waiters();
    if (is_last) return;
    if (on_records_) {
      const auto wake = on_records_;
      lock.unlock();
      wake();
      lock.lock();
    }
  }
}

void Journal::tick() {
  std::string space_error;
  for (Lane& lane : lanes_) {
    if (shared_.failed) return;
    if (lane.needs_spare())
      if (const auto made = lane.make_spare(); !made) space_error = made.error().detail;
    const auto began = std::chrono::steady_clock::now();
    const auto synced = lane.sync();
    if (!synced) {
      fail(synced.error());
      return;
    }
    if (*synced && options_.sync_seconds != nullptr)
      options_.sync_seconds->observe(std::chrono::steady_clock::now() - began);
  }
  {
    const std::scoped_lock lock(mutex_);
    space_error_ = std::move(space_error);
  }
  judge_backlog();
}

void Journal::answer_waiters() {
  for (auto each = waiters_.begin(); each != waiters_.end();) {
    Waiter& waiter = **each;
    const bool is_safe = lanes_[waiter.at.lane].synced() >= waiter.at.end;
    if (!is_safe && !shared_.failed && !stopping_) {
      ++each;
      continue;
    }
    asio::post(waiter.timer.get_executor(), [signal = waiter.signal, is_safe] {
      signal->is_safe = is_safe;
      if (signal->timer != nullptr) signal->timer->cancel();
    });
    waiter.is_listed = false;
    each = waiters_.erase(each);
  }
}

}  // namespace penstock::store
