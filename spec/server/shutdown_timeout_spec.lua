-- How long a shutdown may take: what takes longer is killed, and named in the log.
-- Any version: nothing of it depends on Lua's.

local socket = require "socket"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tables = require "spec.support.tables"

local LIMIT = 1

local function start(pool, options)
  return server.start_pool("min_fork = 1, max_fork = 1, " .. pool, tables.with({
    launcher = { "--shutdown-timeout", tostring(LIMIT) },
    before = [[
      local function hang()
        io.stderr:write("hangs\n")
        while true do moonbridge_io.poll(nil, nil, 60) end
      end
    ]],
  }, options))
end

-- Ends the server in order; what the log says of its worker when the time is over.
local function ends_in_time(s, worker, meanwhile)
  local begun = socket.gettime()
  s:signal("TERM")
  local code = process.wait_until(function()
    if meanwhile then meanwhile() end
    return s:status()
  end)
  assert.equal(0, code)
  assert.is_true(socket.gettime() - begun >= LIMIT)
  local log = s:log()
  assert.truthy(log:find("Shutdown timeout: what still runs is killed", 1, true))
  assert.truthy(log:find("Terminating with exit code 0", 1, true))
  return log:match(("%%[Pool #1, PID %d%%] Killed: ([^\n]*)"):format(worker))
end

describe("a shutdown ends after shutdown_timeout", function()
  after_each(server.cleanup)

  it("though prepare hangs", function()
    local s = start("prepare = hang, connect = hang", { ready = { log = "hangs\n" } })
    local waiting = s:connect()
    assert.matches("^runs prepare for %d+ s$", ends_in_time(s, s:workers()[1]))
    assert.equal("", (waiting:read_all()))
  end)

  it("though finish hangs", function()
    local s = start("finish = hang, connect = function() return true end")
    assert.matches("^runs finish", ends_in_time(s, s:workers()[1]))
  end)

  it("though a handler hangs", function()
    local s = start("connect = hang")
    s:connect()
    assert.truthy(s:wait_log("hangs\n"))
    assert.matches("^runs its handler for at least %d+ s", ends_in_time(s, s:workers()[1]))
  end)

  it("though an interval's or a main handler hangs", function()
    for proto, text in pairs { interval = 'runs interval "job"', main = 'runs main "job"' } do
      local s = start(([[{ proto = %q, name = "job", delay = 0.1 }, connect = hang]]):format(proto),
        { ready = { log = "hangs\n" } })
      assert.equal(text, (ends_in_time(s, s:workers()[1]):gsub(" for .*", "")))
    end
  end)

  it("though a client sends a byte now and then", function()
    local s = start("connect = function(socket) socket:read(1000, '\\n') return true end")
    local slow = s:connect()
    slow:send("a")
    socket.sleep(0.1)
    assert.matches("^runs its handler", ends_in_time(s, s:workers()[1], function() slow:send("a") end))
  end)

  it("though a client takes a byte now and then", function()
    local s = start([[connect = function(socket)
      socket:write_nb(("x"):rep(16 * 1024 * 1024))
      return true
    end]])
    local slow = s:connect { receive_buffer = 4096 }
    slow:read(1)
    assert.equal("sends output to 1 slow client", (ends_in_time(s, s:workers()[1], function()
      slow:read(100)
    end):gsub(" for .*", "")))
  end)

  it("though a worker is frozen", function()
    local s = start("connect = function() return true end")
    local worker = s:workers()[1]
    process.freeze(worker)
    s:signal("TERM")
    assert.equal(0, s:wait())
    assert.is_false(process.alive(worker))
  end)
end)

describe("shutdown_timeout", function()
  after_each(server.cleanup)

  local SLOW = [[
    local moonbridge = require "moonbridge"
    moonbridge.listen {
      { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
      connect = function(socket)
        io.stderr:write("slow\n")
        os.execute("sleep 1")
        socket:write("served")
        return true
      end,
    }
    moonbridge.run { shutdown_timeout = %s }
  ]]

  local function outcome(value)
    local s = server.start(SLOW:format(value))
    local c = s:connect()
    assert.truthy(s:wait_log("slow\n"))
    s:signal("TERM")
    assert.equal(0, s:wait())
    return (c:read_all())
  end

  it("is an option of run, too; 0 and false: no limit", function()
    assert.equal("", outcome("0.2"))
    assert.equal("", outcome("'0.2'"))
    assert.equal("served", outcome("0"))
    assert.equal("served", outcome("false"))
    assert.equal("served", outcome("nil"))
  end)

  it("is a number of seconds", function()
    for _, value in ipairs { "-1", "{}", "'soon'", "1e9", "0/0", "true" } do
      local code, _, log = server.run_script(SLOW:format(value))
      assert.equal(1, code)
      assert.truthy(log:find('Option "shutdown_timeout" is expected to be a non-negative number', 1, true))
    end
    local code, _, log = server.run_script {
      script = "", launcher = { "--shutdown-timeout=soon" },
    }
    assert.equal(1, code)
    assert.truthy(log:find('Option "shutdown_timeout" is expected to be', 1, true))
  end)

  it("does not keep a fast shutdown from ending the server at once", function()
    local s = start("connect = hang", { launcher = { "--shutdown-timeout", "60" } })
    s:connect()
    assert.truthy(s:wait_log("hangs\n"))
    s:signal("TERM")
    assert.truthy(s:wait_log("Initiate shutdown"))
    s:signal("TERM")
    assert.truthy(s:wait_log("Shutdown already in progress"))
    assert.is_nil(s:status())
    s:signal("HUP")
    assert.equal(0, s:wait())
  end)
end)
