--- What hostile and numerous clients cost, beside nginx with ngx_http_lua: two workers each.
--
-- Settings: ROUNDS (3), SECONDS (5) per measurement, HOT ("2000 10000" connections), HEADS (4000 clients).

local load = require "benches.support.load"
local peers = require "benches.support.peers"
local process = require "spec.support.process"
local socket = require "socket"

local ROUNDS, SECONDS = load.setting("ROUNDS", 3), load.setting("SECONDS", 5)
local HOT, HEADS = os.getenv("HOT") or "2000 10000", load.setting("HEADS", 4000)
local OTHERS = 16

local beside_nginx = {}

local function crowd(kind, peer, count)
  local clients = process.start(load.raised {
    "build/benches/crowd", kind, peer.url:match(":(%d+)/"), count,
  })
  beside_nginx.clients = clients
  assert(process.wait_until(function() return clients:output():find("READY") or clients:status() end, 90)
    and not clients:status(), clients:log())
  return clients
end

local function dismiss(clients)
  clients:signal("TERM")
  clients:wait(10)
  clients:destroy()
end

-- Both, started for this scenario alone.
local function with_peers(scenario)
  local list = peers.start { "ours", "nginx" }
  assert(#list == 2, "both servers are needed")
  scenario(list)
  peers.stop()
end

local function measure(list, connections, company)
  return load.rounds(list, ROUNDS, function(peer)
    local clients = company and company(peer)
    if clients then socket.sleep(1) end
    local result, message = load.wrk { url = peer.url, connections = connections, seconds = SECONDS }
    if clients then dismiss(clients) end
    return result, message
  end)
end

-- Normal clients beside others, and alone.
local function others_beside(title, kind, count)
  with_peers(function(list)
    local alone = measure(list, OTHERS)
    local beside = measure(list, OTHERS, function(peer) return crowd(kind, peer, count) end)
    load.print(title, list, beside)
    for _, peer in ipairs(list) do
      local name = peer.name
      print(("  %-34s %11.0f%% of the %.0f requests/s that the %d have alone, p99 %.2f ms"):format(name,
        100 * beside[name].rate / alone[name].rate, alone[name].rate, OTHERS, alone[name].p99))
    end
  end)
end

local function resident(pid)
  local status = process.slurp("/proc/" .. pid .. "/status") or ""
  return (tonumber(status:match("VmRSS:%s*(%d+)")) or 0) * 1024
end

local function memory(peer)
  local sum = 0
  for _, pid in ipairs(peer.process:children()) do sum = sum + resident(pid) end
  return resident(peer.process.pid), sum
end

local scenarios = {}

function scenarios.hot()
  for count in HOT:gmatch("%d+") do
    with_peers(function(list)
      load.print(count .. " hot connections", list, measure(list, math.tointeger(count)))
    end)
  end
end

function scenarios.posts()
  others_beside(OTHERS .. " clients beside 120 POSTs a second that announce 10 bytes and send none",
    "posts", 120)
end

function scenarios.bodies()
  for _, count in ipairs { 16, 500 } do
    others_beside(("%d clients beside %d with a form of 1,000 bytes, one a second"):format(OTHERS, count),
      "bodies", count)
  end
end

function scenarios.heads()
  with_peers(function(list)
    print(("\n%d clients with 15,000 bytes of a head each"):format(HEADS))
    print(("  %-34s %18s %18s"):format("bytes for each client", "in the supervisor", "in the workers"))
    for _, peer in ipairs(list) do
      local supervisor, workers = memory(peer)
      local clients = crowd("heads", peer, HEADS)
      socket.sleep(3)
      local supervisor_then, workers_then = memory(peer)
      print(("  %-34s %18.0f %18.0f"):format(peer.name,
        (supervisor_then - supervisor) / HEADS, (workers_then - workers) / HEADS))
      dismiss(clients)
    end
  end)
end

-- What each further byte of a head costs that is not complete.
function scenarios.bytes()
  with_peers(function(list)
    print "\n1,000 clients that send a head byte by byte, one a second"
    local costs = {}
    for _, peer in ipairs(list) do
      local clients = crowd("dribble", peer, 1000)
      local function sent(count)
        clients:signal("USR1")
        return process.wait_until(function()
          local numbers = {}
          for number in clients:output():gmatch("SENT (%d+)") do numbers[#numbers + 1] = tonumber(number) end
          return numbers[count]
        end)
      end
      socket.sleep(2)
      sent(1)
      local before = peer.process:cpu()
      socket.sleep(math.max(SECONDS, 5))
      costs[#costs + 1] = (peer.process:cpu() - before) * 1e6 / sent(2)
      print(("  %-34s %8.1f µs of processor time for each byte"):format(peer.name, costs[#costs]))
      dismiss(clients)
    end
    print(("  %-34s %8.2f"):format("ratio", costs[1] / costs[2]))
  end)
end

--- Runs the scenarios for whose names `wanted` is true: hot, posts, bodies, heads, bytes.
function beside_nginx.run(wanted)
  print(("\nbeside nginx, 2 workers each; medians of %d rounds of %g s"):format(ROUNDS, SECONDS))
  for _, name in ipairs { "hot", "posts", "bodies", "heads", "bytes" } do
    if wanted(name) then scenarios[name]() end
  end
end

--- Ends what was started.
function beside_nginx.stop()
  if beside_nginx.clients then beside_nginx.clients:destroy() end
  peers.stop()
end

return beside_nginx
