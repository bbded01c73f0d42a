-- What was given to an idle worker that does not get on (it is stopped, or the kernel holds it) goes to
-- others, and the worker is replaced.
-- Takes long: much of it is waiting for time-outs.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"
local workers = require "spec.support.workers"

local pid, start, wait_ticks = workers.pid, workers.start, workers.wait_ticks
local COLD = status.COLD

describe("a worker that is frozen while it is idle", function()
  after_each(server.cleanup)

  -- Freezes the workers that do not matter to the connection; a list of them.
  local frozen = {}
  local function freeze(id)
    -- What it was doing when its last response left is over then.
    socket.sleep(0.1)
    process.kill(id, "STOP")
    frozen[#frozen + 1] = id
  end
  after_each(function()
    for _, id in ipairs(frozen) do process.kill(id, "CONT") end
    frozen = {}
  end)

  local QUICK = 2 -- seconds: far less than until the worker is given up

  it("does not keep a connection that was kept by it", function()
    local s = start(2)
    local c = s:connect()
    local first = pid(c)
    freeze(first)
    local response = c:request { target = "/", timeout = QUICK }
    assert.are_not.equal(first, math.tointeger(tonumber(response.body)))
  end)

  it("does not keep a connection that the supervisor had", function()
    local s = start(2)
    local cold = {}
    for index = 1, 4 do
      cold[index] = s:connect()
      pid(cold[index])
    end
    socket.sleep(COLD)
    freeze(s:workers()[1])
    for _, c in ipairs(cold) do
      assert.equal(200, c:request { target = "/", timeout = QUICK }.status)
    end
  end)

  it("does not keep a new connection", function()
    local s = start(2)
    for _, id in ipairs(s:workers()) do
      freeze(id)
      for _ = 1, 2 do
        local c = s:connect()
        assert.equal(200, c:request("/").status)
        c:close()
      end
      process.kill(id, "CONT")
      socket.sleep(0.1)
    end
  end)

  it("does not keep a tick", function()
    local s = start(2, 0.3)
    assert.truthy(s:wait_log("tick by"))
    freeze(s:workers()[1])
    assert.truthy(wait_ticks(s, 3, QUICK))
  end)

  it("is replaced when it does not answer", function()
    local s = start(1, 0.3)
    local first = s:workers()[1]
    local kept = s:connect()
    pid(kept)
    freeze(first)
    assert.truthy(s:wait_log("does not react; it is killed"))
    assert.equal(200, kept:request("/").status)
    assert.are_not.equal(first, s:workers()[1])
  end)

  it("is replaced if it has nothing and nobody needs it, too", function()
    local s = start(2)
    local ids = s:workers()
    for _, id in ipairs(ids) do freeze(id) end
    for _, id in ipairs(ids) do
      assert.truthy(s:wait_log(("PID %d] The worker does not react; it is killed"):format(id)))
    end
    assert.truthy(process.wait_until(function()
      local now = s:workers()
      for _, id in ipairs(now) do
        if id == ids[1] or id == ids[2] then return false end
      end
      return #now == 2
    end))
  end)

  it("is replaced also if it has connections that nobody else can have", function()
    local s = start(1, nil, true)
    local c = s:connect()
    local first = pid(c)
    -- It is idle, at the latest, when another connection of its has been answered.
    pid(s:connect())
    freeze(first)
    c:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    local _, how = c:read_all(20)
    assert.equal("reset", how)
    assert.equal(200, s:request("/").status)
  end)

  it("is replaced also if it holds half a request", function()
    local s = start(1)
    local c = s:connect()
    c:send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " .. ("a"):rep(100000))
    socket.sleep(0.3)
    freeze(s:workers()[1])
    c:send("\r\n\r\n")
    -- Reset with the worker, or answered by another one if the supervisor had it.
    local _, how = c:read_all(20)
    assert.are_not.equal("timeout", how)
    assert.equal(200, s:request("/").status)
  end)

  it("does not count if it cannot be killed", function()
    local s = start(1, 0.3)
    s.faults:set { call = "kill", process = "supervisor", result = 0 }
    local first = s:workers()[1]
    freeze(first)
    assert.truthy(s:wait_log("does not react; it is killed"))
    assert.equal(200, s:request("/").status)
    s.faults:clear()
    process.kill(first, "KILL")
    assert.truthy(s:wait_log("died from signal 9"))
    assert.equal(200, s:request("/").status)
  end)

  it("goes on if it thaws in time", function()
    local s = start(2, 0.3)
    local ids = s:workers()
    for _, id in ipairs(ids) do freeze(id) end
    socket.sleep(1)
    for _, id in ipairs(ids) do process.kill(id, "CONT") end
    socket.sleep(3)
    assert.truthy(wait_ticks(s, 3))
    assert.same(ids, s:workers())
    assert.falsy(s:log():find("does not react", 1, true))
  end)

  it("does not keep a shutdown", function()
    local s = start(2)
    local c = s:connect()
    freeze(pid(c))
    s:signal("TERM")
    assert.equal(0, s:wait(20))
  end)

  it("is told from one whose handler runs for long", function()
    local s = start(1, 0.3)
    local slow = s:connect()
    slow:send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal(200, slow:response().status)
    assert.falsy(s:log():find("does not react", 1, true))
  end)
end)

describe("a worker that a signal stops in its handler", function()
  after_each(server.cleanup)

  local function stopped(s)
    local c = s:connect()
    c:send("GET /stop HTTP/1.1\r\nHost: x\r\n\r\n")
    local id = s:workers()[1]
    assert.truthy(process.wait_until(function()
      return (process.slurp(("/proc/%d/stat"):format(id)) or ""):find(") T ", 1, true)
    end))
    return c
  end

  it("is replaced", function()
    local s = start(1)
    local c = stopped(s)
    assert.equal(200, s:request("/").status)
    assert.equal("reset", (select(2, c:read_all())))
  end)

  it("does not keep a shutdown", function()
    local s = start(1)
    stopped(s)
    s:signal("TERM")
    assert.equal(0, s:wait(20))
    assert.truthy(s:log():find("does not react; it is killed", 1, true))
  end)
end)
