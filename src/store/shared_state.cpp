#include "store/shared_state.hpp"

namespace penstock::store {

std::string_view to_string(SubjectKind kind) noexcept {
  switch (kind) {
    case SubjectKind::provider: return "provider";
    case SubjectKind::endpoint: return "endpoint";
    case SubjectKind::route: return "route";
    case SubjectKind::team: return "team";
    case SubjectKind::consumer: return "consumer";
    case SubjectKind::key: return "key";
  }
  return "subject";
}

}  // namespace penstock::store
