-- What waiting connections have sent is held by the supervisor, in memory that is bounded; and should there
-- be no memory all the same, some of them are closed and the server goes on.
-- Any version: nothing of it depends on Lua's.

local client = require "spec.support.client"
local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"

local SERVER = status.script {
  pool = "pre_fork = 2, min_fork = 2, max_fork = 2",
  before = 'if request.path == "slow" then os.execute("exec sleep 1.5") end',
  answer = '#(request.headers_value.x or "")',
  run = [[
    if LIMIT then moonbridge.run{ waiting_input_limit = LIMIT } elseif not launched then moonbridge.run() end
  ]],
}

local HALF = "GET / HTTP/1.1\r\nHost: a\r\nX: " .. ("a"):rep(60000)
local MEGABYTE = 1000 * 1000

local function resident(s)
  return 1024 * tonumber(process.slurp(("/proc/%d/status"):format(s.pid)):match("VmRSS:%s+(%d+)"))
end

local figure = status.figure

-- Connections that have sent half a head each.
local function half_heads(s, count)
  local connections = {}
  for index = 1, count do
    connections[index] = s:connect()
    connections[index]:send(HALF)
  end
  return connections
end

-- The connection that asks may be closed itself.
local function await_shed(s)
  assert.truthy(process.wait_until(function()
    local answered, shed = pcall(figure, s, "shed")
    return answered and shed > 0
  end), s:log())
end

-- Completes the heads of connections that are still open; gives how many are served.
local function complete(connections, length)
  local served = 0
  for _, c in ipairs(connections) do
    c:send("\r\n\r\n")
    -- Some may be closed even now.
    if c:fill(process.TIMEOUT) == nil then
      assert.equal(tostring(length or 60000), c:response().body)
      served = served + 1
    end
  end
  return served
end

describe("what waiting connections have sent", function()
  after_each(server.cleanup)

  it("takes no more memory in the supervisor than it may: the oldest are closed", function()
    local s = server.start { script = SERVER, globals = { LIMIT = 2 * MEGABYTE } }
    assert.equal(200, s:request("/").status)
    local before = resident(s)
    local connections = half_heads(s, 300)
    await_shed(s)
    assert.equal(200, s:request("/").status)
    local grown = resident(s) - before
    assert.is_true(grown < 9 * MEGABYTE, "grew by " .. grown)
    local served = complete(connections)
    assert.is_true(served >= 10 and served < 100, served .. " were served")
    local shed = figure(s, "shed")
    assert.equal(300, served + shed)
    assert.truthy(s:wait_log("connections? w%a+ closed: together they held more than 2000000 bytes of input"))
    assert.equal(200, connections[300]:request("/").status)
  end)

  it("counts also while it waits for a worker", function()
    local s = server.start { script = SERVER, globals = { LIMIT = 2 * MEGABYTE } }
    local before = resident(s)
    local slow, connections = {}, half_heads(s, 20)
    socket.sleep(0.1)
    for index = 1, 2 do
      slow[index] = s:connect()
      slow[index]:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    end
    socket.sleep(0.1)
    for _, c in ipairs(connections) do c:send("\r\n\r\n") end
    for _, c in ipairs(slow) do assert.equal(200, c:response().status) end
    for _, c in ipairs(connections) do assert.equal(200, c:response().status) end
    assert.equal(0, figure(s, "shed"))
    assert.is_true(resident(s) - before < 9 * MEGABYTE)
  end)

  it("takes no more memory in a worker either, where it is too much for the supervisor", function()
    local s = server.start { script = SERVER, globals = { LIMIT = 4 * MEGABYTE } }
    local connections = {}
    for index = 1, 40 do
      connections[index] = s:connect()
      connections[index]:send("GET / HTTP/1.1\r\nHost: a\r\nX: " .. ("a"):rep(300000))
    end
    assert.truthy(s:wait_log("connections? w%a+ closed: together they held more than 4000000 bytes of input"))
    assert.equal(200, s:request("/").status)
    local served = complete(connections, 300000)
    -- Two workers, each with up to the limit.
    assert.is_true(served > 5 and served < 30, served .. " were served")
  end)

  it("gives its memory back when they have gone", function()
    local s = server.start { script = SERVER }
    assert.equal(200, s:request("/").status)
    local before = resident(s)
    local connections = half_heads(s, 300)
    assert.truthy(process.wait_until(function() return resident(s) - before > 15 * MEGABYTE end))
    for _, c in ipairs(connections) do c:close() end
    assert.truthy(process.wait_until(function() return resident(s) - before < 6 * MEGABYTE end))
    assert.equal(0, figure(s, "shed"))
  end)

  it("is limited by an option of the launcher, too", function()
    local s = server.start {
      script = "launched = true " .. SERVER, launcher = { "--waiting-input-limit", "200000" },
    }
    local connections = half_heads(s, 10)
    await_shed(s)
    assert.is_true(complete(connections) < 10)
  end)
end)

describe("a supervisor whose allocations fail", function()
  after_each(server.cleanup)

  it("closes some of the waiting connections, says so, and goes on", function()
    local s = faults.server { script = SERVER }
    assert.equal(200, s:request("/").status)
    local early = half_heads(s, 6)
    socket.sleep(0.2)
    for _, call in ipairs { "malloc", "realloc", "calloc" } do
      s.faults:set { call = call, process = "supervisor", errno = "ENOMEM", size = 20000 }
    end
    local late = half_heads(s, 6)
    await_shed(s)
    assert.truthy(s:wait_log("waiting connections? w%a+ closed: there was no memory left"))
    assert.is_true(s.faults:hits("malloc") > 0)
    s.faults:clear()
    assert.is_true(complete(early) + complete(late) < 12)
    assert.equal(200, s:request("/").status)
    local again = half_heads(s, 6)
    socket.sleep(0.1)
    assert.equal(6, complete(again))
    client.cleanup() -- which a shutdown would wait for
    assert.equal(0, s:stop())
  end)

  it("goes on where the system has no more memory for it", function()
    local s = server.start { script = SERVER }
    assert.equal(200, s:request("/").status)
    local size = process.slurp(("/proc/%d/status"):format(s.pid)):match("VmSize:%s+(%d+)")
    process.run(("prlimit --pid %d --as=%d"):format(s.pid, (size + 4000) * 1024))
    local connections = half_heads(s, 200)
    await_shed(s)
    assert.is_true(complete(connections) < 200)
    assert.equal(200, s:request("/").status)
    client.cleanup() -- which a shutdown would wait for
    assert.equal(0, s:stop())
  end)
end)
