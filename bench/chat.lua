-- The request is made once; no Lua runs for each of them.
wrk.method = "POST"
wrk.body = os.getenv("BODY")
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer " .. (os.getenv("KEY") or "none")

function done(summary, latency)
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  local good = summary.requests - summary.errors.status
  io.write(string.format("counted %d %d %d %d\n", good, summary.errors.status + lost, latency:percentile(50), latency:percentile(99)))
end
