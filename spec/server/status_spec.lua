-- What an operator can see of a running server: status, statistics, debug lines.

local process = require "spec.support.process"
local server = require "spec.support.server"

local start = server.start_pool

local ANSWERS = [[
  min_fork = 2, max_fork = 2,
  connect = function(socket)
    local byte = socket:read(1)
    if byte == "e" then error("oops") end
    if byte == "?" then
      local status = require("moonbridge").status()
      for _, name in ipairs{ "idle", "busy", "total", "parked", "accepted", "handled", "errors",
        "respawns", "shed" } do
        socket:write(name, "=", status[1][name], " ")
      end
      socket:write(#status)
    end
    return byte ~= "f"
  end
]]

describe("SIGUSR2", function()
  after_each(server.cleanup)

  it("logs per pool idle, busy and all workers, connections, errors and respawns", function()
    local s = start(ANSWERS)
    assert.truthy(process.wait_until(function() return #s:workers() == 2 end))
    for _ = 1, 3 do s:raw("x") end
    s:raw("e")
    s:raw("f")
    assert.truthy(process.wait_until(function()
      s:signal("USR2")
      return s:wait_log("Status of pool #1: 2 workers %(2 idle, 0 busy%), 0 parked connections, 0 sending; "
        .. "5 accepted, 4 handled, 1 errors, 2 respawns, 0 shed, 0 reclaimed, 0 lost\n", 0.1)
    end), s:log())
  end)

  it("does no harm to a worker, as little as SIGUSR1", function()
    local s = start [[
      min_fork = 1, max_fork = 1,
      connect = function(s) s:write(moonbridge_io.getpid()) return true end
    ]]
    local pid = s:raw("")
    process.kill(tonumber(pid), "USR1")
    process.kill(tonumber(pid), "USR2")
    assert.equal(pid, (s:raw("")))
  end)
end)

describe("moonbridge.status()", function()
  after_each(server.cleanup)

  it("gives the same figures in a worker", function()
    local s = start(ANSWERS)
    assert.truthy(process.wait_until(function() return #s:workers() == 2 end))
    s:raw("x")
    assert.truthy(process.wait_until(function() return s:raw("?"):find("idle=1 busy=1 total=2") end))
    -- A connection is closed before it counts as handled, so the figure may be a moment late.
    local text
    assert.truthy(process.wait_until(function()
      text = s:raw("?")
      local accepted, handled = text:match("accepted=(%d+) handled=(%d+)")
      return tonumber(accepted) == handled + 1
    end))
    assert.truthy(text:find("parked=0 .* errors=0 respawns=0 shed=0 1$"), text)
  end)

  it("tells of parked connections", function()
    local s = server.start [[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      moonbridge.listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data(moonbridge.status()[1].parked)
          return true
        end)
      }
      moonbridge.run()
    ]]
    local kept = {}
    for index = 1, 10 do
      kept[index] = s:connect()
      kept[index]:request("/")
    end
    assert.truthy(process.wait_until(function() return tonumber(s:request("/").body) >= 10 end))
    for _, c in ipairs(kept) do assert.equal(200, c:request("/").status) end
  end)

  it("is an empty list without pools, and zeros before run", function()
    local _, output = server.run_script [[
      local moonbridge = require "moonbridge"
      print(#moonbridge.status())
      moonbridge.listen{ { proto = "interval", delay = 1 }, connect = print }
      print(#moonbridge.status(), moonbridge.status()[1].total, moonbridge.status()[1].accepted)
      os.exit()
    ]]
    assert.equal("0\n1\t0\t0\n", output)
  end)
end)

describe("stats (-s)", function()
  after_each(server.cleanup)

  it("logs routine ends of workers, what they used, and worker counts", function()
    local s = start(ANSWERS, { launcher = { "-s" } })
    assert.truthy(s:wait_log("Pool #1: 2 workers %("))
    s:raw("f")
    local pid = s:wait_log("Child process in pool #1 with PID (%d+) terminated normally")
    assert.truthy(s:wait_log("Child process with PID " .. pid
      .. " has used %d+%.%d+ s in user mode, %d+%.%d+ s in system mode, %d+ KiB of memory, "
      .. "page faults %d+/%d+, context switches %d+/%d+"))
    assert.truthy(s:wait_log("Pool #1: 2 workers [^\n]* 1 respawns"))
  end)

  it("are not logged otherwise", function()
    local s = start(ANSWERS)
    s:raw("f")
    s:raw("x")
    s:stop()
    assert.falsy(s:log():find("terminated normally", 1, true))
    assert.falsy(s:log():find("has used", 1, true))
  end)
end)

describe("debug (-d)", function()
  after_each(server.cleanup)

  it("logs every control message, and the statistics", function()
    local s = start(ANSWERS, { launcher = { "-d" } })
    assert.truthy(s:wait_log("%[Pool #1, PID %d+%] reported: Ready\n"))
    assert.truthy(s:wait_log("Forked child process in pool #1 with PID %d+\n"))
    s:raw("f")
    assert.truthy(s:wait_log("terminated normally"))
    -- Its successor, which is to be ended.
    assert.truthy(s:wait_log("reported: Ready\n", nil, 2))
    s:stop()
    assert.truthy(s:log():find("%[Pool #1, PID %d+%] ordered: Drain\n"), s:log())
  end)

  it("shows nothing of what clients send", function()
    local s = start("connect = require('moonbridge_http').generate_handler(print)",
      { launcher = { "-d" } })
    local c = s:connect()
    c:send("GET /secret")
    assert.truthy(s:wait_log("reported: HandedOver%([^\n]* data: 11 bytes"))
    assert.falsy(s:log():find("secret", 1, true))
  end)
end)

describe("what workers write to standard error", function()
  after_each(server.cleanup)

  it("is logged line by line with pool and PID, a last line without end included", function()
    local s = start [[
      connect = function(socket)
        io.stderr:write("one\ntwo\n\n", ("x"):rep(1024), "\n", ("y"):rep(1025), "\nend")
        os.exit(3)
      end
    ]]
    s:raw("")
    local pid = s:wait_log("PID (%d+) returned with exit code 3")
    local lines = {}
    for text in s:log():gmatch("%[Pool #1, PID " .. pid .. "%]([^\n]*)\n") do lines[#lines + 1] = text end
    assert.same({
      " one", " two", " ", " " .. ("x"):rep(1024),
      "(line has been truncated) " .. ("y"):rep(1024), " end",
    }, lines)
  end)

  it("goes on when a process it started holds the pipe", function()
    local s = start [[
      connect = function(socket)
        os.execute("sleep 3 &")
        io.stderr:write("bye")
        return false
      end
    ]]
    s:raw("")
    assert.truthy(s:wait_log("%] bye\n"))
    assert.equal(0, s:stop())
    assert.equal("sleep", s:descendants()[1].command)
    assert.truthy(process.wait_until(function() return #s:descendants() == 0 end))
  end)
end)
