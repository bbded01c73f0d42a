-- Reference, "The access log": each request has its line, whatever becomes of it.
-- Any version: nothing of it depends on Lua's.

local json = require "dkjson"
local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"
local stuck = require "spec.support.stuck"

local function script(options, extra)
  return ([[
    local moonbridge = require "moonbridge"
    local http = require "moonbridge_http"
    moonbridge.listen{
      { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
      connect = http.generate_handler({
        request_header_timeout = 1, request_body_size_limit = 1000, request_header_size_limit = 5000,
        response_buffering = 16 * 1024 * 1024,
      }, function(request)
        local path = request.path
        if path:find("^pid") then
          request:send_status("200 OK")
          request:send_data(io.open("/proc/self/stat"):read("n"))
        elseif path == "sleep" then
          io.stderr:write("sleeps\n")
          require "moonbridge_io".poll({}, {}, 100)
        elseif path == "slow" then
          io.stderr:write("slow\n")
          require "moonbridge_io".poll({}, {}, 1.5)
          request:send_data("slept")
        elseif path == "exit" then
          os.exit(3)
        elseif path == "error" then
          error("oh")
        elseif path == "gone" then
          io.stderr:write("gone\n")
          require "moonbridge_io".poll({}, {}, 0.5)
          error("oh")
        elseif path == "late" then
          request:send_status("200 OK")
          request:send_data("a")
          request:flush()
          error("oh")
        elseif path == "big" then
          request:send_status("200 OK")
          request:send_data(("x"):rep(8 * 1024 * 1024))
        else
          request:log_field("user", "not known yet")
          request:log_field("user", "jane\n\"")
          request:log_field("rows", 12)
          request:log_field("cached", false)
          request:send_status("404 Not Found")
          request:send_data("nothing")
        end
        return true
      end),
      %s
    }
    moonbridge.run{ %s }
  ]]):format(extra or "", options)
end

-- A server with an access log, and a function that waits for `count` lines, decoded unless `raw`.
local function start(options, extra)
  local path = process.scratch("access.log")
  local s = server.start(script(("access_log = %q, %s"):format(path, options or ""), extra))
  return s, function(count, raw)
    local lines
    process.wait_until(function()
      lines = {}
      for line in (process.slurp(path) or ""):gmatch("([^\n]*)\n") do
        lines[#lines + 1] = raw and line or assert(json.decode(line, 1, json.null))
      end
      return #lines >= count
    end)
    assert.equal(count, #lines)
    return lines
  end, path
end

describe("the access log", function()
  after_each(server.cleanup)

  it("has an object for each request", function()
    local s, lines = start()
    local connection = s:connect()
    local request = "POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
      .. "User-Agent: \"spec\"\r\nReferer: /r\r\n\r\nabc"
    connection:send(request)
    local response = assert(connection:read_until("0\r\n\r\n"))
    local _, port = connection.raw:getsockname()
    local line = lines(1)[1]
    assert.truthy(line.time:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d[+-]%d%d:%d%d$"), line.time)
    for _, name in ipairs { "queue_seconds", "handler_seconds", "sent_seconds" } do
      assert.truthy(line[name] >= 0 and line[name] < server.TIMEOUT, name)
    end
    assert.truthy(line.handler_seconds <= line.sent_seconds)
    assert.truthy(process.alive(math.tointeger(line.pid)))
    assert.equal(32, #line.request_id:match("^%x+$"))
    assert.equal("00-" .. line.request_id, line.traceparent:match("^(00%-%x+)%-%x+%-00$"))
    line.request_id, line.traceparent = nil, nil
    line.time, line.pid, line.queue_seconds, line.handler_seconds, line.sent_seconds = nil, nil, nil, nil, nil
    assert.same({
      client_ip = "127.0.0.1", client_port = tonumber(port), method = "POST", target = "/a?b=c",
      protocol = "HTTP/1.1", status = 404, bytes_in = #request, bytes_out = #response, pool = 1,
      referer = "/r", user_agent = "\"spec\"", ["end"] = "complete",
      fields = { user = "jane\n\"", rows = 12, cached = false },
    }, line)
  end)

  it("has each field that a handler adds once, with the last value", function()
    local s, lines = start()
    assert.equal(404, s:request("/").status)
    local line = lines(1, true)[1]
    assert.truthy(line:find([["fields":{"user":"jane\u000A\"","rows":12,"cached":false}}]], 1, true), line)
  end)

  it("tells how long a request has waited for its worker, also with the supervisor", function()
    local s, lines = start(nil, "max_fork = 1")
    local first, second = s:connect(), s:connect()
    for _, connection in ipairs { first, second } do
      assert.equal(404, connection:request("/").status)
    end
    first:send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert(s:wait_log("slow\n"))
    second:send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n")
    assert(second:read_until("nothing"))
    local line = lines(4)[4]
    assert.equal("/waits", line.target)
    assert.truthy(line.queue_seconds > 0.5 and line.queue_seconds < 30, line.queue_seconds)
    assert.truthy(line.handler_seconds < 1)
  end)

  it("has the format of Apache and nginx, or another one", function()
    local s, lines = start('access_log_format = "combined"')
    assert.equal(404, s:request({ target = "/a", headers = { ["User-Agent"] = "a\"b\\c\255" } }).status)
    local pattern = '^127%.0%.0%.1 %- %- %[%d%d/%a%a%a/%d%d%d%d:%d%d:%d%d:%d%d [+-]%d%d%d%d%] '
      .. '"GET /a HTTP/1%.1" 404 %d+ "%-" "a\\x22b\\x5Cc\\xFF"$'
    local line = lines(1, true)[1]
    assert.truthy(line:find(pattern), line)
    server.cleanup()
    local fields = "{{{status}}} {method} {target} {field.user} {field.rows} {referer}"
    s, lines = start(("access_log_format = %q"):format(fields))
    s:request("/x")
    assert.same({ [[{404} GET /x jane\x0A\x22 12 -]] }, lines(1, true))
  end)

  it("has a line for each request that is refused", function()
    local s, lines = start()
    local cases = {
      { "GARBAGE\r\n\r\n", 400 },
      { "GET /a HTTP/1.1\r\n\r\n", 400, "/a" },
      { "GET /b HTTP/1.1\r\nHost: x\r\n", 408, "/b" },
      { "GET /d HTTP/1.1\r\nHost: x\r\nX: " .. ("x"):rep(6000) .. "\r\n\r\n", 431, "/d" },
      { "PUT /c HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", 413, "/c" },
      { "GET /e HTTP/1.1\r\nHost: x\r\nExpect: y\r\n\r\n", 417, "/e" },
      { "CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501, "a:1" },
    }
    for index, case in ipairs(cases) do
      local reply = s:raw(case[1])
      assert.equal(tostring(case[2]), reply:match("^HTTP/1.1 (%d+)"))
      local line = lines(index)[index]
      assert.same({ case[2], case[3] or json.null }, { line.status, line.target })
      assert.equal(#reply, line.bytes_out)
      assert.equal(json.null, line.handler_seconds)
    end
  end)

  it("says how each response has ended", function()
    local s, lines = start()
    for _, case in ipairs {
      { "/error", "failed", 500 }, { "/late", "aborted", 200 }, { "/exit", "died", json.null },
    } do
      local connection = s:connect()
      connection:send("GET " .. case[1] .. " HTTP/1.1\r\nHost: x\r\n\r\n")
      connection:read_all()
    end
    local gone = s:connect()
    gone:send("GET /gone HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.truthy(s:wait_log("gone\n"))
    gone:reset()
    local ends = {}
    for _, line in ipairs(lines(4)) do
      ends[line.target] = { line["end"], line.status }
      if line["end"] ~= "failed" then assert.equal(json.null, line.sent_seconds) end
      if line.target == "/gone" then assert.equal(0, line.bytes_out) end
    end
    assert.same({
      ["/gone"] = { "aborted", 500 },
      ["/error"] = { "failed", 500 }, ["/late"] = { "aborted", 200 }, ["/exit"] = { "died", json.null },
    }, ends)
  end)

  it("tells when a slow client has been sent the last byte, and what it was not sent", function()
    local s, lines = start()
    local slow = s:connect({ receive_buffer = 65536 })
    slow:send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    assert(slow:read(1000))
    local gone = s:connect({ receive_buffer = 65536 })
    gone:send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    assert(gone:read(1000))
    gone:reset()
    local line = lines(1)[1]
    assert.equal("aborted", line["end"])
    assert.equal(json.null, line.sent_seconds)
    assert.truthy(line.bytes_out < 8 * 1024 * 1024)
    assert(slow:read(8 * 1024 * 1024 - 1000))
    line = lines(2)[2]
    assert.equal("complete", line["end"])
    assert.truthy(line.sent_seconds >= line.handler_seconds)
    assert.truthy(line.bytes_out > 8 * 1024 * 1024)
  end)

  it("tells that a worker has died before its client had been sent all", function()
    local s, lines = start(nil, "max_fork = 1")
    local slow = s:connect({ receive_buffer = 65536 })
    slow:send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
    assert(slow:read(1000))
    -- Its handler has returned when the only worker has time.
    local pid = math.tointeger(tonumber(s:request("/pid").body))
    process.kill(pid, "KILL")
    slow:read_all()
    local line = lines(2)[2]
    assert.same({ "/big", 200, "died", 0, json.null },
      { line.target, line.status, line["end"], line.bytes_out, line.sent_seconds })
  end)

  it("has no line for the event of a WebSocket that ends its worker", function()
    local path = process.scratch("access.log")
    local s = server.start(([[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge_http"
      local websocket = http.websocket{ message = function() os.exit(3) end }
      moonbridge.listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(function(request)
          if request.path == "ws" then return websocket(request) end
          request:send_status("200 OK")
          return true
        end)
      }
      moonbridge.run{ access_log = %q, access_log_format = "{target} {status} {end}" }
    ]]):format(path))
    local connection = s:connect()
    connection:send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      .. "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert.truthy(assert(connection:read_until("\r\n\r\n")):find("^HTTP/1.1 101"))
    connection:send("\x81\x81\0\0\0\0a")
    connection:read_all()
    assert.truthy(s:wait_log("returned with exit code 3 while it handled"), s:log())
    assert.equal(200, s:request("/after").status)
    s:stop()
    assert.equal("/ws 101 complete\n/after 200 complete\n", process.slurp(path))
  end)

  it("has a line for each of 100 requests, whatever kills their workers", function()
    local s, lines = start(nil, "pre_fork = 4, max_fork = 8")
    for index = 1, 100 do
      local connection = s:connect()
      local path = index % 2 == 0 and "sleep" or "pid"
      connection:send(("GET /%s?%d HTTP/1.1\r\nHost: x\r\n\r\n"):format(path, index))
      if index % 2 == 0 then
        local victim
        process.wait_until(function()
          local log = s:log()
          victim = log:match(".*PID (%d+)%] sleeps\n")
          return victim and select(2, log:gsub("%] sleeps\n", "")) >= index // 2
        end)
        process.kill(math.tointeger(victim), index % 4 == 0 and "KILL" or "SEGV")
      end
      if index % 2 == 0 then connection:read_all() else assert(connection:read_until("\r\n\r\n")) end
    end
    local seen = {}
    for _, line in ipairs(lines(100)) do
      local number = tonumber(line.target:match("%?(%d+)$"))
      seen[number] = line["end"]
      if number % 2 == 0 then
        local signal = number % 4 == 0 and 9 or 11
        local told = "with PID %d died from signal %d while it handled GET /sleep?%d from 127.0.0.1:%d, for "
        told = told:format(line.pid, signal, number, line.client_port)
        assert.truthy(s:log():find(told, 1, true), told)
      end
    end
    for index = 1, 100 do assert.equal(index % 2 == 0 and "died" or "complete", seen[index]) end
  end)

  it("has a line for a request that its worker was about to read when it was killed", function()
    local path = process.scratch("access.log")
    local s = faults.server(script(("access_log = %q"):format(path)))
    local connection = s:connect()
    assert.equal(404, connection:request("/").status)
    s.faults:set { call = "recv", process = "workers", signal = "KILL", count = 1 }
    connection:send("GET /unread HTTP/1.1\r\nHost: x\r\n\r\n")
    connection:read_all()
    local lines = {}
    assert.truthy(process.wait_until(function()
      lines = {}
      for line in (process.slurp(path) or ""):gmatch("[^\n]+") do lines[#lines + 1] = json.decode(line) end
      return #lines == 2
    end), process.slurp(path))
    local _, port = connection.raw:getsockname()
    local line = lines[2]
    assert.same({ "died", "127.0.0.1", tonumber(port), 1 },
      { line["end"], line.client_ip, line.client_port, line.pool })
    assert.same({}, { line.method, line.target, line.status, line.handler_seconds })
    local told = ("with PID %d died from signal 9\n"):format(line.pid)
    assert.truthy(s:log():find(told, 1, true), s:log())
    assert.equal(404, s:request("/").status)
  end)

  it("has a line for a request that is handled within the handler of another one", function()
    local path = process.scratch("access.log")
    local s = server.start(([[
      local moonbridge = require "moonbridge"
      local moonbridge_io = require "moonbridge_io"
      local http = require "moonbridge_http"
      local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
      local inner = http.generate_handler(function(request)
        request:log_field("who", "inner")
        request:send_status("202 Accepted")
        request:close_after_finish()
      end)
      moonbridge.listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = http.generate_handler(function(request)
          request:log_field("who", "outer")
          local client = assert(moonbridge_io.tcpconnect("127.0.0.1", listener.local_tcpport))
          client:flush("GET /inner HTTP/1.0\r\n\r\n")
          inner((assert(listener:accept())))
          request:send_status("200 OK")
          request:send_data(client:read():match("^HTTP/1.1 202") or "no")
          client:close()
          if request.path == "dies" then os.exit(3) end
          return true
        end)
      }
      moonbridge.run{ access_log = %q, access_log_format = "{target} {status} {field.who} {end}" }
    ]]):format(path))
    local reply = s:request("/outer")
    assert.equal("HTTP/1.1 202", reply.body, s:log())
    s:raw("GET /dies HTTP/1.0\r\n\r\n")
    local expected = {
      "/inner 202 inner complete", "/outer 200 outer complete",
      "/inner 202 inner complete", "/dies - - died", "",
    }
    assert.truthy(process.wait_until(function()
      return process.slurp(path) == table.concat(expected, "\n")
    end), process.slurp(path))
    assert.truthy(s:log():find("while it handled GET /dies from ", 1, true), s:log())
  end)

  it("names the client that a trusted proxy has told", function()
    local path = process.scratch("access.log")
    local text = script(("access_log = %q, access_log_format = \"{client_ip} {client_port}\""):format(path))
    local s = server.start((text:gsub("port = PORT", "%0, proxy_protocol = true")))
    s:raw("PROXY TCP4 203.0.113.5 127.0.0.1 4711 80\r\nGET /a HTTP/1.0\r\n\r\n")
    assert.truthy(process.wait_until(function() return process.slurp(path) == "203.0.113.5 4711\n" end))
  end)

  it("goes on in a new file after SIGUSR1", function()
    local s, lines, path = start('access_log_format = "{target}"')
    s:request("/one")
    lines(1, true)
    assert(os.rename(path, path .. ".1"))
    s:signal("USR1")
    assert.truthy(process.wait_until(function() return process.slurp(path) end))
    s:request("/two")
    assert.same({ "/two" }, lines(1, true))
    assert.equal("/one\n", process.slurp(path .. ".1"))
  end)

  it("goes on if its process is killed", function()
    local s, lines = start('access_log_format = "{target}"')
    local pid = math.tointeger(tonumber(s:request("/pid1").body))
    lines(1, true)
    for _, child in ipairs(s:workers()) do
      if child ~= pid then process.kill(child, "KILL") end
    end
    assert.truthy(s:wait_log("The process of the access log with PID %d+ has ended"))
    s:request("/pid2")
    assert.same({ "/pid1", "/pid2" }, lines(2, true))
  end)

  it("has all lines when the server has ended, also those of the last second", function()
    local s, _, path = start('access_log_format = "{target}"')
    for index = 1, 50 do s:request("/" .. index) end
    s:stop()
    assert.equal(50, select(2, process.slurp(path):gsub("\n", "")))
  end)

  it("waits for its process at the end, and tells what that has not written", function()
    for timeout, count in pairs { [60] = 50, [1] = 0 } do
      local s, _, path = start(('access_log_format = "{target}", shutdown_timeout = %d'):format(timeout))
      local pid = math.tointeger(tonumber(s:request("/pid").body))
      assert.truthy(process.wait_until(function() return process.slurp(path) == "/pid\n" end))
      for _, child in ipairs(s:workers()) do
        if child ~= pid then process.kill(child, "STOP") end
      end
      for index = 1, 50 do s:request("/" .. index) end
      local loggers = s:workers()
      s:signal("TERM")
      assert.truthy(process.wait_until(function() return not process.alive(pid) end))
      if count > 0 then
        for _, child in ipairs(loggers) do process.kill(child, "CONT") end
      end
      s:stop()
      assert.equal(1 + count, select(2, process.slurp(path):gsub("\n", "")))
      local told = s:log():find("The access log has lost 50 lines\n", 1, true)
      assert.equal(count == 0, told ~= nil, s:log())
      server.cleanup()
    end
  end)

  it("writes to standard output", function()
    local s = server.start(script('access_log = "stdout", access_log_format = "{status} {target}"'))
    s:request("/a")
    assert.truthy(process.wait_until(function() return s:output() == "404 /a\n" end))
  end)

  it("loses lines where the disk is full, and counts them", function()
    local s = server.start(script('access_log = "/dev/full"'))
    for _ = 1, 5 do assert.equal(404, s:request("/a").status) end
    assert.truthy(s:wait_log("The access log has lost %d lines?: No space left on device"))
  end)

  it("stops nothing if nobody reads standard output", function()
    for kind, loss in pairs { closed = "The access log has lost %d+ lines?: Broken pipe", pipe = false } do
      local _, command = stuck.stream(kind, { 1 })
      local s = server.start {
        -- Python, which has made the stream, ignores SIGPIPE.
        command = command("env", "--default-signal=PIPE", server.interpreter),
        script = script('access_log = "stdout", shutdown_timeout = 1'),
      }
      for _ = 1, 300 do assert.equal(404, s:request("/" .. ("x"):rep(1000)).status) end
      if loss then assert.truthy(s:wait_log(loss), s:log()) end
      s:stop()
      assert.falsy(s:log():find("The process of the access log", 1, true), s:log())
      server.cleanup()
    end
  end)

  it("stops nothing at a limit on the size of files, and counts what is lost", function()
    local path = process.scratch("access.log")
    local s = server.start {
      command = { "sh", "-c", 'ulimit -f 100; exec "$@"', "sh", server.interpreter },
      script = script(("access_log = %q"):format(path)),
    }
    for _ = 1, 200 do assert.equal(404, s:request("/" .. ("x"):rep(1000)).status) end
    assert.truthy(s:wait_log("The access log has lost %d+ lines?: File too large"), s:log())
    s:stop()
    assert.falsy(s:log():find("The process of the access log", 1, true), s:log())
    for line in process.slurp(path):gmatch "[^\n]*\n?" do
      assert.truthy(line == "" or line:sub(-1) == "\n" and json.decode(line), line)
    end
  end)

  it("goes on over a reload", function()
    local s, lines = start('access_log_format = "{target}", hangup = "reload"')
    local connection = s:connect()
    connection:request("/one")
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload complete"))
    connection:request("/two")
    assert.same({ "/one", "/two" }, lines(2, true))
  end)

  it("says what is wrong with its options", function()
    for options, message in pairs {
      ["access_log = 5"] = 'Option "access_log" must be a string or a function',
      ['access_log = print, access_log_format = "json"'] =
        'Option "access_log_format" without lines: "access_log" is a function',
      ['access_log = "/nowhere/a.log"'] =
        'Could not open access log "/nowhere/a.log": No such file or directory',
      ['access_log = "stdout", access_log_format = "{statuss}"'] =
        'Option "access_log_format": unknown field "statuss"; did you mean "status"?',
      ['access_log_format = "json"'] = 'Option "access_log_format" without "access_log"',
    } do
      local code, _, log = server.run_script(script(options))
      assert.truthy(code ~= 0)
      assert.truthy(log:find(message, 1, true), log)
    end
  end)

  it("takes no other values of fields, and not too many", function()
    for call, message in pairs {
      ['log_field()'] = "log_field expects a name, not a nil",
      ['log_field("", 1)'] = "log_field expects a name, not an empty string",
      ['log_field("a", {})'] =
        'Field "a" of the access log must be a string, a number or a boolean, not a table',
      ['log_field("a", ("x"):rep(20000))'] = 'Field "a" is too long for the access log',
    } do
      local s = server.start(([[
        local moonbridge = require "moonbridge"
        moonbridge.listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          connect = require "moonbridge_http".generate_handler(function(request)
            request:%s
          end)
        }
        moonbridge.run{ access_log = "stdout" }
      ]]):format(call))
      assert.equal(500, s:request("/").status)
      assert.truthy(s:wait_log("app.lua:%d+: [^\n]*" .. message:gsub("%p", "%%%0")), s:log())
      server.cleanup()
    end
  end)
end)
