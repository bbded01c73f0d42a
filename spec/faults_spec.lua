-- The harness that makes system calls fail or block, and the one that freezes processes.
-- Runs once: a harness is the same under each version of Lua.

local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- Says how five calls of LuaSocket end.
local OPEN = [[
  local socket = require "socket"
  for _ = 1, 5 do print((select(2, socket.tcp4()))) end
]]

-- Two workers that answer each line, as a program for the launcher.
local POOL = [[
  listen{
    {proto="tcp", host="127.0.0.1", port=PORT}, pre_fork=2, min_fork=2, max_fork=2,
    connect=function(socket)
      local line = socket:read(nil, "\n")
      if line == "fail\n" then error("a failure") end
      socket:write("answer\n"):close()
    end
  }
]]
local SERVER = "local moonbridge = require 'moonbridge' local listen = moonbridge.listen " .. POOL
  .. "moonbridge.run()"

describe("the fault harness", function()
  after_each(server.cleanup)

  local function output_of(script, rules)
    local s = faults.server { script = script, faults = rules, ready = false }
    assert.equal(0, s:wait(), s:log())
    return s:output(), s
  end

  it("fails the calls that it is told to, by their number", function()
    local output, s = output_of(OPEN, {
      { call = "socket", request = "AF_INET", skip = 1, count = 2, errno = "EMFILE" },
    })
    assert.equal("nil\nToo many open files\nToo many open files\nnil\nnil\n", output)
    assert.equal(2, s.faults:hits("socket"))
    assert.equal(5, s.faults:calls("socket"))
  end)

  it("looks at a call's arguments", function()
    assert.equal(("nil\n"):rep(5), (output_of(OPEN, {
      { call = "socket", request = "AF_INET6", errno = "EMFILE" },
      { call = "socket", fd = 77, errno = "EMFILE" },
      { call = "socket", size = 1, errno = "EMFILE" },
      { call = "socket", path = "elsewhere", errno = "EMFILE" },
      { call = "socket", with_descriptors = true, errno = "EMFILE" },
    })))
  end)

  it("tells the supervisor from its workers", function()
    local s = faults.server(SERVER)
    s.faults:set { call = "accept4", process = "supervisor", errno = "EPERM" }
    s.faults:set { call = "accept4", process = "workers", skip = 1, count = 1, errno = "ECONNABORTED" }
    for _ = 1, 3 do assert.equal("answer\n", (s:raw("ask\n"))) end
    assert.equal(1, s.faults:hits("accept4"))
    assert.equal(0, s.faults:calls("accept4", "supervisor"))
    assert.truthy(s.faults:calls("accept4", "workers") >= 4)
    assert.truthy(s.faults:calls("fork", "supervisor") >= 2)
    assert.equal(0, s.faults:calls("fork", "workers"))
  end)

  it("takes a daemon for the supervisor that it becomes", function()
    local pid_file, log = process.scratch("pid"), process.scratch("log")
    local s = faults.server {
      script = POOL,
      launcher = { "-b", "-p", pid_file, "-l", log }, ready = false,
    }
    assert.equal(0, s:wait())
    assert.truthy(process.wait_until(function() return server.listening(s.port) end))
    local daemon = tonumber(process.slurp(pid_file))
    assert.equal("answer\n", (s:raw("ask\n")))
    assert.truthy(process.wait_until(function() return s.faults:calls("fork", "supervisor") == 3 end))
    assert.equal(0, s.faults:calls("fork", "workers"))
    process.kill(daemon, "TERM")
    assert.truthy(process.wait_until(function() return not process.alive(daemon) end))
  end)

  it("knows calls by one name, however they are made", function()
    local _, s = output_of [[
      require("moonbridge_io").exec("true"):wait()
      require("moonbridge_io").localconnect("/nowhere")
    ]]
    assert.equal(1, s.faults:calls("pidfd_open"))
    assert.equal(1, s.faults:calls("connect"))
  end)

  it("blocks a call until the rule is cleared", function()
    local s = faults.server(SERVER)
    local rule = s.faults:set { call = "write", fd = 2, block = true, process = "supervisor" }
    assert.equal("", (s:raw("fail\n")))
    s.faults:wait_hits("write")
    assert.falsy(s:log():find("a failure"))
    s.faults:clear(rule)
    assert.truthy(s:wait_log("a failure"))
    assert.equal(0, s:stop())
  end)

  it("ends what it blocks at the end of a spec", function()
    local s = faults.server(SERVER)
    s.faults:set { call = "write", path = "/stderr", block = true, process = "supervisor" }
    s:raw("fail\n")
    s.faults:wait_hits("write")
  end)

  it("delays, shortens, redirects and replaces calls", function()
    local path = process.scratch("a.sock")
    local output, s = output_of(([[
      local moonbridge_io = require "moonbridge_io"
      local gettime = require("socket").gettime
      local listener = assert(moonbridge_io.locallisten(%q))
      local near = assert(moonbridge_io.localconnect("/nowhere/at/all"))
      local far = assert(listener:accept())
      local begun = gettime()
      assert(near:flush("abcdef\n"))
      io.write(far:read(nil, "\n"), tostring(gettime() - begun >= 0.1), "\n")
      assert(near:flush("lost\n"))
      near:close()
      print(far:read(nil, "\n") == "")
    ]]):format(path), {
      { call = "connect", path = "/nowhere/", redirect = path },
      { call = "send", shorten = 4, count = 1 },
      { call = "send", skip = 1, count = 1, block = 0.1 },
      { call = "send", skip = 2, result = 5 },
    })
    assert.equal("abcdef\ntrue\ntrue\n", output)
    assert.equal(3, s.faults:hits("send"))
  end)

  it("sends a signal at a call", function()
    local s = faults.server(SERVER)
    s.faults:set { call = "accept4", process = "workers", signal = "KILL", count = 1 }
    assert.equal("answer\n", (s:raw("ask\n")))
    assert.truthy(s:wait_log("signal"))
  end)

  it("freezes a process at a call, until the end of the spec", function()
    local s = faults.server(SERVER)
    s.faults:set { call = "accept4", process = "workers", signal = "STOP", count = 1 }
    s:connect()
    s.faults:wait_hits("accept4")
  end)

  it("leaves programs alone that the server executes", function()
    assert.equal("as ever\n", (output_of([[
      io.stdout:setvbuf("no")
      local command = require("moonbridge_io").exec(
        "sh", "-c", "echo ${LD_PRELOAD:-as} ${MOONBRIDGE_FAULTS:-ever}")
      print((command.stdout:read(nil, "\n"):gsub("\n", "")))
      command:wait()
    ]], { { call = "write", fd = 1, errno = "EIO" } })))
  end)

  it("refuses rules that it cannot hold to", function()
    local s = faults.server { script = OPEN, ready = false }
    s:wait()
    for _, wrong in ipairs {
      { call = "no_such_call", errno = "EIO" }, { call = "open", errno = "ENOTHING" }, { call = "open" },
      { call = "open", errno = "EIO", block = true }, { call = "open", errno = "EIO", process = "others" },
      { call = "open", errno = "EIO", request = "PR_NOTHING" }, { call = "open", signal = "NOTHING" },
    } do
      assert.falsy(pcall(s.faults.set, s.faults, wrong))
    end
  end)
end)

describe("the freezer", function()
  after_each(server.cleanup)

  it("freezes a process and thaws it", function()
    local s = faults.server(SERVER)
    process.freeze(s.pid)
    s:signal("TERM")
    assert.falsy(s:wait(0.1))
    process.thaw(s.pid)
    assert.equal(0, s:wait())
  end)

  it("thaws at the end of a spec", function()
    local s = faults.server(SERVER)
    process.freeze(s.pid)
  end)
end)
