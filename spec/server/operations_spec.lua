-- Pid file, log file, system log, background: what a server is for the machine it runs on.

local lfs = require "lfs"
local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"
local shared = require "spec.support.shared"

local SERVER = [[
  listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    connect = function() return true end
  }
]]

local function mode(path)
  return lfs.attributes(path, "permissions")
end

local function start(options, script)
  return server.start { script = script or SERVER, launcher = options, ready = "serving" }
end

describe("the pid file", function()
  after_each(server.cleanup)

  it("holds the bare PID, has mode 0644, and its stale content is overwritten", function()
    local path = process.scratch("pid")
    local file = io.open(path, "w")
    file:write("12345678901234567890\nmore")
    file:close()
    os.remove(path)
    local s = start { "-p", path }
    assert.equal(tostring(s.pid), process.slurp(path))
    assert.equal("rw-r--r--", mode(path))
    assert.equal(0, s:stop())
    assert.is_nil(process.slurp(path))
    file = io.open(path, "w")
    file:write("12345678901234567890\nmore")
    file:close()
    s = start { "-p", path }
    assert.equal(tostring(s.pid), process.slurp(path))
  end)

  it("keeps a second server from starting: exit code 2, and the first one's file is left alone", function()
    local path = process.scratch("pid")
    local s = start { "-p", path }
    local code, _, log = server.run_script { script = SERVER, launcher = { "-p", path } }
    assert.equal(2, code)
    assert.equal(('moonbridge: Could not lock pid file "%s": another server is running already (PID %d)\n')
      :format(path, s.pid), log)
    assert.equal(tostring(s.pid), process.slurp(path))
  end)

  it("may lie in a folder that is named relative to where the server was started", function()
    local folder = process.scratch("x"):match("^(.*)/")
    local s = server.start {
      script = 'require("lfs").chdir("/") ' .. SERVER, launcher = { "-p", "pid" }, cwd = folder,
    }
    assert.equal(tostring(s.pid), process.slurp(folder .. "/pid"))
    s:stop("INT")
    assert.is_nil(process.slurp(folder .. "/pid"))
  end)

  it("is removed when the script ends the process, fails, or registers nothing", function()
    for _, text in ipairs { "os.exit(0)", "os.exit(0, true)", "error('oops')", "" } do
      local path = process.scratch("pid")
      server.run_script { script = text, launcher = { "-p", path } }
      assert.is_nil(process.slurp(path), text)
    end
  end)

  it("is left alone by workers that end", function()
    local path = process.scratch("pid")
    local s = start({ "-p", path }, SERVER:gsub("return true", "os.exit(0)"))
    for _ = 1, 3 do s:raw("") end
    assert.equal(tostring(s.pid), process.slurp(path))
    -- The lock is still held, too.
    assert.equal(2, (server.run_script { script = SERVER, launcher = { "-p", path } }))
  end)

  it("that cannot be opened is an error at start-up: exit code 3", function()
    local code, _, log = server.run_script { script = SERVER, launcher = { "-p", "/nowhere/pid" } }
    assert.equal(3, code)
    assert.equal('moonbridge: Could not open pid file "/nowhere/pid": No such file or directory\n', log)
    code, _, log = server.run_script { script = SERVER, launcher = { "-p", "/dev/zero" } }
    assert.equal(3, code)
    assert.truthy(log:find('Could not open pid file "/dev/zero": it is no regular file', 1, true))
  end)

  it("is free again at once when the supervisor was killed while its workers live", function()
    local path = process.scratch("pid")
    local s = start({ "-p", path }, [[
      listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function() os.execute("sleep 1.5") return true end
      }
    ]])
    local c = s:connect()
    assert.truthy(process.wait_until(function()
      for _, entry in ipairs(s:descendants()) do if entry.command == "sleep" then return true end end
    end))
    s:signal("KILL")
    s:wait()
    local again = server.start { script = SERVER, launcher = { "-p", path }, port = s.port }
    assert.equal(tostring(again.pid), process.slurp(path))
    c:close()
  end)
end)

describe("the log file", function()
  after_each(server.cleanup)

  it("is appended to, has mode 0640, and stderr stays empty", function()
    local path = process.scratch("log")
    for _ = 1, 2 do
      local s = start { "-l", path }
      s:stop()
      assert.equal("", s:log())
    end
    local _, starts = process.slurp(path):gsub("Starting moonbridge server\n", "")
    assert.equal(2, starts)
    assert.equal("rw-r-----", mode(path))
  end)

  it("is locked: a second server ends with exit code 2", function()
    local path = process.scratch("log")
    local s = start { "-l", path }
    local reader = io.open(path)
    local code, _, log = server.run_script { script = SERVER, launcher = { "-l", path } }
    reader:close()
    assert.equal(2, code)
    assert.equal(('moonbridge: Could not lock log file "%s": another server is running already (PID %d)\n')
      :format(path, s.pid), log)
  end)

  it("may be a device, which no server has for itself", function()
    for _ = 1, 2 do
      assert.same({ "", "closed" }, { start { "-l", "/dev/null" }:raw("") })
    end
  end)

  it("may be a pipe that nobody empties, but not one that nobody reads", function()
    local path = process.scratch("pipe")
    assert(os.execute("mkfifo " .. path))
    assert.equal(3, (server.run_script { script = SERVER, launcher = { "-l", path } }))
    local reader = assert(io.open(path, "r+"))
    local s = start({ "-l", path }, (SERVER:gsub("return true", [[
      for _ = 1, 200 do io.stderr:write(("x"):rep(900), "\n") end
      return true
    ]])))
    for _ = 1, 5 do assert.same({ "", "closed" }, { s:raw("") }) end
    assert.equal(0, s:stop())
    reader:close()
  end)

  it("that cannot be opened is an error at start-up: exit code 3", function()
    local code, _, log = server.run_script { script = SERVER, launcher = { "-l", "/nowhere/log" } }
    assert.equal(3, code)
    assert.truthy(log:find('Could not open log file "/nowhere/log": No such file or directory', 1, true))
  end)

  it("tells time and zone in each line, also of messages of several lines", function()
    local path = process.scratch("log")
    server.run_script { script = "error('one\\ntwo')", launcher = { "-l", path }, env = { TZ = "UTC" } }
    local text = process.slurp(path)
    assert.truthy(text:find("one\n", 1, true))
    for line in text:gmatch("[^\n]+") do
      assert.truthy(line:find("^%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d UTC: ."), line)
    end
  end)

  it("is opened anew on SIGUSR1, with its lock", function()
    local path = process.scratch("log")
    local s = start { "-l", path }
    assert(os.rename(path, path .. ".1"))
    s:signal("USR1")
    assert.truthy(process.wait_until(function() return process.slurp(path) end))
    assert.equal(2, (server.run_script { script = SERVER, launcher = { "-l", path } }))
    s:stop()
    assert.truthy(process.slurp(path):find("Terminating with exit code 0", 1, true))
    assert.falsy(process.slurp(path .. ".1"):find("Terminating", 1, true))
    assert.equal("rw-r-----", mode(path))
  end)

  it("stays in use if SIGUSR1 comes without a rename", function()
    local path = process.scratch("log")
    local s = start { "-l", path }
    s:signal("USR1")
    s:stop()
    assert.truthy(process.slurp(path):find("Terminating with exit code 0", 1, true))
    assert.falsy(process.slurp(path):find("Could not reopen", 1, true))
  end)

  it("holds what moonbridge.run{logfile = …} logs, and pidfile works there too", function()
    local log, pid = process.scratch("log"), process.scratch("pid")
    local s = server.start {
      globals = { LOG = log, PID = pid },
      script = 'local moonbridge = require "moonbridge"\n' .. SERVER .. [[
        print(moonbridge.run{ logfile = LOG, pidfile = PID })
      ]],
    }
    assert.equal(tostring(s.pid), process.slurp(pid))
    s:stop()
    assert.equal("0\n", s:output())
    assert.truthy(process.slurp(log):find("Terminating with exit code 0", 1, true))
    assert.is_nil(process.slurp(pid))
  end)
end)

describe("moonbridge.run{...}", function()
  after_each(server.cleanup)

  it("raises an error that names a wrong option, at the caller's position", function()
    for _, case in ipairs {
      { "{ logfile = 1 }", 'Option "logfile" must be a string, not a number' },
      { "{ pidfile = {} }", 'Option "pidfile" must be a string, not a table' },
      { "{ stats = 'yes' }", 'Option "stats" must be a boolean, not a string' },
      { "{ background = 1 }", 'Option "background" must be a boolean' },
      { "{ logfacility = 8 }", 'Option "logfacility" must be DAEMON, USER or 0 to 7, not "8"' },
      { "{ waiting_input_limit = -1 }", 'Option "waiting_input_limit" is expected to be a non-negative' },
      { "{ waiting_input_limit = 0.5 }", 'Option "waiting_input_limit" is expected to be a non-negative' },
      { "{ waiting_input_limit = 0/0 }", 'Option "waiting_input_limit" is expected to be a non-negative' },
      { "{ waiting_input_limit = '64M' }", 'Option "waiting_input_limit" is expected to be a non-negative' },
      { "{ waiting_input_limit = true }", 'Option "waiting_input_limit" is expected to be a non-negative' },
      { "{ logfiles = 'x' }", 'Unknown option "logfiles" of run; did you mean "logfile"?' },
      { "7", "run expects a table of options, not a number" },
    } do
      local code, _, log = server.run_script {
        script = ('local moonbridge = require "moonbridge"\n%s\nmoonbridge.run(%s)'):format(SERVER, case[1]),
      }
      assert.equal(1, code)
      assert.truthy(log:find("app.lua:7: " .. case[2], 1, true), log)
    end
  end)

  it("raises an error if another server holds the pid file", function()
    local path = process.scratch("pid")
    start { "-p", path }
    local code, _, log = server.run_script {
      globals = { PID = path },
      script = 'local moonbridge = require "moonbridge"\n' .. SERVER .. "\nmoonbridge.run{ pidfile = PID }",
    }
    assert.equal(1, code)
    assert.truthy(log:find("Could not lock pid file", 1, true))
  end)
end)

describe("the background", function()
  after_each(server.cleanup)

  it("is a session of its own with the working directory kept and its streams on /dev/null", function()
    local folder = process.scratch("x"):match("^(.*)/")
    local s = server.start {
      script = SERVER, launcher = { "-b", "-p", "pid", "-l", "log" }, cwd = folder, ready = false,
    }
    assert.equal(0, s:wait())
    local pid = math.tointeger(tonumber(process.slurp(folder .. "/pid")))
    assert.not_equal(s.pid, pid)
    assert.truthy(process.wait_until(function() return server.listening(s.port) end))
    assert.equal(lfs.symlinkattributes("/proc/" .. pid .. "/cwd", "target"), folder)
    for fd = 0, 2 do
      assert.equal("/dev/null", lfs.symlinkattributes(("/proc/%d/fd/%d"):format(pid, fd), "target"))
    end
    local session = process.slurp("/proc/" .. pid .. "/stat"):match("%) %a %d+ %d+ (%d+)")
    assert.equal(pid, tonumber(session))
    assert.equal(2, (server.run_script { script = SERVER, launcher = { "-bp", folder .. "/pid" } }))
    process.kill(pid, "TERM")
    assert.truthy(process.wait_until(function() return not process.alive(pid) end))
    assert.is_nil(process.slurp(folder .. "/pid"))
    assert.truthy(process.slurp(folder .. "/log"):find("Terminating with exit code 0", 1, true))
  end)

  it("returns 0 though the script fails, and the log tells it", function()
    local log = process.scratch("log")
    local code = server.run_script { script = "error('oops')", launcher = { "-b", "-l", log } }
    assert.equal(0, code)
    assert.truthy(process.wait_until(function()
      return (process.slurp(log) or ""):find("Terminating with exit code 3", 1, true)
    end))
  end)
end)

describe("the background of a server", function()
  after_each(server.cleanup)

  local function daemon(path)
    local pid = assert(process.wait_until(function()
      return math.tointeger(tonumber(process.slurp(path) or ""))
    end))
    finally(function()
      process.kill(pid, "TERM")
      process.wait_until(function() return not process.alive(pid) end)
    end)
    return pid
  end

  local function is_locked(lock)
    return (process.run("flock -n " .. lock .. " true")) ~= 0
  end

  -- A server in the background, started by a shell that holds a lock.
  local function start_with_lock(lock, options)
    options.command = { "bash", "-c", 'exec 7>"$LOCK" && flock 7 && "$0" "$@"', server.interpreter }
    options.env, options.ready = { LOCK = lock }, false
    local s = server.start(options)
    assert.equal(0, s:wait())
    return s
  end

  it("keeps no descriptor of the process that started it: a lock is free when that ends", function()
    local lock, pid = process.scratch("lock"), process.scratch("pid")
    local s = start_with_lock(lock, {
      script = SERVER, launcher = { "-b", "-p", pid, "-l", pid .. ".log" },
    })
    local supervisor = daemon(pid)
    assert.truthy(process.wait_until(function() return server.listening(s.port) end))
    assert.is_false(is_locked(lock))
    assert.truthy(process.wait_until(function()
      return (process.run(("grep -qx 'PPid:\t%d' /proc/[0-9]*/status"):format(supervisor))) == 0
    end))
    -- Its own files are still locked.
    assert.equal(2, (server.run_script { script = SERVER, launcher = { "-p", pid } }))
    local log = pid .. ".log"
    local code, _, text = server.run_script { script = SERVER, launcher = { "-l", log } }
    assert.equal(2, code)
    assert.truthy(text:find(("already (PID %d)\n"):format(supervisor), 1, true))
  end)

  it("keeps none either where a script calls run, but what the script has opened", function()
    local lock, pid = process.scratch("lock"), process.scratch("pid")
    local s = start_with_lock(lock, {
      globals = { PID = pid }, script = [[
        local moonbridge = require "moonbridge"
        local own = assert(io.open(PID .. ".own", "w"))
        own:setvbuf("no")
        moonbridge.listen {
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          connect = function(socket)
            own:write("still open")
            socket:flush("done")
            return true
          end,
        }
        moonbridge.run { background = true, pidfile = PID, logfile = PID .. ".log" }
      ]],
    })
    daemon(pid)
    assert.equal("done", s:connect():read_all())
    assert.is_false(is_locked(lock))
    assert.is_true(is_locked(pid))
    assert.equal("still open", process.slurp(pid .. ".own"))
  end)

  it("is refused where there is no /dev/null: exit code 3", function()
    local pid = process.scratch("pid")
    local s = faults.server {
      script = SERVER, launcher = { "-b", "-p", pid, "-l", pid .. ".log" }, ready = false,
      faults = { { call = "open", path = "/dev/null", errno = "ENOENT" } },
    }
    assert.equal(3, s:wait())
    local reason = "Could not go to the background: /dev/null: No such file or directory"
    assert.equal("moonbridge: " .. reason .. "\n", s:log())
  end)

  it("is refused if the system cannot fork: exit code 3", function()
    local s = faults.server {
      script = SERVER, launcher = { "-b" }, ready = false, faults = { { call = "fork", errno = "EAGAIN" } },
    }
    assert.equal(3, s:wait())
    assert.truthy(s:log():find("Could not go to the background: Resource temporarily unavailable", 1, true))
  end)
end)

describe("the system log", function()
  setup(function() shared.take "/dev/log" end)
  teardown(function() shared.give_back "/dev/log" end)
  after_each(server.cleanup)

  -- Plays /dev/log; nil where there is one already, or where this user may not.
  local function system_log()
    if lfs.attributes("/dev/log") then return nil end
    local log = require("socket.unix").dgram()
    if not log:bind("/dev/log") then return nil end
    log:settimeout(0)
    local text = {}
    return {
      wait = function(pattern)
        return process.wait_until(function()
          local line = log:receive(8192)
          while line do
            text[#text + 1] = line
            line = log:receive(8192)
          end
          return table.concat(text, "\n"):match(pattern)
        end)
      end,
      close = function() log:close() os.remove("/dev/log") end,
    }
  end

  it("gets each line with name, PID and facility besides stderr for -i or -f", function()
    local played = system_log()
    if not played then return pending("there is a system log, or /dev cannot be written") end
    finally(played.close)
    local s = start { "-i", "shop", "-f", "3" }
    -- LOCAL3 is 19, "notice" 5.
    assert.truthy(played.wait(("<157>[^\n]* shop%%[%d%%]: Starting moonbridge server"):format(s.pid)))
    assert.truthy(s:wait_log("Starting moonbridge server"))
    s:stop()
    s = start { "-f", "USER" }
    assert.truthy(played.wait(("<13>[^\n]* moonbridge%%[%d%%]: Starting"):format(s.pid)))
  end)

  it("is where a server in the background logs without -l", function()
    local played = system_log()
    if not played then return pending("there is a system log, or /dev cannot be written") end
    finally(played.close)
    local pid = process.scratch("pid")
    assert.equal(0, (server.run_script { script = SERVER, launcher = { "-bp", pid } }))
    local daemon = played.wait("<29>[^\n]* moonbridge%[(%d+)%]: Adding TCP listener")
    assert.equal(process.slurp(pid), daemon)
    process.kill(math.tointeger(tonumber(daemon)), "TERM")
    assert.truthy(played.wait("Terminating with exit code 0"))
  end)
end)
