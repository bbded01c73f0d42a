-- Nobody keeps others waiting: neither those who are there already, nor those who come in crowds.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

-- One worker. Each response tells how many requests were served before it. /stop halts the worker.
local SERVER = [[
  local turns = 0
  require "moonbridge".listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    min_fork = 1, max_fork = 1,
    connect = require "moonbridge_http".generate_handler(function(request)
      if request.path == "stop" then os.execute("kill -STOP $PPID") end
      request:send_status("200 OK")
      request:send_data(turns)
      turns = turns + 1
      return true
    end),
  }
  require "moonbridge".run()
]]

local GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
local LAST = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

local function turn(connection) return tonumber(connection:response().body) end

-- Connections that have been served already.
local function kept(s, count)
  local connections = {}
  for index = 1, count do
    connections[index] = s:connect()
    assert.equal(200, connections[index]:request("/").status)
  end
  -- The supervisor knows of them now.
  socket.sleep(0.05)
  return connections
end

-- What `arrive` sends is there at once: the worker sleeps meanwhile, and the supervisor until all is over.
local function at_once(s, arrive, collect)
  local worker = s:workers()[1]
  s:signal("STOP")
  process.kill(worker, "STOP")
  arrive()
  process.kill(worker, "CONT")
  local ok, message = pcall(collect)
  s:signal("CONT")
  assert(ok, message)
end

describe("hot connections", function()
  after_each(server.cleanup)

  it("are served by their worker alone: the supervisor has no part in a request", function()
    local s = server.start(SERVER)
    local connections = kept(s, 4)
    at_once(s, function() end, function()
      for _ = 1, 100 do
        for _, c in ipairs(connections) do
          c:send(GET)
          assert.equal(200, c:response().status)
        end
      end
    end)
  end)

  it("do not wait for a crowd of new ones", function()
    local s = server.start(SERVER)
    local hot, new, turns = kept(s, 4), {}, {}
    at_once(s, function()
      for index = 1, 100 do
        new[index] = s:connect()
        new[index]:send(LAST)
      end
      for _, c in ipairs(hot) do c:send(GET) end
    end, function()
      for index, c in ipairs(hot) do turns[index] = turn(c) end
      for _, c in ipairs(new) do turn(c) end
    end)
    for _, number in ipairs(turns) do assert.is_true(number < 30, table.concat(turns, " ")) end
  end)

  it("do not keep new ones waiting, though they have requests without end", function()
    local s = server.start(SERVER)
    local hot, new, turns = kept(s, 4), {}, {}
    at_once(s, function()
      for _, c in ipairs(hot) do c:send(GET:rep(100)) end
      for index = 1, 20 do
        new[index] = s:connect()
        new[index]:send(LAST)
      end
    end, function()
      for index, c in ipairs(new) do turns[index] = turn(c) end
      for _ = 1, 100 do
        for _, c in ipairs(hot) do turn(c) end
      end
    end)
    for _, number in ipairs(turns) do assert.is_true(number < 200, table.concat(turns, " ")) end
  end)
end)

describe("a client that pipelines without end", function()
  after_each(server.cleanup)

  it("keeps neither a cold connection waiting nor one whose head comes in pieces", function()
    local s = server.start(SERVER)
    local cold = kept(s, 1)[1]
    socket.sleep(1.4)
    local half, greedy = s:connect(), s:connect()
    half:send("GET / HT")
    socket.sleep(0.05)
    -- What the others send comes while its first request is served.
    local worker = s:workers()[1]
    greedy:send("GET /stop HTTP/1.1\r\nHost: x\r\n\r\n" .. GET:rep(1000))
    assert.truthy(process.wait_until(function()
      return process.slurp("/proc/" .. worker .. "/stat"):find(") T ", 1, true)
    end))
    cold:send(GET)
    half:send("TP/1.1\r\nHost: x\r\n\r\n")
    socket.sleep(0.1)
    process.kill(worker, "CONT")
    local turns = { turn(cold), turn(half) }
    for _ = 1, 1001 do turn(greedy) end
    for _, number in ipairs(turns) do assert.is_true(number < 50, table.concat(turns, " ")) end
  end)
end)

describe("new connections without end", function()
  after_each(server.cleanup)

  for _, result in ipairs { "true", "false" } do
    it("do not keep the server from ending: handlers return " .. result, function()
      local s = server.start { globals = { RESULT = result }, script = [[
        require "moonbridge".listen {
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          min_fork = 1, max_fork = 1,
          connect = function(socket)
            require "moonbridge_io".poll(nil, nil, 0.02)
            socket:write("served")
            return RESULT == "true"
          end,
        }
        require "moonbridge".run()
      ]] }
      local waiting, before = {}, {}
      for index = 1, 10 do waiting[index] = s:connect() before[index] = waiting[index] end
      s:signal("TERM")
      local ended = process.wait_until(function()
        if #waiting < 500 and server.listening(s.port) then
          pcall(function() for _ = 1, 5 do waiting[#waiting + 1] = s:connect() end end)
        end
        return s:status()
      end)
      assert.equal(0, ended)
      -- The backlogs are served as they were then.
      for index, c in ipairs(before) do assert.equal("served", (c:read_all()), index) end
    end)
  end
end)
