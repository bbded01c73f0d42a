-- What the parent of a server may have left behind: signals, descriptors; and what `prepare` does to rights.

local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"

local SIGALRM = 128 + 14

-- Runs a script whose parent has set up signals by an option of env(1).
local function run(option, script, timeout)
  return server.run_script {
    command = { "env", option, server.interpreter }, script = script, timeout = timeout,
  }
end

describe("SIGALRM that the parent has blocked", function()
  after_each(server.cleanup)

  it("ends a script when the time of timeout is over", function()
    local code, _, log = run("--block-signal=ALRM", [[
      local moonbridge = require "moonbridge"
      moonbridge.timeout(0.1)
      moonbridge.io.poll(nil, nil, 5)
    ]])
    assert.equal(SIGALRM, code, log)
  end)

  it("ends a worker when the time of timeout is over", function()
    local s = server.start {
      command = { "env", "--block-signal=ALRM", server.interpreter }, launcher = true,
      script = [[
        listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
          connect = function() timeout(0.1) moonbridge_io.poll(nil, nil, 8) end
        }
      ]],
    }
    assert.equal("reset", select(2, s:raw("")))
    assert.truthy(s:wait_log("exited prematurely due to timeout"))
  end)
end)

describe("signals that the parent has blocked", function()
  after_each(server.cleanup)

  local BLOCKED = "--block-signal=TERM,INT,HUP,USR1,CHLD,PIPE,41"

  it("reach a worker all the same", function()
    local s = server.start {
      command = { "env", BLOCKED, server.interpreter }, launcher = true,
      script = [[
        listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1, max_fork = 1,
          connect = function(socket)
            io.stderr:write("worker ", moonbridge_io.getpid(), "\n")
            if socket:read(1) == "s" then moonbridge_io.poll(nil, nil, 2) end
            return true
          end
        }
      ]],
    }
    local c = s:connect()
    c:send("s")
    local first = math.tointeger(tonumber(s:wait_log("worker (%d+)\n")))
    -- A busy worker that gets SIGTERM is replaced.
    process.kill(first, "TERM")
    assert.same({ "", "closed" }, { c:read_all() })
    assert.truthy(process.wait_until(function()
      s:raw("x")
      return not process.alive(first)
    end))
    local second = s:workers()[1]
    process.kill(second, "INT")
    assert.equal(0, s:wait())
    assert.truthy(s:log():find("Fast shutdown requested", 1, true))
  end)
end)

describe("SIGCHLD that the parent ignores", function()
  after_each(server.cleanup)

  it("costs no exit code", function()
    local code, output, log = run("--ignore-signal=CHLD", [[
      local moonbridge_io = require "moonbridge_io"
      for _ = 1, 200 do
        local child = assert(moonbridge_io.exec("sh", "-c", "exit 7"))
        assert(child:wait() == 7)
      end
      io.write("done")
    ]])
    assert.same({ 0, "done" }, { code, output }, log)
  end)
end)

describe("a timer that was replaced by a later one", function()
  after_each(server.cleanup)

  it("does not end poll", function()
    local code, output, log = server.run_script [[
      local timeout, io = require "moonbridge".timeout, require "moonbridge_io"
      timeout(8)
      timeout(0.2, function() end)
      local begun = io.timeref()
      print(io.poll(nil, nil, 0.6))
      print(io.timeref(begun) >= 0.6)
      timeout(0.2) timeout(8)
      print(io.poll(nil, nil, 0.6, true))
      print(io.timeref(begun) >= 1.2)
    ]]
    assert.same({ 0, "false\tTimeout\ntrue\nfalse\tTimeout\tfalse\ntrue\n" }, { code, output }, log)
  end)
end)

describe("a child handle", function()
  after_each(server.cleanup)

  it("signals no other process that has got the number of its own", function()
    local choose = "unshare -pf --kill-child --mount-proc sh -c 'echo 90 >/proc/sys/kernel/ns_last_pid'"
    if process.run(choose) ~= 0 then
      return pending("this user may not choose process numbers")
    end
    local code, output, log = server.run_script {
      command = { "unshare", "-pf", "--kill-child", "--mount-proc", server.interpreter },
      script = [[
        local moonbridge = require "moonbridge"
        local child = assert(moonbridge.io.exec("true"))
        -- The supervisor reaps whatever ends.
        moonbridge.listen{ { proto = "main" }, connect = function() os.execute("sleep 0.2") end }
        moonbridge.run()
        local file = assert(io.open("/proc/sys/kernel/ns_last_pid", "w"))
        file:write(child.pid - 1)
        file:close()
        local other = io.popen("echo $$; exec sleep 60")
        local pid = tonumber(other:read())
        print(pid == child.pid)
        print(child:kill("TERM"))
        os.execute("sleep 0.1")
        print(os.execute("kill -0 " .. pid))
        os.execute("kill " .. pid)
      ]],
    }
    assert.same({ 0, "true\nnil\tNo such process\t3\ntrue\texit\t0\n" }, { code, output }, log)
  end)

  it("that is collected waits for no process that it may not kill", function()
    local sudo = process.scratch("sudo")
    local possible = process.run(("cp $(command -v setpriv) %s && chmod u+s %s && chmod -R o+rX %s && "
      .. "setpriv --reuid=65534 --clear-groups %s --reuid=0 true"):format(
      sudo, sudo, sudo:match("^(.*)/%d+/"), sudo)) == 0
    if not possible then return pending("this user may not make set-user-ID programs") end
    local code, output, log = server.run_script {
      command = { "setpriv", "--reuid=65534", "--clear-groups", server.interpreter },
      globals = { SUDO = sudo },
      script = [[
        local io = require "moonbridge_io"
        local stdins = {}
        local begun
        for i = 1, 20 do
          local child = assert(io.exec(SUDO, "--reuid=0", "sh", "-c", "echo up; exec cat"))
          assert(child.stdout:read(3) == "up\n")
          stdins[i] = child.stdin
        end
        begun = io.timeref()
        collectgarbage() collectgarbage()
        print(io.timeref(begun) < 15)
        for _, stdin in ipairs(stdins) do stdin:close() end
      ]],
    }
    assert.same({ 0, "true\n" }, { code, output }, log)
  end)
end)

-- Kills the supervisor while a handler runs; whether the port is free before that has returned.
local function frees_its_port(s)
  local c = s:connect()
  c:send("x")
  assert.truthy(s:wait_log("begun"))
  s:signal("KILL")
  local free = process.wait_until(function() return not server.listening(s.port) end, 15)
  c:close()
  for _, entry in ipairs(s:descendants()) do process.kill(entry.pid, "KILL") end
  return free
end

local SLOW = [[
  local function drop(where)
    if WHERE == where then package.loadlib(DROP, "drop")() end
  end
  listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2,
    prepare = function() drop("prepare") end,
    connect = function(socket)
      drop("connect")
      socket:read(1)
      io.stderr:write("begun\n")
      os.execute("sleep 20")
      return true
    end
  }
]]

describe("dropped rights", function()
  after_each(server.cleanup)

  -- Starts a server that gives up root's rights; none if this user cannot.
  local function start(where)
    local library = process.scratch("drop.so")
    local built = process.run(([[
      echo 'int setuid(unsigned); int drop(void *L) { return setuid(65534) ? -1 : 0; }' |
      cc -shared -fPIC -x c -o %s - && chmod -R o+rX %s && setpriv --reuid=65534 true
    ]]):format(library, library:match("^(.*)/%d+/")))
    if built ~= 0 then return pending("this user cannot become another one") end
    return server.start { launcher = true, globals = { DROP = library, WHERE = where }, script = SLOW }
  end

  it("in prepare leave no port taken when the supervisor is killed while a handler runs", function()
    local s = start("prepare")
    if not s then return end
    local pid = s:workers()[1]
    assert.truthy(process.wait_until(function()
      return process.slurp("/proc/" .. pid .. "/status"):find("Uid:%s+65534")
    end))
    assert.truthy(frees_its_port(s))
  end)

  it("in a handler leave none taken either", function()
    local s = start("connect")
    if not s then return end
    assert.truthy(process.wait_until(function() return #s:workers() == 2 end))
    assert.truthy(frees_its_port(s))
  end)
end)

describe("a system that refuses", function()
  after_each(server.cleanup)

  it("prctl says so in the log once; workers notice the end of the supervisor all the same", function()
    for _, which in ipairs { "any", "workers" } do
      local s = faults.server {
        launcher = true, script = SLOW,
        faults = { { call = "prctl", process = which, errno = "EPERM" } },
      }
      assert.truthy(s:wait_log("prctl failed %(Operation not permitted%)"))
      assert.truthy(frees_its_port(s))
      server.cleanup()
    end
  end)

  it("pidfd_open says so in the log once; child handles work all the same", function()
    for _, errno in ipairs { "EPERM", "ENOSYS" } do
      local s = faults.server {
        ready = false, faults = { { call = "pidfd_open", errno = errno } },
        script = [[
          local io = require "moonbridge_io"
          for _ = 1, 2 do
            local child = assert(io.exec("sh", "-c", "read line; exit 7"))
            print(io.poll({ [child] = true }, nil, 0.1))
            child.stdin:close()
            print(io.poll({ [child] = true }, nil, 9))
            print(child:wait())
          end
          local child = io.exec("sleep", "60")
          print(child:kill("TERM"):wait())
          child = io.exec("sleep", "60")
          local file = "/proc/" .. child.pid .. "/stat"
          child = nil
          collectgarbage() collectgarbage()
          print(require("io").open(file))
        ]],
      }
      assert.equal(0, s:wait(), s:log())
      local once = "false\tTimeout\ntrue\n7\n"
      assert.equal(once .. once .. "-15\nnil", s:output():match("^(.*nil)\t"))
      local _, times = s:log():gsub("pidfd_open failed", "")
      assert.equal(1, times)
    end
  end)
end)
