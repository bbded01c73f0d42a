-- Reference, "Global function timeout(...)", and what the log tells when it kills.

local server = require "spec.support.server"

-- Runs a plain script with `timeout` at hand: exit code, stdout, stderr.
local function run(text)
  return server.run_script('local timeout = require "moonbridge".timeout\n' .. text)
end

local SIGALRM = 128 + 14

local function fails(text, pattern)
  local code, _, log = run(text)
  assert.equal(1, code)
  assert.truthy(log:find(pattern, 1, true), log)
end

describe("timeout", function()
  after_each(server.cleanup)

  it("is exported, and global where the name is free", function()
    local _, output = server.run_script [[
      timeout = 7
      print(type(require("moonbridge").timeout), timeout)
    ]]
    assert.equal("function\t7\n", output)
    local _, free = server.run_script [[print(require("moonbridge").timeout == timeout)]]
    assert.equal("true\n", free)
  end)

  it("kills the process after the given seconds", function()
    local code, output = run "timeout(0.1) print('set') io.stdout:flush() while true do end"
    assert.same({ SIGALRM, "set\n" }, { code, output })
  end)

  it("is queried without arguments, 0.0 if there is none", function()
    local _, output, log = run [[
      print(timeout(), math.type(timeout()))
      print(timeout(50), math.type(timeout()))
      local left = timeout()
      print(left > 49 and left <= 50)
      local previous = timeout(7)
      print(previous > 49 and previous <= 50, timeout() <= 7 and timeout() > 6)
    ]]
    assert.equal("0.0\tfloat\n0.0\tfloat\ntrue\ntrue\ttrue\n", output, log)
  end)

  it("is disabled by the number zero", function()
    local code, output = run [[
      timeout(0.05)
      local left = timeout(0)
      print(left > 0 and left <= 0.05, timeout())
      timeout("0.05") timeout(false)
      os.execute("sleep 0.2")
      print("alive")
    ]]
    assert.same({ 0, "true\t0.0\nalive\n" }, { code, output })
  end)

  it("can be shortened and prolonged", function()
    local code = run [[timeout("0x64") timeout(" 0.1 ") while true do end]]
    assert.equal(SIGALRM, code)
    local _, output = run [[timeout(0.05) timeout(100) os.execute("sleep 0.2") print("alive")]]
    assert.equal("alive\n", output)
  end)

  it("throws for wrong arguments, at the caller's position", function()
    for _, wrong in ipairs { "-1", "0/0", "1/0", "1.1e8", "'x'", "{}", "true" } do
      fails("timeout(" .. wrong .. ")", "app.lua:2: timeout expects a number of seconds from 0 to 1e8")
    end
  end)
end)

describe("timeout with a function", function()
  after_each(server.cleanup)

  it("passes further arguments on and returns all results", function()
    local _, output = run [[
      print(timeout(5, function(...) return select("#", ...), ... end, 1, nil, "x", nil))
    ]]
    assert.equal("4\t1\tnil\tx\tnil\n", output)
  end)

  it("kills the process when the function takes too long", function()
    local code, output = run "print(timeout(0.1, function() while true do end end))"
    assert.same({ SIGALRM, "" }, { code, output })
  end)

  it("leaves no timer behind, also if the function throws", function()
    local _, output = run [[
      timeout(0.05, function() end)
      print(timeout())
      print(pcall(timeout, 0.05, error, "oops"))
      print(timeout())
      local err = {}
      print(select(2, pcall(timeout, 0.05, error, err)) == err)
      os.execute("sleep 0.2")
      print("alive")
    ]]
    assert.equal("0.0\nfalse\toops\n0.0\ntrue\nalive\n", output)
  end)

  it("gives precedence to a shorter timeout set before", function()
    local code = run "timeout(0.1) timeout(100, function() while true do end end)"
    assert.equal(SIGALRM, code)
  end)

  it("restores a longer timeout set before", function()
    local _, output = run [[
      timeout(50)
      timeout(5, function() print(timeout() <= 5) timeout(1) end)
      print(timeout() > 49)
      print(pcall(timeout, 5, error, "oops"))
      print(timeout() > 49)
      print(timeout(0, timeout) > 49)
    ]]
    assert.equal("true\ntrue\nfalse\toops\ntrue\ntrue\n", output)
  end)

  it("lets the function yield", function()
    local _, output = run [[
      local yield = coroutine.yield
      local co = coroutine.wrap(function() return timeout(5, yield, 1) end)
      print(co(), co(2), timeout())
    ]]
    assert.equal("1\t2\t0.0\n", output)
  end)
end)

describe("when time is over, the log", function()
  after_each(server.cleanup)

  it("shows the traceback of what was running", function()
    local code, _, log = run [[
      local function inner() while true do end end
      timeout(0.1)
      inner()
    ]]
    assert.equal(SIGALRM, code)
    assert.truthy(
      log:find("^Timeout\nstack traceback:\n\t[^\n]*app%.lua:2: in [^\n]*function 'inner'\n"), log)
    assert.truthy(log:find("app.lua:4: in main chunk\n\t[C]: in ?\n", 1, true), log)
  end)

  it("shows that of a coroutine, however it was resumed", function()
    for _, start in ipairs { "coroutine.wrap(busy)()", "coroutine.resume(coroutine.create(busy))" } do
      local code, _, log = run(([[
        local function busy() while true do end end
        timeout(0.1)
        coroutine.wrap(function() %s end)()
      ]]):format(start))
      assert.equal(SIGALRM, code)
      assert.truthy(log:find("^Timeout\nstack traceback of a coroutine:\n\t[^\n]*app%.lua:2: in"), log)
      assert.truthy(log:find("\nstack traceback:\n.*app%.lua:4: in main chunk"), log)
      local _, threads = log:gsub("stack traceback", "")
      assert.equal(3, threads)
    end
  end)

  it("tells of a C function that does not return, and where it was called", function()
    for _, busy in ipairs { "os.execute('sleep 0.5')", "coroutine.wrap(os.execute)('sleep 0.5')",
      "print(('a'):rep(1e5):find(('.-'):rep(4) .. 'b'))" } do
      local code, _, log = run("timeout(0.1)\n" .. busy)
      assert.equal(SIGALRM, code)
      assert.truthy(log:find("^Timeout while a function outside of Lua was running\nstack traceback"), log)
      assert.truthy(log:find("app.lua:3: in main chunk", 1, true), log)
    end
  end)

  it("is not kept from it by protected calls", function()
    local code, _, log = run [[timeout(0.1) while true do pcall(error) end]]
    assert.equal(SIGALRM, code)
    assert.truthy(log:find("^Timeout\nstack traceback:"), log)
  end)
end)

describe("timeout in handlers", function()
  after_each(server.cleanup)

  local SERVE = [[
    listen{
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      min_fork = 1,
      %s
    }
  ]]

  it("kills the worker, which is replaced; the log tells why and where", function()
    local s = server.start { launcher = true, script = SERVE:format [[
      connect = function() timeout(0.1) while true do end end
    ]] }
    assert.equal("reset", select(2, s:raw("")))
    local pid = s:wait_log("Child process in pool #1 with PID (%d+) exited prematurely due to timeout")
    assert.truthy(s:log():find(("[Pool #1, PID %d] Timeout\n"):format(pid), 1, true))
    assert.truthy(s:log():find("%[Pool #1, PID " .. pid .. "%] \t[^\n]*app%.lua:4: in "))
    assert.equal("reset", select(2, s:raw("")))
  end)

  it("is off before prepare, after it, after each connect, and while finish runs", function()
    local s = server.start { launcher = true, script = SERVE:format [[
      prepare = function() io.stderr:write("prepare ", tostring(timeout()), "\n") timeout(0.2) end,
      connect = function(socket)
        io.stderr:write("connect ", tostring(timeout()), "\n")
        timeout(0.2)
        return socket:read(1) == "k"
      end,
      finish = function()
        io.stderr:write("finish ", tostring(timeout()), "\n")
        os.execute("sleep 0.4")
        io.stderr:write("finished\n")
      end
    ]] }
    assert.truthy(s:wait_log("prepare 0.0\n"))
    require("socket").sleep(0.3)
    s:raw("k")
    require("socket").sleep(0.3)
    s:raw("e")
    assert.truthy(s:wait_log("finished"))
    local _, connects = s:log():gsub("connect 0.0\n", "")
    assert.equal(2, connects)
    assert.truthy(s:log():find("finish 0.0\n", 1, true))
    assert.falsy(s:log():find("timeout", 1, true))
  end)

  it("is not inherited from the script: the supervisor has no limit", function()
    local s = server.start { launcher = true, script = "timeout(0.3) " .. SERVE:format [[
      connect = function(socket) socket:write(tostring(timeout())) return true end
    ]] }
    require("socket").sleep(0.5)
    assert.equal("0.0", (s:raw("")))
  end)

  it("in HTTP tells method and path of the request", function()
    local s = server.start { launcher = true, script = SERVE:format [[
      connect = require("moonbridge_http").generate_handler(
        { response_timeout = 1 }, function() while true do end end)
    ]] }
    s:raw("GET /slow?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(s:wait_log("%] Timeout %(GET /slow%?x=1 %[%x+%]%)\n"))
    assert.truthy(s:wait_log("exited prematurely due to timeout"))
  end)

  it("keeps the traceback of an error that passes through it", function()
    local s = server.start { launcher = true, script = SERVE:format [[
      connect = function() timeout(5, function() local t = nil; return t.x end) end
    ]] }
    s:raw("")
    assert.truthy(s:wait_log('Error in "connect" function: [^\n]*app.lua:4: attempt to index'))
    assert.truthy(s:wait_log("app%.lua:4: in function <[^\n]*app%.lua:4>\n[^\n]*%[C%]: in %l+ 'xpcall'"))
  end)
end)
