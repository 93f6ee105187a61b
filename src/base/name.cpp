#include "base/name.hpp"

#include <mutex>
#include <set>

namespace penstock {

const std::string Name::kEmpty;

Name::Name(std::string_view text) {
  if (text.empty()) return;
  static std::mutex mutex;
  static std::set<std::string, std::less<>> names;  // its nodes never move
  const std::scoped_lock lock(mutex);
  auto found = names.find(text);
  if (found == names.end()) found = names.emplace(text).first;
  text_ = &*found;
}

}  // namespace penstock
