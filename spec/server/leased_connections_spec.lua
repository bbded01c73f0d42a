-- Connections that a worker has parked and the supervisor knows of as well.
-- Runs alone: it occupies all processors.
-- Runs once: the two processes that know the connections are Rust.

local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

local function processor_time(pid)
  local line = process.slurp("/proc/" .. pid .. "/stat")
  local user, system = line:match("%) %a" .. (" %-?%d+"):rep(10) .. " (%d+) (%d+)")
  return (user + system) / 100
end

describe("a leased connection that has ended", function()
  after_each(server.cleanup)

  it("does not keep its worker from resting while the supervisor still holds it", function()
    for _, ending in ipairs { "close", "reset" } do
      local s = server.start {
        globals = { ENDING = ending },
        script = [[
          require "moonbridge".listen {
            { proto = "tcp", host = "127.0.0.1", port = PORT },
            pre_fork = 1, min_fork = 1, max_fork = 1,
            connect = function(socket)
              if not socket.wakeup then return socket:park() end
              socket:write("bye")
              socket:flush()
              socket[ENDING](socket)
              return true
            end,
          }
          require "moonbridge".run()
        ]],
      }
      local connection = s:connect()
      socket.sleep(0.05)
      local worker = s:workers()[1]
      s:signal("STOP")
      connection:send("x")
      connection:finish()
      connection:read_all(1)
      local before = processor_time(worker)
      socket.sleep(0.3)
      local used = processor_time(worker) - before
      s:signal("CONT")
      assert.is_true(used < 0.1, ending .. ": " .. used .. " s")
    end
  end)
end)

describe("a worker that merely waits for a processor", function()
  after_each(server.cleanup)

  it("keeps its connections", function()
    local s = server.start [[
      local moonbridge = require "moonbridge"
      local handler = require "moonbridge_http".generate_handler(function(request)
        local clock = os.clock
        local start = clock()
        if request.path ~= "status" then repeat until clock() - start > 0.004 end
        request:send_status("200 OK")
        request:send_data(moonbridge.status()[1].reclaimed)
        return true
      end)
      moonbridge.listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        min_fork = 1, max_fork = 1, connect = handler,
      }
      moonbridge.run()
    ]]
    local connections = {}
    for index = 1, 8 do
      connections[index] = s:connect()
      connections[index]:request("/")
    end
    local hogs = {}
    for index = 1, 16 do
      hogs[index] = process.start({ "timeout", "20", "sh", "-c", "while :; do :; done" })
    end
    local served = 0
    local deadline = socket.gettime() + 2
    repeat
      for _, c in ipairs(connections) do
        c:request { target = "/", timeout = 30 }
        served = served + 1
      end
    until socket.gettime() > deadline
    for _, hog in ipairs(hogs) do hog:destroy() end
    local reclaimed = tonumber(s:request("/status").body)
    assert.truthy(reclaimed < served / 8, reclaimed .. " of " .. served)
  end)
end)

describe("a worker that dies while it gives an idle connection to the supervisor", function()
  after_each(server.cleanup)

  it("costs nobody a connection", function()
    local s = faults.server [[
      local moonbridge, moonbridge_io = require "moonbridge", require "moonbridge_io"
      moonbridge.listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        min_fork = 1, max_fork = 1,
        connect = require "moonbridge_http".generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data(moonbridge_io.getpid())
          return true
        end),
      }
      moonbridge.run()
    ]]
    -- With the first descriptor the connection is leased, with the second one it is given up.
    s.faults:set { call = "sendmsg", process = "workers", with_descriptors = true, skip = 1, count = 1,
      signal = "KILL" }
    local connection = s:connect()
    local first = connection:request("/").body
    s.faults:wait_hits("sendmsg")
    local second = connection:request("/").body
    assert.matches("^%d+$", second)
    assert.not_equal(first, second)
  end)
end)
