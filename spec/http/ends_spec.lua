-- How a connection goes on or ends when its handler has returned, and what its response says of that.

local process = require "spec.support.process"
local socket = require "socket"
local server = require "spec.support.server"
local app = require "spec.http.app"

local POST = "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"

local ROUTES = [[
  function routes.ignore(request) return reply(request, "ignored") end
  function routes.flushing(request)
    reply(request, "ignored")
    request:flush()
    return true
  end
  function routes.large(request) return reply(request, ("x"):rep(4000000)) end
  function routes.last(request) reply(request, moonbridge_io.getpid()) return false end
  function routes.last_flushed(request)
    reply(request, moonbridge_io.getpid())
    request:flush()
    return false
  end
  function routes.body(request) return reply(request, #request.body) end
  -- Two that stop reading: before the head of their answer leaves, and after it.
  function routes.refused(request)
    pcall(request.stream_request_body_now, request, function() error "too large" end)
    return reply(request, ("x"):rep(5000))
  end
  function routes.stopped(request)
    pcall(request.stream_request_body_now, request, function()
      reply(request, "stopped")
      request:flush()
      error "enough"
    end)
    return true
  end
  local streamed = {}
  function routes.streamer(request)
    local size = 0
    request:stream_request_body(function(chunk)
      if chunk then size = size + #chunk else streamed[#streamed + 1] = size end
    end)
    if request.query == "?close" then request:close_after_finish() end
    if request.query == "?monologue" then request:monologue() end
    reply(request, "streamer")
    if request.query == "?flush" then request:flush() end
    return true
  end
  function routes.streamed(request)
    local sizes = table.concat(streamed, " ")
    streamed = {}
    return reply(request, sizes)
  end
  function routes.slow(request)
    moonbridge_io.poll(nil, nil, 0.3)
    return reply(request, "slow")
  end
]]

describe("the rest of a body that nobody reads", function()
  after_each(server.cleanup)

  it("is not waited for at all", function()
    local s = app.start(ROUTES, "{ request_buffering = false }")
    local begun, slow = socket.gettime(), {}
    for i = 1, 300 do
      slow[i] = s:connect()
      slow[i]:send(POST:format("/ignore", 10))
    end
    assert.equal("default", s:request("/").body)
    -- 20 ms for each of them would be 6 s.
    local seconds = socket.gettime() - begun
    assert(seconds < 4.5, seconds)
    for i = 1, 300 do
      local response = slow[i]:response()
      assert.same({ "ignored", nil }, { response.body, response.headers.connection })
    end
  end)

  it("is skipped before the next request, whether its output is taken or not", function()
    local s = app.start(ROUTES, "{ request_buffering = false, response_buffering = 8e6 }")
    local connection = s:connect()
    for _, path in ipairs { "/ignore", "/flushing", "/large" } do
      connection:send(POST:format(path, 200000) .. ("x"):rep(5))
      assert.equal("default", s:request("/").body)
      connection:send(("x"):rep(199995))
      local response = connection:response()
      assert.same({ 200, nil }, { response.status, response.headers.connection })
      assert.equal("default", connection:request("/").body)
    end
  end)

  it("ends the connection if it is large or of unknown length, and the response says so", function()
    local s = app.start(ROUTES)
    local large = POST:format("/%s", 3000000) .. "abc"
    local chunked = "POST /%s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"
    for _, head in ipairs { large, chunked } do
      for _, path in ipairs { "ignore", "flushing" } do
        local connection = s:connect()
        connection:send(head:format(path))
        local response = connection:response()
        assert.same({ "ignored", "close" }, { response.body, response.headers.connection })
        assert(connection:send(("x"):rep(2999997)))
      end
    end
  end)

  it("is skipped, or the response says that the connection ends, if the handler stops reading", function()
    local s = app.start(ROUTES, "{ request_buffering = false }")
    local chunked = "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    local size = 1000000
    for path, kept in pairs { ["/refused"] = "close", ["/stopped"] = "kept" } do
      local connection = s:connect()
      connection:send(POST:format(path, size) .. "abc")
      local response = connection:response()
      assert.equal(kept, response.headers.connection or "kept")
      if kept == "kept" then
        connection:send(("x"):rep(size - 3))
        assert.equal("default", connection:request("/").body)
      end
      connection = s:connect()
      connection:send(chunked:format(path))
      assert.equal("close", connection:response().headers.connection)
    end
  end)

  it("is taken from clients that send for long before they read: http.client of Python", function()
    local s = app.start(ROUTES, "{ request_body_size_limit = 100000 }")
    local program = ([[
import http.client, time
for length, path in ((4000000, "/ignore"), (50000, "/ignore")):
    c = http.client.HTTPConnection("127.0.0.1", %d, timeout = 20)
    c.putrequest("POST", path)
    c.putheader("Content-Length", str(length))
    c.endheaders()
    for _ in range(10 if length > 100000 else 1):
        c.send(b"x" * (length // 10 if length > 100000 else length))
        if length > 100000: time.sleep(0.35)
    r = c.getresponse()
    print(r.status, r.getheader("Connection"))
]]):format(s.port)
    local file = os.tmpname()
    local handle = assert(io.open(file, "w"))
    handle:write(program)
    handle:close()
    local pipe = io.popen("python3 " .. file .. " 2>&1")
    local output = pipe:read("a")
    pipe:close()
    os.remove(file)
    assert.equal("413 close\n200 None\n", output)
  end)
end)

describe("a body that a handler waits for", function()
  after_each(server.cleanup)

  it("has to come at a minimum rate", function()
    local s = app.start(ROUTES, "{ request_body_timeout = 0.5, request_body_minimum_rate = 200 }")
    local head = "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    local slow = s:connect()
    slow:send(head)
    local begun = socket.gettime()
    local response
    repeat
      slow:send "1\r\nx\r\n"
      response = slow:read_until("\r\n", 0.1)
    until response or socket.gettime() - begun > 20
    assert.equal("HTTP/1.1 408 Request Timeout\r\n", response)
    local quick = s:connect()
    quick:send(head)
    for _ = 1, 15 do
      quick:send("c8\r\n" .. ("x"):rep(200) .. "\r\n")
      socket.sleep(0.1)
    end
    quick:send "0\r\n\r\n"
    assert.equal("3000", quick:response().body)
  end)

  it("may come as slowly as it likes if there is no minimum rate", function()
    for _, options in ipairs { "request_body_minimum_rate = false",
      "request_body_minimum_rate = 0, stall_timeout = false" } do
      local s = app.start(ROUTES, "{ request_body_timeout = 0.3, " .. options .. " }")
      local slow = s:connect()
      slow:send "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      for _ = 1, 10 do
        socket.sleep(0.1)
        slow:send "1\r\nx\r\n"
      end
      slow:send "0\r\n\r\n"
      assert.equal("10", slow:response().body)
    end
  end)
end)

describe("a result other than true", function()
  after_each(server.cleanup)

  it("ends the connection, and the response says so", function()
    local s = app.start(ROUTES)
    local connection = s:connect()
    local response = connection:request "/last"
    assert.equal("close", response.headers.connection)
    assert.same({ "", "closed" }, { connection:read_all() })
  end)

  it("leaves the connection to another process if the response cannot say so any more", function()
    local s = app.start(ROUTES)
    local connection = s:connect()
    local response = connection:request "/last_flushed"
    assert.is_nil(response.headers.connection)
    assert.not_equal(response.body, connection:request("/pid").body)
  end)
end)

describe("a shutdown", function()
  after_each(server.cleanup)

  it("serves the next request of a hot connection, and says that it is the last", function()
    local s = app.start(ROUTES, nil, 2)
    local hot = {}
    for i = 1, 4 do
      hot[i] = s:connect()
      hot[i]:request "/"
    end
    s:signal "TERM"
    socket.sleep(0.3)
    for i = 1, 4 do
      local response = hot[i]:request "/"
      assert.same({ 200, "default", "close" },
        { response.status, response.body, response.headers.connection })
      assert.same({ "", "closed" }, { hot[i]:read_all() })
    end
    assert.equal(0, s:wait())
  end)

  it("is told by answers that are being made", function()
    local s = app.start(ROUTES)
    local connection = s:connect()
    connection:send "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    socket.sleep(0.1)
    s:signal "TERM"
    local response = connection:response()
    assert.same({ "slow", "close" }, { response.body, response.headers.connection })
    assert.same({ "", "closed" }, { connection:read_all() })
    assert.truthy(process.wait_until(function() return s:status() end, 5))
  end)
end)

describe("a streamer that nobody has made read the body", function()
  after_each(server.cleanup)

  it("gets it also if the connection ends, unless it is a monologue", function()
    local s = app.start(ROUTES, "{ request_buffering = false }", 1)
    local chunked = "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%s\r\n"
    local close = "Connection: close\r\n"
    local cases = { { "/streamer", "" }, { "/streamer", close }, { "/streamer?close", "" },
      { "/streamer?flush", "" }, { "/streamer?flush", close }, { "/streamer?monologue", "" } }
    for _, case in ipairs(cases) do
      for _, pause in ipairs { 0, 0.05 } do
        local connection = s:connect()
        connection:send(chunked:format(case[1], case[2]))
        socket.sleep(pause)
        connection:send("5\r\nabcde\r\n0\r\n\r\n")
        assert.equal("streamer", connection:response().body)
        local expected = case[1]:find("monologue", 1, true) and "" or "5"
        assert.equal(expected, s:request("/streamed").body)
      end
    end
  end)
end)

describe("a request that has begun when the server shuts down", function()
  after_each(server.cleanup)

  local HEAD = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"

  it("has a moment to complete, on new and on kept connections, in workers and at the supervisor", function()
    for _, pause in ipairs { 0, 0.3 } do
      local s = app.start(ROUTES)
      local begun = {}
      for _, size in ipairs { 1, 20, #HEAD - 1, #HEAD, #HEAD + 2 } do
        for _, kept in ipairs { false, true } do
          local connection = s:connect()
          if kept then assert.equal("default", connection:request("/").body) end
          connection:send((HEAD .. "12345"):sub(1, size))
          begun[connection] = (HEAD .. "12345"):sub(size + 1)
        end
      end
      socket.sleep(pause)
      s:signal("TERM")
      assert.truthy(s:wait_log("Initiate shutdown"))
      for connection, rest in pairs(begun) do connection:send(rest) end
      for connection in pairs(begun) do
        local response = connection:response()
        assert.same({ 200, "5", "close" }, { response.status, response.body, response.headers.connection })
      end
      assert.equal(0, s:wait())
    end
  end)

  it("is refused with 408 after that, also if its client sends now and then", function()
    local s = app.start(ROUTES)
    local connection = s:connect()
    connection:send(HEAD:sub(1, 20))
    socket.sleep(0.1)
    s:signal("TERM")
    connection:dribble(("x"):rep(8), 1, 0.1)
    assert.equal(408, connection:response().status)
    assert.equal(0, s:wait())
  end)
end)
