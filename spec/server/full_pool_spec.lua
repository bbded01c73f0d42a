-- A pool whose workers are all busy while something waits says so in the log.
-- Any version: nothing of it depends on Lua's.

local socket = require "socket"
local process = require "spec.support.process"
local server = require "spec.support.server"

local function start(pool)
  return server.start_pool(pool, { before = [[
    local http = require "moonbridge_http"
    local function rest(seconds)
      local start = moonbridge_io.timeref()
      while moonbridge_io.timeref(start) < seconds do moonbridge_io.poll(nil, nil, 0.1) end
      return true
    end
    local answer = http.generate_handler(function(request)
      if request.path == "slow" then rest(30) end
      request:send_status("200 OK")
      request:send_data("hello")
      return true
    end)
  ]] })
end

local function get(s, path)
  local c = s:connect()
  c:send(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(path))
  return c
end

-- What the log says of each worker after the line about the pool.
local function named(s)
  assert.truthy(s:wait_log("Pool #1 is full: its workers %(%d+%) are busy, and connections or jobs wait\n"))
  local texts = {}
  for _, pid in ipairs(s:workers()) do
    texts[#texts + 1] = s:wait_log(("%%[Pool #1, PID %d%%] ([^\n]*)\n"):format(pid)) or false
  end
  table.sort(texts)
  return texts
end

describe("a pool that is full", function()
  after_each(server.cleanup)

  it("says so, with the requests of its workers", function()
    local s = start "min_fork = 2, max_fork = 2, connect = answer"
    get(s, "/slow")
    get(s, "/slow?secret=1")
    socket.sleep(0.3)
    assert.falsy(s:log():find("full", 1, true))
    get(s, "/")
    for _, text in ipairs(named(s)) do
      assert.matches("^serves GET /slow for at least %d+ s$", text)
    end
    socket.sleep(2)
    assert.equal(1, select(2, s:log():gsub("is full", "")))
    s:signal("INT")
  end)

  it("says so where jobs wait, or one keeps it", function()
    local s = start [[
      { proto = "interval", name = "long", delay = 0.1 }, { proto = "interval", name = "late", delay = 0.2 },
      min_fork = 1, max_fork = 1, connect = function(socket) return rest(30) end
    ]]
    local text = named(s)[1]
    assert.matches('^runs interval "long" for at least %d+ s$', text)
    s:signal("INT")
  end)

  it("says so if prepare hangs", function()
    local s = start [[
      min_fork = 1, max_fork = 1, prepare = function() rest(30) end,
      connect = function(socket) return rest(30) end
    ]]
    s:connect()
    assert.matches("^runs prepare for %d+ s$", named(s)[1])
    s:signal("INT")
  end)

  it("says so if its handler is its own", function()
    local s = start [[
      min_fork = 1, max_fork = 1, connect = function(socket) return rest(30) end
    ]]
    s:connect()
    s:connect()
    assert.matches("^runs its handler for at least %d+ s$", named(s)[1])
    s:signal("INT")
  end)
end)

describe("a pool that is not full", function()
  after_each(server.cleanup)

  it("says nothing: all workers are busy and nothing waits, or it can grow", function()
    for _, pool in ipairs { "min_fork = 2, max_fork = 2", "min_fork = 1, max_fork = 5, fork_delay = 0" } do
      local s = start(pool .. ", connect = answer")
      get(s, "/slow")
      get(s, "/slow")
      socket.sleep(2)
      assert.falsy(s:log():find("full", 1, true))
      s:signal("INT")
      assert.truthy(process.wait_until(function() return s:status() end))
    end
  end)

  it("says nothing: it is quick", function()
    local s = start "min_fork = 1, max_fork = 1, connect = answer"
    local stop = socket.gettime() + 2
    while socket.gettime() < stop do assert.equal(200, s:request("/").status) end
    assert.falsy(s:log():find("full", 1, true))
  end)
end)
