-- The smoke set: one test for each part of Moonbridge, without busted or any other library, for versions of
-- Lua that have none packaged. INTERPRETER spec/smoke/run.lua, in the project's folder; the last line has
-- the figures.

local http = require "moonbridge_http"
local io_library = require "moonbridge_io"

local TIMEOUT = tonumber(os.getenv("TEST_TIMEOUT")) or 30
local INTERPRETER = arg[-1]

local passed, failed = 0, 0
local function it(name, test)
  local good, message = xpcall(test, debug.traceback)
  if good then
    passed = passed + 1
  else
    failed = failed + 1
    print("FAILED: " .. name .. "\n" .. tostring(message))
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

local function start(port)
  return assert(io_library.exec({ kill_with_parent = true },
    INTERPRETER, "spec/smoke/server.lua", tostring(port)))
end

local function ready(url)
  for _ = 1, TIMEOUT * 20 do
    local body = http.request(url)
    if body then return body end
    io_library.poll({}, {}, 0.05)
  end
  error("the server does not answer")
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

local port = free_port()
local url = ("http://127.0.0.1:%d"):format(port)
local server = start(port)

it("answers a request with parameters", function()
  equal("GET Moon", ready(url .. "/?name=Moon"))
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

it("tells metrics", function()
  assert(assert(http.request(url .. "/metrics")):find("# EOF", 1, true))
end)

it("ends at SIGTERM with exit code 0", function()
  server:kill(15)
  equal(0, server:wait())
end)

print(("%d passed, %d failed, 0 pending in the smoke set of %s"):format(passed, failed, _VERSION))
os.exit(failed == 0 and 0 or 1, true)
