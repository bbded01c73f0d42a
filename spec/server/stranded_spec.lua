-- No worker is stranded: an order that cannot be sent is sent later or to another one, and so is a
-- report.

local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

local SERVER = [[
  local moonbridge, mio = require "moonbridge", require "moonbridge_io"
  local http = require "moonbridge_http"
  local answer = http.generate_handler({ idle_timeout = 60 }, function(request)
    request:send_status("200 OK")
    request:send_data(mio.getpid())
    return true
  end)
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "interval", name = "tick", delay = INTERVAL or 3600 },
    pre_fork = WORKERS, min_fork = WORKERS, max_fork = WORKERS,
    connect = function(socket)
      if socket.interval then
        io.stderr:write("tick by ", mio.getpid(), "\n")
        return true
      end
      return answer(socket)
    end,
  }
  moonbridge.run()
]]

local function start(workers, interval)
  local globals = { WORKERS = workers, INTERVAL = interval or false }
  local s = faults.server { script = SERVER, globals = globals }
  assert.truthy(process.wait_until(function() return #s:workers() == workers end))
  return s
end

local function pid(c) return math.tointeger(tonumber(c:request("/").body)) end

local COLD = 1.5 -- after so many seconds an idle connection is the supervisor's

describe("an order that cannot be sent", function()
  after_each(server.cleanup)

  it("strands no worker if it is a connection", function()
    local s = start(1)
    local cold, errors = {}, { "ENOBUFS", "EMSGSIZE", "ENOMEM", "ETOOMANYREFS", "EAGAIN" }
    for index in ipairs(errors) do
      cold[index] = s:connect()
      pid(cold[index])
    end
    socket.sleep(COLD)
    for index, errno in ipairs(errors) do
      s.faults:set {
        call = "sendmsg", process = "supervisor", with_descriptors = true, errno = errno, count = 3,
      }
      assert.equal(200, cold[index]:request { target = "/", timeout = 4 }.status)
      s.faults:wait_hits("sendmsg", 3 * index)
    end
    assert.equal(200, s:request { target = "/", timeout = 4 }.status)
  end)

  it("strands no worker if it is a tick", function()
    local s = start(1, 0.3)
    assert.truthy(s:wait_log("tick by"))
    s.faults:set { call = "sendmsg", process = "supervisor", errno = "ENOBUFS", count = 2 }
    s.faults:wait_hits("sendmsg", 2)
    local _, before = s:log():gsub("tick by", "")
    assert.truthy(s:wait_log("tick by", 4, before + 2))
    assert.equal(200, s:request { target = "/", timeout = 4 }.status)
  end)

  it("costs only other workers' time while it lasts", function()
    local s = start(1)
    local cold = s:connect()
    pid(cold)
    socket.sleep(COLD)
    s.faults:set { call = "sendmsg", process = "supervisor", errno = "ENOBUFS" }
    local hot = s:connect()
    cold:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    s.faults:wait_hits("sendmsg")
    for _ = 1, 3 do assert.equal(200, hot:request { target = "/", timeout = 4 }.status) end
    local cpu = s:cpu()
    socket.sleep(0.5)
    assert.truthy(s:cpu() - cpu < 0.25, "it tries without pause")
    s.faults:clear()
    assert.equal(200, cold:response(nil, 4).status)
  end)

  it("is sent later if it is one to end", function()
    local s = start(2)
    s.faults:set { call = "sendmsg", process = "supervisor", errno = "ENOBUFS", count = 5 }
    s:signal("TERM")
    assert.equal(0, s:wait())
  end)
end)

describe("a report that cannot be sent", function()
  after_each(server.cleanup)

  it("is sent later", function()
    local s = start(1, 0.2)
    local c = s:connect()
    for _ = 1, 3 do
      s.faults:set { call = "sendmsg", process = "workers", errno = "ENOBUFS", count = 3 }
      assert.equal(200, c:request { target = "/", timeout = 4 }.status)
      socket.sleep(0.3)
    end
    local _, before = s:log():gsub("tick by", "")
    assert.truthy(s:wait_log("tick by", 4, before + 2))
  end)

  it("costs the worker alone if it never can be", function()
    local s = start(1, 0.2)
    local kept = s:connect()
    pid(kept)
    socket.sleep(COLD)
    s.faults:set { call = "sendmsg", process = "workers", errno = "ENOBUFS" }
    assert.truthy(s:wait_log("Could not report to the supervisor", 6))
    s.faults:clear()
    assert.equal(200, kept:request { target = "/", timeout = 4 }.status)
    local _, before = s:log():gsub("tick by", "")
    assert.truthy(s:wait_log("tick by", 4, before + 2))
  end)
end)
