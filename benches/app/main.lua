--- make bench-app: an application over PostgreSQL that fetches a row by its key, lists 20 rows and inserts
-- what a form says; gunicorn + Flask + psycopg and lua-http do the same. benches/app/run starts this with the
-- folder of the cluster's socket in PGHOST. Settings by environment variables:
--   ROUNDS (9), SECONDS (1) per measurement, CONNECTIONS ("16 64"), WORKERS (4) of each server

package.path = "./?.lua;" .. package.path

local answers = require "benches.support.answers"
local load = require "benches.support.load"
local markdown = require "benches.support.markdown"
local memory = require "benches.support.memory"
local peers = require "benches.support.peers"
local process = require "spec.support.process"
local requests = require "benches.app.requests"
local server = require "spec.support.server"

io.stdout:setvbuf("line")

local ROUNDS, SECONDS = load.setting("ROUNDS", 9), load.setting("SECONDS", 1)
local WORKERS = load.setting("WORKERS", 4)
local CONNECTIONS = os.getenv("CONNECTIONS") or "16 64"
local LUA = os.getenv("MOONBRIDGE_BENCH_LUA") or "5.4"

local function ours(port)
  return peers.spawn({ "lua" .. LUA, "benches/app/app.lua" }, port, {
    PORT = port, WORKERS = WORKERS, PGAPPNAME = "ours",
    LUA_PATH = server.root .. "/lua/?.lua;;", LUA_CPATH = server.root .. "/build/lua" .. LUA .. "/?.so;;",
  })
end

local function flask(port)
  return peers.spawn({
    peers.virtual_environment "benches/app/requirements.txt" .. "/bin/gunicorn",
    "--workers", WORKERS, "--worker-class", "gthread", "--threads", "4", "--keep-alive", "60",
    "--bind", "127.0.0.1:" .. port, "--log-level", "error", "--pythonpath", "benches/app",
    "flask_app:application",
  }, port, { PYTHONDONTWRITEBYTECODE = "1", PGAPPNAME = "flask" })
end

-- A process for each worker, all on one port. Some modules that lua-http needs are in Debian only for older
-- versions of Lua; they run under 5.3 as well.
local function lua_http(port)
  return peers.spawn({
    "sh", "-c", "for worker in $(seq " .. WORKERS .. "); do lua5.3 benches/app/lua_http.lua & done; wait",
  }, port, {
    PORT = port, PGAPPNAME = "lua_http", LUA_PATH = ";;/usr/share/lua/5.1/?.lua",
  })
end

local list = {
  { key = "ours", name = ("moonbridge, %d workers"):format(WORKERS), start = ours },
  { key = "flask", name = ("gunicorn + Flask, %d x 4 threads"):format(WORKERS), start = flask },
  { key = "lua_http", name = ("lua-http, %d processes"):format(WORKERS), start = lua_http },
}

-- Each peer answers for several products as it should.
local function check(peer)
  local connection = answers.connect(peer.port)
  for _, case in ipairs(requests) do
    for _ = 1, 5 do
      local id = requests.any()
      answers.ask(connection, {
        title = case.title, request = case.bytes(id), json = case.answer(id), status = case.status,
      }, 1)
    end
  end
  connection:close()
end

local function start()
  for _, peer in ipairs(list) do
    peer.port = server.free_port()
    peer.url = ("http://127.0.0.1:%d/"):format(peer.port)
    peer.process = peer.start(peer.port)
    local ok, message = pcall(check, peer)
    if not ok then error(("%s: %s\n%s"):format(peer.name, message, peer.process:log():sub(-2000)), 0) end
  end
end

-- MiB: the server's processes, and with the sessions of the database that serve them.
local function memories(peer)
  local own = memory.of(peer.process)
  local _, output = process.run(("psql --no-align --tuples-only --command=%s"):format(process.quote(
    ("SELECT pid FROM pg_stat_activity WHERE application_name = '%s'"):format(peer.key))))
  local sessions = 0
  for pid in output:gmatch("%d+") do sessions = sessions + memory.pss(pid) end
  return own / 2 ^ 20, (own + sessions) / 2 ^ 20
end

local rows = {}

local function add_row(title, cell)
  local row = { title }
  for index, peer in ipairs(list) do row[index + 1] = cell(peer) end
  rows[#rows + 1] = row
end

local function main()
  start()
  print(("medians of %d rounds of %g s in turn; ratio: ours to theirs"):format(ROUNDS, SECONDS))
  for _, case in ipairs(requests) do
    for count in CONNECTIONS:gmatch("%d+") do
      local title = ("%s, %s connections"):format(case.title, count)
      local results = load.rounds(list, ROUNDS, function(peer)
        return load.wrk {
          url = peer.url, connections = math.tointeger(count), seconds = SECONDS,
          script = "benches/app/request.wrk.lua", argument = case.key,
        }
      end)
      load.print(title, list, results)
      add_row(title, function(peer)
        local result = results[peer.name]
        return ("%s, p99 %.1f ms"):format(markdown.cell(result), result.p99)
      end)
    end
  end
  print(("\n%-36s %12s %30s"):format("memory (PSS), MiB", "its own", "with sessions of PostgreSQL"))
  for _, peer in ipairs(list) do
    peer.own, peer.all = memories(peer)
    print(("  %-34s %12.1f %30.1f"):format(peer.name, peer.own, peer.all))
  end
  add_row("memory (PSS) of all processes", function(peer) return ("%.1f MiB"):format(peer.own) end)
  add_row("… with their sessions in PostgreSQL", function(peer) return ("%.1f MiB"):format(peer.all) end)
  local head = { "requests/s (server's processor time for each)" }
  for index, peer in ipairs(list) do head[index + 1] = peer.name end
  print()
  markdown.print(head, rows)
  local settings = markdown.settings { "ROUNDS", "SECONDS", "CONNECTIONS", "WORKERS", "MOONBRIDGE_BENCH_LUA" }
  print("\n" .. markdown.circumstances(settings .. "make bench-app"))
end

local ok, message = xpcall(main, debug.traceback)
peers.stop()
if not ok then
  io.stderr:write(message, "\n")
  os.exit(1)
end
