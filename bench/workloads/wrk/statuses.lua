-- Posts one body again and again and counts the answers by status: `wrk … -s statuses.lua URL -- BODY_FILE`.
-- Slower than submit.lua, so it only names the errors that a measured run has met.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = file:read("*a")
  file:close()
  counts = {}
end

function response(status)
  counts[tostring(status)] = (counts[tostring(status)] or 0) + 1
end

function done()
  local total, parts = {}, {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do
      total[status] = (total[status] or 0) + count
    end
  end
  for status, count in pairs(total) do
    table.insert(parts, string.format('"%s":%d', status, count))
  end
  io.write("KVERN_BENCH {" .. table.concat(parts, ",") .. "}\n")
end
