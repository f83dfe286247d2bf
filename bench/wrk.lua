-- With BENCH_TOKENS each request takes the next token from that file, from byte BENCH_FROM on, in place of `{token}` in the
-- cookie; without it the request is always the same and wrk makes it once.

local file = os.getenv("BENCH_TOKENS")

if file then
  local tokens, before, after

  function init(args)
    local wanted = wrk.headers["cookie"]
    wrk.headers["cookie"] = "{cookie}"
    before, after = wrk.format():match("^(.*){cookie}(.*)$")
    local front, back = wanted:match("^(.*){token}(.*)$")
    before, after = before .. front, back .. after
    tokens = io.open(file, "r")
    tokens:seek("set", tonumber(os.getenv("BENCH_FROM")))
  end

  function request()
    local token = tokens:read("*l")
    if not token then
      tokens:seek("set", 0)
      token = tokens:read("*l")
    end
    return before .. token .. after
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "failed": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)
  ))
end
