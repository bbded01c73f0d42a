-- The harness itself: what it starts it can watch, talk to and end; what it must not miss it does not.
-- Runs once: a harness is the same under each version of Lua.

local client = require "spec.support.client"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- A server without any module of ours: answers each line, one connection after the other.
local ECHO = [[
  local socket = require "socket"
  local listener = assert(socket.bind("127.0.0.1", PORT))
  io.stderr:write("listening\n")
  while true do
    local connection = listener:accept()
    local line = connection:receive("*l")
    if line == "reset" then
      connection:setoption("linger", {on = true, timeout = 0})
    elseif line == "die" then
      os.exit(7)
    elseif line and line:find("^GET") then
      connection:send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nabc")
    else
      connection:send((line or "") .. "\n")
    end
    connection:close()
  end
]]

describe("the server helper", function()
  after_each(server.cleanup)

  local function echo(options)
    options = options or {}
    options.script, options.ready = options.script or ECHO, options.ready or "listening"
    return server.start(options)
  end

  it("runs the script under the interpreter that runs the specs", function()
    local code, output = server.run_script [[print(_VERSION, PORT, os.getenv("PORT")) os.exit(3)]]
    assert.equal(3, code)
    assert.truthy(output:find(_VERSION, 1, true))
  end)

  it("passes globals, arguments and the environment", function()
    local code, output = server.run_script {
      script = [[print(WORD, (...), os.getenv("COLOUR"), os.getenv("HOME"))]],
      globals = { WORD = "it's" }, args = { "a b" }, env = { COLOUR = "$blue", HOME = false },
    }
    assert.equal(0, code)
    assert.equal("it's\ta b\t$blue\tnil\n", output)
  end)

  it("waits until the port is open, and exchanges raw bytes", function()
    local s = echo()
    assert.equal("hello\n", (s:raw("hello\n")))
    assert.truthy(s:wait_log("listening"))
  end)

  it("tells a FIN from an RST", function()
    local s = echo()
    assert.equal("closed", select(2, s:raw("hello\n")))
    assert.equal("reset", select(2, s:raw("reset\n")))
  end)

  it("reads HTTP responses", function()
    local response = echo():request("/")
    assert.equal(200, response.status)
    assert.equal("abc", response.body)
    assert.equal("1", response.headers["x-a"])
  end)

  it("runs curl", function()
    local code, output = echo():curl "URL/"
    assert.same({ 0, "abc" }, { code, output })
  end)

  it("returns exit codes, signals as 128 + n", function()
    local s = echo()
    s:raw("die\n")
    assert.equal(7, s:wait())
    assert.equal(128 + 15, echo():stop("TERM"))
  end)

  it("starts programs with default signal dispositions", function()
    local _, output = server.run_script [[
      for line in io.lines("/proc/self/status") do if line:find("^SigIgn") then print(line) end end
    ]]
    -- The C library's own 32 and 33 are left aside: its posix_spawn ignores them in every child.
    assert.equal(0, tonumber(output:match("^SigIgn:%s+(%x+)\n"), 16) & ~(3 << 31))
  end)

  it("reports a script that fails before it is ready, with its log", function()
    local ok, message = pcall(server.start, "error('no such thing')")
    assert.falsy(ok)
    assert.truthy(message:find("no such thing", 1, true))
  end)

  it("finds and kills what a server left behind, in its session or out of it", function()
    for _, start in ipairs { "sleep 77 &", "setsid sleep 77 &" } do
      local s = echo { script = ("os.execute(%q)"):format(start) .. ECHO, patience = 0.2 }
      local left = process.wait_until(function()
        local found = s:descendants()
        return #found == 1 and found[1].command == "sleep" and found[1]
      end)
      assert.truthy(left)
      local ok, message = pcall(server.cleanup)
      assert.falsy(ok)
      assert.truthy(message:find("a process was left behind: %d+ sleep"))
      assert.falsy(process.alive(left.pid))
    end
  end)
end)

-- tools/test with a spec file of the given text, or several; further variables in a table before them.
local function run_tests(first, ...)
  if type(first) == "string" then return run_tests({}, first, ...) end
  local env = { BUILT = 1, RESULTS = process.scratch("results"), JOBS = 4 }
  for name, value in pairs(first) do env[name] = value end
  local folder = process.scratch("")
  for index, text in ipairs { ... } do
    local file = assert(io.open(("%s%d_spec.lua"):format(folder, index), "w"))
    file:write(text)
    file:close()
  end
  env.SPEC = folder
  return process.start({ server.root .. "/tools/test" }, { env = env })
end

describe("tools/test", function()
  after_each(server.cleanup)

  it("repeats at its end what failed, also beside others only, and names the longest files", function()
    local once = process.scratch("once")
    local run = run_tests("it('is sound', function() end)", "it('is broken', function() error('oops') end)",
      ([[it("is flaky", function()
        local path = %q .. _VERSION
        local second = io.open(path)
        io.open(path, "w"):close()
        assert(second, "disturbed")
      end)]]):format(once), "-- Runs once\nit('is sound', function() end)")
    assert.equal(1, run:wait(120))
    local summary = run:output():match("\n\n(==.*)")
    local function assert_says(pattern) assert.matches(pattern, summary) end
    for version, tests in pairs { ["5%.3"] = 3, ["5%.4"] = 4 } do
      local runner = "busted%-" .. version .. "%-%S*"
      assert_says(runner .. "2 failed:\nFAILED: is broken\n[^\n]+oops\n")
      assert_says(runner .. "3 failed beside others and passed alone; at first:\n"
        .. "FAILED: is flaky\n[^\n]+disturbed\n")
      assert_says(("\nbusted%%-%s +%d of +%d tests passed\n"):format(version, tests - 1, tests))
    end
    assert_says "\n== the longest of %d+ s:\n *%d+ s  busted"
    run:destroy()
  end)

  it("says what has failed and what was under way when it is cut off", function()
    local flag = process.scratch("waits")
    local run = run_tests("it('is broken', function() error('oops') end)",
      ("it('waits', function() io.open(%q .. _VERSION, 'w') os.execute('exec sleep 600') end)"):format(flag))
    assert.truthy(process.wait_until(function()
      return process.slurp(flag .. "Lua 5.3") and process.slurp(flag .. "Lua 5.4")
        and select(2, run:output():gsub("1 failed\n", "")) == 2
    end, 120))
    run:signal("TERM")
    assert.equal(130, run:wait())
    local summary = run:output():match("\n== cut off by SIGTERM after %d+ s; [^\n]+RUNNER_TIMEOUT.*")
    assert.equal(2, select(2, summary:gsub("failed:\nFAILED: is broken\n[^\n]+oops\n", "")), summary)
    assert.equal(2, select(2, summary:gsub("was under way for %d+ s:\nwaits\n", "")), summary)
    assert.truthy(process.wait_until(function() return #run:descendants() == 0 end))
    run:destroy()
  end)

  it("says which limit was hit, and during which test", function()
    local run = run_tests({ RUNNER_TIMEOUT = 5 },
      "-- Runs once\nit('waits', function() os.execute('sleep 600') end)")
    assert.equal(1, run:wait(120))
    assert.matches("\nbusted%-5%.4%S* broke off after RUNNER_TIMEOUT %(5 s%), during: waits\n", run:output())
    run:destroy()
  end)
end)

describe("a run that is killed", function()
  after_each(server.cleanup)

  -- A run that starts a server and a daemon. The file gets the pids of both, and of a worker.
  local RUN = ([[
    package.path = %q .. "/?.lua;" .. package.path
    local process = require "spec.support.process"
    local server = require "spec.support.server"
    local app = "listen{ { proto = 'tcp', host = '127.0.0.1', port = PORT }, connect = print }"
    local s = server.start { script = app, launcher = true }
    local pid_file = process.scratch("pid")
    local daemon = server.start { script = app, launcher = { "-b", "-p", pid_file }, ready = false }
    process.wait_until(function() return server.listening(daemon.port) end)
    local file = io.open(PIDS .. ".new", "w")
    file:write(s.pid, " ", process.slurp(pid_file), " ", table.concat(s:workers(), " "))
    file:close()
    os.rename(PIDS .. ".new", PIDS)
    require("socket").sleep(600)
  ]]):format(server.root)

  local function pids(path)
    local text = assert(process.wait_until(function() return process.slurp(path) end, 120))
    local list = {}
    for pid in text:gmatch("%d+") do list[#list + 1] = tonumber(pid) end
    return list
  end

  local function assert_ended(list)
    assert.truthy(#list >= 3)
    for _, pid in ipairs(list) do
      assert.truthy(process.wait_until(function() return not process.alive(pid) end), pid)
    end
  end

  it("leaves no server behind, nor a daemon", function()
    for _, signal in ipairs { "KILL", "TERM" } do
      local path = process.scratch("pids")
      local run = server.start { script = RUN, globals = { PIDS = path }, ready = false, cwd = server.root }
      local list = pids(path)
      run:signal(signal)
      run:wait()
      assert_ended(list)
    end
  end)

  it("leaves none behind if it is a part of tools/test", function()
    for _, signal in ipairs { "KILL", "TERM" } do
      local path = process.scratch("pids")
      local run = run_tests(("local PIDS = %q .. _VERSION it('waits', function() %s end)"):format(path, RUN))
      local list, other = pids(path .. "Lua 5.3"), pids(path .. "Lua 5.4")
      table.move(other, 1, #other, #list + 1, list)
      run:signal(signal)
      run:wait()
      assert_ended(list)
      assert.truthy(process.wait_until(function() return #run:descendants() == 0 end))
      run:destroy()
    end
  end)
end)

describe("the client helper", function()
  it("formats requests", function()
    assert.equal("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab",
      client.format { target = "/x", body = "ab" })
    assert.equal("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
      client.format { method = "PUT", version = "1.0", host = false, body = { "ab", "c" } })
  end)
end)
