-- Reference, "moonbridge_io.exec(command, arg1, arg2, ...)".

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

local exec, poll = moonbridge_io.exec, moonbridge_io.poll

local function misuse(f, ...)
  local arguments = table.pack(...)
  local ok, message = pcall(function() f(table.unpack(arguments, 1, arguments.n)) end)
  assert.is_false(ok)
  assert.matches("^spec/io/exec_spec.lua:%d+: ", message)
  return message
end

local function gone(pid)
  return process.slurp("/proc/" .. pid .. "/stat") == nil
end

describe("exec", function()
  after_each(server.cleanup)

  it("'returns a child handle with three sockets named stdin, stdout, and stderr'", function()
    local child = assert(exec("sh", "-c", "read line; echo \"got $line\"; echo oops >&2"))
    assert.equal("userdata", type(child))
    child.stdin:flush("input\n")
    assert.same({ n = 2, "got input\n", "eof" }, pair.results(child.stdout:read()))
    assert.same({ n = 2, "oops\n", "eof" }, pair.results(child.stderr:read()))
    assert.same({ n = 1, 0 }, pair.results(child:wait()))
  end)

  it("passes arguments as they are; numbers become strings", function()
    local child = assert(exec("printf", "%s|%s|%s|", "a b", "", 7))
    assert.equal("a b||7|", (child.stdout:read()))
    child:wait()
  end)

  it("'returns nil plus an error message in case of error'", function()
    assert.same(
      { n = 3, nil, "Could not execute: No such file or directory", 2 },
      pair.results(exec("/no/such/program", "x"))
    )
    assert.equal("Could not execute: No such file or directory", select(2, exec("not-in-the-path")))
    local path = process.scratch("no-program")
    assert(io.open(path, "w")):close()
    assert.same({ nil, "Could not execute: Permission denied", 13 }, { exec(path) })
  end)

  it("with kill_with_parent starts a program that ends with this process, however that ends", function()
    for option, survives in pairs { ["{ kill_with_parent = true }, "] = false,
      ["{ kill_with_parent = false }, "] = true, [""] = true } do
      local s = server.start { ready = { log = "started %d+\n" }, script = ([[
        local io_ = require "moonbridge_io"
        local child = assert(io_.exec(%s"sleep", "60"))
        io.stderr:write("started ", child.pid, "\n")
        io_.poll(nil, nil, 60)
      ]]):format(option) }
      local pid = math.tointeger(tonumber(s:log():match("started (%d+)\n")))
      assert.is_true(process.alive(pid))
      s:signal("KILL")
      assert(s:wait())
      if survives then
        socket.sleep(0.1)
        assert.is_true(process.alive(pid))
        process.kill(pid, "KILL")
      end
      assert.truthy(process.wait_until(function() return not process.alive(pid) end))
    end
    local child = assert(exec({}, "printf", "%s", "x"))
    assert.equal("x", (child.stdout:read()))
    child:wait()
    assert.matches('unknown option "kill_with_parents"', misuse(exec, { kill_with_parents = true }, "true"))
    assert.matches("expected to be a boolean", misuse(exec, { kill_with_parent = "yes" }, "true"))
    assert.matches("unknown option", misuse(exec, { "true" }))
    misuse(exec, {})
  end)

  it("throws without arguments and for arguments that are no strings", function()
    misuse(exec)
    misuse(exec, nil)
    misuse(exec, {})
    misuse(exec, "echo", {})
    misuse(exec, "echo", nil)
    misuse(exec, "echo", "zero\0byte")
  end)

  it("passes on no descriptor above 2", function()
    local keep = { pair.tcp() }
    local file = assert(io.open("/etc/hostname"))
    local child = assert(exec("ls", "-l", "/proc/self/fd"))
    local streams, others = 0, 0
    for target in child.stdout:read():gmatch("%-> ([^\n]+)") do
      if target:find("^socket:") then streams = streams + 1 else others = others + 1 end
    end
    assert.equal(3, streams)
    assert.equal(1, others, "the folder itself, which ls has opened")
    child:wait()
    file:close()
    assert.equal(2, #keep)
  end)

  it("passes on no signal mask and no ignored signal", function()
    local program = [[
      trap '' INT HUP USR1 TERM
      exec "$0" -e '
        local child = require("moonbridge_io").exec("cat", "/proc/self/status")
        io.write((child.stdout:read()))
      '
    ]]
    local child = assert(exec("env", "--block-signal=USR2,TERM", "sh", "-c", program, arg[-1]))
    local status = child.stdout:read()
    assert.equal("", (child.stderr:read()))
    assert.matches("SigBlk:%s0+\n", status)
    assert.matches("SigCgt:%s0+\n", status)
    local ignored = tonumber(status:match("SigIgn:%s(%x+)"), 16)
    -- The C library keeps two signals for itself, which nobody can set.
    assert.equal(0, ignored & 0x7fffffff)
    child:wait()
  end)

  it("works with 100 MB when the pipes are polled", function()
    local program = "head -c 100000000 /dev/zero & head -c 100000000 /dev/zero >&2; wait"
    local child = assert(exec("sh", "-c", program))
    local got = { [child.stdout] = 0, [child.stderr] = 0 }
    local open = { [child.stdout] = true, [child.stderr] = true }
    while next(open) do
      assert(poll(open, nil, process.TIMEOUT))
      for handle in pairs(got) do
        if open[handle] then
          local count, status = handle:drain_nb(1 << 20)
          got[handle] = got[handle] + count
          if status == "eof" then open[handle] = nil end
        end
      end
    end
    assert.equal(100000000, got[child.stdout])
    assert.equal(100000000, got[child.stderr])
    assert.equal(0, child:wait())
  end)
end)

describe("a child handle", function()
  it("wait: 'wait for the process to terminate and return its exit code'", function()
    assert.same({ n = 1, 0 }, pair.results(assert(exec("true")):wait()))
    assert.same({ n = 1, 7 }, pair.results(assert(exec("sh", "-c", "exit 7")):wait()))
    assert.same({ n = 1, 255 }, pair.results(assert(exec("sh", "-c", "exit 255")):wait()))
  end)

  it("wait: 'If the process was terminated by a signal, a negative integer is returned'", function()
    local child = assert(exec("sleep", "60"))
    assert.same({ n = 1, child }, pair.results(child:kill(15)))
    assert.same({ n = 1, -15 }, pair.results(child:wait()))
  end)

  it("kill: 'defaults to 9 for SIGKILL'; names are taken as well", function()
    for signal, number in pairs { [9] = 9, TERM = 15, SIGINT = 2, usr1 = 10, ["1"] = 1 } do
      local child = assert(exec("sleep", "60"))
      child:kill(signal)
      assert.equal(-number, child:wait())
    end
    local child = assert(exec("sleep", "60"))
    child:kill()
    assert.equal(-9, child:wait())
    child = assert(exec("sleep", "60"))
    child:kill(40)
    assert.equal(-40, child:wait())
    child = assert(exec("cat"))
    for _, wrong in ipairs { "NONSENSE", 0.5, 1000, -9, {} } do misuse(child.kill, child, wrong) end
    child:kill():wait()
  end)

  it("wait_nb: 'returns false (plus a notice as second return value)'", function()
    local child = assert(exec("cat"))
    assert.same({ n = 2, false, "Process is still running" }, pair.results(child:wait_nb()))
    child.stdin:close()
    assert.is_true(poll({ [child] = true }, nil, process.TIMEOUT))
    assert.same({ n = 1, 0 }, pair.results(child:wait_nb()))
  end)

  it("wait_call: 'calls waitfunc() (in an infinite loop) as long as the process is still running'", function()
    local child = assert(exec("cat"))
    local calls = 0
    local status = pair.results(child:wait_call(function(...)
      assert.equal(0, select("#", ...))
      calls = calls + 1
      if calls == 3 then child.stdin:close() end
      if calls >= 3 then poll({ [child] = true }, nil, process.TIMEOUT) end
    end))
    assert.same({ n = 1, 0 }, status)
    assert.equal(3, calls)
  end)

  it("wait_yield: 'is an alias for :wait_call(coroutine.yield)'", function()
    local child = assert(exec("sh", "-c", "read x; exit 4"))
    local run = coroutine.wrap(function() return "end", child:wait_yield() end)
    assert.is_nil((run()))
    assert.is_nil((run()))
    child.stdin:finish()
    assert.is_true(poll({ [child] = true }, nil, process.TIMEOUT))
    assert.same({ "end", 4 }, { run() })
  end)

  it("throws when it is used after its status was fetched", function()
    local child = assert(exec("true"))
    child:wait()
    misuse(child.wait, child)
    misuse(child.wait_nb, child)
    misuse(child.wait_call, child, print)
    misuse(child.kill, child)
  end)

  it("keeps its streams and the user's fields after that", function()
    local child = assert(exec("echo", "late"))
    child.note = "mine"
    child:wait()
    assert.equal("mine", child.note)
    assert.equal("late\n", (child.stdout:read()))
    assert.is_nil(child.nothing)
  end)

  it("kills and reaps the process when it is collected", function()
    local child = assert(exec("sleep", "60"))
    local pid = child.pid
    assert.is_false(gone(pid))
    child = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_true(gone(pid))
  end)

  it("leaves no zombie when the process ended while nobody looked", function()
    local child = assert(exec("true"))
    local pid = child.pid
    poll({ [child] = true }, nil, process.TIMEOUT)
    assert.matches("%) Z ", process.slurp("/proc/" .. pid .. "/stat"))
    child = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.is_true(gone(pid))
  end)

  it("may be left to the garbage collector, also when descriptors run out", function()
    local program = [[
      local io = require "moonbridge_io"
      collectgarbage("stop")
      for i = 1, 60 do assert(assert(io.exec("true")):wait() == 0) end
      local listener = assert(io.tcplisten("127.0.0.1", 0))
      for i = 1, 60 do
        assert(assert(io.tcpconnect("127.0.0.1", listener.local_tcpport)):flush("x"))
        assert(listener:accept())
      end
    ]]
    local child = assert(exec("sh", "-c", 'ulimit -n 64; exec "$0" -e "$1"', arg[-1], program))
    assert.equal("", (child.stderr:read()))
    assert.equal(0, child:wait())
  end)

  it("finish of stdin is EOF for the program", function()
    local child = assert(exec("cat"))
    child.stdin:write("all")
    child.stdin:finish()
    assert.same({ n = 2, "all", "eof" }, pair.results(child.stdout:read()))
    assert.equal(0, child:wait())
  end)
end)
