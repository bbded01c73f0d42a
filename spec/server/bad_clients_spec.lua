-- What clients do to parked connections, by malice or accident, and a server short of descriptors.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"

local SERVER = status.script {
  pool = "pre_fork = 1, min_fork = WORKERS, max_fork = WORKERS",
  options = "idle_timeout = IDLE, request_header_timeout = HEAD, drain_timeout = 1",
  answer = [[mio.getpid(), " ", #request.headers_csv_string.x]],
}

local function start(globals, command)
  globals = globals or {}
  globals.WORKERS = globals.WORKERS or 1
  globals.IDLE, globals.HEAD = globals.IDLE or 60, globals.HEAD or 60
  return server.start { script = SERVER, globals = globals, command = command }
end

local GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
local COLD = status.COLD

local figure = status.figure

-- Connections in the states in which they can be parked.
local function parked(s)
  local cold, hot, half = s:connect(), s:connect(), s:connect()
  assert.equal(200, cold:request("/").status)
  socket.sleep(COLD)
  assert.equal(200, hot:request("/").status)
  half:send("GET / HTTP/1.1\r\nHo")
  socket.sleep(0.05)
  return { cold = cold, hot = hot, half = half, fresh = s:connect() }
end

local function still_serves(s)
  assert.equal(200, s:request("/").status)
  assert.falsy(s:log():find("Child process", 1, true), s:log())
  assert.truthy(process.wait_until(function() return figure(s, "parked") <= 1 end), s:log())
  -- What clients do is no error of the application's, and nothing that the server has lost.
  assert.same({ 0, 0 }, { figure(s, "errors"), figure(s, "lost") })
end

describe("on a parked connection", function()
  after_each(server.cleanup)

  it("garbage is refused", function()
    local s = start()
    for name, c in pairs(parked(s)) do
      c:send("\0\1\2 garbage\r\n\r\n")
      assert.equal(400, c:response().status, name)
      local _, ending = c:read_all()
      assert.equal("closed", ending, name)
      c:close()
    end
    still_serves(s)
  end)

  it("an RST is the end", function()
    local s = start()
    for _, c in pairs(parked(s)) do c:reset() end
    still_serves(s)
  end)

  it("a FIN is the end; in a request it is refused", function()
    local s = start()
    for name, c in pairs(parked(s)) do
      c:finish()
      local text, ending = c:read_all()
      assert.equal("closed", ending, name)
      assert.equal(name == "half" and "HTTP/1.1 400" or "", text:sub(1, 12), name)
      c:close()
    end
    still_serves(s)
  end)

  it("half a request and a FIN or an RST are the end", function()
    local s = start()
    for index = 1, 20 do
      local c = s:connect()
      c:send("GET / HTTP/1.1\r\n")
      if index % 3 == 0 then socket.sleep(0.02) end
      if index % 2 == 0 then c:reset() else c:close() end
    end
    still_serves(s)
  end)
end)

describe("on a connection that nobody serves at the moment", function()
  after_each(server.cleanup)

  it("an end is no harm while its request waits for a process", function()
    local s = start()
    local waiting = {}
    for index = 1, 6 do
      waiting[index] = s:connect()
      assert.equal(200, waiting[index]:request("/").status)
    end
    socket.sleep(COLD)
    process.kill(s:workers()[1], "STOP")
    for _, c in ipairs(waiting) do c:send(GET) end
    socket.sleep(0.1)
    for index, c in ipairs(waiting) do
      if index <= 2 then c:reset() elseif index <= 4 then c:finish() end
    end
    process.kill(s:workers()[1], "CONT")
    for index = 3, 6 do assert.equal(200, waiting[index]:response().status, index) end
    for index = 3, 6 do waiting[index]:close() end
    still_serves(s)
  end)

  it("nothing that comes after its last response does harm, nor its worker's death", function()
    local s = start()
    local function ended()
      local c = s:connect()
      c:send("nonsense\r\n\r\n")
      assert.equal(400, c:response().status)
      return c
    end
    local reset, garbage, finished, left = ended(), ended(), ended(), ended()
    reset:reset()
    garbage:send(("\0\1"):rep(50000))
    finished:finish()
    still_serves(s)
    process.wait_asleep(s:workers()[1])
    process.kill(s:workers()[1], "KILL")
    assert.truthy(s:wait_log("died from signal 9"))
    for _, c in ipairs { garbage, finished, left } do
      local rest = c:read_all()
      assert.equal("", rest)
    end
    assert.equal(0, figure(s, "lost"))
  end)
end)

describe("a request head", function()
  after_each(server.cleanup)

  it("may come byte by byte, on many connections, without keeping others waiting", function()
    local s = start()
    local slow = {}
    for index = 1, 100 do slow[index] = s:connect() end
    local worst = 0
    for index = 1, #GET do
      for _, c in ipairs(slow) do c:send(GET:sub(index, index)) end
      local begun = socket.gettime()
      assert.equal(200, s:request("/").status)
      worst = math.max(worst, socket.gettime() - begun)
    end
    for _, c in ipairs(slow) do assert.equal(200, c:response().status) end
    assert.is_true(worst < 10, "waited " .. worst)
  end)

  it("may come in pieces of which each is received by another process", function()
    local s = start { WORKERS = 2 }
    local c = s:connect()
    for piece in (GET:gsub("\r\n\r\n", "\r\nX: abc\r\n\r\n")):gmatch(".?.?.?.?.?.?.?.?.?.?") do
      c:send(piece)
      socket.sleep(0.3)
      process.kill(s:workers()[1], "KILL")
      assert.truthy(process.wait_until(function() return #s:workers() == 2 end))
    end
    assert.truthy(c:response().body:find(" 3$"))
  end)

  it("has its time from the first byte on, however often it is handed over", function()
    local s = start { HEAD = 1.5, IDLE = 60, WORKERS = 2 }
    local c = s:connect()
    assert.equal(200, c:request("/").status)
    socket.sleep(0.3)
    local begun = socket.gettime()
    local response
    for index = 1, 20 do
      c:send(GET:sub(index, index))
      response = c:read_until("\r\n", 0.2)
      if response then break end
    end
    local taken = socket.gettime() - begun
    assert.equal("HTTP/1.1 408 Request Timeout\r\n", response)
    assert.is_true(taken > 1.4 and taken < 5, "took " .. taken)
  end)

  it("is waited for as long as the connection may be idle before its first byte", function()
    local s = start { HEAD = 0.3, IDLE = 4 }
    local c = s:connect()
    assert.equal(200, c:request("/").status)
    socket.sleep(2)
    assert.equal(200, c:request("/").status)
    local begun = socket.gettime()
    assert.same({ "", "closed" }, { c:read_all() })
    local taken = socket.gettime() - begun
    assert.is_true(taken > 3 and taken < 20, "took " .. taken)
  end)
end)

describe("a supervisor that runs short of descriptors", function()
  after_each(server.cleanup)

  local LIMITED = { "sh", "-c", "ulimit -n 64 && exec " .. server.interpreter .. ' "$@"', "sh" }

  it("sheds the oldest idle connections in order, and goes on", function()
    local s = start({ WORKERS = 4 }, LIMITED)
    local connections = {}
    for wave = 1, 6 do
      for index = 1, 15 do
        local c = s:connect()
        assert.equal(200, c:request("/").status)
        connections[(wave - 1) * 15 + index] = c
      end
      socket.sleep(COLD)
    end
    local shed, last = 0, 0
    for index, c in ipairs(connections) do
      local reason = c:fill(0)
      assert.are_not.equal("reset", reason)
      if reason == "closed" then shed, last = shed + 1, index end
    end
    assert.is_true(shed >= 40 and shed <= 80, "shed " .. shed)
    assert.is_true(last <= shed + 15, "the last one shed was number " .. last)
    assert.equal(200, connections[#connections]:request("/").status)
    assert.equal(shed, figure(s, "shed"))
    assert.equal(0, figure(s, "lost"))
    assert.falsy(s:log():find("Child process", 1, true), s:log())
  end)

  it("serves new connections while all others are hot", function()
    local s = start({ WORKERS = 2 }, LIMITED)
    local connections = {}
    for index = 1, 60 do
      connections[index] = s:connect()
      assert.equal(200, connections[index]:request("/").status, index)
    end
    for _ = 1, 5 do assert.equal(200, s:request("/").status) end
    for _, c in ipairs(connections) do assert.are_not.equal("reset", (c:fill(0))) end
    process.kill(s:workers()[1], "KILL")
    assert.truthy(s:wait_log("died from signal 9"))
    assert.equal(200, s:request("/").status)
  end)
end)

describe("under keep-alive load", function()
  after_each(server.cleanup)

  it("the death of workers fails no request but those in their handlers", function()
    local s = start { WORKERS = 4 }
    local connections = {}
    for index = 1, 32 do
      connections[index] = s:connect()
      assert.equal(200, connections[index]:request("/").status)
    end
    local kills, failures = 0, 0
    for round = 1, 60 do
      for _, c in ipairs(connections) do c:send(GET) end
      if round % 6 == 0 then
        process.kill(s:workers()[1 + round % 3], "KILL")
        kills = kills + 1
      end
      for index, c in ipairs(connections) do
        if not pcall(c.response, c) then
          failures = failures + 1
          connections[index] = s:connect()
        end
      end
    end
    assert.is_true(failures <= kills, failures .. " requests failed, " .. kills .. " workers died")
    assert.is_true(figure(s, "reclaimed") > 0)
  end)
end)
