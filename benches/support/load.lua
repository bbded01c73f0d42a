--- Load by wrk, in rounds over several servers in turn, and tables of the medians.

local process = require "spec.support.process"
local socket = require "socket"

local load = {}

local here = "benches/support/"

--- Shell commands that raise the limit on descriptors as far as this user may.
load.RAISED = 'ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)";'

--- The arguments that run `argv` under that limit.
function load.raised(argv)
  return { "sh", "-c", load.RAISED .. ' exec "$@"', "sh", table.unpack(argv) }
end

--- Number from the environment, or the default.
function load.setting(name, default)
  return tonumber(os.getenv(name)) or default
end

--- One run of wrk.
-- @param options `url`; `connections`; `seconds`; `close` (a connection per request);
--   `script` (a wrk script that sets wrk.method, wrk.body …); `argument` (of the script)
-- @return {requests, rate (requests/s), p50, p99 (ms), errors (sockets), refusals (statuses from 400),
--   busy (seconds of processor time that wrk has used)}, or nil and a message
function load.wrk(options)
  local words = {
    load.RAISED, "wrk", "-t", math.min(2, options.connections), "-c", options.connections,
    "-d", ("%ds"):format(options.seconds), "--timeout 10s",
    "-s", options.script or here .. "report.wrk.lua",
  }
  if options.close then words[#words + 1] = "-H 'Connection: close'" end
  words[#words + 1] = process.quote(options.url)
  if options.argument then words[#words + 1] = "-- " .. process.quote(options.argument) end
  words[#words + 1] = "; code=$?; times; (exit $code)"
  local code, output = process.run(table.concat(words, " "))
  local requests, duration, p50, p99, errors, refusals =
    output:match("RESULT (%d+) (%d+) (%S+) (%S+) (%d+) (%d+)")
  if code ~= 0 or not requests then return nil, "wrk failed: " .. output end
  local user_minutes, user, system_minutes, system =
    output:match("\n(%d+)m([%d.]+)s (%d+)m([%d.]+)s\n*$")
  -- Of no request, wrk says that its latency is "nan".
  p50, p99 = tonumber(p50) or 0, tonumber(p99) or 0
  return {
    requests = tonumber(requests), rate = requests / duration * 1e6, p50 = p50 / 1e3, p99 = p99 / 1e3,
    errors = tonumber(errors), refusals = tonumber(refusals),
    busy = (user_minutes + system_minutes) * 60 + user + system,
  }
end

--- The median of a list of numbers.
function load.median(values)
  table.sort(values)
  local half = #values // 2
  if #values % 2 == 1 then return values[half + 1] end
  return (values[half] + values[half + 1]) / 2
end

--- Several rounds over several servers, in turn and each round from another start.
-- @param peers list of {name, url, process, …}
-- @param rounds how often each is measured
-- @param measure function (peer) → result of load.wrk
-- @return name → {rate, p99, cpu, client (medians; cpu and client: µs of processor time per request of the
--   server and of wrk), errors, refusals (sums),
--   spread (max/min of the rates)}
function load.rounds(peers, rounds, measure)
  local seen = {}
  for round = 1, rounds do
    for offset = 1, #peers do
      local peer = peers[(offset + round - 2) % #peers + 1]
      local before = peer.process:cpu()
      local result, message = measure(peer)
      if not result then error(peer.name .. ": " .. message) end
      local kept = seen[peer.name]
        or { rates = {}, p99s = {}, cpus = {}, clients = {}, errors = 0, refusals = 0 }
      seen[peer.name] = kept
      table.insert(kept.rates, result.rate)
      table.insert(kept.p99s, result.p99)
      table.insert(kept.cpus, (peer.process:cpu() - before) * 1e6 / math.max(1, result.requests))
      table.insert(kept.clients, result.busy * 1e6 / math.max(1, result.requests))
      kept.errors = kept.errors + result.errors
      kept.refusals = kept.refusals + result.refusals
      socket.sleep(0.05)
    end
  end
  for _, kept in pairs(seen) do
    kept.rate, kept.p99, kept.cpu = load.median(kept.rates), load.median(kept.p99s), load.median(kept.cpus)
    kept.client = load.median(kept.clients)
    kept.spread = kept.rates[#kept.rates] / kept.rates[1]
  end
  return seen
end

--- One line per peer: requests per second, p99, processor time per request of the server and of wrk, and the
-- first peer's rate as a multiple of this one's.
function load.print(title, peers, results)
  print("\n" .. title)
  print(("  %-34s %12s %8s %8s %8s %7s %7s"):format(
    "", "requests/s", "p99 ms", "cpu µs", "wrk µs", "ratio", "errors"))
  local ours = results[peers[1].name].rate
  for _, peer in ipairs(peers) do
    local result = results[peer.name]
    print(("  %-34s %12.0f %8.2f %7.1f %7.1f %7s %7d"):format(
      peer.name, result.rate, result.p99, result.cpu, result.client,
      (peer == peers[1] or result.rate == 0) and "" or ("%.2f"):format(ours / result.rate),
      result.errors + result.refusals))
  end
  io.stdout:flush()
end

return load
