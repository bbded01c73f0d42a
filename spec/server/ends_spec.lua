-- A connection that was taken from a busy worker ends when it is ended: that worker holds a duplicate
-- of it until its handler returns, which must not matter.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local tables = require "spec.support.tables"

local HANG = 5 -- seconds for which one worker is busy

-- The path says what the handler does.
local HTTP = [[
  local moonbridge, mio = require "moonbridge", require "moonbridge_io"
  local http = require "moonbridge_http"
  moonbridge.listen {
    LISTENER,
    pre_fork = 2, min_fork = 2, max_fork = 2,
    connect = http.generate_handler({ idle_timeout = 60, drain_timeout = DRAIN }, function(request)
      local path = request.path
      if path == "hang" then mio.poll(nil, nil, HANG) end
      if path == "die" then
        local gate = io.open(GATE, "w")
        gate:write(mio.getpid())
        gate:close()
        mio.poll(nil, nil, HANG)
      end
      request:send_status("200 OK")
      request:send_data(mio.getpid(), " ")
      if path == "reset" then
        request.socket:reset()
        return true
      elseif path == "broken" then
        request:send_data(("x"):rep(200000))
        request:flush()
        error("oops")
      end
      return true
    end),
  }
  moonbridge.run()
]]

local PLAIN = [[
  local moonbridge, mio = require "moonbridge", require "moonbridge_io"
  moonbridge.listen {
    LISTENER,
    pre_fork = 2, min_fork = 2, max_fork = 2,
    connect = function(socket)
      local line = socket.wakeup ~= "timeout" and socket:read_nb(100, "\n")
      if line == "hang\n" then mio.poll(nil, nil, HANG) end
      if line == "close\n" then return socket:close() end
      if line == "reset\n" then socket:reset() return true end
      if line == "late\n" then socket:park(0.1) return true end
      if socket.wakeup == "timeout" then return true end
      if line then socket:write(mio.getpid(), "\n") socket:flush() else return true end
      socket:park()
      return true
    end,
  }
  moonbridge.run()
]]

local function start(script, more)
  local globals = tables.with({ HANG = HANG, DRAIN = 1, GATE = process.scratch("gate") }, more)
  local path = globals.PATH
  local listener = path and '{ proto = "local", path = PATH }'
    or '{ proto = "tcp", host = "127.0.0.1", port = PORT }'
  return server.start {
    script = script:gsub("LISTENER", function() return listener end), globals = globals,
    ready = path and function(self)
      return lfs.attributes(path) and #self.process:children() > 0
    end or nil,
  }, globals
end

-- Two kept connections in one worker, which is busy for one of them; the other one is returned.
local function taken_over(s, ask, hang, options)
  local pids = {}
  for _ = 1, 6 do
    local c = s:connect(options)
    local pid = ask(c)
    pids[pid] = pids[pid] or {}
    table.insert(pids[pid], c)
    if #pids[pid] == 2 then
      local busy, other = table.unpack(pids[pid])
      hang(busy)
      socket.sleep(0.2)
      return other
    end
  end
end

local function ask_http(c) return c:request("/").body:match("%d+") end
local function hang_http(c) c:send("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n") end

local function ask_plain(c)
  c:send("who\n")
  return assert(c:read_until("\n"))
end
local function hang_plain(c) c:send("hang\n") end

-- How the connection ends, and whether that took less than half of the hang.
local function ending(c)
  local begun = socket.gettime()
  local bytes, how = c:read_all(HANG + 2)
  assert.truthy(socket.gettime() - begun < HANG / 2, "it took until the other worker had time")
  return how, bytes
end

describe("a connection that was taken from a busy worker", function()
  after_each(server.cleanup)

  local function http() return taken_over((start(HTTP)), ask_http, hang_http) end

  it("gets FIN after a response with Connection: close", function()
    local c = http()
    c:send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert.equal("closed", (ending(c)))
  end)

  it("gets FIN after a response to HTTP/1.0", function()
    local c = http()
    c:send("GET / HTTP/1.0\r\n\r\n")
    local how, bytes = ending(c)
    assert.equal("closed", how)
    assert.truthy(bytes:find("\r\n\r\n%d+ $"))
  end)

  it("gets RST if the handler fails after a part of the response", function()
    local c = http()
    c:send("GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal("reset", (ending(c)))
  end)

  it("gets RST if the handler resets it", function()
    local c = http()
    c:send("GET /reset HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal("reset", (ending(c)))
  end)

  it("gets FIN when its client has sent its own", function()
    local c = http()
    assert.truthy(ask_http(c))
    c:finish()
    assert.equal("closed", (ending(c)))
  end)

  it("gets FIN when its client has sent its own, before another worker has had it", function()
    local c = http()
    c:finish()
    assert.equal("closed", (ending(c)))
  end)

  it("gets FIN, and RST after drain_timeout if its client does not end", function()
    local c = http()
    c:send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100000\r\n\r\nabc")
    local how = ending(c)
    assert.equal("closed", how)
    -- From the time limit on, whatever is sent is answered by RST.
    socket.sleep(1.3)
    c:send("x")
    socket.sleep(0.1)
    assert.falsy(c:send("x"))
  end)

  it("gets RST if its worker is killed", function()
    local s, globals = start(HTTP)
    local c = taken_over(s, ask_http, hang_http)
    c:send("GET /die HTTP/1.1\r\nHost: x\r\n\r\n")
    local pid = process.wait_until(function()
      return tonumber(process.slurp(globals.GATE) or "")
    end)
    process.kill(math.tointeger(pid), "KILL")
    assert.equal("reset", (ending(c)))
  end)

  for command, expected in pairs { close = "closed", reset = "reset", late = "closed" } do
    it("ends if the handler is not one for HTTP: " .. command, function()
      local c = taken_over((start(PLAIN)), ask_plain, hang_plain)
      c:send(command .. "\n")
      assert.equal(expected, (ending(c)))
    end)

    it("ends at a local socket: " .. command, function()
      local path = process.scratch("socket")
      local c = taken_over((start(PLAIN, { PATH = path })), ask_plain, hang_plain, { path = path })
      c:send(command .. "\n")
      assert.equal("closed", (ending(c)))
    end)
  end
end)
