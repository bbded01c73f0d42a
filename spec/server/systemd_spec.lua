-- Socket activation, notification and watchdog: the spec plays systemd's side.
-- Any version: nothing of it depends on Lua's.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- Opens sockets as systemd does, from descriptor 3 on, and becomes the server.
local ACTIVATE = [[
import os, socket, sys
kinds, argv = sys.argv[1].split(), sys.argv[2:]
sockets = []
for kind in kinds:
    proto, where = kind.split("=", 1)
    if proto == "tcp":
        s = socket.socket(socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", int(where)))
        s.listen(100)
    elif proto == "local":
        s = socket.socket(socket.AF_UNIX)
        s.bind(where)
        s.listen(100)
    else:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sockets.append(s)
moved = [os.dup2(os.dup(s.fileno()), 200 + i) for i, s in enumerate(sockets)]
for i, fd in enumerate(moved):
    os.dup2(fd, 3 + i, inheritable=True)
if os.environ.get("KEEP") and os.fork() > 0:
    os.wait()
    sockets[0].setblocking(True)
    connection, _ = sockets[0].accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
    connection.sendall(b"not served")
    sys.exit()
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ["LISTEN_FDS"] = str(len(sockets))
os.closerange(3 + len(sockets), 300)
if "UNIT_FOLDER" in os.environ:
    os.chdir(os.environ.pop("UNIT_FOLDER"))
    os.environ.pop("PWD", None)
    os.environ.update([os.environ.pop("UNIT_ENVIRONMENT").split("=", 1)])
os.execvp(argv[0], argv)
]]

-- Starts an application with the given inherited sockets (a string for ACTIVATE).
local function activate(sockets, app, options)
  options = options or {}
  local ready = options.ready
  if ready == nil then ready = "listening" end
  local script = process.scratch("app.lua")
  process.write(script, app)
  local activation = process.scratch("activate.py")
  process.write(activation, ACTIVATE)
  local command = options.command
    or ("%s %s/bin/moonbridge %s"):format(server.interpreter, server.root, script)
  local s = server.start {
    port = options.port, env = options.env, ready = ready,
    script = ("os.execute(%q)"):format(("echo $$ >%s.pid; exec python3 %s %s %s"):format(
      script, activation, process.quote(sockets), (command:gsub("SCRIPT", script)))),
  }
  s.server_pid = math.tointeger(tonumber(process.slurp(script .. ".pid")))
  return s
end

local HELLO = "connect = function(socket) socket:write('hello') return true end"

local function stop(s)
  process.kill(s.server_pid, "TERM")
  assert.truthy(s:wait())
end

describe("a socket that a service manager has opened", function()
  after_each(server.cleanup)

  it("is claimed by its name", function()
    local one, two = server.free_port(), server.free_port()
    local s = activate(("tcp=%d tcp=%d"):format(one, two), [[
      listen{ { proto = "inherit", name = "admin" }, min_fork = 1,
        connect = function(socket) socket:write("admin") return true end }
      listen{ { proto = "inherit", name = "web" }, min_fork = 1,
        connect = function(socket)
          socket:write("web ", socket.local_tcpport, " ", tostring(os.getenv("LISTEN_FDS")))
          return true
        end }
    ]], { port = one, env = { LISTEN_FDNAMES = "web:admin" } })
    assert.equal(("web %d nil"):format(one), (s:raw("")))
    s.port = two
    assert.equal("admin", (s:raw("")))
    assert.truthy(s:log():find('Adding inherited listener "admin"', 1, true))
    stop(s)
  end)

  it("goes to the background with the server", function()
    local one, pid = server.free_port(), process.scratch("pid")
    local s = activate(("tcp=%d"):format(one), "listen{ { proto = 'inherit' }, " .. HELLO .. "}", {
      port = one, ready = false,
      command = ("%s %s/bin/moonbridge -b -p %s -l %s.log SCRIPT"):format(
        server.interpreter, server.root, pid, pid),
    })
    assert.equal(0, s:wait())
    s.server_pid = math.tointeger(tonumber(process.slurp(pid)))
    assert.equal("hello", (s:raw("")))
    process.kill(s.server_pid, "TERM")
    assert.truthy(process.wait_until(function() return not process.alive(s.server_pid) end))
  end)

  it("is claimed in order without a name", function()
    local one = server.free_port()
    local s = activate(("tcp=%d"):format(one), "listen{ { proto = 'inherit' }, " .. HELLO .. "}",
      { port = one })
    assert.equal("hello", (s:raw("")))
    stop(s)
  end)

  it("is taken by a TCP or local listener for the same address", function()
    local port, path = server.free_port(), process.scratch("socket")
    local s = activate(("tcp=%d local=%s"):format(port, path), ([[
      listen{ { proto = "tcp", host = "127.0.0.1", port = %d },
        { proto = "local", path = %q }, %s }
    ]]):format(port, path, HELLO), { port = port })
    assert.equal("hello", (s:raw("")))
    assert.equal("hello", (s:connect({ path = path }):read_all()))
    assert.truthy(s:log():find(("port %d (inherited)"):format(port), 1, true))
    stop(s)
    -- It is the manager's to remove.
    assert.truthy(require("lfs").attributes(path))
  end)

  it("goes on collecting connections when the server ends", function()
    local port = server.free_port()
    local s = activate(("tcp=%d"):format(port), ([[
      listen{ { proto = "tcp", host = "127.0.0.1", port = %d }, %s }
    ]]):format(port, HELLO), { port = port, env = { KEEP = 1 } })
    assert.equal("hello", (s:raw("")))
    for _, entry in ipairs(s:descendants()) do
      if entry.command:find("^lua") then process.kill(entry.pid, "TERM") end
    end
    assert.truthy(s:wait_log("Terminating with exit code 0"))
    assert.equal("not served", (s:raw("")))
    assert.truthy(s:wait())
  end)

  it("keeps what waits there for the next server", function()
    local port = server.free_port()
    local s = activate(("tcp=%d"):format(port), ([[
      listen{ { proto = "tcp", host = "127.0.0.1", port = %d }, min_fork = 1, max_fork = 1,
        connect = function(socket)
          io.stderr:write("busy\n")
          os.execute("sleep 0.5")
          socket:write("hello")
          return true
        end }
    ]]):format(port), { port = port, env = { KEEP = 1 } })
    local busy = s:connect()
    assert.truthy(s:wait_log("busy\n"))
    local waiting = s:connect()
    for _, entry in ipairs(s:descendants()) do
      if entry.command:find("^lua") then process.kill(entry.pid, "TERM") end
    end
    assert.equal("hello", (busy:read_all()))
    assert.truthy(s:wait_log("Terminating with exit code 0"))
    assert.equal("not served", (waiting:read_all()))
    assert.truthy(s:wait())
  end)

  it("that nobody claims is closed, and the log tells it", function()
    local port = server.free_port()
    local own = server.free_port()
    local s = activate(("tcp=%d datagram=0"):format(port), ([[
      listen{ { proto = "tcp", host = "127.0.0.1", port = %d }, %s }
    ]]):format(own, HELLO), { port = own, env = { LISTEN_FDNAMES = "spare:log" } })
    assert.equal("hello", (s:raw("")))
    assert.truthy(s:log():find('No listener has claimed the inherited socket "spare"', 1, true))
    assert.falsy(server.listening(port))
    stop(s)
  end)

  it("is left alone if it is meant for another process", function()
    local port = server.free_port()
    local code, _, log = server.run_script {
      launcher = true, env = { LISTEN_PID = 1, LISTEN_FDS = 1 },
      script = "listen{ { proto = 'inherit', name = 'web' }, connect = print }",
    }
    assert.equal(3, code)
    assert.truthy(log:find('listener #1: No inherited socket has the name "web"', 1, true))
    assert.falsy(server.listening(port))
  end)

  it("that is missing is an error, whatever the environment says", function()
    for _, count in ipairs { "0", "-1", "x", "99999999999", "5" } do
      local code, _, log = server.run_script {
        script = [[require "moonbridge".listen{ { proto = "inherit" }, connect = print }]],
        env = { LISTEN_FDS = count },
      }
      assert.equal(1, code)
      assert.truthy(log:find("No inherited socket is left", 1, true), log)
    end
  end)
end)

-- The manager's end of NOTIFY_SOCKET.
local function manager(abstract)
  local path = process.scratch("notify")
  local own = require("socket.unix").dgram()
  local messages = {}
  if abstract then
    path = "@moonbridge-spec-" .. path:gsub("/", "-")
    assert(own:bind("\0" .. path:sub(2)))
  else
    assert(own:bind(path))
  end
  own:settimeout(0)
  local function receive()
    local message = own:receive(4096)
    while message do
      messages[#messages + 1] = message
      message = own:receive(4096)
    end
    return table.concat(messages, "\n")
  end
  return {
    path = path,
    text = receive,
    wait = function(pattern, timeout)
      return process.wait_until(function() return receive():match(pattern) end, timeout)
    end,
    count = function(text) return select(2, receive():gsub(text, "")) end,
    close = function() own:close() end,
  }
end

describe("the service manager", function()
  after_each(server.cleanup)

  it("is told READY=1 when a worker of each pool is ready, and STOPPING=1 at the end", function()
    local notify = manager()
    finally(notify.close)
    local s = server.start {
      launcher = true, env = { NOTIFY_SOCKET = notify.path },
      script = [[
        listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
          prepare = function() os.execute("sleep 2") end,
          connect = function(socket) socket:write(tostring(os.getenv("NOTIFY_SOCKET"))) return true end }
        listen{ { proto = "interval", delay = 100 }, connect = print }
      ]],
    }
    assert.equal("", notify.text())
    assert.equal(tostring(s.pid), notify.wait("READY=1\nMAINPID=(%d+)"))
    assert.equal("nil", (s:raw("")))
    assert.falsy(notify.text():find("STOPPING"))
    assert.equal(0, s:stop())
    assert.equal(1, notify.count("STOPPING=1"))
    assert.equal(1, notify.count("READY=1"))
    assert.equal(0, notify.count("WATCHDOG=1"))
  end)

  it("is told STOPPING=1 at SIGTERM, also if the server serves on for drain_delay", function()
    local notify = manager()
    finally(notify.close)
    local s = server.start {
      launcher = { "--drain-delay", "1000" }, env = { NOTIFY_SOCKET = notify.path },
      script = [[ listen{ { proto = 'tcp', host = '127.0.0.1', port = PORT },
        connect = function(socket) socket:write("x") return true end } ]],
    }
    assert.truthy(notify.wait("READY=1"))
    s:signal("TERM")
    assert.truthy(notify.wait("STOPPING=1"))
    assert.equal("x", (s:raw("")))
    s:signal("TERM")
    assert.equal(0, s:wait())
    assert.equal(1, notify.count("STOPPING=1"))
  end)

  it("is told so at a fast shutdown, too", function()
    local notify = manager()
    finally(notify.close)
    local s = server.start {
      launcher = true, env = { NOTIFY_SOCKET = notify.path },
      script = "listen{ { proto = 'tcp', host = '127.0.0.1', port = PORT }, connect = print }",
    }
    assert.truthy(notify.wait("READY=1"))
    s:stop("INT")
    assert.equal(1, notify.count("STOPPING=1"))
  end)

  it("gets WATCHDOG=1 twice in its interval, if that is meant for this process", function()
    local notify = manager()
    finally(notify.close)
    local s = server.start {
      launcher = true, env = { NOTIFY_SOCKET = notify.path, WATCHDOG_USEC = 200000 },
      script = "listen{ { proto = 'tcp', host = '127.0.0.1', port = PORT }, connect = print }",
    }
    require("socket").sleep(1.05)
    local fed = notify.count("WATCHDOG=1")
    assert.truthy(fed >= 9 and fed <= 13, fed)
    s:stop()
    s = server.start {
      launcher = true, env = { NOTIFY_SOCKET = notify.path, WATCHDOG_USEC = 200000, WATCHDOG_PID = 1 },
      script = "listen{ { proto = 'tcp', host = '127.0.0.1', port = PORT }, connect = print }",
    }
    fed = notify.count("WATCHDOG=1")
    require("socket").sleep(0.3)
    assert.equal(fed, notify.count("WATCHDOG=1"))
    s:stop()
  end)

  it("is told of a reload and of its end, whatever comes of it, as Type=notify-reload demands", function()
    local notify = manager()
    finally(notify.close)
    local source = process.scratch("source")
    local function write(text)
      process.write(source, text)
    end
    write ""
    local s = server.start {
      launcher = { "--hangup", "reload", "--reload-timeout", "10" }, env = { NOTIFY_SOCKET = notify.path },
      globals = { SOURCE = source },
      script = [[
        assert(loadfile(SOURCE))()
        listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
          prepare = prepare, connect = function(socket) socket:write("hello") return true end }
      ]],
    }
    assert.equal(tostring(s.pid), notify.wait("READY=1\nMAINPID=(%d+)"))
    -- CLOCK_MONOTONIC, in microseconds.
    local function now()
      local _, output = process.run("python3 -c 'import time; print(time.monotonic_ns() // 1000)'")
      return math.tointeger(tonumber(output))
    end
    for round, case in ipairs {
      { "", "Reload complete" },
      { "function prepare() os.execute('sleep 0.3') end", "Reload complete" },
      { "error 'wrong'", "Reload failed" },
      { "", "Reload complete" },
    } do
      write(case[1])
      local before = now()
      s:signal("HUP")
      assert.truthy(process.wait_until(function() return notify.count("READY=1") == round + 1 end), s:log())
      assert.truthy(s:log():find(case[2], 1, true))
      assert.equal(round, notify.count("RELOADING=1"))
      -- systemd ignores one that is older than its signal, and wants both in one message.
      local times = {}
      for time in notify.text():gmatch("RELOADING=1\nMONOTONIC_USEC=(%d+)") do
        times[#times + 1] = math.tointeger(tonumber(time))
      end
      assert.equal(round, #times)
      assert.truthy(times[round] >= before and times[round] <= now(), times[round] .. " and " .. before)
      assert.equal("hello", (s:raw("")))
    end
    -- The last word is READY=1, of the same main process.
    local last = notify.text():match(".*RELOADING=1\n(.*)$")
    assert.truthy(last:find("\nREADY=1\nMAINPID=" .. s.pid .. "\n", 1, true), last)
    assert.equal(0, s:stop())
    assert.equal(1, notify.count("STOPPING=1"))
  end)

  it("may be absent or deaf", function()
    for _, path in ipairs { "/nowhere/notify", "@nobody-listens-here", "", "@", ("x"):rep(200) } do
      local s = server.start {
        launcher = true, env = { NOTIFY_SOCKET = path, WATCHDOG_USEC = 10000 },
        script = "listen{ { proto = 'tcp', host = '127.0.0.1', port = PORT }, " .. HELLO .. "}",
      }
      assert.equal("hello", (s:raw("")))
      assert.equal(0, s:stop())
    end
  end)
end)

describe("examples/moonbridge.service", function()
  after_each(server.cleanup)

  -- The settings of the unit's [Service] section.
  local function unit()
    local settings = {}
    for line in io.lines(server.root .. "/examples/moonbridge.service") do
      local name, value = line:match("^(%w+)=(.*)$")
      if name then settings[name] = value end
    end
    return settings
  end

  it("starts, feeds the watchdog, reloads another release and stops as the unit says", function()
    local settings = unit()
    assert.equal("notify", settings.Type)
    local notify = manager()
    finally(notify.close)
    local port = server.free_port()
    local folder = process.scratch("releases")
    local release = "listen{ { proto = 'inherit', name = 'web' }, "
      .. "connect = function(socket) socket:write('%s') return true end }"
    assert(lfs.mkdir(folder))
    for _, name in ipairs { "one", "two" } do
      assert(lfs.mkdir(folder .. "/" .. name))
      process.write(folder .. "/" .. name .. "/app.lua", release:format(name))
    end
    assert(lfs.link("one", folder .. "/app", true))
    local launcher = ("%s %s/bin/moonbridge"):format(server.interpreter, server.root)
    local command = settings.ExecStart:gsub("^/usr/local/bin/moonbridge", launcher)
    local function placed(text) return (text:gsub("/srv", folder)) end
    local s = activate(("tcp=%d"):format(port), "", { port = port, command = command, env = {
      LISTEN_FDNAMES = "web", NOTIFY_SOCKET = notify.path,
      WATCHDOG_USEC = math.tointeger(tonumber(settings.WatchdogSec) * 1000000),
      UNIT_FOLDER = placed(settings.WorkingDirectory), UNIT_ENVIRONMENT = placed(settings.Environment),
    } })
    local pid = notify.wait("READY=1\nMAINPID=(%d+)")
    assert.equal(s.server_pid, tonumber(pid))
    assert.truthy(notify.wait("WATCHDOG=1"))
    assert.equal("one", (s:raw("")))
    os.remove(folder .. "/app")
    assert(lfs.link("two", folder .. "/app", true))
    assert.equal(0, (process.run((settings.ExecReload:gsub("%$MAINPID", pid)))))
    assert.truthy(process.wait_until(function() return notify.count("READY=1") == 2 end), s:log())
    assert.equal("two", (s:raw("")))
    assert.equal("mixed", settings.KillMode)
    stop(s)
    assert.equal(1, notify.count("STOPPING=1"))
  end)
end)
