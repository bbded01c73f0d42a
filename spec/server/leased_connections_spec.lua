-- Connections that a worker has parked and the supervisor knows of as well.

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
