-- When the output of a handler leaves: in one piece at the end, at once with a flush, and on its own while
-- the handler goes on.

local faults = require "spec.support.faults"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tables = require "spec.support.tables"

local SCRIPT = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge_http"
  local io_library = require "moonbridge_io"
  local posix = package.loadlib(POSIX, "luaopen_posix")()

  local function exists(path)
    local file = io.open(path)
    return file and file:close()
  end

  -- Ways to go on until the file `path` is there.
  local ways = {
    lua = function(path) while not exists(path) do end end,
    foreign = function(path) os.execute("while ! test -e " .. path .. "; do sleep 0.05; done") end,
    poll = function(path) while not exists(path) do io_library.poll(nil, nil, 0.05) end end,
    exec = function(path)
      io_library.exec("sh", "-c", "while ! test -e " .. path .. "; do sleep 0.05; done"):wait()
    end,
  }

  local routes = {}

  function routes.pieces(request)
    local count, size = tonumber(request.get_params.count), tonumber(request.get_params.size)
    request:send_status("200 OK")
    if request.get_params.length then request:send_header("Content-Length", count * size) end
    for _ = 1, count do request:send_data(("x"):rep(size)) end
    return true
  end

  function routes.busy(request)
    local path = request.get_params.path
    request:send_status("200 OK")
    request:send_data("begun", ("."):rep(tonumber(request.get_params.size) - 5))
    if request.get_params.flush then
      request:flush()
      io.open(path .. ".flushed", "w"):close()
    end
    ways[request.get_params.way](path)
    request:send_data("ended")
    return true
  end

  -- Sends small pieces, one after the other.
  function routes.drip(request)
    request:send_status("200 OK")
    repeat
      request:send_data("drop")
      os.execute("sleep 0.05")
    until exists(request.get_params.path)
    return true
  end

  function routes.socket(request)
    request:send_status("200 OK")
    request:send_data("one")
    request.socket:write("5\r\n two \r\n")
    request:send_data(("three"):rep(400))
    request.socket:flush("6\r\n four \r\n")
    request:send_data("five")
    return true
  end

  function routes.fork(request)
    request:send_status("200 OK")
    request:send_data("parent")
    local pid = posix.fork()
    if pid == 0 then
      os.execute("sleep 1.5")
      os.exit(0)
    end
    posix.wait(pid)
    return true
  end

  function routes.error(request)
    request:send_status("200 OK")
    request:send_data("small")
    error("oh")
  end

  function routes.default(request)
    request:send_status("200 OK")
    request:send_data("default")
    return true
  end

  local handler = http.generate_handler(function(request)
    return (routes[request.path] or routes.default)(request)
  end)

  if PLAIN then
    local listener = io_library.tcplisten("127.0.0.1", PORT)
    while true do handler(listener:accept()) end
  end
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    min_fork = 1, pre_fork = 1, max_fork = 1, connect = handler,
  }
  moonbridge.run()
]]

local function options(more)
  return tables.with({ script = SCRIPT, globals = { POSIX = posix.path() } }, more)
end

local CALLS = { "send", "sendto", "sendmsg", "write", "writev" }

local function calls(s)
  local sum = 0
  for _, call in ipairs(CALLS) do sum = sum + s.faults:calls(call, "workers") end
  return sum
end

local function create(path) assert(io.open(path, "w")):close() end

local function get(connection, target)
  connection:send(("GET %s HTTP/1.1\r\nHost: a\r\n\r\n"):format(target))
end

describe("a response whose body is given by some calls of send_data", function()
  local s, connection
  setup(function()
    s = faults.server(options())
    connection = s:connect()
    -- After the first response on a connection the worker tells the supervisor of it.
    assert.equal(200, connection:request("/").status)
  end)
  teardown(server.cleanup)

  local function sends(count, size, length)
    local target = ("/pieces?count=%d&size=%d%s"):format(count, size, length and "&length=1" or "")
    assert.equal(200, connection:request("/").status)
    local before = calls(s)
    assert.equal(("x"):rep(count * size), connection:request(target).body)
    return calls(s) - before
  end

  for _, length in ipairs { true, false } do
    local framing = length and "with Content-Length" or "without Content-Length"
    it("leaves with one system call, " .. framing, function()
      for _, case in ipairs {
        { 1, 5 }, { 1, 1800 }, { 1, 65536 }, { 3, 1 }, { 3, 1024 }, { 3, 21845 },
        { 20, 50 }, { 20, 3276 }, { 64, 1024 },
      } do
        assert.equal(1, sends(case[1], case[2], length), ("%d pieces of %d bytes"):format(case[1], case[2]))
      end
    end)

    it("leaves with few calls if it is larger, " .. framing, function()
      assert(sends(20, 5120, length) <= 3)
      assert(sends(1, 1000000, length) <= 30)
    end)
  end

  it("is sent at once if the system gives no thread", function()
    local other = faults.server(options {
      faults = { { call = "pthread_create", process = "workers", errno = "EAGAIN" } },
    })
    for _, size in ipairs { 5, 2000, 100000 } do
      assert.equal(("x"):rep(3 * size), other:request(("/pieces?count=3&size=%d"):format(size)).body)
    end
    assert.equal(1, other.faults:hits("pthread_create"))
  end)
end)

for name, plain in pairs { ["of a worker"] = false, ["of a plain script"] = true } do
  describe("what a handler has sent and not flushed, " .. name, function()
    local s
    setup(function()
      s = server.start(options {
        globals = { POSIX = posix.path(), PLAIN = plain }, ready = plain and "listening" or nil,
      })
    end)
    teardown(server.cleanup)

    for _, way in ipairs { "lua", "foreign", "poll", "exec" } do
      for _, size in ipairs { 5, 3000 } do
        it(("reaches the client while the handler goes on: %s, %d bytes"):format(way, size), function()
          local path, connection = process.scratch("go"), s:connect()
          get(connection, ("/busy?way=%s&size=%d&path=%s"):format(way, size, path))
          assert(connection:read_until("begun" .. ("."):rep(size - 5)))
          create(path)
          assert.equal("\r\n5\r\nended\r\n0\r\n\r\n", connection:read_until("0\r\n\r\n"))
          assert.equal("default", connection:request("/").body)
          connection:close()
        end)
      end
    end

    it("reaches it while the handler sends more and more", function()
      local path, connection = process.scratch("go"), s:connect()
      get(connection, "/drip?path=" .. path)
      assert(connection:read_until("drop"))
      create(path)
      assert(connection:read_until("drop\r\n0\r\n\r\n"))
      connection:close()
    end)

    it("reaches it at once with a flush", function()
      local path, connection = process.scratch("go"), s:connect()
      get(connection, "/busy?flush=1&way=foreign&size=5&path=" .. path)
      assert(process.wait_until(function() return process.slurp(path .. ".flushed") end))
      assert(connection:read_until("begun", 0.2))
      create(path)
      assert(connection:read_until("ended\r\n0\r\n\r\n"))
      connection:close()
    end)

    it("goes before what it writes to the socket", function()
      local connection = s:connect()
      assert.equal("one two " .. ("three"):rep(400) .. " four five", connection:request("/socket").body)
      connection:close()
    end)

    it("is not sent by a child that it forks", function()
      local connection = s:connect()
      assert.equal("parent", connection:request("/fork").body)
      connection:close()
    end)
  end)
end

describe("an error of the handler after a small piece", function()
  after_each(server.cleanup)

  it("is answered with 500, as nothing has left", function()
    local s = server.start(options())
    assert.equal(500, s:request("/error").status)
  end)
end)

describe("a client that has gone", function()
  after_each(server.cleanup)

  it("is noticed by a handler whose output waits", function()
    local s = faults.server(options())
    local path, connection = process.scratch("go"), s:connect()
    get(connection, "/busy?way=lua&size=3000&path=" .. path)
    assert(connection:read_until("begun"))
    connection:reset()
    create(path)
    assert.equal("default", s:request("/").body)
    assert.not_match("Error in", s:log())
  end)
end)
