-- Interval and main listeners.
-- Takes long: much of it is waiting for time-outs.

local socket = require "socket"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- Starts a server that logs "begin NAME TIME" and "end NAME TIME" for each run of a handler.
local function start(listeners, options)
  return server.start {
    launcher = true, ready = false,
    script = ([[
      local now = moonbridge_io.timeref
      local run = %s
      listen{
        %s,
        connect = function(socket)
          local name = socket.interval or socket.main or "connection"
          io.stderr:write("begin ", name, " ", now(), "\n")
          local result = run(socket, name)
          io.stderr:write("end ", name, " ", now(), "\n")
          return result
        end,
        %s
      }
    ]]):format(options and options.run or "function() return true end", listeners,
      options and options.pool or ""),
  }
end

-- The times logged for an event, e.g. "begin tick".
local function times(s, event)
  local list = {}
  for time in s:log():gmatch(event .. " ([%d.]+)\n") do list[#list + 1] = tonumber(time) end
  return list
end

-- Whatever is late on a busy machine, nothing is early.
local function assert_at_least(expected, actual)
  assert.truthy(actual > expected - 0.02, ("%s instead of %s"):format(actual, expected))
end

describe("an interval listener", function()
  after_each(server.cleanup)

  it("calls connect with a plain table that holds its name", function()
    local s = start('{ proto = "interval", delay = 0.1 }, { proto = "interval", name = "b", delay = 0.1 }', {
      run = [[function(socket)
        local fields = {}
        for key, value in pairs(socket) do fields[#fields + 1] = key .. "=" .. value end
        io.stderr:write(type(socket), " ", #fields, " <", fields[1], ">\n")
        return true
      end]],
    })
    assert.truthy(s:wait_log("table 1 <interval=>\n"))
    assert.truthy(s:wait_log("table 1 <interval=b>\n"))
  end)

  it("ticks first after one delay, then a delay after the end of each run", function()
    local begun = socket.gettime()
    local s = start('{ proto = "interval", name = "tick", delay = 0.3 }',
      { run = "function() os.execute('sleep 0.2') return true end" })
    assert.truthy(s:wait_log("begin tick", nil, 3))
    local list = times(s, "begin tick")
    assert.truthy(socket.gettime() - begun >= 1.3)
    assert_at_least(0.5, list[2] - list[1])
    assert_at_least(0.5, list[3] - list[2])
  end)

  it("with strict = true keeps its rhythm", function()
    local s = start('{ proto = "interval", name = "tick", delay = 1, strict = true }',
      { run = "function() os.execute('sleep 0.9') return true end" })
    assert.truthy(s:wait_log("begin tick", nil, 4))
    local list = times(s, "begin tick")
    -- 3 s; the run time on top would make it 5.7 s.
    assert.truthy(list[4] - list[1] < 5, list[4] - list[1])
  end)

  it("never runs twice at once, and does not make up for missed ticks", function()
    local s = start('{ proto = "interval", name = "tick", delay = 0.1, strict = true }',
      { run = "function() os.execute('sleep 0.35') return true end", pool = "min_fork = 4, fork_delay = 0" })
    assert.truthy(s:wait_log("begin tick", nil, 4))
    local begins, ends = times(s, "begin tick"), times(s, "end tick")
    for index = 2, #begins do assert.truthy(begins[index] >= ends[index - 1]) end
    assert_at_least(0.35, begins[3] - begins[2])
  end)

  it("with strict = true runs once after runs that took too long, not once for each", function()
    local s = start('{ proto = "interval", name = "tick", delay = 1, strict = true }', { run = [[function()
      if not SLEPT then moonbridge_io.poll(nil, nil, 4.2) end -- four further ticks are due meanwhile
      SLEPT = true
      return true
    end]], pool = "min_fork = 1, max_fork = 1" })
    assert.truthy(s:wait_log("begin tick", nil, 4))
    local list = times(s, "begin tick")
    -- Those that were made up for would come at once.
    assert.truthy(list[4] - list[2] > 0.8, list[4] - list[2])
  end)

  it("waits for a worker when all are busy", function()
    local s = server.start { launcher = true, script = [[
      listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        { proto = "interval", name = "tick", delay = 0.2 },
        min_fork = 1, max_fork = 1,
        connect = function(socket)
          if socket.interval then io.stderr:write("tick\n") return true end
          socket:flush("hello")
          socket:read(1)
          io.stderr:write("served\n")
          return true
        end
      }
    ]] }
    local c = s:connect()
    assert.equal("hello", c:read(5))
    -- The worker may have ticked before it got the connection.
    local before = select(2, s:log():gsub("tick\n", ""))
    socket.sleep(0.5)
    assert.equal(before, select(2, s:log():gsub("tick\n", "")))
    c:send("x")
    assert.truthy(s:wait_log("served\n.*tick\n"))
  end)

  it("goes on after an error, a result other than true, and the death of its worker", function()
    for _, run in ipairs { "error('oops')", "return nil", "os.exit(3)" } do
      local s = start('{ proto = "interval", name = "tick", delay = 0.1 }',
        { run = ("function() %s end"):format(run), pool = "min_fork = 1" })
      assert.truthy(s:wait_log("begin tick", nil, 3), run)
      s:stop()
    end
  end)
end)

describe("a main listener", function()
  after_each(server.cleanup)

  it("runs once; when it ends the whole server shuts down, exit code 0", function()
    local s = start('{ proto = "main", name = "job" }', {
      run = "function(socket) io.stderr:write(socket.main, '\\n') os.execute('sleep 0.2') return true end",
      pool = "finish = function() io.stderr:write('finish\\n') end",
    })
    assert.equal(0, s:wait())
    assert.equal(1, #times(s, "begin job"))
    assert.truthy(s:log():find("finish\n", 1, true))
    assert.truthy(s:log():find("Terminating with exit code 0", 1, true))
  end)

  it("that throws, or whose worker dies, ends the server with exit code 4 and a line that says so", function()
    for _, run in ipairs { "error('oops')", "os.exit(3)", "moonbridge.timeout(0.1) while true do end",
      "os.execute('kill -9 ' .. moonbridge_io.getpid())" } do
      local s = start('{ proto = "main", name = "job" }', {
        run = ("function() local moonbridge = require 'moonbridge' %s end"):format(run),
      })
      assert.equal(4, s:wait(), run)
      assert.equal(1, #times(s, "begin job"))
      assert.matches('The main listener "job" has failed, and with it the server\n', s:log(), 1, true)
    end
  end)

  it("ends well by any result, and by os.exit(0)", function()
    for _, run in ipairs { "return false", "return nil, 'words'", "os.exit(0)" } do
      local s = start('{ proto = "main", name = "job" }', { run = ("function() %s end"):format(run) })
      assert.equal(0, s:wait(), run)
      assert.matches('The main listener "job" has ended, and with it the server\n', s:log(), 1, true)
    end
  end)

  it("that fails while another one's end ends the server counts all the same", function()
    local s = start('{ proto = "main", name = "a" }, { proto = "main", name = "b" }', {
      run = [[function(job)
        os.execute(job.main == "a" and "sleep 0.5" or "sleep 1")
        if job.main == "b" then error("oops") end
      end]],
    })
    assert.equal(4, s:wait())
  end)

  it("that is killed by a fast shutdown has not failed", function()
    local s = start('{ proto = "main", name = "job" }', {
      run = "function() moonbridge_io.poll(nil, nil, 60) end",
    })
    assert.truthy(s:wait_log("begin job"))
    s:signal("INT")
    assert.equal(0, s:wait())
  end)

  it("alone has as many workers as there are; beside others the pool is as usual", function()
    local s = start('{ proto = "main", name = "a" }, { proto = "main", name = "b" }',
      { run = "function() os.execute('sleep 0.7') return true end" })
    assert.truthy(s:wait_log("begin a"))
    assert.truthy(s:wait_log("begin b"))
    socket.sleep(0.2)
    assert.equal(2, #s:workers())
    assert.equal(0, s:wait())
  end)

  it("whose prepare fails is tried again after fork_error_delay, without a fork storm", function()
    local begun = socket.gettime()
    local s = start('{ proto = "main", name = "job" }', {
      pool = "fork_error_delay = 0.3, fork_delay = 0, prepare = function() error('not yet') end",
    })
    socket.sleep(1)
    local tries = select(2, s:log():gsub("not yet\n", ""))
    assert.truthy(tries >= 1 and tries <= 3 + (socket.gettime() - begun) / 0.3, tries)
    assert.equal(0, s:stop())
  end)

  it("lets requests that run be answered before the server ends", function()
    local s = server.start { launcher = true, globals = { FLAG = process.scratch("flag") }, script = [[
      listen{ { proto = "main" }, connect = function()
        while not io.open(FLAG) do os.execute("sleep 0.05") end
        return true
      end }
      listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket)
          io.open(FLAG, "w"):close()
          os.execute("sleep 0.6")
          socket:write("hello")
          return true
        end
      }
    ]] }
    assert.equal("hello", (s:raw("")))
    assert.equal(0, s:wait())
  end)
end)

describe("timers", function()
  after_each(server.cleanup)

  it("stop at SIGTERM: a tick that is due and waits for a worker then does not come any more", function()
    local s = start('{ proto = "tcp", host = "127.0.0.1", port = PORT }, '
      .. '{ proto = "interval", name = "tick", delay = 1 }', {
        pool = "pre_fork = 1, min_fork = 1, max_fork = 1",
        run = [[function(socket)
          if not socket.interval then socket:flush "hello" socket:read(1) end
          return true
        end]],
      })
    s:wait_ready()
    local c = s:connect()
    assert.equal("hello", c:read(5)) -- the only worker is busy from now on
    local before = #times(s, "begin tick")
    socket.sleep(1.3)
    s:signal("TERM")
    assert.truthy(s:wait_log("Initiate shutdown"))
    c:send("x")
    assert.equal(0, s:wait())
    assert.same({ before, 1 }, { #times(s, "begin tick"), #times(s, "end connection") })
  end)

  it("stop at SIGTERM, and a run that goes on is waited for", function()
    local s = start('{ proto = "interval", name = "tick", delay = 0.1 }',
      { run = "function() os.execute('sleep 0.5') return true end", pool = "min_fork = 1" })
    assert.truthy(s:wait_log("begin tick"))
    assert.equal(0, s:stop())
    assert.equal(#times(s, "begin tick"), #times(s, "end tick"))
    assert.truthy(process.wait_until(function() return #s:descendants() == 0 end))
  end)
end)

describe("a worker that is given a tick when the system has just told it of a connection", function()
  after_each(server.cleanup)

  -- Holds the workers back, after they were woken, until the tick is on its way as well.
  local function hold(pids, seconds)
    local list = process.slurp("/proc/self/status"):match("Cpus_allowed_list:%s*(%S+)")
    local last = list:match("%d+$")
    if list == last or process.run("chrt -f 10 taskset -c " .. last .. " true") ~= 0 then return nil end
    for _, pid in ipairs(pids) do process.run(("taskset -p -c %s %d"):format(last, pid)) end
    local code = ("local t = os.clock() while os.clock() - t < %s do end"):format(seconds)
    return process.start { "chrt", "-f", "10", "taskset", "-c", last, server.interpreter, "-e", code }
  end

  it("leaves the connection to others", function()
    for _ = 1, 4 do
      local s = start('{ proto = "tcp", host = "127.0.0.1", port = PORT }, '
        .. '{ proto = "interval", name = "tick", delay = 0.5 }', {
          pool = "pre_fork = 2, min_fork = 2, max_fork = 2",
          run = [[function(socket, name)
            if name == "tick" then moonbridge_io.poll(nil, nil, 20) else socket:write "served" end
            return true
          end]],
        })
      s:wait_ready()
      local begun = socket.gettime()
      socket.sleep(0.2)
      local holder = hold(s:workers(), 0.3)
      if not holder then return pending("needs two processors and the right to occupy one") end
      socket.sleep(begun + 0.4 - socket.gettime())
      assert.equal("served", (s:raw("")))
      assert.falsy(s:log():find("end tick", 1, true), "the connection had to wait for the tick")
      holder:destroy()
      server.cleanup()
    end
  end)
end)

describe("a tick that a worker was given and has not begun when it is killed", function()
  after_each(server.cleanup)

  it("goes to another one", function()
    local s = start('{ proto = "interval", name = "tick", delay = 5 }',
      { pool = "pre_fork = 1, min_fork = 1, max_fork = 1" })
    assert.truthy(process.wait_until(function() return #s:workers() == 1 end))
    socket.sleep(4.2)
    local worker = s:workers()[1]
    process.kill(worker, "STOP")
    socket.sleep(1)
    process.kill(worker, "KILL")
    assert.truthy(s:wait_log("died from signal 9"))
    local killed = socket.gettime()
    assert.truthy(s:wait_log("begin tick"))
    assert.is_true(socket.gettime() - killed < 4.5, "it came only a delay later")
  end)
end)
