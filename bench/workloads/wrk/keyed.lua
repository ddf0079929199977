-- As submit.lua, with an Idempotency-Key of its own in each request: `wrk … -s keyed.lua URL -- BODY_FILE SALT`.
-- The request is put together from three pieces: wrk.format would cost more than everything else here.
local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  local body = file:read("*a")
  file:close()
  local mark = "KVERN-BENCH-KEY"
  local whole = wrk.format("POST", nil, {["Content-Type"] = "application/json", ["Idempotency-Key"] = mark}, body)
  local first, last = whole:find(mark, 1, true)
  before, after = whole:sub(1, first - 1) .. args[2] .. "-" .. number .. "-", whole:sub(last + 1)
  count = 0
end

function request()
  count = count + 1
  return before .. count .. after
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'KVERN_BENCH {"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,'
      .. '"status_errors":%d,"connect_errors":%d,"read_errors":%d,"write_errors":%d,"timeouts":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
