-- Each request is another report, signed before the run.
local requests, next_one = {}, 0
function init()
  for line in io.lines(os.getenv("REPORTS")) do
    local signature, body = line:match("^(%S+) (.*)$")
    requests[#requests + 1] = wrk.format("POST", nil, { ["content-type"] = "application/json", ["stripe-signature"] = signature }, body)
  end
end

function request()
  next_one = next_one + 1
  return requests[(next_one - 1) % #requests + 1]
end

function done(summary, latency)
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("counted %d %d %d %d %d %d\n", summary.requests, summary.errors.status, lost, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
