-- Reference, "The log" and "Metrics": whatever kills workers, each request is named and each death counted.

local process = require "spec.support.process"
local server = require "spec.support.server"
local status_listener = require "spec.support.status_listener"

local DEATHS = 100

-- How a worker dies, what the log says then, and the reason among the metrics.
local WAYS = {
  { path = "exit", says = "returned with exit code 3", reason = "exit" },
  { path = "timeout", says = "exited prematurely due to timeout", reason = "timeout" },
  { path = "sleep", signal = "KILL", says = "died from signal 9", reason = "signal" },
  { path = "sleep", signal = "SEGV", says = "died from signal 11", reason = "signal" },
}

describe("after the death of a worker whose clients have not taken their responses", function()
  after_each(server.cleanup)

  it("the log names their requests, and they are counted", function()
    local s = status_listener.start{ script = [[
      local http = require "moonbridge_http"
      listen{ { proto = "status", host = "127.0.0.1", port = STATUS } }
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1, max_fork = 1,
        connect = http.generate_handler(function(request)
          request:send_status "200 OK"
          if request.path == "pid" then
            request:send_data(require "moonbridge_io".getpid())
          else
            request:send_data(("x"):rep(8 * 1024 * 1024))
          end
          return true
        end, { response_buffering = 16 * 1024 * 1024 }) }
    ]] }
    local slow, ports = {}, {}
    for index, target in ipairs { "/taken?n=0", "/big?n=1", "/big?n=2" } do
      local connection = s:connect({ receive_buffer = 65536 })
      connection:send(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(target))
      assert(connection:read(1000))
      slow[index], ports[index] = connection, connection.local_port
    end
    assert(slow[1]:read(8 * 1024 * 1024 - 2000))
    slow[1]:close()
    local pid
    -- Its handlers have returned when the only worker has time, and the first response has left it.
    assert(process.wait_until(function()
      pid = math.tointeger(tonumber(s:request("/pid").body))
      local text = status_listener.ask(s, "/metrics").body
      return status_listener.sample(text, 'moonbridge_connections{pool="1",place="sending"}') == 2
    end))
    process.kill(pid, "KILL")
    for index = 2, 3 do
      local pattern = "[Pool #1, PID %d] was sending the response to GET /big?n=%d from 127.0.0.1:%d, for "
      local text = pattern:format(pid, index - 1, ports[index])
      assert(process.wait_until(function() return s:log():find(text, 1, true) end), s:log())
    end
    assert.falsy(s:log():find("/taken", 1, true), s:log())
    assert.truthy(s:log():find(("with PID %d died from signal 9\n"):format(pid), 1, true), s:log())
    status_listener.wait_sample(s, 'moonbridge_connections_lost_total{pool="1"}', 2)
  end)
end)

describe("after deaths of workers in a random order", function()
  after_each(server.cleanup)

  it("the log has named each request, and the metrics are right", function()
    local s = status_listener.start{ script = [[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge_http"
      local runs = moonbridge.counter("app_runs", "Runs.")
      listen{ { proto = "status", host = "127.0.0.1", port = STATUS } }
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2, max_fork = 4,
        connect = http.generate_handler(function(request)
          runs:add(1)
          if request.path == "exit" then os.exit(3) end
          if request.path == "timeout" then timeout(0.001) end
          io.stderr:write("runs ", request.target, "\n")
          require "moonbridge_io".poll({}, {}, 100)
        end) }
    ]] }
    local seed = os.time()
    local random = seed
    local expected = { exit = 0, timeout = 0, signal = 0 }
    for index = 1, DEATHS do
      random = (random * 1103515245 + 12345) % 2147483648
      local way = WAYS[random // 65536 % #WAYS + 1]
      local target = ("/%s?n=%d"):format(way.path, index)
      local connection = s:connect()
      connection:send(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(target))
      if way.signal then
        local pid = s:wait_log("PID (%d+)%] runs /sleep%?n=" .. index .. "\n")
        process.kill(math.tointeger(tonumber(pid)), way.signal)
      end
      assert.equal("", connection:read_all() or "", target)
      connection:close()
      expected[way.reason] = expected[way.reason] + 1
      local pattern = ("%s while it handled GET %s from 127%%.0%%.0%%.1:%%d+, for %%d+%%.%%d+ s"):format(
        way.says, (target:gsub("%?", "%%?")))
      assert(s:wait_log(pattern), ("seed %d: no %s"):format(seed, pattern))
      -- Right after a death.
      local text = status_listener.ask(s, "/metrics").body
      assert.equal(index, status_listener.sample(text, "app_runs_total"), target)
    end
    for reason, count in pairs(expected) do
      local name = ('moonbridge_respawns_total{pool="1",reason="%s"}'):format(reason)
      status_listener.wait_sample(s, name, count)
    end
    assert.equal(DEATHS, expected.exit + expected.timeout + expected.signal)
    status_listener.wait_sample(s, 'moonbridge_connections_lost_total{pool="1"}', DEATHS)
  end)
end)
