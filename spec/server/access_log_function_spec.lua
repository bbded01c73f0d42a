-- Reference, "A function in Lua": it is called for each request, in a process of its own.

local json = require "dkjson"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- A server whose function is `body`, with the upvalue `file`; and what reads the lines of that file.
local function start(body, options, handler)
  local path = process.scratch("calls")
  local s = server.start(([[
    local moonbridge = require "moonbridge"
    local http = require "moonbridge_http"
    local json = require "dkjson"
    local file = assert(io.open(%q, "a"))
    file:setvbuf("no")
    local calls = 0
    moonbridge.listen{
      { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
      connect = http.generate_handler(function(request) %s end)
    }
    moonbridge.run{ %s access_log = function(request) calls = calls + 1; %s end }
  ]]):format(path, handler or 'request:send_status("200 OK")', options or "", body))
  return s, function(count)
    local lines
    process.wait_until(function()
      lines = {}
      for line in (process.slurp(path) or ""):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
      return #lines >= count
    end)
    assert.equal(count, #lines)
    return lines
  end
end

describe("an access log that is a function", function()
  after_each(server.cleanup)

  it("is called with the fields of each request", function()
    local s, lines = start('file:write(json.encode(request), "\\n")', nil, [[
      request:log_field("user", "jane\n")
      request:log_field("rows", 12)
      request:log_field("share", 0.5)
      request:log_field("cached", false)
      request:send_status("404 Not Found")
    ]])
    local connection = s:connect()
    connection:request({ target = "/a?b", headers = { ["User-Agent"] = "spec\255", Referer = "/r" } })
    local _, port = connection.raw:getsockname()
    local request = json.decode(lines(1)[1])
    for _, name in ipairs { "queue_seconds", "handler_seconds", "sent_seconds" } do
      assert.truthy(request[name] >= 0 and request[name] < server.TIMEOUT, name)
      request[name] = nil
    end
    assert.truthy(request.time:find("^%d+%-%d+%-%d+T%d+:%d+:%d+%.%d+[+-]%d+:%d+$"))
    assert.equal("00-" .. request.request_id, request.traceparent:match("^(00%-%x+)%-%x+%-00$"))
    assert.truthy(request.bytes_in > 0 and request.bytes_out > 0)
    for _, name in ipairs { "time", "request_id", "traceparent", "bytes_in", "bytes_out", "pid" } do
      request[name] = nil
    end
    assert.same({
      client_ip = "127.0.0.1", client_port = math.tointeger(tonumber(port)), method = "GET", target = "/a?b",
      protocol = "HTTP/1.1", status = 404, pool = 1, user_agent = "spec\255", referer = "/r",
      ["end"] = "complete", fields = { user = "jane\n", rows = 12, share = 0.5, cached = false },
    }, request)
  end)

  it("is called for requests that were refused, and for those whose worker has died", function()
    local body = 'file:write(request.status or request["end"], " ", request.target or "-", "\\n")'
    local s, lines = start(body, nil, [[
      if request.path == "exit" then os.exit(3) end
      error("oh")
    ]])
    assert.equal("400", s:raw("GARBAGE\r\n\r\n"):match("^HTTP/1.1 (%d+)"))
    lines(1)
    s:raw("GET /error HTTP/1.0\r\n\r\n")
    lines(2)
    s:raw("GET /exit HTTP/1.0\r\n\r\n")
    assert.same({ "400 -", "500 /error", "died /exit" }, lines(3))
  end)

  it("harms nobody with its errors, which the log tells once a minute", function()
    local s, lines = start([[
      file:write(calls, "\n")
      if request.target == "/table" then error({}) end
      if request.target ~= "/well" then error("oh " .. request.target) end
    ]])
    for _, target in ipairs { "/a", "/b", "/table", "/well" } do
      assert.equal(200, s:request(target).status)
    end
    assert.same({ "1", "2", "3", "4" }, lines(4))
    local told = '%[Access log%] Error in "access_log" function: [^\n]*app.lua:%d+: oh /a\n'
    assert.truthy(s:wait_log(told .. "[^\n]*stack traceback:\n"), s:log())
    assert.equal(1, select(2, s:log():gsub("Error in", "")))
  end)

  it("starts anew if it ends its process, and blocks nobody", function()
    local s, lines = start([[
      if request.target == "/exit" then os.exit(1) end
      if request.target == "/block" then require "moonbridge_io".poll({}, {}, 100) end
      file:write(request.target, "\n")
    ]], "shutdown_timeout = 1,")
    assert.equal(200, s:request("/exit").status)
    assert.truthy(s:wait_log("The process of the access log with PID %d+ has ended"))
    assert.equal(200, s:request("/a").status)
    assert.same({ "/a" }, lines(1))
    s:request("/block")
    for _ = 1, 100 do assert.equal(200, s:request("/b").status) end
  end)

  it("is told the right time after it has ended its process", function()
    local s, lines = start([[
      if request.target == "/exit" then os.exit(1) end
      file:write(request.time, "\n")
    ]])
    local before = os.date("%Y-%m-%dT%H:%M:%S")
    for _, target in ipairs { "/exit", "/a", "/b" } do assert.equal(200, s:request(target).status) end
    for _, time in ipairs(lines(2)) do assert.truthy(before <= time, time) end
  end)

  it("is called for all requests before the server ends, and closes its files", function()
    local s, lines = start('file:setvbuf("full"); file:write(request.target, "\\n")')
    for index = 1, 50 do s:request("/" .. index) end
    s:stop()
    lines(50)
  end)

  it("is called for all requests before the server ends, however slow it is", function()
    local s, lines = start('require "moonbridge_io".poll({}, {}, 0.04); file:write(request.target, "\\n")')
    for index = 1, 50 do assert.equal(200, s:request("/" .. index).status) end
    s:stop()
    lines(50)
    assert.falsy(s:log():find("has lost", 1, true), s:log())
  end)

  it("loses the request for which it ends its process, and no other one", function()
    local s, lines = start([[
      if request.target == "/7" then os.exit(3) end
      file:write(request.target, "\n")
    ]])
    for index = 1, 20 do assert.equal(200, s:request("/" .. index).status) end
    assert.truthy(s:wait_log("The access log has lost 1 line\n"), s:log())
    s:stop()
    local seen = {}
    for _, target in ipairs(lines(19)) do seen[target] = true end
    for index = 1, 20 do assert.equal(index ~= 7 or nil, seen["/" .. index]) end
  end)

  it("is killed at the shutdown timeout, and the log tells how many requests it has missed", function()
    local s, lines = start([[
      file:write(request.target, "\n")
      if calls == 3 then while true do end end
    ]], "shutdown_timeout = 1,")
    for index = 1, 10 do assert.equal(200, s:request("/" .. index).status) end
    s:stop()
    lines(3)
    assert.truthy(s:log():find("The access log has lost 8 lines\n", 1, true), s:log())
  end)

  it("has the log tell at the end what was lost since it has told that", function()
    local s, lines = start([[
      if request.target ~= "/last" then os.exit(3) end
      file:write(request.target, "\n")
    ]])
    for index = 1, 2 do
      s:request("/" .. index)
      assert.truthy(process.wait_until(function()
        return select(2, s:log():gsub("The process of the access log with PID", "")) == index
      end))
    end
    assert.truthy(s:wait_log("The access log has lost 1 line\n"), s:log())
    s:request("/last")
    lines(1)
    s:stop()
    assert.equal(2, select(2, s:log():gsub("The access log has lost 1 line\n", "")))
  end)

  it("is that of the new script after a reload", function()
    local s, lines = start('file:write(request.target, " ", calls, "\\n")', 'hangup = "reload",')
    s:request("/one")
    lines(1)
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload complete"))
    s:request("/two")
    assert.same({ "/one 1", "/two 1" }, lines(2))
  end)

  it("keeps no port open when the server has ended", function()
    local s = start("require 'moonbridge_io'.poll({}, {}, 2)")
    s:request("/")
    s:signal("KILL")
    assert.truthy(process.wait_until(function() return not server.listening(s.port) end))
  end)
end)
