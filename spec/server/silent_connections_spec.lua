-- Connections whose client has not said anything: no process is needed for them, and none can take
-- them down.
-- Any version: nothing of it depends on Lua's.

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
        socket.sleep(0.1)
        process.kill(s:workers()[1], "KILL")
        assert.equal(200, c:request("/").status)
      end
    end)
  end

  it("is one of many: each death of a worker costs one request at most", function()
    local s = server.start { script = HTTP:gsub("max_fork = 1", "max_fork = 4, fork_delay = 0"),
      globals = { WRAPPED = false } }
    local kills, failures = 0, 0
    for _ = 1, 25 do
      local connections = {}
      for index = 1, 24 do
        connections[index] = s:connect()
        -- Some are being served when the worker dies, others have not said anything.
        if index % 3 == 0 then connections[index]:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n") end
      end
      local workers = s:workers()
      process.kill(workers[1 + kills % #workers], "KILL")
      kills = kills + 1
      for index, c in ipairs(connections) do
        if index % 3 ~= 0 then c:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n") end
      end
      for _, c in ipairs(connections) do
        if not pcall(c.response, c) then failures = failures + 1 end
        c:close()
      end
    end
    assert.is_true(failures <= kills, failures .. " requests failed, " .. kills .. " workers died")
  end)

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
