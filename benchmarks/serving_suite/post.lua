-- One request again and again, and at the end one line of JSON with what was measured.
local file = io.open(os.getenv("BODY_FILE"), "rb")
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
wrk.body = file:read("*a")
file:close()

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"rps": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    (summary.requests - errors.status) / (summary.duration / 1e6),
    latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
