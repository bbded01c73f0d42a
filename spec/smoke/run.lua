-- The smoke set: a test for each part of Moonbridge, without busted or any other library, for all versions of
-- Lua. INTERPRETER spec/smoke/run.lua, in the project's folder; the last line has the figures.

local http = require "moonbridge_http"
local io_library = require "moonbridge_io"

local TIMEOUT = tonumber(os.getenv("TEST_TIMEOUT")) or 30
-- Under an emulator, the program that starts both.
local INTERPRETER = os.getenv("INTERPRETER") or arg[-1]
local VERSION = rawget(_G, "jit") and "LuaJIT" or _VERSION

local passed, failed = 0, 0
local function it(name, test)
  local good, message = xpcall(test, debug.traceback)
  if good then
    passed = passed + 1
  else
    failed = failed + 1
    io.stdout:setvbuf("line") print("FAILED: " .. name .. "\n" .. tostring(message))
  end
end

local function equal(expected, value)
  if expected ~= value then
    error(("expected %s, but found %s"):format(tostring(expected), tostring(value)), 2)
  end
end

-- A port that was free a moment ago.
local function free_port()
  local listener = assert(io_library.tcplisten("127.0.0.1", 0))
  local port = listener.local_tcpport
  listener:close()
  return port
end

local LOG = os.tmpname()

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

-- What the server reads when it starts.
local SETTING = os.tmpname()
write(SETTING, "first")

local function start(port, tls_port)
  return assert(io_library.exec({ kill_with_parent = true },
    "sh", "-c", 'exec "$@" 2>"$0"', LOG, INTERPRETER, "spec/smoke/server.lua", tostring(port), SETTING,
    tostring(tls_port)))
end

-- Calls a function until its result is true.
local function wait_until(what, condition)
  for _ = 1, TIMEOUT * 20 do
    if condition() then return end
    io_library.poll({}, {}, 0.05)
  end
  error(what .. " did not happen; the log:\n" .. read(LOG))
end

local function ready(url)
  local body
  wait_until("an answer", function()
    body = http.request(url)
    return body
  end)
  return body
end

-- The Lua chunks inside the module are compiled when they are first used.
it("compiles every Lua source", function()
  local files = assert(io.popen("find src lua examples bin -name '*.lua' -o -path 'bin/*' -type f"))
  local count = 0
  for file in files:lines() do
    assert(loadfile(file))
    count = count + 1
  end
  files:close()
  assert(count > 20, "the sources were not found")
end)

it("loads the modules by their nested and their flat names", function()
  equal(require "moonbridge.io", io_library)
  equal(require "moonbridge.http", http)
  equal(require "moonbridge.callback", require "moonbridge_callback")
end)

it("runs child processes, and reads and writes through handles", function()
  local child = assert(io_library.exec("cat"))
  assert(child.stdin:flush("one\ntwo"))
  assert(child.stdin:finish())
  equal("one\n", child.stdout:read(nil, "\n"))
  equal("two", child.stdout:read())
  equal(0, child:wait())
end)

it("keeps the user's fields of handles", function()
  local child = assert(io_library.exec("true"))
  equal(nil, child.stdin.print)
  child.stdin.color, child.stdout.color = "red", "blue"
  collectgarbage()
  equal("red", child.stdin.color)
  equal("blue", child.stdout.color)
  equal(nil, child.stdin.print)
  child:wait()
end)

it("yields in read_yield", function()
  local child = assert(io_library.exec("sh", "-c", "sleep 0.1; echo late"))
  local reader = coroutine.wrap(function() return "line", (child.stdout:read_yield(nil, "\n")) end)
  local kind, line = reader()
  while kind ~= "line" do
    io_library.poll({ [child.stdout] = true }, {}, TIMEOUT)
    kind, line = reader()
  end
  equal("late\n", line)
  child:wait()
end)

it("waits by functions that yield or throw", function()
  local child = assert(io_library.exec("sh", "-c", "sleep 0.1; echo late; cat >/dev/null"))
  local thread = coroutine.wrap(function()
    local ok, message = pcall(child.stdout.read_call, child.stdout, function() error("as intended", 0) end)
    local line = child.stdout:read_call(coroutine.yield, nil, "\n")
    assert(child.stdin:flush_call(coroutine.yield, ("x"):rep(1000000)))
    return "end", line, ok, message
  end)
  local waits = 0
  local handle, mode, ok, message = thread()
  while handle ~= "end" do
    waits = waits + 1
    local set = { [handle] = true }
    io_library.poll(mode == "r" and set or nil, mode == "w" and set or nil, TIMEOUT)
    handle, mode, ok, message = thread()
  end
  equal("late\n", mode)
  equal(false, ok)
  equal("as intended", message)
  assert(waits > 0)
  child.stdin:close()
  child:wait()
end)

it("serves a connection in a coroutine whose poll function yields", function()
  local listener = assert(io_library.tcplisten("127.0.0.1", 0))
  local client = assert(io_library.tcpconnect("127.0.0.1", listener.local_tcpport))
  local connection = assert(listener:accept())
  local handler = http.generate_handler(function(request)
    request:send_status("200 OK")
    -- Lua 5.1 and LuaJIT cannot yield while a field is evaluated.
    if VERSION == "LuaJIT" or VERSION == "Lua 5.1" then request:consume_input() end
    request:send_data(request.get_params.name or request.post_params.name)
    return true
  end, { poll_function = function(...) return coroutine.yield("wait", ...) end })
  local thread = coroutine.create(handler)
  local function step(...)
    local ok, kind, reads, writes, seconds = assert(coroutine.resume(thread, ...))
    if kind ~= "wait" then return ok end
    return nil, reads, writes, seconds
  end
  assert(not step(connection))
  local parts = {
    "GET /?name=one HTTP/1.1\r\nHost: h\r", "\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"
      .. "Content-Length: 8\r\n\r\nname", "=two",
  }
  for _, part in ipairs(parts) do
    assert(client:flush(part))
    assert(not step(true))
  end
  client:finish()
  step(true)
  local answer = client:read()
  assert(answer:find("one.*two"), answer)
  listener:close()
end)

it("limits waits by whole numbers of seconds, too", function()
  local listener = assert(io_library.tcplisten("127.0.0.1", 0))
  local client = assert(io_library.tcpconnect("127.0.0.1", listener.local_tcpport))
  local limit
  local function poll(_, _, seconds)
    limit = seconds
    return false
  end
  http.generate_handler(print, { idle_timeout = 3, poll_function = poll })(assert(listener:accept()))
  assert(limit and limit > 0 and limit <= 3, limit)
  client:close()
  listener:close()
end)

it("runs an application for WSAPI", function()
  local function application(env)
    local is_read = false
    return 201, { ["X-Names"] = { "one", "two" } }, function()
      if is_read then return nil end
      is_read = true
      return env.REQUEST_METHOD .. env.PATH_INFO .. env.HTTP_X_TEST .. env.NOTHING .. env.input:read()
    end
  end
  local listener = assert(io_library.tcplisten("127.0.0.1", 0))
  local client = assert(io_library.tcpconnect("127.0.0.1", listener.local_tcpport))
  local connection = assert(listener:accept())
  assert(client:flush("POST /a%20b HTTP/1.1\r\nHost: h\r\nX-Test: yes\r\nConnection: close\r\n"
    .. "Content-Length: 4\r\n\r\nbody"))
  assert(require "moonbridge.wsapi" (application)(connection))
  local answer = client:read()
  assert(answer:find "^HTTP/1.1 201 " and answer:find "one\r\nX%-Names: two\r\n", answer)
  assert(answer:find("POST/a byesbody", 1, true), answer)
  listener:close()
end)

local port, tls_port = free_port(), free_port()
local url = ("http://127.0.0.1:%d"):format(port)
local server = start(port, tls_port)

it("answers a request with parameters", function()
  equal("GET Moon", ready(url .. "/?name=Moon"))
end)

it("speaks TLS with clients who know its certificate", function()
  local secure = ("https://127.0.0.1:%d/?name=Moon"):format(tls_port)
  local certificate = dofile("spec/smoke/certificate.lua").certificate
  local body, message = http.request { url = secure, tls = { ca = certificate } }
  assert(body == "GET Moon", message)
  assert(not http.request(secure))
end)

it("reads forms and uploads", function()
  equal("POST Moon", assert(http.request(url .. "/", "name=Moon")))
  local body, status = assert(http.request {
    method = "POST", url = url .. "/",
    headers = { ["Content-Type"] = "multipart/form-data; boundary=b" },
    body = '--b\r\nContent-Disposition: form-data; name="name"; filename="f"\r\n\r\n'
      .. ("x"):rep(100000) .. "\r\n--b--\r\n",
  })
  equal(200, status)
  equal("POST " .. ("x"):rep(100000), body)
end)

it("shows headers and parameters, also to pairs", function()
  local body = assert(http.request {
    url = url .. "/fields?a=1&b=2&b=3",
    headers = { ["X-Test"] = "yes", ["X-Flags"] = "One, two", Cookie = "c=4" },
  })
  equal("a=1 b=2 x-test=yes c=4 b:2,3 none:0 flags:one,two", body)
end)

it("streams a response in chunks", function()
  equal(("0123456789"):rep(10000), assert(http.request(url .. "/stream")))
end)

it("answers an error of the handler with 500, and serves on", function()
  local _, status = assert(http.request(url .. "/error"))
  equal(500, status)
  equal("GET again", ready(url .. "/?name=again"))
end)

it("ends the worker whose Lua state exceeds the memory limit, and serves on", function()
  local body, status = http.request(url .. "/memory")
  assert(body == nil or status == 500, body)
  equal("GET again", ready(url .. "/?name=again"))
end)

it("holds more idle connections than there are workers", function()
  local connections = {}
  for index = 1, 20 do
    connections[index] = assert(io_library.tcpconnect("127.0.0.1", port))
  end
  for _ = 1, 3 do
    for _, connection in ipairs(connections) do
      assert(connection:flush("GET /?name=idle HTTP/1.1\r\nHost: h\r\n\r\n"))
      local line
      repeat line = assert(connection:read(nil, "\n")) until line == "\r\n"
      local size = tonumber((connection:read(nil, "\n")), 16)
      equal("GET idle", connection:read(size))
      equal("\r\n0\r\n\r\n", connection:read(7))
    end
  end
  for _, connection in ipairs(connections) do connection:close() end
end)

it("kills a worker whose time is up, in a loop of Lua and in a coroutine, and says so", function()
  for number, page in ipairs { "/busy", "/coroutine" } do
    equal(nil, (http.request(url .. page)))
    wait_until("the report", function()
      return select(2, read(LOG):gsub("Timeout[^\n]*/" .. page:sub(2), "")) > 0
    end)
    equal("GET " .. number, ready(url .. "/?name=" .. number))
  end
end)

it("tells of slow requests", function()
  equal("slow", assert(http.request(url .. "/slow")))
  assert(read(LOG):find("Slow request", 1, true))
end)

it("reloads the script at SIGHUP", function()
  equal("first", assert(http.request(url .. "/setting")))
  write(SETTING, "second")
  server:kill(1)
  wait_until("the reload", function() return http.request(url .. "/setting") == "second" end)
end)

it("tells metrics", function()
  assert(assert(http.request(url .. "/metrics")):find("# EOF", 1, true))
end)

it("ends at SIGTERM with exit code 0, after finish and finalizers", function()
  server:kill(15)
  equal(0, server:wait())
  local log = read(LOG)
  assert(log:find("finish was called\n", 1, true), log)
  assert(log:find("the state was closed\n", 1, true), log)
end)

it("checks a script by the program moonbridge", function()
  write(SETTING, 'listen { { proto = "tcp", host = "127.0.0.1", port = 1 }, connect = print }')
  local child = assert(io_library.exec(INTERPRETER, "bin/moonbridge", "--check", SETTING))
  local output = child.stdout:read()
  assert(output:find("127.0.0.1", 1, true), output)
  equal(0, child:wait())
end)

os.remove(LOG)
os.remove(SETTING)

print(("%d passed, %d failed, 0 pending in the smoke set of %s"):format(passed, failed, VERSION))
os.exit(failed == 0 and 0 or 1, true)
