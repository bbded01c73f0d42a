-- Signals to the supervisor and to workers, and what ends either of them.

local lfs = require "lfs"
local socket = require "socket"
local process = require "spec.support.process"
local server = require "spec.support.server"

local start = server.start_pool

-- A pool whose handler answers the first byte: "s": after a second, else at once; with its pid.
local ANSWERS = [[
  min_fork = 1, max_fork = 4, fork_delay = 0,
  prepare = function() io.stderr:write("prepared\n") end,
  connect = function(socket)
    if socket:read(1) == "s" then
      io.stderr:write("slow\n")
      os.execute("sleep 0.7")
    end
    socket:write(moonbridge_io.getpid())
    return true
  end,
  finish = function() io.stderr:write("finish\n") end
]]

-- A connection whose handler is in the middle of its slow answer.
local function slow(s)
  local c = s:connect()
  c:send("s")
  assert.truthy(s:wait_log("slow\n"))
  return c
end

local function assert_reaped(s)
  assert.truthy(process.wait_until(function()
    for _, entry in ipairs(s:descendants()) do
      if entry.state == "Z" then return false end
    end
    return true
  end))
end

local function count(s, text)
  local _, found = s:log():gsub(text, "")
  return found
end

-- A server that a shell starts: `command` with LAUNCH for the command line. Returns the shell's
-- process, as a server, and the pid of the server proper.
local function through_shell(command, chatter)
  local port, app = server.free_port(), process.scratch("app.lua")
  process.write(app, ([[
    listen{
      { proto = "tcp", host = "127.0.0.1", port = %d },
      min_fork = 1,
      connect = function(socket) %s socket:write("hello") return true end
    }
  ]]):format(port, chatter or ""))
  local launch = ("%s %s/bin/moonbridge -p %s.pid %s"):format(
    server.interpreter, server.root, app, app)
  local outer = server.start {
    port = port, ready = "listening",
    script = ("os.execute(%q)"):format(("exec bash -c %q"):format((command:gsub("LAUNCH", launch)))),
  }
  return outer, math.tointeger(tonumber(process.slurp(app .. ".pid")))
end

describe("SIGTERM to the supervisor", function()
  after_each(server.cleanup)

  it("lets running handlers and finish complete, ends idle workers, exit code 0", function()
    local s = start(ANSWERS)
    local c = slow(s)
    s:signal("TERM")
    assert.truthy(tonumber((c:read_all())))
    assert.equal(0, s:wait())
    assert.equal(count(s, "prepared"), count(s, "finish"))
    for _, text in ipairs { "Initiate shutdown", "All worker threads have terminated",
      "Terminating with exit code 0" } do
      assert.equal(1, count(s, text), text)
    end
  end)

  it("given twice does no harm", function()
    local s = start(ANSWERS)
    local c = slow(s)
    s:signal("TERM")
    assert.truthy(s:wait_log("Initiate shutdown"))
    s:signal("TERM")
    assert.truthy(s:wait_log("Shutdown already in progress"))
    assert.truthy(tonumber((c:read_all())))
    assert.equal(0, s:wait())
  end)

  -- The handler returns true, or false: each connection takes a worker of its own.
  for result, number in pairs { ["true"] = 20, ["false"] = 10 } do
    it("serves what waits in the backlog before the listener closes; handlers return " .. result, function()
      local s = start(([[
        min_fork = 1, max_fork = 1, fork_delay = 0,
        connect = function(socket)
          local byte = socket:read(1)
          if byte == "s" then io.stderr:write("slow\n") os.execute("sleep 0.3") end
          socket:write("served ", byte)
          return %s
        end
      ]]):format(result))
      local first = slow(s)
      local waiting = {}
      for index = 1, number do
        waiting[index] = s:connect()
        waiting[index]:send("x")
      end
      s:signal("TERM")
      assert.equal("served s", (first:read_all()))
      for _, c in ipairs(waiting) do assert.same({ "served x", "closed" }, { c:read_all() }) end
      assert.equal(0, s:wait())
      assert.falsy(pcall(s.connect, s))
    end)
  end
end)

describe("SIGTERM to the supervisor, once more,", function()
  after_each(server.cleanup)

  it("wakes a handler that waits for that", function()
    local s = start [[
      connect = function(socket)
        io.stderr:write("slow\n")
        local ready, message, terminated = moonbridge_io.poll({ [socket] = true }, nil, 20, true)
        socket:write(tostring(ready), " ", message, " ", tostring(terminated))
        return true
      end
    ]]
    local c = s:connect()
    assert.truthy(s:wait_log("slow\n"))
    s:signal("TERM")
    assert.equal("false SIGTERM received true", (c:read_all()))
    assert.equal(0, s:wait())
  end)

  it("as process 1 of a container does the same, and orphans are reaped", function()
    if process.run("unshare -pf --kill-child --mount-proc true") ~= 0 then
      return pending("this user may not make a process namespace")
    end
    local outer, pid = through_shell("exec unshare -pf --mount-proc LAUNCH",
      "os.execute('(sleep 0.2 &)')")
    assert.equal(1, pid)
    assert.equal("hello", (outer:raw("")))
    local inner = process.wait_until(function()
      for _, entry in ipairs(outer:descendants()) do
        local status = process.slurp("/proc/" .. entry.pid .. "/status") or ""
        if status:match("NSpid:%s+%d+%s+(%d+)") == "1" then return entry.pid end
      end
    end)
    socket.sleep(0.4)
    assert_reaped(outer)
    process.kill(inner, "TERM")
    assert.equal(0, outer:wait())
  end)
end)

describe("SIGINT and SIGHUP to the supervisor", function()
  after_each(server.cleanup)

  it("kill the workers without finish, exit code 0", function()
    for _, signal in ipairs { "INT", "HUP" } do
      local s = start(ANSWERS)
      local c = slow(s)
      assert.equal(0, s:stop(signal))
      assert.same({ "", "reset" }, { c:read_all() })
      assert.equal(0, count(s, "finish"))
      assert.equal(1, count(s, "Fast shutdown requested"))
    end
  end)

  it("do so during an orderly shutdown, too", function()
    -- Never to end by itself; a signal interrupts poll.
    local forever = 'while true do require "moonbridge_io".poll(nil, nil, 60) end'
    local s = start((ANSWERS:gsub('os.execute%("sleep 0.7"%)', forever)))
    slow(s)
    s:signal("TERM")
    assert.truthy(s:wait_log("Initiate shutdown"))
    assert.equal(0, s:stop("INT"))
  end)

  it("are forwarded by a worker that gets them", function()
    for _, signal in ipairs { "INT", "HUP" } do
      local s = start(ANSWERS)
      process.kill(tonumber((s:raw("x"))), signal)
      assert.equal(0, s:wait())
      assert.equal(1, count(s, "Fast shutdown requested"))
    end
  end)

  it("work when the parent ignored them", function()
    for _, signal in ipairs { "INT", "HUP" } do
      local outer, pid = through_shell("trap '' INT HUP CHLD; exec LAUNCH")
      assert.equal("hello", (outer:raw("")))
      process.kill(pid, signal)
      assert.truthy(outer:wait())
      assert.falsy(process.alive(pid))
    end
  end)
end)

describe("SIGTERM to a worker", function()
  after_each(server.cleanup)

  it("is ignored by an idle one", function()
    -- The only worker: a pool that has grown ends any of its workers later.
    local s = start((ANSWERS:gsub("max_fork = 4", "max_fork = 1")))
    local pid = s:raw("x")
    process.wait_asleep(pid)
    process.kill(tonumber(pid), "TERM")
    socket.sleep(0.1)
    assert.equal(pid, (s:raw("x")))
  end)

  it("lets a busy one answer, which is then replaced", function()
    local s = start(ANSWERS)
    local c = slow(s)
    local busy
    for _, pid in ipairs(s:workers()) do
      if #(process.slurp(("/proc/%d/task/%d/children"):format(pid, pid)) or "") > 0 then busy = pid end
    end
    process.kill(busy, "TERM")
    assert.equal(tostring(busy), (c:read_all()))
    assert.truthy(process.wait_until(function() return not process.alive(busy) end))
    assert.truthy(s:wait_log("finish"))
    assert.truthy(process.wait_until(function() return #s:workers() >= 1 end))
    assert.truthy(tonumber((s:raw("x"))))
  end)
end)

describe("a killed supervisor", function()
  after_each(server.cleanup)

  it("takes idle workers along at once, busy ones after their answer; its ports are free at once", function()
    local s = start(ANSWERS)
    local c = slow(s)
    local idle
    assert.truthy(process.wait_until(function()
      idle = {}
      for _, pid in ipairs(s:workers()) do
        if #(process.slurp(("/proc/%d/task/%d/children"):format(pid, pid)) or "") == 0 then
          idle[#idle + 1] = pid
        end
      end
      return #idle > 0
    end))
    s:signal("KILL")
    s:wait()
    local again = start(ANSWERS, { port = s.port })
    assert.truthy(tonumber((again:raw("x"))))
    for _, pid in ipairs(idle) do
      assert.truthy(process.wait_until(function() return not process.alive(pid) end))
    end
    assert.truthy(tonumber((c:read_all())))
    assert.truthy(process.wait_until(function() return #s:descendants() == 0 end))
  end)
end)

describe("a killed supervisor, once more,", function()
  after_each(server.cleanup)

  it("does not keep a busy worker from logging and answering", function()
    local s = start [[
      connect = function(socket)
        io.stderr:write("slow\n")
        os.execute("sleep 0.5")
        for _ = 1, 10 do io.stderr:write("nobody reads this\n") end
        socket:write("answer")
        return true
      end
    ]]
    local c = s:connect()
    assert.truthy(s:wait_log("slow\n"))
    s:signal("KILL")
    assert.same({ "answer", "closed" }, { c:read_all() })
    assert.truthy(process.wait_until(function() return #s:descendants() == 0 end))
  end)
end)

describe("what else happens to a supervisor", function()
  after_each(server.cleanup)

  it("kills of random workers hurt no request on another connection", function()
    local s = start((ANSWERS:gsub("min_fork = 1", "min_fork = 4, pre_fork = 2")))
    for round = 1, 20 do
      local victims = s:workers()
      if victims[1] then process.kill(victims[1 + round % #victims], "KILL") end
      for _ = 1, 5 do
        local answer, ending = s:raw("x")
        -- A connection that the killed worker had already accepted is lost with it.
        if ending ~= "reset" then assert.truthy(tonumber(answer)) end
      end
    end
    assert.truthy(s:wait_log("died from signal 9"))
    assert.truthy(tonumber((s:raw("x"))))
  end)

  it("reaps children it does not know", function()
    local s = start(ANSWERS, { before = 'io.popen("sleep 0.1")' })
    socket.sleep(0.3)
    assert_reaped(s)
    assert.truthy(tonumber((s:raw("x"))))
  end)

  it("serves with standard streams closed", function()
    local outer, pid = through_shell("exec LAUNCH <&- >&- 2>&-")
    for _ = 1, 5 do assert.equal("hello", (outer:raw(""))) end
    process.kill(pid, "TERM")
    outer:wait()
  end)

  it("serves when its log is a full disk, a pipe that nobody reads, or one that is closed", function()
    for _, command in ipairs { "exec LAUNCH 2>/dev/full", "exec LAUNCH 2> >(sleep 12)",
      "exec LAUNCH 2> >(true)" } do
      local started = socket.gettime()
      local outer, pid = through_shell(command, [[
        for _ = 1, 200 do io.stderr:write(("x"):rep(900), "\n") end
      ]])
      for _ = 1, 5 do
        local begun = socket.gettime()
        assert.equal("hello", (outer:raw("")))
        assert.truthy(socket.gettime() - begun < 10, command) -- not until its reader has ended
      end
      process.kill(pid, "INT")
      outer:wait()
      if command:find("sleep", 1, true) then socket.sleep(math.max(0, started + 12.5 - socket.gettime())) end
    end
  end)

  it("kills and replaces a worker that writes garbage on its control channel", function()
    local s = start(ANSWERS)
    local victim = tonumber((s:raw("x")))
    local code, output = process.run(([[python3 - <<'END'
import ctypes, os, socket, stat
libc = ctypes.CDLL(None)
pid = %d
pidfd = os.pidfd_open(pid)
channels = []
for name in os.listdir("/proc/%%d/fd" %% pid):
    if not os.readlink("/proc/%%d/fd/%%s" %% (pid, name)).startswith("socket:"):
        continue
    fd = libc.syscall(438, pidfd, int(name), 0)
    s = socket.socket(fileno=fd)
    if s.family == socket.AF_UNIX and s.type & 0xf == socket.SOCK_SEQPACKET:
        channels.append(s)
# The control channel, and the way to the push process, which ignores it.
for s in channels:
    s.send(b"\xffgarbage")
    print("sent")
END]]):format(victim))
    assert.same({ 0, "sent\nsent\n" }, { code, output })
    assert.truthy(s:wait_log("Invalid message on the control channel; the worker is killed"))
    assert.truthy(s:wait_log(("PID %d died from signal 9"):format(victim)))
    local answer = s:raw("x")
    assert.truthy(tonumber(answer) and tonumber(answer) ~= victim)
  end)

  it("leaves the host's signal dispositions as they were when run has returned", function()
    local s = server.start {
      script = [[
        local function dispositions()
          local text = {}
          for line in io.lines("/proc/self/status") do
            if line:find("^Sig[BIC]") then text[#text + 1] = line end
          end
          return table.concat(text, "\n")
        end
        local moonbridge = require "moonbridge"
        moonbridge.listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT }, connect = function() return true end
        }
        local before = dispositions()
        local code = moonbridge.run()
        print(code, before == dispositions())
        os.exit(7)
      ]],
    }
    assert.equal(7, s:stop())
    assert.equal("0\ttrue\n", s:output())
  end)
end)

describe("a worker", function()
  after_each(server.cleanup)

  -- What descriptors of a process lead to, by their numbers.
  local function descriptors(pid)
    local targets = {}
    for name in lfs.dir(("/proc/%s/fd"):format(pid)) do
      if tonumber(name) then
        targets[tonumber(name)] = lfs.symlinkattributes(("/proc/%s/fd/%s"):format(pid, name), "target")
      end
    end
    return targets
  end

  it("holds descriptors 0, 1, 2, its channels, its pool's ports and its own epoll set", function()
    local before = 'listen{ { proto = "tcp", host = "127.0.0.1", port = 0 }, connect = print }'
    -- What the runner of the specs has open when the server starts; it may close some at any time.
    local inherited = {}
    for _, target in pairs(descriptors("self")) do inherited[target] = true end
    local s = start("connect = function(s) s:write(moonbridge_io.getpid()) return true end",
      { before = before, launcher = { "-p", process.scratch("pid"), "-l", process.scratch("log") } })
    local worker = tonumber((s:raw("")))
    local own, shared
    -- The client may know that its connection ends before the worker has closed it.
    process.wait_until(function()
      own, shared = {}, {}
      local supervisor = descriptors(s.pid)
      for number, target in pairs(descriptors(worker)) do
        local list = supervisor[number] == target and shared or own
        if list == own or target:find("^socket") and not inherited[target] then
          list[#list + 1] = target:match("^[%a_]+") -- without the number of an inode
        end
        assert.falsy(target:find("/log$") or target:find("/pid$"))
      end
      return #own == 2
    end)
    table.sort(own)
    assert.same({ "anon_inode", "pipe" }, own)
    -- The port, the way to the push process, and the worker's end of the control channel: the supervisor
    -- looks there for what a dead worker left.
    assert.same({ "socket", "socket", "socket" }, shared)
  end)

  it("prints buffered output once", function()
    local s = start("min_fork = 3, connect = function() return true end",
      { before = "io.stdout:setvbuf('full', 65536) io.write('once ')" })
    assert.truthy(process.wait_until(function() return #s:workers() == 3 end))
    s:stop()
    assert.equal("once ", s:output())
  end)

  it("draws random numbers of its own", function()
    local s = start [[
      connect = function(socket)
        socket:write(math.random(1, 1 << 30))
        return false
      end
    ]]
    local seen = {}
    for _ = 1, 5 do
      local number = s:raw("")
      assert.falsy(seen[number])
      seen[number] = true
    end
  end)
end)
