-- Reloads under load: no client notices. RELOADS: how many in a row (default 8, at most one each 50 ms).
-- Takes long: many reloads, one after the other.
-- Any version: nothing of it depends on Lua's.

local lfs = require "lfs"
local memory = require "spec.support.memory"
local process = require "spec.support.process"
local crowd = require "spec.support.crowd"
local proxies = require "spec.support.proxies"
local server = require "spec.support.server"
local socket = require "socket"

local RELOADS = tonumber(os.getenv("RELOADS")) or 8

local SCRIPT = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge.http"
  local download = ("x"):rep(1048576)
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2, max_fork = 6,
    connect = http.generate_handler({ response_buffering = 2000000 }, function(request)
      local answers = { download = download, worker = moonbridge.io.getpid(), upload = #request.body }
      request:send_status("200 OK")
      request:send_data(answers[request.path] or "hello")
      return true
    end),
  }
  moonbridge.run{ hangup = "reload" }
]]

describe("reloads in a row", function()
  local clients
  after_each(function()
    if clients then clients:destroy() end
    clients = nil
    proxies.stop()
    server.cleanup()
  end)

  local function descriptors(pid)
    local count = 0
    for _ in lfs.dir(("/proc/%d/fd"):format(pid)) do count = count + 1 end
    return count
  end

  -- The supervisor that serves, once nothing of the old generation is left beside the first process.
  local function settled(s)
    return process.wait_until(function()
      local children = s:workers()
      return #children == 1 and #s:descendants() <= 7 and children[1]
    end, 60)
  end

  local function reload(s, times)
    local _, done = s:log():gsub("Reload complete", "")
    for _ = 1, times do
      done = done + 1
      s:signal("HUP")
      assert.truthy(s:wait_log("Reload complete", 60, done), s:log())
      socket.sleep(0.05)
    end
  end

  it("cost no request and no connection, and leave nothing behind", function()
    local s = server.start(SCRIPT)
    reload(s, 1)
    assert.truthy(settled(s), s:log())
    local before = { descriptors = descriptors(s.pid), memory = memory.pss(s.pid) }
    clients = crowd.start(s.port, {
      kept = 16, new = 16, posts = 8, idle = 200, readers = 50, uploads = 20, probe = 1,
    })
    reload(s, RELOADS)
    local figures = clients:finish()
    assert.equal(0, figures.failed, figures.text .. s:log())
    assert.equal(0, figures.idle_lost, figures.text)
    assert.equal(200, figures.idle_answered)
    for _, kind in ipairs { "kept", "new", "posts", "readers", "uploads" } do
      assert.truthy(figures[kind] > 0, kind .. "\n" .. figures.text)
    end
    local serving = settled(s)
    assert.truthy(serving, s:log())
    assert.equal(before.descriptors, descriptors(s.pid))
    local now = memory.pss(s.pid)
    assert.truthy(now <= before.memory + 1000 * 1024, ("%d bytes, before %d"):format(now, before.memory))
    -- The serving process has as many as the first one had, and a few for what ends.
    assert.truthy(process.wait_until(function() return descriptors(serving) < 40 end))
    assert.equal(0, s:stop())
  end)

  for _, name in ipairs(proxies.NAMES) do
    it(("cost no request behind %s, which keeps its connections"):format(name), function()
      local s = server.start(SCRIPT)
      local port = proxies.start(name, { s.port })
      clients = crowd.start(port, { kept = 4, new = 4, posts = 8, readers = 4, uploads = 4, probe = 1 })
      reload(s, RELOADS)
      local figures = clients:finish()
      assert.equal(0, figures.failed, figures.text .. s:log())
      assert.truthy(figures.posts > 0 and figures.kept > 0, figures.text)
      -- The new code answers through the proxy as well.
      assert.truthy(#figures.probed > 2, figures.text)
      proxies.stop()
    end)
  end
end)
