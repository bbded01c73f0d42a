-- A connection whose input is of no use yet (half a head) waits where it disturbs nobody: for a moment in
-- its worker, then at the supervisor, which adds to it without calling a handler.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"

local SERVER = status.script {
  pool = "pre_fork = WORKERS, min_fork = WORKERS, max_fork = WORKERS",
  options = "request_header_timeout = HEAD, request_header_size_limit = 200000",
  before = 'if request.path == "slow" then os.execute("exec sleep 5") end',
  answer = [[request.path, " ", #(request.headers_value.x or ""), " ", request.body or ""]],
  run = "moonbridge.run(RUN)",
}

local function start(globals)
  local all = { WORKERS = 2, HEAD = 60, RUN = false }
  for name, value in pairs(globals or {}) do all[name] = value end
  return server.start { script = SERVER:gsub("RUN", all.RUN or ""), globals = all }
end

local figure = status.figure

describe("a request head that comes in pieces", function()
  after_each(server.cleanup)

  local HEAD = "GET / HTTP/1.1\r\nHost: a\r\nX: "

  it("calls the handler when it is complete, and not for each piece", function()
    local s = start()
    local slow = {}
    for index = 1, 5 do
      slow[index] = s:connect()
      slow[index]:send(HEAD)
    end
    socket.sleep(0.1)
    local before = figure(s, "handled")
    local pieces = 50
    for _ = 1, pieces do
      for _, c in ipairs(slow) do c:send("abc\r\nY: ") end
      socket.sleep(0.002)
    end
    local calls = figure(s, "handled") - before
    assert.is_true(calls < pieces, calls .. " calls")
    for _, c in ipairs(slow) do
      c:send("\r\n\r")
      c:send("\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    end
    for _, c in ipairs(slow) do
      assert.equal(" 3 ", c:response().body)
      assert.equal("next 0 ", c:response().body)
    end
  end)

  it("may be larger than what the supervisor holds", function()
    local s = start()
    local c = s:connect()
    c:send(HEAD)
    socket.sleep(0.1)
    for index = 1, 10 do
      c:send(("a"):rep(15000))
      socket.sleep(index % 3 * 0.02)
    end
    c:send("\r\n\r\n")
    assert.equal(" 150000 ", c:response().body)
  end)

  it("is refused when it is larger than allowed, or when its client ends it", function()
    local s = start()
    local large, ended = s:connect(), s:connect()
    large:send(HEAD)
    ended:send(HEAD)
    socket.sleep(0.1)
    ended:finish()
    assert.equal(400, ended:response().status)
    for _ = 1, 15 do large:send(("a"):rep(15000)) end
    assert.equal(431, large:response().status)
  end)

  it("has the time of request_header_timeout, all in all", function()
    local s = start { HEAD = 0.8 }
    local c = s:connect()
    c:send(HEAD)
    local response
    for _ = 1, 100 do
      c:send("a")
      response = c:read_until("\r\n", 0.05)
      if response then break end
    end
    assert.equal("HTTP/1.1 408 Request Timeout\r\n", response)
  end)

  it("does not wait for another one's slow handler", function()
    local s = start()
    local waiting = {}
    for index = 1, 6 do
      waiting[index] = s:connect()
      waiting[index]:send(HEAD)
    end
    local slow = s:connect()
    slow:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    socket.sleep(0.1)
    for _, c in ipairs(waiting) do c:send("\r\n\r\n") end
    for _, c in ipairs(waiting) do assert.equal(200, c:response().status) end
    assert.is_true(slow:silent(0), "they had to wait for the slow one")
    assert.equal(200, slow:response().status)
  end)

  it("is usually completed by the worker that has begun it", function()
    local s = start { WORKERS = 1, RUN = "{ debug = true }" }
    local function handed_over() return select(2, s:log():gsub("reported: HandedOver%(", "")) end
    local c = s:connect()
    local function ask()
      c:send("GET / HTTP/1.1\r\n")
      socket.sleep(0.001)
      c:send("Host: a\r\n\r\n")
      return c:response()
    end
    for _ = 1, 50 do assert.equal(200, ask().status) end
    assert.is_true(handed_over() < 50, handed_over() .. " times")
  end)
end)

describe("at a shutdown", function()
  after_each(server.cleanup)

  it("half a head is refused, wherever it waits", function()
    local s = start()
    local early, late = s:connect(), s:connect()
    early:send("GET / HTTP/1.1\r\nHost: a\r\n")
    socket.sleep(0.1)
    early:send("X: ")
    late:send("GET / HTTP/1.1\r\n")
    assert.truthy(process.wait_until(function() return figure(s, "parked") >= 2 end))
    s:signal("TERM")
    assert.equal(408, early:response().status)
    assert.equal(408, late:response().status)
    assert.equal(0, s:wait())
  end)
end)
