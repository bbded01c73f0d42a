-- `memory_limit`: what the Lua state of a worker may hold.

local server = require "spec.support.server"

local function start(handlers, limit)
  limit = limit or "8 * 1024 * 1024"
  local pool = ("min_fork = 1, max_fork = 1, memory_limit = %s, %s"):format(limit, handlers)
  return server.start_pool(pool, { before = [[
    function hoard(bytes)
      local hoarded = {}
      for index = 1, bytes // 1000 do hoarded[index] = ("x"):rep(1000) .. index end
      return hoarded
    end
  ]] })
end

describe("memory_limit", function()
  after_each(server.cleanup)

  it("ends a worker that wants more; the error is logged, the worker replaced", function()
    local s = start [[
      connect = function(socket)
        local what = socket:read(1)
        if what == "h" then kept = hoard(20e6) end
        socket:write(moonbridge_io.getpid())
        return true
      end
    ]]
    local first = s:raw("p")
    assert.equal(first, (s:raw("p")))
    assert.same({ "", "reset" }, { s:raw("h") })
    assert.truthy(s:wait_log('%] Error in "connect" function: not enough memory\n'))
    assert.truthy(s:wait_log("Child process in pool #1 with PID " .. first .. " returned with exit code 1"))
    local second = s:raw("p")
    assert.truthy(tonumber(second) and second ~= first)
    assert.equal(s.pid, s:children() and s.pid)
  end)

  it("can be caught by the handler, and what is freed can be used again", function()
    local s = start [[
      connect = function(socket)
        for _ = 1, 5 do
          local ok, message = pcall(hoard, 20e6)
          socket:write(tostring(ok), " ", message, "\n")
        end
        socket:write(#hoard(4e6), " ", moonbridge_io.getpid())
        return true
      end
    ]]
    local one, two = s:raw(""), s:raw("")
    assert.truthy(one:find("^" .. ("false not enough memory\n"):rep(5) .. "4000 %d+$"), one)
    assert.equal(one, two)
  end)

  it("is never exceeded by the state", function()
    local s = start [[
      connect = function(socket)
        local most = 0
        local ok = pcall(function()
          local kept = {}
          while true do
            kept[#kept + 1] = ("x"):rep(100000) .. #kept
            most = math.max(most, collectgarbage("count") * 1024)
          end
        end)
        socket:write(ok and "" or most <= 8 * 1024 * 1024 and most > 6 * 1024 * 1024 and "held" or most)
        return true
      end
    ]]
    assert.equal("held", (s:raw("")))
  end)

  it("holds in functions of the module, too", function()
    local s = start [[
      connect = function(socket)
        local ok, message = pcall(socket.read, socket, 20e6)
        socket:write(tostring(ok), " ", type(message), " ", message)
        return true
      end
    ]]
    local c = s:connect()
    assert(c:send(("x"):rep(20e6)))
    assert.truthy((c:read_all()):find("^false string [^\n]*not enough memory$"))
  end)

  it("that the state exceeds before prepare blocks forks for fork_error_delay, no more", function()
    local socket = require "socket"
    local begin = socket.gettime()
    local s = start("prepare = function() kept = hoard(20e6) end, connect = function() end,"
      .. "fork_error_delay = 0.3, fork_delay = 0.3")
    assert.truthy(s:wait_log('Error in "prepare" function: not enough memory', nil, 3))
    socket.sleep(0.5)
    local _, count = s:log():gsub("not enough memory", "")
    -- The first worker, and one or two for each delay.
    local delays = (socket.gettime() - begin) / 0.3
    assert.truthy(count <= 3 + 2 * delays, count)
  end)

  it("that the script exceeds already is told, and no worker goes on with the script", function()
    local s = server.start { ready = { log = "returned with exit code 1" }, script = [[
      local moonbridge = require "moonbridge"
      moonbridge.listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        min_fork = 1, max_fork = 1, memory_limit = 1000, fork_error_delay = 0.1, fork_delay = 0,
        connect = function() return true end,
      }
      pcall(moonbridge.run)
      io.stderr:write("after run\n")
    ]] }
    assert.truthy(s:log():find("memory_limit is 1000, but the script holds %d+ bytes already"))
    assert.equal(0, s:stop())
    local _, count = s:log():gsub("after run", "")
    assert.equal(1, count)
  end)

  it("is off by default and for false or 0", function()
    for _, limit in ipairs { "nil", "false", "0" } do
      local s = start("connect = function(socket) socket:write(#hoard(20e6)) return true end", limit)
      assert.equal("20000", (s:raw("")))
    end
  end)
end)
