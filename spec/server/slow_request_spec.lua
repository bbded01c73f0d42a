-- Reference, "Slow requests": they are told of once, with a traceback, and go on.

local process = require "spec.support.process"
local server = require "spec.support.server"
local websocket = require "spec.support.websocket"

local function start(limit)
  return server.start(([[
    local moonbridge = require "moonbridge"
    local io_module = require "moonbridge_io"
    local http = require "moonbridge_http"
    local hooked = 0
    local ways = {}
    function ways.waits() io_module.poll({}, {}, 1.2) end
    function ways.computes()
      local begun = io_module.timeref()
      repeat local _ = ("x"):rep(100) until io_module.timeref(begun) > 1.2
    end
    function ways.blocks() os.execute("sleep 1.2") end
    function ways.coroutine() coroutine.wrap(function() io_module.poll({}, {}, 1.2) end)() end
    function ways.hooked()
      debug.sethook(function() hooked = hooked + 1 end, "", 1000)
      ways.waits()
      local before = hooked
      for _ = 1, 100000 do local _ = {} end
      assert(hooked > before, "the hook is gone")
      debug.sethook()
    end
    function ways.quick() end
    function ways.reads(request) assert(#request.body == 800000) end
    moonbridge.listen{
      { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1, max_fork = 1,
      connect = http.generate_handler(function(request)
        ways[request.path](request)
        request:send_status("200 OK")
        request:send_data("done")
        return true
      end),
    }
    moonbridge.run{ slow_request = %s }
  ]]):format(limit))
end

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

describe("slow_request", function()
  after_each(server.cleanup)

  for way, line in pairs {
    waits = "app%.lua:6: in", computes = "app%.lua:9: in", coroutine = "of a coroutine",
    hooked = "app%.lua:6: in",
  } do
    it("tells once of a handler that " .. way .. ", with a traceback", function()
      local s = start(0.2)
      assert.equal("done", s:request("/" .. way .. "?a=1").body)
      local log = s:log()
      local told = "slow request: GET /" .. way .. "%?a=1 from 127%.0%.0%.1:%d+, for %d%.%d+ s"
      assert.equal(1, count(log, told), log)
      assert.equal(1, count(log, "Slow request\n"), log)
      assert.truthy(log:find(line), log)
    end)
  end

  it("tells of a handler that is blocked in C", function()
    local s = start(0.2)
    local connection = s:connect()
    connection:send("GET /blocks HTTP/1.1\r\nHost: x\r\n\r\n")
    assert(s:wait_log("slow request: GET /blocks from"))
    assert(connection:read_until("done"))
  end)

  it("tells where a handler waits for its client", function()
    local s = start(0.2)
    local connection = s:connect()
    connection:send("POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 800000\r\n\r\n" .. ("a"):rep(400000))
    assert(s:wait_log("app%.lua:22: in"), s:log())
    connection:send(("b"):rep(400000))
    assert(connection:read_until("done"))
  end)

  it("tells of a WebSocket whose function is slow, once for each event", function()
    local s = server.start [[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      local chat = http.websocket { message = function(ws, text)
        moonbridge.io.poll({}, {}, tonumber(text))
        ws:send("done")
      end }
      moonbridge.listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1, max_fork = 1,
        connect = http.generate_handler(chat),
      }
      moonbridge.run { slow_request = 0.2 }
    ]]
    local ws = websocket.connect(s, "/chat")
    for _, seconds in ipairs { "0", "1.2", "0", "1.2" } do assert.equal("done", ws:ask(seconds)) end
    local log = s:log()
    local told = "slow request: GET /chat %[%x+%] from 127%.0%.0%.1:%d+, for [01]%.%d+ s"
    assert.equal(2, count(log, told), log)
    assert.equal(2, count(log, "app%.lua:3: in"), log)
    local pid = math.tointeger(tonumber(log:match("PID (%d+)%] slow request")))
    ws:send("30")
    assert(s.process:wait_log("slow request", nil, 3))
    process.kill(pid, "KILL")
    assert(s.process:wait_log("PID " .. pid .. " died from signal 9 while it handled GET /chat %[%x+%] from"))
  end)

  it("tells nothing of others, or without the option", function()
    local s = start(0.5)
    for _ = 1, 20 do assert.equal("done", s:request("/quick").body) end
    assert.falsy(s:log():lower():find("slow request", 1, true))
    s = start("false")
    assert.equal("done", s:request("/waits").body)
    assert.falsy(s:log():lower():find("slow request", 1, true))
  end)
end)
