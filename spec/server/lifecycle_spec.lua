-- The life of workers: prepare, connect, finish; growth, shrinking, replacement.

local socket = require "socket"
local process = require "spec.support.process"
local server = require "spec.support.server"

local function start(pool, launcher, ready)
  return server.start_pool(pool, {
    launcher = launcher, ready = ready, globals = { FLAG = process.scratch("flag") },
    before = [[function say(...) io.stderr:write(table.concat({ ... }, " "), "\n") end]],
  })
end

local function count(s, text)
  return select(2, s:log():gsub(text, ""))
end

-- What the server says on a new connection. Takes less time than the client helper, which looks at
-- how the connection ended.
local function hear(s)
  local c = assert(socket.connect("127.0.0.1", s.port))
  c:settimeout(server.TIMEOUT)
  local text = c:receive("*a")
  c:close()
  return text
end

-- Waits until the server has exactly so many workers.
local function has_workers(s, number, timeout)
  return process.wait_until(function() return #s:workers() == number end, timeout)
end

describe("a worker", function()
  after_each(server.cleanup)

  it("runs prepare once, connect any number of times, finish once; then its state is closed", function()
    local s = start [[
      min_fork = 1, max_fork = 1,
      prepare = function()
        say("prepare")
        last_words = setmetatable({}, { __gc = function() say("closed") end })
      end,
      connect = function(socket) say("connect") return socket:read(1) == "k" end,
      finish = function() say("finish") end
    ]]
    for _ = 1, 3 do s:raw("k") end
    local pid = s:workers()[1]
    s:raw("e")
    assert.truthy(s:wait_log("PID " .. pid .. "%] closed\n"))
    local order = {}
    for text in s:log():gmatch("%[Pool #1, PID " .. pid .. "%] (%a+)\n") do
      order[#order + 1] = text
    end
    assert.equal("prepare connect connect connect connect finish closed", table.concat(order, " "))
    assert.truthy(has_workers(s, 1))
  end)

  it("lives on for the boolean true alone; otherwise the socket is closed cleanly", function()
    local s = start [[
      min_fork = 1, max_fork = 1,
      connect = function(socket)
        socket:write(moonbridge_io.getpid(), " ")
        local results = { t = true, f = false, one = 1, text = "true", table = {} }
        return results[socket:read(nil, "\n"):sub(1, -2)]
      end,
      finish = function() say("finish") end
    ]]
    local first = s:raw("t\n")
    assert.equal(first, (s:raw("t\n")))
    for index, result in ipairs { "f", "one", "text", "table", "nothing" } do
      local pid, ending = s:raw(result .. "\n")
      assert.equal("closed", ending)
      assert.truthy(process.wait_until(function() return not process.alive(tonumber(pid)) end), result)
      assert.truthy(process.wait_until(function() return count(s, "finish") == index end))
    end
  end)

  it("that throws resets the connection, logs the traceback, skips finish and is replaced", function()
    local s = start [[
      min_fork = 1, max_fork = 1, fork_error_delay = 60,
      connect = function(socket)
        if socket:read(1) == "e" then error("oops") end
        socket:write("hello")
        return true
      end,
      finish = function() say("finish") end
    ]]
    assert.equal("hello", (s:raw("x")))
    assert.same({ "", "reset" }, { s:raw("e") })
    local pid = s:wait_log("Child process in pool #1 with PID (%d+) returned with exit code 1\n")
    local prefix = "%[Pool #1, PID " .. pid .. "%] "
    assert.truthy(s:log():find(prefix .. 'Error in "connect" function: [^\n]*app%.lua:3: oops\n'))
    assert.truthy(s:log():find(prefix .. "stack traceback:\n"))
    assert.truthy(s:log():find(prefix .. "\t[^\n]*app%.lua:3: in "))
    assert.equal("hello", (s:raw("x"))) -- by another one, forked at once, not after fork_error_delay
    assert.equal(0, count(s, "finish"))
  end)

  it("may throw anything", function()
    local s = start [[
      min_fork = 1, max_fork = 1,
      connect = function(socket)
        local things = {
          n = 42, t = {}, f = print, b = false,
          o = setmetatable({}, { __tostring = function() return "a readable object" end }),
          x = setmetatable({}, { __tostring = function() error("inner") end }),
          m = setmetatable({}, { __name = "my.error" }),
          u = io.stdout,
        }
        error(things[socket:read(1)])
      end
    ]]
    for key, text in pairs {
      n = "42", t = "(error object is a table value)", f = "(error object is a function value)",
      b = "false", o = "a readable object", x = "(error object cannot be shown)",
      ["0"] = "(error object is a nil value)", m = "my.error: 0x", u = "file (0x",
    } do
      assert.equal("reset", select(2, s:raw(key)))
      assert.truthy(process.wait_until(function()
        return s:log():find('Error in "connect" function: ' .. text, 1, true)
      end), text)
    end
  end)

  it("that throws in finish logs it and exits with 1", function()
    local s = start [[ connect = function() end, finish = function() error("oops") end ]]
    s:raw("")
    assert.truthy(s:wait_log('Error in "finish" function: [^\n]*oops'))
    assert.truthy(s:wait_log("returned with exit code 1"))
  end)

  it("that ends early by os.exit(0) is logged; one that has come to its end is not", function()
    local s = start [[
      min_fork = 1, max_fork = 1, fork_error_delay = 0.1,
      prepare = function() if not io.open(FLAG) then io.open(FLAG, "w"):close() os.exit(0) end end,
      connect = function(socket)
        local byte = socket:read(1)
        if byte == "q" then os.exit(0) end
        if byte == "t" then os.exit(true, true) end
        socket:write("hello")
        return byte == "x"
      end,
      finish = function() io.stderr:write("finish\n") end
    ]]
    assert.truthy(s:wait_log('returned with exit code 0 in "prepare"\n'))
    assert.equal("hello", (s:raw("e")))
    s:raw("q")
    assert.truthy(s:wait_log("returned with exit code 0 in the middle of its work\n"))
    s:raw("t")
    assert.truthy(s:wait_log("returned with exit code 0 in the middle of its work\n", nil, 2))
    assert.equal("hello", (s:raw("x")))
    assert.equal(0, s:stop())
    assert.equal(3, count(s, "returned with"))
  end)

  it("that ends by os.exit or a signal is logged and replaced at once", function()
    local s = start [[
      min_fork = 1, max_fork = 1,
      connect = function(socket)
        local byte = socket:read(1)
        if byte == "q" then os.exit(7) end
        if byte == "k" then os.execute("kill -9 " .. moonbridge_io.getpid()) end
        socket:write("hello")
        return true
      end
    ]]
    s:raw("q")
    assert.truthy(s:wait_log("returned with exit code 7"))
    s:raw("k")
    assert.truthy(s:wait_log("died from signal 9"))
    assert.equal("hello", (s:raw("x")))
  end)
end)

describe("a failing prepare", function()
  after_each(server.cleanup)

  it("is tried again after fork_error_delay, without a fork storm", function()
    local s = start([[
      fork_delay = 0, fork_error_delay = 0.3, min_fork = 3,
      prepare = function() error("not yet") end,
      connect = function() end
    ]], nil, "listening")
    assert.truthy(s:wait_log('Error in "prepare" function: [^\n]*not yet'))
    local before, begun = count(s, "not yet\n"), socket.gettime()
    socket.sleep(1.2)
    local rate = (count(s, "not yet\n") - before) / (socket.gettime() - begun)
    assert.truthy(rate > 0 and rate < 20, rate)
    assert.equal(0, s:stop())
  end)

  it("does not keep the pool from serving when it succeeds later", function()
    local flag = process.scratch("flag")
    local s = server.start {
      launcher = true, globals = { FLAG = flag }, ready = "listening", script = [[
        listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          fork_error_delay = 0.1, fork_delay = 0.1,
          prepare = function() assert(io.open(FLAG)) end,
          connect = function(socket) socket:write("hello") return true end
        }
      ]],
    }
    assert.truthy(s:wait_log('Error in "prepare" function'))
    local c = s:connect()
    io.open(flag, "w"):close()
    assert.equal("hello", (c:read_all()))
  end)

  it("by os.exit or a signal counts as well", function()
    for _, how in ipairs { "os.exit(0)", "os.execute('kill -9 ' .. moonbridge_io.getpid())" } do
      local begun = socket.gettime()
      local s = start(("fork_delay = 0, fork_error_delay = 0.3, min_fork = 1, "
        .. "prepare = function() say('failing') %s end, connect = print"):format(how), nil, "listening")
      socket.sleep(1)
      local tries = count(s, "failing")
      assert.truthy(tries <= 3 + (socket.gettime() - begun) / 0.3, tries)
      s:stop("INT")
    end
  end)
end)

describe("a pool", function()
  after_each(server.cleanup)

  -- Answers after the client has sent a byte.
  local HOLDS = [[
    connect = function(socket) socket:read(1) socket:write(moonbridge_io.getpid()) return true end,
  ]]

  it("grows to max_fork and never beyond; connections beyond that wait and are served later", function()
    local s = start(HOLDS .. "min_fork = 1, max_fork = 4, fork_delay = 0.01")
    local held = {}
    for index = 1, 10 do held[index] = s:connect() end
    assert.truthy(has_workers(s, 4))
    socket.sleep(0.3)
    assert.equal(4, #s:workers())
    for _, c in ipairs(held) do c:send("x") end
    for _, c in ipairs(held) do assert.truthy(tonumber((c:read_all()))) end
    assert.equal(4, #s:workers())
  end)

  it("may have more workers than another one", function()
    local s = server.start [[
      moonbridge = require "moonbridge"
      moonbridge.listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        pre_fork = 12, min_fork = 12, max_fork = 12, connect = function(socket) socket:write("hello") end,
      }
      moonbridge.listen{
        { proto = "interval", delay = 60 }, min_fork = 1, max_fork = 1, connect = function() return true end,
      }
      moonbridge.run()
    ]]
    assert.truthy(has_workers(s, 13))
    -- The supervisor has checked the workers and the ports of both.
    socket.sleep(2.2)
    assert.equal("hello", (s:connect():read_all()))
    s:signal("TERM")
    assert.equal(0, s:wait())
  end)

  it("keeps pre_fork workers spare", function()
    local s = start(HOLDS .. "pre_fork = 3, min_fork = 3, max_fork = 8, fork_delay = 0.01")
    assert.truthy(has_workers(s, 3))
    local held = { s:connect(), s:connect() }
    assert.truthy(has_workers(s, 5))
    socket.sleep(0.2)
    assert.equal(5, #s:workers())
    for _, c in ipairs(held) do c:send("x") c:read_all() end
  end)

  it("forks no more than it needs without a fork_delay", function()
    for _ = 1, 3 do
      local s = start [[
        pre_fork = 10, max_fork = 30, fork_delay = 0,
        prepare = function() io.stderr:write("prepared\n") end,
        connect = function() return true end,
      ]]
      assert.truthy(process.wait_until(function() return #s:workers() >= 10 end))
      socket.sleep(0.3)
      assert.equal(10, #s:workers())
      s:stop()
    end
  end)

  it("forks one worker each fork_delay", function()
    local slow = start(HOLDS .. "min_fork = 6, fork_delay = 60")
    local quick = start(HOLDS .. "min_fork = 6, fork_delay = 0")
    assert.truthy(has_workers(quick, 6))
    assert.truthy(has_workers(slow, 1))
    socket.sleep(0.3)
    assert.equal(1, #slow:workers())
  end)

  it("shrinks to min_fork, one idle worker each exit_delay", function()
    local s = start(HOLDS .. "min_fork = 2, max_fork = 8, fork_delay = 0.01, exit_delay = 0.2", { "-s" })
    local held = {}
    for index = 1, 6 do held[index] = s:connect() end
    assert.truthy(process.wait_until(function() return #s:workers() >= 6 end))
    local begun = socket.gettime()
    for _, c in ipairs(held) do c:send("x") c:read_all() end
    assert.truthy(has_workers(s, 2))
    assert.truthy(socket.gettime() - begun > 0.6)
    socket.sleep(0.5)
    assert.equal(2, #s:workers())
  end)

  it("ends workers after idle_timeout, also at min_fork, and forks them anew", function()
    local s = start(HOLDS .. "min_fork = 2, max_fork = 2, idle_timeout = 0.3, fork_delay = 0.01,"
      .. "finish = function() say('finish') end")
    assert.truthy(has_workers(s, 2))
    local before = s:workers()
    socket.sleep(0.6)
    assert.truthy(s:wait_log("finish", nil, 2))
    assert.truthy(has_workers(s, 2))
    for _, pid in ipairs(before) do assert.falsy(process.alive(pid)) end
    -- A busy worker is not idle, however long it takes.
    local c = s:connect()
    socket.sleep(0.6)
    c:send("x")
    assert.truthy(tonumber((c:read_all())))
  end)

  it("replaces 300 ended workers without growth of descriptors or memory", function()
    local s = start [[
      min_fork = 4, max_fork = 8, fork_delay = 0,
      connect = function(socket) socket:write("x") return false end
    ]]
    local function figures()
      local descriptors = 0
      for _ in require("lfs").dir(("/proc/%d/fd"):format(s.pid)) do descriptors = descriptors + 1 end
      local status = process.slurp(("/proc/%d/status"):format(s.pid))
      return descriptors, tonumber(status:match("VmRSS:%s+(%d+)"))
    end
    for _ = 1, 30 do hear(s) end
    assert.truthy(process.wait_until(function() return #s:workers() >= 4 end))
    socket.sleep(0.2)
    local descriptors, memory = figures()
    for _ = 1, 300 do assert.equal("x", hear(s)) end
    assert.truthy(process.wait_until(function() return figures() <= descriptors + 12 end))
    socket.sleep(0.3)
    local descriptors_after, memory_after = figures()
    assert.truthy(descriptors_after <= descriptors + 4, descriptors_after - descriptors)
    assert.truthy(memory_after <= memory + 256, memory_after - memory)
  end)

  -- With a pause for each it would take 300 s. How fast it is on a quiet machine, benches/supervisor says.
  it("replaces 300 workers without pauses with fork_delay = 0", function()
    local s = start [[
      min_fork = 4, max_fork = 8, fork_delay = 0,
      connect = function(socket) socket:write("x") return false end
    ]]
    local begun = socket.gettime()
    for _ = 1, 19 do
      local open = {}
      -- Without the client helper, which takes more time than the server.
      for index = 1, 16 do open[index] = assert(socket.connect("127.0.0.1", s.port)) end
      for _, c in ipairs(open) do
        c:settimeout(server.TIMEOUT)
        assert.equal("x", (c:receive("*a")))
        c:close()
      end
    end
    assert.truthy(socket.gettime() - begun < 150, socket.gettime() - begun)
  end)

  it("answers a burst of 2,000 connections with max_fork = 8", function()
    local s = start [[
      min_fork = 2, max_fork = 8,
      connect = function(socket) socket:write("hello ", (socket:read(1))) return true end
    ]]
    local open = {}
    for index = 1, 2000 do
      -- Without the client helper, whose `select` takes no descriptor over 1023.
      local c = assert(socket.connect("127.0.0.1", s.port))
      c:settimeout(server.TIMEOUT)
      c:send("x")
      open[index] = c
    end
    local answered = 0
    for _, c in ipairs(open) do
      if c:receive("*a") == "hello x" then answered = answered + 1 end
      c:close()
    end
    assert.equal(2000, answered)
    assert.truthy(#s:workers() <= 8)
  end)
end)
