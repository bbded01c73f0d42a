-- What may wait for the push process, here while it is stopped.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"

local HANDLER = [[
  if request.path == "many" then
    local message, done, reason = ("x"):rep(tonumber(get.size)), 0, nil
    for _ = 1, tonumber(get.count) do
      local ok, text = moonbridge.publish(get.topic, message)
      if ok then done = done + 1 else reason = text end
    end
    request:send("200 OK", "text/plain", done .. " " .. tostring(reason))
    return true
  end
  request:send_status "200 OK"
  return request:hold { topics = "news", limit = false }
]]

local FULL = "More is published than can be passed on"
local MIB = 1024 * 1024

local function many(s, count, size, topic)
  local target = ("/many?count=%d&size=%d&topic=%s"):format(count, size, topic or "news")
  local done, reason = push.get(s, target):match "^(%d+) (.*)$"
  return tonumber(done), reason
end

describe("what is published while the push process takes nothing", function()
  local s, stream, pid
  before_each(function()
    s = push.start { handler = HANDLER }
    stream = push.open(s)
    pid = push.process(s)
    process.kill(pid, "STOP")
  end)
  after_each(function()
    if pid then process.kill(pid, "CONT") end
    server.cleanup()
  end)

  it("waits up to 64 MiB, and all of that arrives", function()
    local done, reason = many(s, 10, 10 * MIB)
    assert.same({ 6, FULL }, { done, reason })
    process.kill(pid, "CONT")
    for _ = 1, 6 do assert.equal(10 * MIB, #stream.chunk()) end
    assert.same({ 10, "nil" }, { many(s, 10, MIB) })
  end)

  it("may be one message that is longer", function()
    assert.same({ 1, FULL }, { many(s, 2, 65 * MIB, "nobody") })
    assert.same({ 0, FULL }, { many(s, 1, 1, "nobody") })
    process.kill(pid, "CONT")
    assert(process.wait_until(function() return many(s, 1, 65 * MIB, "nobody") == 1 end))
  end)

  it("may be many short messages, and what is too much does not hold up its publisher", function()
    local done, reason = many(s, 150000, 100)
    assert.equal(FULL, reason)
    -- A server that is not root's has less room in the kernel.
    local _, user = process.run "id -u"
    assert.truthy(tonumber(user) ~= 0 or done > 100000, done)
    process.kill(pid, "CONT")
    assert(process.wait_until(function() return many(s, 1, 100) == 1 end))
  end)

  it("goes to the next push process if this one dies", function()
    assert.equal(6, many(s, 10, 10 * MIB, "nobody"))
    process.kill(pid, "KILL")
    pid = nil
    assert(process.wait_until(function() return many(s, 1, 60 * MIB, "nobody") == 1 end))
  end)
end)
