-- No worker is stranded: an order that cannot be sent is sent later or to another one, and so is a
-- report.
-- Any version: nothing of it depends on Lua's.

local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"
local workers = require "spec.support.workers"

local pid, start, wait_ticks = workers.pid, workers.start, workers.wait_ticks
local COLD = status.COLD

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
      assert.equal(200, cold[index]:request("/").status)
      s.faults:wait_hits("sendmsg", 3 * index)
    end
    assert.equal(200, s:request("/").status)
  end)

  it("strands no worker if it is a tick", function()
    local s = start(1, 0.3)
    assert.truthy(s:wait_log("tick by"))
    s.faults:set { call = "sendmsg", process = "supervisor", errno = "ENOBUFS", count = 2 }
    s.faults:wait_hits("sendmsg", 2)
    assert.truthy(wait_ticks(s, 2))
    assert.equal(200, s:request("/").status)
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
    for _ = 1, 3 do assert.equal(200, hot:request("/").status) end
    local cpu = s:cpu()
    socket.sleep(0.5)
    assert.truthy(s:cpu() - cpu < 0.25, "it tries without pause")
    s.faults:clear()
    assert.equal(200, cold:response().status)
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
      assert.equal(200, c:request("/").status)
      socket.sleep(0.3)
    end
    assert.truthy(wait_ticks(s, 2))
  end)

  it("costs the worker alone if it never can be", function()
    local s = start(1, 0.2)
    local kept = s:connect()
    pid(kept)
    socket.sleep(COLD)
    s.faults:set { call = "sendmsg", process = "workers", errno = "ENOBUFS" }
    assert.truthy(s:wait_log("Could not report to the supervisor"))
    s.faults:clear()
    assert.equal(200, kept:request("/").status)
    assert.truthy(wait_ticks(s, 2))
  end)
end)
