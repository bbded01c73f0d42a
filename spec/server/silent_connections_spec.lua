-- Connections whose client has not said anything: no process is needed for them, and none can take
-- them down.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

local HTTP = [[
  local handler = require "moonbridge_http".generate_handler(function(request)
    request:send_status("200 OK")
    return true
  end)
  require "moonbridge".listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    min_fork = 1, max_fork = 1,
    connect = WRAPPED and function(socket) return handler(socket) end or handler,
  }
  require "moonbridge".run()
]]

-- Tells the log of the first byte of each connection.
local RAW = [[
  require "moonbridge".listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT, deferred = DEFERRED },
    min_fork = 1, max_fork = 1,
    connect = function(socket)
      io.stderr:write("heard ", socket:read(1), "\n")
      return true
    end,
  }
  require "moonbridge".run()
]]

describe("a new connection whose client is silent", function()
  after_each(server.cleanup)

  for _, wrapped in ipairs { false, true } do
    local how = wrapped and "a function of the application's" or "an HTTP handler"

    it("survives the death of the worker, where connect is " .. how, function()
      local s = server.start { script = HTTP, globals = { WRAPPED = wrapped } }
      assert.equal(200, s:request("/").status)
      for _ = 1, 5 do
        local c = s:connect()
        socket.sleep(0.005)
        process.kill(s:workers()[1], "KILL")
        assert.equal(200, c:request("/").status)
      end
    end)
  end

  it("keeps no worker from others, where the listener is deferred", function()
    local s = server.start { script = RAW, globals = { DEFERRED = true } }
    local silent, other = s:connect(), s:connect()
    other:send("2")
    assert.truthy(s:wait_log("heard 2"))
    silent:send("1")
    assert.truthy(s:wait_log("heard 1"))
  end)

  it("is heard in the end, deferred or not", function()
    for _, deferred in ipairs { true, false } do
      local s = server.start { script = HTTP:gsub("PORT }", "PORT, deferred = DEFERRED }"),
        globals = { DEFERRED = deferred } }
      local c = s:connect()
      socket.sleep(1.3)
      assert.equal(200, c:request("/").status)
      c:finish()
      assert.equal(0, s:stop())
    end
  end)

  it("gets its handler at once where the server speaks first", function()
    local s = server.start [[
      require "moonbridge".listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket) socket:flush("hello\n") return true end,
      }
      require "moonbridge".run()
    ]]
    assert.equal("hello\n", (s:connect():read_all()))
  end)
end)
