#include "gateway/worker.hpp"

namespace penstock::gateway {
namespace {

bool same_destination(const http::Upstream& a, const http::Upstream& b) {
  // A TLS context is made anew at every reload (its CA file may have changed), so TLS pools always start
  // empty.
  return a.host == b.host && a.port == b.port && a.allow_private == b.allow_private && a.tls == b.tls &&
         a.connect_timeout == b.connect_timeout;
}

}  // namespace

void Worker::adopt(std::shared_ptr<const Snapshot> next, std::shared_ptr<const store::Directory> keys) {
  auto made = std::make_shared<Generation>();
  made->number = generation ? generation->number + 1 : 1;
  for (const ProviderPlan& provider : next->providers) {
    std::shared_ptr<http::UpstreamPool> pool;
    if (generation) {
      const auto& known = generation->snapshot->provider_by_name;
      const auto before = known.find(provider.config->name);
      if (before != known.end() && same_destination(before->second->upstream, provider.upstream))
        pool = generation->pools[before->second->index];
    }
    if (!pool) pool = std::make_shared<http::UpstreamPool>(io, watch, provider.upstream);
    made->pools.push_back(std::move(pool));
  }
  made->snapshot = std::move(next);
  made->directory = std::move(keys);
  generation = std::move(made);
}

}  // namespace penstock::gateway
