-- Request bodies on the wire: framing, expectations, limits, clients that misbehave.

local client = require "spec.support.client"
local socket = require "socket"
local server = require "spec.support.server"
local app = require "spec.http.app"

local ROUTES = [[
  function routes.body(request)
    return reply(request, request.body)
  end
  function routes.size(request)
    return reply(request, #request.body)
  end
  function routes.stream(request)
    local sizes = {}
    request:stream_request_body(function(chunk) sizes[#sizes + 1] = chunk and #chunk or "end" end)
    request:consume_input()
    return reply(request, table.concat(sizes, " "))
  end
  function routes.stream_now(request)
    local sizes = {}
    request:stream_request_body_now(function(chunk) sizes[#sizes + 1] = chunk and #chunk or "end" end)
    return reply(request, table.concat(sizes, " "))
  end
  function routes.discard(request)
    request:stream_request_body(nil)
    request:stream_request_body(nil)
    return reply(request, "done")
  end
  function routes.ignore(request)
    return reply(request, "ignored")
  end
  function routes.closing(request)
    request:close_after_finish()
    return reply(request, "ignored")
  end
  function routes.flushing(request)
    reply(request, "ignored")
    request:flush()
    return true
  end
  function routes.monologue(request)
    request:monologue()
    return reply(request, "ignored")
  end
  function routes.late(request)
    request:send_status("200 OK")
    request:send_data(request.body)
    return true
  end
  function routes.setup_late(request)
    request:send_status("200 OK")
    for _, method in ipairs { "stream_request_body", "stream_request_body_now" } do
      request:send_data(tostring(select(2, pcall(request[method], request, print))), "\n")
    end
    request:send_data(tostring(select(2, pcall(request.stream_post_param, request, "a", print))), "\n")
    return true
  end
  function routes.twice(request)
    local body = request.body
    local ok, message = pcall(function() return request.post_params end)
    return reply(request, tostring(body == request.body), " ", tostring(ok), " ", tostring(message))
  end
  function routes.old(request)
    request:defer_reading()
    request:process_request_body()
    return reply(request, request.post_params.a)
  end
  function routes.streamer_at_end(request)
    local size = 0
    request:stream_request_body(function(chunk)
      if chunk then size = size + #chunk else note("streamed", size) end
    end)
    return reply(request, "ok")
  end
  function routes.caught(request)
    local ok, message = pcall(function() return request.body end)
    note(ok, message, request.faulty, select(2, pcall(request.send_status, request, "200 OK")))
    return true
  end
  function routes.ignored(request)
    pcall(function() return request.body end)
    return reply(request, "")
  end
  function routes.echo(request)
    request:stream_request_body(function(chunk)
      request:send_data(chunk or "end")
      request:flush()
    end)
    request:send_status("200 OK")
    request:consume_input()
    return true
  end
  local block = ("x"):rep(65536)
  function routes.big(request)
    request:send_status("200 OK")
    for _ = 1, 256 do request:send_data(block) end
    return true
  end
]]

local LIMIT = 100000

describe("a request body", function()
  local s, pid
  setup(function()
    s = app.start(ROUTES, "{ request_body_size_limit = " .. LIMIT .. ", maximum_input_chunk_size = 1000 }")
    pid = s:request("/pid").body
  end)
  teardown(function()
    assert.equal(pid, s:request("/pid").body) -- nothing here ends the worker
    server.cleanup()
  end)

  it("may have a length or come in chunks (RFC 9112 6)", function()
    assert.equal("abc", s:request { target = "/body", body = "abc" }.body)
    assert.equal("abcdef", s:request { target = "/body", body = { "abc", "def" } }.body)
    assert.equal("", s:request { target = "/body", body = "" }.body)
    assert.equal("", s:request("/body").body)
  end)

  it("is passed on in chunks of the chosen size at most, and nil at the end", function()
    local sizes = s:request { target = "/stream", body = ("x"):rep(2500) }.body
    assert.equal("1000 1000 500 end", sizes)
    assert.equal("end", s:request("/stream").body)
    assert.equal("1000 1000 500", s:request { target = "/stream_now", body = ("x"):rep(2500) }.body)
    assert.equal("", s:request("/stream_now").body)
  end)

  it("is read and thrown away by stream_request_body(nil), also twice", function()
    assert.equal("done", s:request { target = "/discard", body = ("x"):rep(2500) }.body)
  end)

  it("stands before the next request, whether it was read or not", function()
    local connection = s:connect()
    for _ = 1, 3 do
      assert.equal("ignored", connection:request { target = "/ignore", body = ("x"):rep(90000) }.body)
      -- LuaSocket sends up to 8192 bytes at once: a chunked body has to be there completely.
      connection:send("POST /ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "1\r\na\r\n1F00\r\n" .. ("x"):rep(7936) .. "\r\n0\r\n\r\n")
      assert.equal("ignored", connection:response().body)
    end
  end)

  it("that nobody reads does not occupy the worker for long", function()
    local slow = s:connect()
    slow:send "POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\nabc"
    assert.equal("ignored", slow:response().body)
    local before = socket.gettime()
    assert.equal("ignored", s:request("/ignore").body)
    assert(socket.gettime() - before < 4)
    -- Its end is no part of another response, and stands before the next request.
    assert.is_true(slow:silent(0.1))
    slow:send(("x"):rep(90000 - 3))
    assert.equal(pid, slow:request("/pid").body)
  end)

  it("goes to its streamer at the latest when the handler has returned", function()
    s:request { target = "/streamer_at_end", body = ("x"):rep(5000) }
    assert.match("streamed 5000", s:request("/notes").body)
  end)

  it("can be read after the status was sent, but not be set up otherwise", function()
    assert.equal("abc", s:request { target = "/late", body = "abc" }.body)
    for line in s:request { target = "/setup_late", body = "abc" }.body:gmatch("[^\n]+") do
      assert.match("Cannot setup request body streamer at this stage anymore$", line)
    end
  end)

  it("is there once: afterwards post_params is not available", function()
    assert.match("^true false .*not available", s:request {
      target = "/twice", body = "a=1", headers = { ["Content-Type"] = "application/x-www-form-urlencoded" },
    }.body)
  end)

  it("is processed by the methods of older applications", function()
    local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
    assert.equal("1", s:request { target = "/old", body = "a=1", headers = headers }.body)
  end)

  it("may have exactly the allowed size, and not more (413)", function()
    assert.equal(tostring(LIMIT), s:request { target = "/size", body = ("x"):rep(LIMIT) }.body)
    local chunks = { ("x"):rep(LIMIT - 5), "12345" }
    assert.equal(tostring(LIMIT), s:request { target = "/size", body = chunks }.body)
    for _, body in ipairs { ("x"):rep(LIMIT + 1), { ("x"):rep(LIMIT - 5), "123456" } } do
      local response = s:request { target = "/size", body = body }
      assert.equal(413, response.status)
      assert.equal("close", response.headers.connection)
    end
    local announced = s:request { target = "/size", body = ("x"):rep(LIMIT + 1) }
    assert.equal("413 Content Too Large\n\nAnnounced request body size is too big\n", announced.body)
  end)

  it("is answered by 100 Continue when it is wanted (RFC 9110 10.1.1)", function()
    local connection = s:connect()
    local head = "POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
    connection:send(head)
    assert.equal("HTTP/1.1 100 Continue\r\n\r\n", connection:read(25, 2))
    connection:send "abc"
    assert.equal("abc", connection:response().body)
    -- Also if it turns out to be wanted when a status was sent, but no head has left.
    connection:send((head:gsub("/body", "/late")))
    assert.equal("HTTP/1.1 100 Continue\r\n\r\n", connection:read(25, 2))
    connection:send "abc"
    assert.equal("abc", connection:response().body)
  end)

  it("is not asked for by a final status that was decided without it (RFC 9110 10.1.1)", function()
    for _, path in ipairs { "/ignore", "/closing", "/flushing", "/monologue" } do
      local connection = s:connect()
      connection:send("POST " .. path .. " HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
        .. "Content-Length: 3\r\n\r\n")
      local response = connection:response()
      assert.same({ 200, "ignored", "close" },
        { response.status, response.body, response.headers.connection }, path)
      assert.same({ "", "closed" }, { connection:read_all() })
    end
  end)

  it("is not asked for where there is none, nor in HTTP/1.0", function()
    local connection = s:connect()
    connection:send "POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    assert.equal(200, connection:response().status)
    local reply = s:raw "POST /body HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    assert.match("^HTTP/1.1 200 OK\r\n.*\r\n\r\nabc$", reply)
  end)

  it("that ends early is refused", function()
    for _, framing in ipairs {
      "Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    } do
      local connection = s:connect()
      connection:send("POST /body HTTP/1.1\r\nHost: a\r\n" .. framing)
      connection:finish()
      local response = connection:response()
      assert.equal("400 Bad Request\n\nUnexpected EOF in request body\n", response.body)
      assert.same({ "", "closed" }, { connection:read_all() })
    end
  end)

  it("that is malformed is answered, then raised in the handler with the same words", function()
    local connection = s:connect()
    connection:send "POST /caught HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"
    local response = connection:response()
    assert.equal("400 Bad Request\n\nInvalid chunk size line\n", response.body)
    assert.match("false Invalid chunk size line true .*Tried to use faulty request handle",
      s:request("/notes").body)
  end)

  it("that is malformed ends no worker, also if the handler goes on with the request", function()
    local worker = s:request("/pid").body
    local connection = s:connect()
    connection:send "POST /ignored HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"
    assert.equal(400, connection:response().status)
    assert.same({ "", "closed" }, { connection:read_all() })
    assert.equal(worker, s:request("/pid").body)
  end)

  it("whose client resets the connection harms nobody", function()
    local connection = s:connect()
    connection:send "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
    socket.sleep(0.1)
    connection:reset()
    assert.equal(pid, s:request("/pid").body)
  end)

  it("may be sent completely before the client reads a byte: nothing deadlocks", function()
    server.cleanup()
    s = app.start(ROUTES)
    pid = s:request("/pid").body
    for _, target in ipairs { "/big", "/echo" } do
      local connection = s:connect()
      local size = 8 * 1024 * 1024
      assert(connection:send(client.format { target = target, body = ("y"):rep(size), close = true }))
      local total = 0
      connection:read_until("\r\n\r\n")
      repeat
        local reason = connection:fill(5)
        total = total + #connection.buffer
        connection.buffer = ""
      until reason
      assert.equal("closed", connection.ended)
      assert(total > size)
    end
  end)
end)
