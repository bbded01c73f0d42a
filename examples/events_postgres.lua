-- Events over several machines: what is said on one server, the pages of all hear, by way of PostgreSQL,
-- which also keeps it: nothing is lost while a server or PostgreSQL is away.
-- A `main` listener listens to PostgreSQL's notifications, and publishes the new lines of a table on a topic.
--
--   PORT=8080 lua5.4 examples/events_postgres.lua &   and  PORT=8081 lua5.4 examples/events_postgres.lua
--   curl -N http://127.0.0.1:8080/events              and  curl -d text=hello http://127.0.0.1:8081/say
--
-- PGHOST (the folder of the local socket), PGUSER and PGDATABASE say how to connect; by default it is the
-- database with your name on this machine. The table `line` is created there. (Debian: postgresql)

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"

local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = folder .. "wire/?.lua;" .. package.path
local postgres = require "postgres"

local HOST = os.getenv "PGHOST" or "/var/run/postgresql"
local USER = os.getenv "PGUSER" or os.getenv "USER" or "postgres"
local DATABASE = os.getenv "PGDATABASE" or USER

-- How long an answer of PostgreSQL may take, after how long without a notification to ask whether it is
-- there, and how soon to connect again, in seconds.
local PATIENCE, SILENCE, PAUSE = 5, 15, 0.5

local TOPIC, HISTORY = "lines", 100

-- Who adds a line holds a lock until it can be seen, so that lines appear in the order of their numbers.
local PREPARE = {
  "SELECT pg_advisory_lock(20)",
  [[CREATE TABLE IF NOT EXISTS line
      (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)]],
  "SELECT pg_advisory_unlock(20)",
  "LISTEN line",
}
local SAY = [[
  WITH turn AS (SELECT pg_advisory_xact_lock(20)),
       added AS (INSERT INTO line (text) SELECT $1 FROM turn RETURNING id)
  SELECT pg_notify('line', id::text) FROM added
]]
local BEGIN = "SELECT coalesce(max(id), 0) - $1 FROM line"
local NEXT = "SELECT id, text FROM line WHERE id > $1 ORDER BY id LIMIT 1000"

moonbridge.topic(TOPIC, { history = HISTORY })

local last -- the last line that was published

local function publish_new(connection)
  local rows
  repeat
    rows = assert(connection:query(NEXT, last))
    for _, row in ipairs(rows) do
      local id, text = table.unpack(row)
      local lines = text:gsub("\r\n?", "\n"):gsub("\n", "\ndata: ")
      assert(moonbridge.publish(TOPIC, ("id: %s\ndata: %s\n\n"):format(id, lines), { id = id }))
      last = id
    end
  until #rows == 0
end

local told -- the problem with PostgreSQL that the log has; nil: there is none

-- Publishes what there is and what comes, until the connection breaks or the server shuts down, which throws
-- errors.
local function listen_once()
  local connection
  local asks = false
  connection = assert(postgres.connect(HOST, USER, DATABASE, function(handle)
    while true do
      local ready, _, terminated = moonbridge_io.poll({ [handle] = true }, nil, SILENCE, true)
      if terminated then error("the server shuts down", 0) end
      if ready then break end
      if asks or not connection then error("PostgreSQL does not answer", 0) end
      asks = true
      connection:ping()
    end
    asks = false
  end))
  for _, statement in ipairs(PREPARE) do assert(connection:query(statement)) end
  last = last or assert(connection:query(BEGIN, HISTORY))[1][1]
  while true do
    publish_new(connection)
    told = nil
    connection:notification()
  end
end

local function listen()
  while true do
    local _, problem = pcall(listen_once)
    local _, _, terminated = moonbridge_io.poll(nil, nil, PAUSE, true)
    if terminated then return true end
    problem = tostring(problem)
    if problem ~= told then io.stderr:write("no lines from PostgreSQL: ", problem, "\n") end
    told = problem
  end
end

local connection -- of this worker

local function query(...)
  if connection and not connection:is_alive() then
    connection:close()
    connection = nil
  end
  connection = connection or assert(postgres.connect(HOST, USER, DATABASE, function(handle)
    local ready = moonbridge_io.poll({ [handle] = true }, nil, PATIENCE)
    if not ready then error("PostgreSQL does not answer", 0) end
  end))
  return assert(connection:query(...))
end

local function say(request)
  local ok, problem = pcall(query, SAY, request.post_params.text or "")
  if ok then return request:send("204 No Content") end
  connection = nil
  io.stderr:write("a line was not added: ", tostring(problem), "\n")
  request:send("503 Service Unavailable", "text/plain", "The line could not be added.\n")
end

moonbridge.listen { { proto = "main", name = "listener" }, connect = listen }
moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") or 8080 },
  connect = http.generate_handler(function(request)
    if request.path == "events" then
      request:send_status("200 OK")
      request:send_header("Content-Type", "text/event-stream")
      request:send_header("X-Accel-Buffering", "no") -- for nginx in front
      return request:hold {
        topics = TOPIC, heartbeat = { 15, ":\n\n" },
        last_id = request.headers_value["Last-Event-ID"], on_gap = "event: gap\ndata:\n\n",
      }
    elseif request.path == "say" and request.method == "POST" then
      say(request)
    else
      request:send("404 Not Found", "text/plain", "There is nothing here.\n")
    end
    return true
  end),
}
moonbridge.run()
