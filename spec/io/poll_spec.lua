-- Reference, "I/O library": poll, catch_sigterm, timeref, getpid.

local moonbridge_io = require "moonbridge_io"
local pair = require "spec.support.pair"
local process = require "spec.support.process"

local poll, timeref = moonbridge_io.poll, moonbridge_io.timeref

local function misuse(...)
  local arguments = table.pack(...)
  local ok, message = pcall(function() poll(table.unpack(arguments, 1, arguments.n)) end)
  assert.is_false(ok)
  assert.matches("^spec/io/poll_spec.lua:%d+: ", message)
  return message
end

describe("poll", function()
  local near, far

  before_each(function() near, far = pair.tcp() end)

  it("'waits for at least one of the given file descriptors and/or I/O handles to be ready'", function()
    assert.same({ n = 1, true }, pair.results(poll({ [near] = true }, { [far] = true }, 5)))
    near:flush("x")
    assert.same({ n = 1, true }, pair.results(poll({ [far] = true, [near] = true }, nil, 5)))
    assert.same({ n = 1, true }, pair.results(poll({ [far:getfd()] = true })))
  end)

  it("'false as first return value if a timeout happened', and a message", function()
    assert.same({ n = 2, false, "Timeout" }, pair.results(poll({ [far] = true }, nil, 0)))
    assert.same({ n = 2, false, "Timeout" }, pair.results(poll({ [far] = true }, nil, 0.01, false)))
    assert.same({ n = 3, false, "Timeout", false }, pair.results(poll(nil, nil, 0, true)))
    local ok, message = pcall(function() assert(poll(nil, nil, 0)) end)
    assert.is_false(ok)
    assert.matches("Timeout", tostring(message))
  end)

  it("waits fractions of a second", function()
    local start = timeref()
    poll({ [far] = true }, {}, 0.05)
    local elapsed = timeref(start)
    assert.is_true(elapsed >= 0.05 and elapsed < 5)
  end)

  it("reports a timeout at once for a negative time", function()
    near:flush("x")
    pair.await(far)
    assert.same({ n = 2, false, "Timeout" }, pair.results(poll({ [far] = true }, nil, -1)))
    assert.same({ n = 2, false, "Timeout" }, pair.results(poll({ [far] = true }, nil, -math.huge)))
  end)

  it("refuses infinite, undefined and absurd times", function()
    for _, timeout in ipairs { math.huge, 0 / 0, 1e8, "x", {} } do misuse(nil, nil, timeout) end
  end)

  it("'a value which does evaluate to true': other keys do not count", function()
    near:flush("x")
    pair.await(far)
    assert.is_false((poll({ [far] = false, [near] = true }, nil, 0)))
  end)

  it("takes buffered input as ready at once", function()
    near:flush("two\nlines\n")
    assert.equal("two\n", (far:read(nil, "\n")))
    assert.same({ n = 1, true }, pair.results(poll({ [far] = true }, nil, 0)))
    assert.equal("lines\n", (far:read(nil, "\n")))
    assert.is_false((poll({ [far] = true }, nil, 0)))
  end)

  it("'may also contain listeners (to wait for incoming connections)'", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    assert.is_false((poll({ [listener] = true }, nil, 0)))
    local client = assert(moonbridge_io.tcpconnect("127.0.0.1", listener.local_tcpport))
    assert.is_true((poll({ [listener] = true }, nil, 5)))
    misuse(nil, { [listener] = true }, 0)
    listener:close()
    misuse({ [listener] = true }, nil, 0)
    client:close()
  end)

  it("'and child handles (to wait for process termination)'", function()
    local child = assert(moonbridge_io.exec("cat"))
    assert.is_false((poll({ [child] = true }, nil, 0)))
    child.stdin:close()
    assert.is_true((poll({ [child] = true }, nil, 5)))
    misuse(nil, { [child] = true }, 0)
    assert.equal(0, child:wait())
    misuse({ [child] = true }, nil, 0)
  end)

  it("takes all kinds in one set, each of which ends the wait", function()
    local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
    local child = assert(moonbridge_io.exec("cat"))
    local one, other = pair.unix()
    local set = { [listener] = true, [child] = true, [far] = true, [one:getfd()] = true, [io.stdout] = false }
    assert.is_false((poll(set, nil, 0)))
    near:flush("x")
    assert.is_true(poll(set, nil, process.TIMEOUT))
    far:read(1)
    other:flush("x")
    assert.is_true(poll(set, nil, process.TIMEOUT))
    one:read(1)
    local client = assert(moonbridge_io.tcpconnect("127.0.0.1", listener.local_tcpport))
    assert.is_true(poll(set, nil, process.TIMEOUT))
    assert(listener:accept()):close()
    assert.is_false((poll(set, nil, 0)))
    child.stdin:close()
    assert.is_true(poll(set, nil, process.TIMEOUT))
    child:wait()
    client:close()
    set[child] = nil
    set[{}] = true
    misuse(set, nil, 0)
  end)

  it("throws for keys that cannot be waited for, and for closed handles", function()
    misuse({ handle = true }, nil, 0)
    misuse({ [{}] = true }, nil, 0)
    misuse({ [io.stdout] = true }, nil, 0)
    misuse({ [-1] = true }, nil, 0)
    misuse({ [1 << 40] = true }, nil, 0)
    misuse("set", nil, 0)
    misuse(nil, 5, 0)
    near:close()
    misuse({ [near] = true }, nil, 0)
  end)

  it("returns nil and a message for a descriptor that is not open", function()
    local fd = near:getfd()
    near:close()
    assert.same({ n = 3, nil, "Bad file descriptor", 9 }, pair.results(poll({ [fd] = true }, nil, 0)))
  end)

  it("takes more than 1024 descriptors", function()
    local limit = tonumber((select(2, process.run("ulimit -n"))))
    if not limit or limit < 2500 then pending("only " .. tostring(limit) .. " descriptors allowed") end
    local set, ends = {}, {}
    for i = 1, 600 do
      local a, b = pair.tcp()
      set[a], set[b] = true, true
      ends[i] = { a, b }
    end
    assert.is_true(ends[600][2]:getfd() > 1023)
    assert.is_false((poll(set, nil, 0)))
    ends[600][1]:flush("x")
    assert.is_true((poll(set, nil, 5)))
    assert.is_true((poll(nil, set, 5)))
  end)

  it("returns at once for a finished local socket", function()
    local a = pair.unix()
    a:finish()
    assert.is_true((poll({ [a] = true })))
  end)
end)

describe("SIGTERM", function()
  -- Each program runs in a process of its own: the flag cannot be cleared.
  local function run(program)
    local path = process.scratch("sigterm.lua")
    local file = assert(io.open(path, "w"))
    file:write("local io = require 'moonbridge_io'\n", program)
    file:close()
    return assert(moonbridge_io.exec(arg[-1], path))
  end

  it("'the function returns immediately if the process received at least one SIGTERM'", function()
    local child = run [[
      io.catch_sigterm()
      io.catch_sigterm()
      io.stdout:flush("ready\n")
      local results = table.pack(io.poll({ [io.stdin] = true }, nil, 10, true))
      io.stdout:write(results.n, " ", tostring(results[1]), " ", results[2], " ", tostring(results[3]), "\n")
      io.stdout:flush()
      -- The flag stays set, and goes before everything else.
      print(io.poll({ [io.stdin] = true }, nil, -1, true))
      print(io.poll(nil, { [io.stdout] = true }, 0, true))
      print(io.poll(nil, { [io.stdout] = true }, 0))
      print(io.poll(nil, nil, 0, false))
    ]]
    assert.equal("ready\n", (child.stdout:read(nil, "\n")))
    child:kill(15)
    assert.equal("3 false SIGTERM received true\n", (child.stdout:read(nil, "\n")))
    local rest = child.stdout:read()
    assert.equal(0, child:wait())
    local timeout, sigterm = "false\tTimeout\n", "false\tSIGTERM received\ttrue\n"
    assert.equal(sigterm .. sigterm .. "true\n" .. timeout, rest)
  end)

  it("ends the process if it was not caught", function()
    local child = run [[ io.stdout:flush("ready\n") io.poll(nil, nil, 10, true) ]]
    assert.equal("ready\n", (child.stdout:read(nil, "\n")))
    child:kill("TERM")
    assert.equal(-15, child:wait())
  end)

  it("is not lost between two polls", function()
    local child = run [[
      io.catch_sigterm()
      io.stdout:flush("ready\n")
      local rounds = 0
      repeat
        rounds = rounds + 1
        local ready, message, by_signal = io.poll(nil, nil, 5, true)
      until by_signal or message == "Timeout"
      os.exit(rounds == 1 and 7 or 8)
    ]]
    assert.equal("ready\n", (child.stdout:read(nil, "\n")))
    child:kill("SIGTERM")
    assert.equal(7, child:wait())
  end)

  it("'may also return true if signals other than SIGTERM have been received': it does not fail", function()
    local child = run [[
      io.catch_sigterm()
      io.stdout:flush("ready\n")
      assert(io.poll(nil, nil, 10) == true)
      print(io.poll(nil, nil, 0, true))
    ]]
    assert.equal("ready\n", (child.stdout:read(nil, "\n")))
    moonbridge_io.poll(nil, nil, 0.05)
    child:kill("TERM")
    assert.equal("false\tSIGTERM received\ttrue\n", (child.stdout:read()))
    assert.equal(0, child:wait())
  end)
end)

describe("timeref", function()
  it("'returns a time reference (in SI-seconds)', and 'that value is substracted'", function()
    local start = timeref()
    assert.equal("float", math.type(start))
    poll(nil, nil, 0.02)
    local elapsed = timeref(start)
    assert.is_true(elapsed >= 0.02 and elapsed < 5)
    assert.has_error(function() timeref({}) end)
  end)
end)

describe("getpid", function()
  it("'Returns the current PID'", function()
    local pid = moonbridge_io.getpid()
    assert.equal("integer", math.type(pid))
    assert.equal(tostring(pid), process.slurp("/proc/self/stat"):match("^%d+"))
  end)
end)
