-- socket:park: a handler that has nothing to do until its client speaks gives its process back.

local memory = require "spec.support.memory"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

-- A pool of `workers` processes that serves CONNECT (Lua text of a `connect` function).
local SERVER = [[
  moonbridge = require "moonbridge"
  moonbridge_io = require "moonbridge_io"
  http = require "moonbridge_http"
  connect = assert(load("return " .. CONNECT, "=connect"))()
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "local", path = PATH },
    pre_fork = 1, min_fork = WORKERS, max_fork = WORKERS,
    connect = connect,
  }
  moonbridge.run()
]]

local function start(connect, workers, more)
  local path = process.scratch("socket")
  local globals = { CONNECT = connect, WORKERS = workers or 1, PATH = path }
  local s = server.start { script = SERVER, globals = globals, env = more }
  s.path = path
  return s
end

-- Answers each line with why it was called, and parks for PARK seconds (nil: no timeout).
local LINES = [[function(socket)
  local wakeup = socket.wakeup
  if wakeup == "input" then
    local line, status = socket:read_nb(1024, "\n")
    if not line or status == "eof" then return socket:close() end
    if line == "pid\n" then line = moonbridge_io.getpid() .. "\n" end
    if line == "sleep\n" then moonbridge_io.poll(nil, nil, 3) end
    socket:write("input ", line)
  else
    socket:write(tostring(wakeup), "\n")
  end
  socket:flush()
  if wakeup == "shutdown" then return true end
  return socket:park(tonumber(os.getenv "PARK"))
end]]

local function line(connection, timeout)
  return (assert(connection:read_until("\n", timeout)))
end

describe("socket:park", function()
  after_each(server.cleanup)

  it("calls connect again with the same socket when there is input", function()
    local c = start(LINES):connect()
    assert.equal("nil\n", line(c))
    for index = 1, 3 do
      c:send(index .. "\n")
      assert.equal("input " .. index .. "\n", line(c))
    end
  end)

  it("occupies no process: one worker serves many parked connections", function()
    local s = start(LINES)
    local connections = {}
    for index = 1, 50 do connections[index] = s:connect() end
    for _, c in ipairs(connections) do assert.equal("nil\n", line(c)) end
    for index = 50, 1, -1 do
      connections[index]:send("x\n")
      assert.equal("input x\n", line(connections[index]))
    end
  end)

  it("works on local sockets", function()
    local s = start(LINES)
    local c = s:connect { path = s.path }
    assert.equal("nil\n", line(c))
    c:send("x\n")
    assert.equal("input x\n", line(c))
  end)

  it("calls connect when the time is up, in the worker and in the supervisor", function()
    for _, seconds in ipairs { 0.3, 1.5 } do
      local s = start(LINES, 1, { PARK = seconds })
      local begun = socket.gettime()
      local c = s:connect()
      assert.equal("nil\n", line(c))
      assert.equal("timeout\n", line(c))
      local taken = socket.gettime() - begun
      assert.is_true(taken > seconds - 0.02 and taken < seconds + 20, "took " .. taken)
    end
  end)

  it("keeps the time while the worker is busy otherwise", function()
    local s = start(LINES, 2, { PARK = 0.3 })
    local c, busy = s:connect(), s:connect()
    assert.equal("nil\n", line(c))
    assert.equal("nil\n", line(busy))
    socket.sleep(0.1)
    busy:send("sleep\n")
    assert.equal("timeout\n", line(c))
    assert.is_true(busy:silent(0), "it came when the worker had time")
  end)

  it("calls connect when the server shuts down, whether the connection is hot or cold", function()
    local s = start(LINES)
    local cold = s:connect()
    line(cold)
    socket.sleep(1.3)
    local hot = s:connect()
    line(hot)
    s:signal("TERM")
    for _, c in ipairs { cold, hot } do
      local text, ending = c:read_all()
      assert.same({ "shutdown\n", "closed" }, { text, ending })
    end
    assert.equal(0, s:wait())
  end)

  it("keeps no server that shuts down, though the handler parks again", function()
    local s = start [[function(socket) return socket:park() end]]
    local cold = s:connect()
    socket.sleep(1.3)
    local hot = s:connect()
    socket.sleep(0.05)
    assert.equal(0, s:stop())
    for _, c in ipairs { cold, hot } do
      local text, ending = c:read_all()
      assert.same({ "", "closed" }, { text, ending })
    end
  end)

  it("tells a handler of its client's end", function()
    local s = start [[function(socket)
      if not socket.wakeup then return socket:park() end
      local data, status = socket:read_nb(10)
      socket:write(socket.wakeup, tostring(data), status)
      return true
    end]]
    for _, pause in ipairs { 0.05, 1.3 } do
      local c = s:connect()
      socket.sleep(pause)
      c:finish()
      local text, ending = c:read_all()
      assert.same({ "inputeof", "closed" }, { text, ending })
    end
  end)

  it("keeps input that was received and not read", function()
    local s = start [[function(socket)
      if not socket.wakeup then socket:read(1) return socket:park() end
      socket:write(socket.wakeup, " ", (socket:read(5)))
      return true
    end]]
    local c = s:connect()
    c:send("123456")
    assert.equal("input 23456", (c:read_all()))
  end)

  it("sends output that was written and not flushed", function()
    local s = start [[function(socket)
      if not socket.wakeup then socket:write("hello") return socket:park() end
      return true
    end]]
    assert.equal("hello", s:connect():read(5))
  end)

  it("keeps fields of the user's, and the worker that knows them", function()
    local s = start([[function(socket)
      if socket.wakeup == "shutdown" then return true end
      if socket.wakeup then socket:read(1) end
      socket.count = (socket.count or 0) + 1
      socket:write(socket.count, " ", moonbridge_io.getpid(), "\n")
      return socket:park()
    end]], 3)
    local c = s:connect()
    local _, pid = line(c):match("(%d+) (%d+)")
    for index = 2, 4 do
      if index == 4 then socket.sleep(1.3) end
      c:send("x")
      assert.equal(index .. " " .. pid .. "\n", line(c))
    end
  end)

  it("ends the connection when the handler closes it, resets it or throws", function()
    local s = start [[function(socket)
      if not socket.wakeup then return socket:park() end
      local what = socket:read(1)
      if what == "c" then socket:park() socket:close() end
      if what == "r" then socket:park() socket:reset() end
      if what == "e" then socket:park() error("oops") end
      return true
    end]]
    for what, expected in pairs { c = "closed", r = "reset", e = "reset", n = "closed" } do
      local c = s:connect()
      socket.sleep(0.05)
      c:send(what)
      local _, ending = c:read_all()
      assert.equal(expected, ending, what)
    end
    assert.truthy(s:wait_log("oops"))
  end)

  it("keeps the connection though the worker ends with it", function()
    local s = start [[function(socket)
      if socket.wakeup == "shutdown" then return true end
      if socket.wakeup then socket:read(1) end
      socket:write(moonbridge_io.getpid(), "\n")
      socket:park()
      return false
    end]]
    local c = s:connect()
    local first = line(c)
    c:send("x")
    assert.are_not.equal(first, line(c))
  end)

  it("returns false for a socket that the handler was not called for", function()
    local s = start [[function(socket)
      if not socket.remote_ip then return true end
      local other = moonbridge_io.localconnect(PATH)
      socket:write(tostring(other and other:park()))
      return true
    end]]
    assert.equal("false", (s:raw("")))
  end)

  it("returns false where nobody supervises", function()
    local _, output = server.run_script [[
      local moonbridge_io = require "moonbridge_io"
      require "moonbridge"
      local listener = assert(moonbridge_io.tcplisten("127.0.0.1", PORT))
      local client = assert(moonbridge_io.tcpconnect("127.0.0.1", PORT))
      print(client:park(), client:park(1), client.wakeup)
    ]]
    assert.equal("false\tfalse\tnil\n", output)
  end)

  it("keeps no memory for the next message of each of many connections", function()
    local s = start [[http.generate_handler(http.websocket { message = function() end, heartbeat = false })]]
    local handshake = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    local clients = {}
    local before
    for index = 1, 500 do
      clients[index] = s:connect()
      clients[index]:send(handshake)
      assert.matches("^HTTP/1.1 101", clients[index]:read_until "\r\n\r\n")
      if index == 100 then before = memory.pss(s:workers()[1]) end
    end
    local each = (memory.pss(s:workers()[1]) - before) / 400
    assert.is_true(each < 3072, each .. " bytes for each connection")
  end)

  it("collects what Lua has of a crowd of connections that has left, without another one", function()
    local s = start [[function(socket)
      local line, status = socket:read_nb(1024, "\n")
      if status == "eof" then return socket:close() end
      if line == "last\n" then setmetatable({}, { __gc = function() io.stderr:write("collected\n") end }) end
      socket:write("hello\n")
      return socket:park()
    end]]
    local clients = {}
    for index = 1, 300 do
      clients[index] = s:connect()
      assert(clients[index]:send(index == 300 and "last\n" or "first\n"))
    end
    for _, client in ipairs(clients) do assert.equal("hello\n", client:read(6)) end
    for _, client in ipairs(clients) do client:close() end
    assert.truthy(s:wait_log "collected")
  end)

  it("throws for a timeout that is no time", function()
    local s = start [[function(socket)
      for _, time in ipairs { -1, 0/0, "x", true } do
        local ok, message = pcall(socket.park, socket, time)
        socket:write(tostring(ok), message:match("non%-negative number of seconds"), " ")
      end
      return true
    end]]
    local text = s:raw("")
    assert.equal(("falsenon-negative number of seconds "):rep(4), text)
  end)
end)

describe("docs/reference/parking.md", function()
  after_each(server.cleanup)

  it("has an example that serves lines which come in pieces", function()
    local text = process.slurp("docs/reference/parking.md")
    local program = text:match("```lua\n(.-)\n```")
    local s = server.start((program:gsub("7007", "PORT")))
    local slow, c = s:connect(), s:connect()
    slow:send("wo")
    socket.sleep(0.05)
    c:send("hello\nagain\n")
    assert.equal("You said: hello\nYou said: again\n", (c:read(32)))
    slow:send("rld\n")
    assert.equal("You said: world\n", line(slow))
    assert.equal(0, s:stop())
    assert.equal("bye\n", (slow:read_all()))
  end)
end)

describe("socket:linger", function()
  after_each(server.cleanup)

  local BYE = [[function(socket)
    socket:write("bye")
    local lingers = socket:linger(tonumber(os.getenv "LINGER"))
    if not lingers then socket:close() end
    return true
  end]]

  it("waits for the client's end without a worker", function()
    local s = start(BYE)
    local late = {}
    for index = 1, 10 do
      late[index] = s:connect()
      late[index]:send("not read by anyone")
      assert.equal("bye", late[index]:read(3))
    end
    local begun = socket.gettime()
    assert.equal("bye", (s:raw("")))
    assert.is_true(socket.gettime() - begun < 4) -- and not when they have lingered
    for _, c in ipairs(late) do
      c:send(("x"):rep(1000))
      local _, ending = c:read_all()
      assert.equal("closed", ending)
    end
  end)

  it("resets a client that does not close in time", function()
    local s = start(BYE, 1, { LINGER = 0.3 })
    local c = s:connect()
    assert.equal("bye", c:read(3))
    socket.sleep(0.5)
    assert.truthy(process.wait_until(function() return not c:send("x") end))
  end)

  it("closes other connections than TCP's", function()
    local s = start(BYE)
    local c = s:connect { path = s.path }
    assert.equal("bye", (c:read_all()))
  end)
end)
