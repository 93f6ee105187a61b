-- For wrk: POSTs the file $BODY with the "Name: value" lines of $HEADERS, and ends with one line of JSON.
local body = assert(io.open(os.getenv("BODY")))
wrk.method = "POST"
wrk.body = body:read("*a")
body:close()
for name, value in os.getenv("HEADERS"):gmatch("([^\n:]+): ([^\n]+)") do wrk.headers[name] = value end

function done(summary, latency)
  local e = summary.errors
  print(string.format('RESULT {"calls":%d,"seconds":%.6f,"p50_us":%.0f,"p99_us":%.0f,"failed":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout + e.status))
end
