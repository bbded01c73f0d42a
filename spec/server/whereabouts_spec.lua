-- Where a connection is between two runs of the handler, and which process runs it: specs tell by the
-- descriptors that the processes have.

local process = require "spec.support.process"
local server = require "spec.support.server"
local status = require "spec.support.status"

local holders, wait_holders = status.holders, status.wait_holders

-- Answers with the worker's pid, on /held once the file FLAG exists.
local SERVER = status.script {
  pool = "pre_fork = WORKERS, min_fork = WORKERS, max_fork = WORKERS",
  options = "idle_timeout = 60",
  before = 'if request.path == "held" then repeat mio.poll(nil, nil, 0.01) until io.open(FLAG) end',
}

local HELD = "GET /held HTTP/1.1\r\nHost: x\r\n\r\n"

describe("a connection", function()
  local flag
  after_each(server.cleanup)

  local function start(workers)
    flag = process.scratch("flag")
    local s = server.start { script = SERVER, globals = { WORKERS = workers, FLAG = flag } }
    assert.truthy(process.wait_until(function() return #s:workers() == workers end))
    return s
  end

  -- Lets the handlers for /held return.
  local function release() assert(io.open(flag, "w")):close() end

  local function ask(c) return c:request("/").body end

  it("is the worker's alone while the handler runs for the first time", function()
    local s = start(1)
    local c = s:connect()
    c:send(HELD)
    local worker = "worker " .. s:workers()[1]
    assert.equal(worker, wait_holders(s, c, worker))
    release()
    assert.equal(worker, "worker " .. c:response().body)
  end)

  it("is kept by the worker that served it, and the supervisor has it too", function()
    local s = start(2)
    local c = s:connect()
    local pid = ask(c)
    local both = "supervisor, worker " .. pid
    assert.equal(both, wait_holders(s, c, both))
    assert.equal(pid, ask(c))
    status.wait_figure(s, "parked", 1)
    assert.equal(0, status.figure(s, "reclaimed"))
  end)

  it("is held by the supervisor alone when it has been idle for a while", function()
    local s = start(1)
    local c = s:connect()
    local pid = ask(c)
    assert.equal("supervisor", wait_holders(s, c, "supervisor"))
    status.wait_figure(s, "parked", 1)
    -- On a slow machine it may be idle for a while again.
    assert.truthy(process.wait_until(function()
      assert.equal(pid, ask(c))
      return holders(s, c):find("worker " .. pid, 1, true)
    end))
  end)

  it("is handed to another worker when its own is busy", function()
    local s = start(2)
    local c = s:connect()
    local first = ask(c)
    -- Two handlers would occupy both workers: one after the other is started until it is the connection's.
    local held
    repeat
      if held then
        release()
        held:response()
        os.remove(flag)
      end
      held = s:connect()
      held:send(HELD)
      assert.truthy(process.wait_until(function() return holders(s, held):find("worker") end))
    until holders(s, held) == "worker " .. first
    local second = ask(c)
    assert.not_equal(first, second)
    assert.truthy(holders(s, c):find("worker " .. second, 1, true))
    assert.is_true(held:silent(0))
    assert.is_true(status.figure(s, "reclaimed") >= 1)
    release()
    assert.equal(first, held:response().body)
  end)

  it("is nobody's when it has been closed", function()
    local s = start(1)
    local c = s:connect()
    c:request { target = "/", close = true }
    assert.same({ "", "closed" }, { c:read_all() })
    assert.equal("", wait_holders(s, c, ""))
  end)
end)
