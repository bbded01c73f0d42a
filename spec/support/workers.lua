--- A pool of so many workers for specs about what they are given: requests, whose answer is the worker's pid,
-- and ticks of an interval, which are logged.

local faults = require "spec.support.faults"
local process = require "spec.support.process"

local workers = {}

-- The path says what the handler does first.
local SERVER = [[
  local moonbridge, mio = require "moonbridge", require "moonbridge_io"
  local http = require "moonbridge_http"
  local answer = http.generate_handler({ idle_timeout = 60 }, function(request)
    if request.path == "stop" then os.execute("kill -STOP $PPID") end
    if request.path == "slow" then mio.poll(nil, nil, 4.5) end
    request:send_status("200 OK")
    request:send_data(mio.getpid())
    return true
  end)
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "interval", name = "tick", delay = INTERVAL or 3600 },
    pre_fork = WORKERS, min_fork = WORKERS, max_fork = WORKERS,
    connect = function(socket)
      if socket.interval then
        io.stderr:write("tick by ", mio.getpid(), "\n")
        return true
      end
      if PERSONAL then socket.user = "somebody" end
      return answer(socket)
    end,
  }
  moonbridge.run()
]]

--- Starts the server and waits until it has all its workers.
-- @param count    how many workers
-- @param interval seconds between two ticks, or nil: there are none
-- @param personal whether a field of the handle ties each connection to its worker
-- @return server with `faults`, see spec.support.faults
function workers.start(count, interval, personal)
  local globals = { WORKERS = count, INTERVAL = interval or false, PERSONAL = personal or false }
  local s = faults.server { script = SERVER, globals = globals }
  assert(process.wait_until(function() return #s:workers() == count end), "there are not all workers")
  return s
end

--- Asks on this connection: the pid of the worker that answers.
function workers.pid(connection)
  return math.tointeger(tonumber(connection:request("/").body))
end

--- How often a worker has ticked.
function workers.ticks(s)
  return (select(2, s:log():gsub("tick by", "")))
end

--- Waits until there are `count` further ticks; true, or nil when the time (seconds) is over.
function workers.wait_ticks(s, count, timeout)
  local before = workers.ticks(s)
  return process.wait_until(function() return workers.ticks(s) >= before + count end, timeout)
end

return workers
