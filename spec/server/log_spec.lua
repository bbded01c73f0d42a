-- Reference, "The log": whatever happens to it, the service goes on.
-- Any version: nothing of it depends on Lua's.

local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local stuck = require "spec.support.stuck"

-- Each request logs 20 lines of 1,000 bytes.
local CHATTER = [[
  listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
    connect = function(socket)
      for _ = 1, 20 do io.stderr:write(("x"):rep(999), "\n") end
      socket:write("answer")
      return true
    end
  }
]]

-- The service as it is to be while lines are lost: 100 requests are answered, SIGTERM ends it in time.
local function serves(s)
  for _ = 1, 100 do assert.equal("answer", (s:raw(""))) end
  s:signal("TERM")
  assert.equal(0, s:wait())
end

describe("a log that is not read", function()
  after_each(server.cleanup)

  for _, kind in ipairs { "terminal", "pipe", "socket", "closed" } do
    it("stops nothing: " .. kind, function()
      local _, command = stuck.stream(kind)
      serves(server.start {
        command = command(server.interpreter), launcher = true, script = CHATTER, ready = "listening",
      })
    end)
  end

  for _, signal in ipairs { "INT", "HUP" } do
    it("keeps no supervisor from hearing SIG" .. signal, function()
      local _, command = stuck.stream("terminal")
      local s = server.start {
        command = command(server.interpreter), launcher = true, script = CHATTER, ready = "listening",
      }
      for _ = 1, 20 do assert.equal("answer", (s:raw(""))) end
      s:signal(signal)
      assert.equal(0, s:wait())
    end)
  end

  it("tells how many lines were lost when it is read again", function()
    for _, kind in ipairs { "terminal", "pipe", "socket" } do
      local other_end, command = stuck.stream(kind)
      local s = server.start {
        command = command(server.interpreter), launcher = true, script = CHATTER, ready = "listening",
      }
      for _ = 1, 50 do assert.equal("answer", (s:raw(""))) end
      other_end.read()
      -- Some may still be on their way from the workers.
      local came, lost
      process.wait_until(function()
        local text = other_end.text()
        came, lost = select(2, text:gsub("xxx\r?\n", "")), 0
        local note = "\n%d[%d-]+ [%d:]+ %S+: %((%d+) lines? of the log w%a+ lost here%)\r?\n"
        for number in text:gmatch(note) do
          lost = lost + tonumber(number)
        end
        return lost > 0 and came + lost >= 1000
      end)
      assert.same({ true, 1000 }, { lost > 0, math.tointeger(came + lost) })
      s:signal("TERM")
      assert.equal(0, s:wait())
      assert.truthy(process.wait_until(function()
        return other_end.text():find("Terminating with exit code 0", 1, true)
      end))
      server.cleanup()
    end
  end)

  it("does not stop a script before it serves", function()
    local _, command = stuck.stream("terminal")
    local code = server.run_script {
      command = command(server.interpreter), launcher = true,
      script = "error(('long line\\n'):rep(20000))",
    }
    assert.equal(3, code)
  end)

  it("leaves other users of the terminal their blocking writes", function()
    local _, command = stuck.stream("pipe", { 1, 2 })
    local s = server.start {
      command = command(server.interpreter), launcher = true, script = CHATTER, ready = "listening",
    }
    assert.equal("answer", (s:raw("")))
    local flags = process.slurp(("/proc/%d/fdinfo/2"):format(s.pid)):match("flags:%s+(%d+)")
    assert.equal(0, tonumber(flags, 8) & 0x800)
  end)
end)

describe("a log file that cannot grow", function()
  after_each(server.cleanup)

  it("stops nothing: ulimit -f, and lost lines are counted", function()
    local path = process.scratch("log")
    local s = server.start {
      command = { "bash", "-c", 'ulimit -S -f 4; exec "$0" "$@"', server.interpreter },
      launcher = { "-l", path }, script = CHATTER,
    }
    for _ = 1, 10 do assert.equal("answer", (s:raw(""))) end
    assert(os.rename(path, path .. ".1"))
    s:signal("USR1")
    assert.truthy(process.wait_until(function() return process.slurp(path) end))
    serves(s)
    assert.truthy(process.slurp(path):find("^[^\n]+: %(%d+ lines? of the log w%a+ lost here%)\n"))
  end)

  it("stops nothing: a full disk", function()
    serves(server.start {
      command = { "sh", "-c", 'exec "$0" "$@" 2>/dev/full', server.interpreter },
      launcher = true, script = CHATTER, ready = "listening",
    })
    serves(server.start { launcher = { "-l", "/dev/full" }, script = CHATTER })
  end)

  it("costs no worker, and no pid file", function()
    local pid, path = process.scratch("pid"), process.scratch("file")
    local s = server.start {
      command = { "bash", "-c", 'ulimit -S -f 1; exec "$0" "$@"', server.interpreter },
      launcher = { "-p", pid }, globals = { FILE = path },
      script = [[
        listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
          connect = function(socket)
            local file = io.open(FILE, "w")
            file:setvbuf("no")
            socket:write(select(2, file:write(("x"):rep(4000))) or "written")
            return true
          end
        }
      ]],
    }
    assert.truthy((s:raw("")):find("File too large", 1, true))
    assert.equal(tostring(s.pid), process.slurp(pid))
  end)
end)

describe("--logfile /dev/stdout", function()
  after_each(server.cleanup)

  it("may be a socket", function()
    local other_end, command = stuck.stream("socket", { 1 })
    other_end.read()
    local s = server.start {
      command = command(server.interpreter), launcher = { "-l", "/dev/stdout" }, script = CHATTER,
      ready = "listening",
    }
    assert.truthy(process.wait_until(function()
      return other_end.text():find("Adding TCP listener", 1, true)
    end))
    s:signal("USR1")
    serves(s)
    assert.truthy(process.wait_until(function()
      return other_end.text():find("Terminating with exit code 0", 1, true)
    end))
  end)

  it("may be a pipe or a terminal of another user", function()
    if process.run("setpriv --reuid=65534 --clear-groups true") ~= 0 then
      return pending("this user cannot become another one")
    end
    for _, kind in ipairs { "pipe", "terminal" } do
      local other_end, command = stuck.stream(kind, { 1 })
      local s = server.start {
        command = command("setpriv", "--reuid=65534", "--clear-groups", server.interpreter),
        launcher = { "-l", "/dev/stdout" }, script = CHATTER, ready = "listening",
      }
      serves(s)
      assert.truthy(process.wait_until(function()
        return other_end.text():find("Adding TCP listener", 1, true)
      end))
    end
  end)
end)

describe("the system log", function()
  after_each(server.cleanup)

  -- Plays the daemon behind /dev/log, for one server alone.
  local function play(kind)
    local path = process.scratch("log")
    local daemon = assert(require("socket.unix")[kind]())
    assert(daemon:bind(path))
    if kind == "stream" then assert(daemon:listen(4)) end
    finally(function() daemon:close() end)
    return daemon, { { call = "connect", path = "/dev/log", redirect = path } }
  end

  local function shop(rules)
    return faults.server {
      launcher = { "-i", "shop", "-l", "/dev/null" }, script = CHATTER, faults = rules,
    }
  end

  it("that does not read stops nothing", function()
    local daemon, rules = play("dgram")
    local s = shop(rules)
    daemon:settimeout(server.TIMEOUT)
    local begin = "^<29>%a%a%a [ %d]%d %d%d:%d%d:%d%d shop%[" .. s.pid .. "%]: Starting"
    assert.matches(begin, daemon:receive(9000))
    serves(s)
  end)

  it("may be a stream: lines end with a zero byte", function()
    local daemon, rules = play("stream")
    local s = shop(rules)
    daemon:settimeout(server.TIMEOUT)
    local connection = daemon:accept()
    connection:settimeout(1)
    local text = select(3, connection:receive(100000))
    assert.matches("^<29>[^%z]* shop%[%d+%]: Starting moonbridge server%z<29>.*Pool #1 created%z<29>", text)
    serves(s)
    connection:close()
  end)

  it("that was not there gets the number of lost lines when it is, and those that follow", function()
    local path = process.scratch("log")
    local s = shop { { call = "connect", path = "/dev/log", redirect = path } }
    assert.equal("answer", (s:raw("")))
    socket.sleep(0.2)
    local daemon = assert(require("socket.unix").dgram())
    assert(daemon:bind(path))
    finally(function() daemon:close() end)
    daemon:settimeout(server.TIMEOUT)
    s:signal("USR2")
    assert.matches("shop%[%d+%]: %(%d+ lines? of the log w%a+ lost here%)$", daemon:receive(9000))
    assert.matches("Status of pool #1", daemon:receive(9000))
  end)
end)
