-- Events over several machines: what is said on one server, the pages of all hear, by way of Redis.
-- A `main` listener subscribes to Redis's channel, and publishes what comes on a topic.
--
--   redis-server &
--   PORT=8080 lua5.4 examples/events_redis.lua &      and  PORT=8081 lua5.4 examples/events_redis.lua
--   curl -N http://127.0.0.1:8080/events              and  curl -d text=hello http://127.0.0.1:8081/say
--
-- The argument says where Redis is: a port on a host (127.0.0.1:6379), or the path of a local socket.
-- (Debian: redis-server)

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"

local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = folder .. "wire/?.lua;" .. package.path
local redis = require "redis"

local ADDRESS = arg and arg[1] or "127.0.0.1:6379"
local CHANNEL, TOPIC = "lines", "lines"
local INTERRUPTION = "event: interruption\ndata:\n\n"

-- How long an answer of Redis may take, after how long without a message to ask whether it is there, and how
-- soon to connect again, in seconds.
local PATIENCE, SILENCE, PAUSE = 5, 15, 0.5

-- Numbers and sends a line in one step, so that all servers get lines in the order of their numbers. The time
-- makes an id new even if Redis has forgotten the last number.
local SAY = [[
  local id = redis.call("TIME")[1] .. "-" .. redis.call("INCR", KEYS[1] .. ":number")
  return redis.call("PUBLISH", KEYS[1], id .. " " .. ARGV[1])
]]

moonbridge.topic(TOPIC, { history = 100 })

local function publish(text, id)
  local lines = text:gsub("\r\n?", "\n"):gsub("\n", "\ndata: ")
  local message = ("id: %s\ndata: %s\n\n"):format(id, lines)
  local ok, problem = moonbridge.publish(TOPIC, message, { id = id })
  if not ok then io.stderr:write("a line is lost: ", problem, "\n") end
end

local told -- the problem with Redis that the log has; nil: there is none

-- Publishes what comes on the channel, until the connection breaks or the server shuts down, which throws
-- errors.
local function subscribe()
  local connection
  local asks = false
  connection = assert(redis.connect(ADDRESS, function(handle)
    while true do
      local ready, _, terminated = moonbridge_io.poll({ [handle] = true }, nil, SILENCE, true)
      if terminated then error("the server shuts down", 0) end
      if ready then break end
      if asks then error("Redis does not answer", 0) end
      asks = true
      connection:send "PING"
    end
    asks = false
  end))
  connection:send("SUBSCRIBE", CHANNEL)
  while true do
    local answer = assert(connection:receive())
    if answer[1] == "message" then
      local id, text = answer[3]:match "^(%S+) (.*)$"
      if id then publish(text, id) end
    elseif answer[1] == "subscribe" and told then
      -- Pages may have missed lines, which Redis does not keep.
      moonbridge.publish(TOPIC, INTERRUPTION)
      told = nil
    end
  end
end

local function listen()
  while true do
    local _, problem = pcall(subscribe)
    local _, _, terminated = moonbridge_io.poll(nil, nil, PAUSE, true)
    if terminated then return true end
    problem = tostring(problem)
    if problem ~= told then io.stderr:write("no messages from Redis: ", problem, "\n") end
    told = problem
  end
end

local connection -- of this worker

local function ask(...)
  if connection and not connection:is_alive() then
    connection:close()
    connection = nil
  end
  connection = connection or assert(redis.connect(ADDRESS, function(handle)
    local ready = moonbridge_io.poll({ [handle] = true }, nil, PATIENCE)
    if not ready then error("Redis does not answer", 0) end
  end))
  return assert(connection:ask(...))
end

local function say(request)
  local ok, problem = pcall(ask, "EVAL", SAY, 1, CHANNEL, request.post_params.text or "")
  if ok then return request:send("204 No Content") end
  connection = nil
  io.stderr:write("a line was not sent: ", tostring(problem), "\n")
  request:send("503 Service Unavailable", "text/plain", "Redis cannot be reached.\n")
end

moonbridge.listen { { proto = "main", name = "subscriber" }, connect = listen }
moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(os.getenv "PORT") or 8080 },
  connect = http.generate_handler(function(request)
    if request.path == "events" then
      request:send_status("200 OK")
      request:send_header("Content-Type", "text/event-stream")
      request:send_header("X-Accel-Buffering", "no") -- for nginx in front
      return request:hold {
        topics = TOPIC, heartbeat = { 15, ":\n\n" },
        last_id = request.headers_value["Last-Event-ID"], on_gap = INTERRUPTION,
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
