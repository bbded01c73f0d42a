-- Options: time limits, sizes, static headers, chunk sizes; heads of any size in linear time.

local socket = require "socket"
local server = require "spec.support.server"
local app = require "spec.http.app"

describe("time limits", function()
  after_each(server.cleanup)

  local function timed(f)
    local before = socket.gettime()
    f()
    return socket.gettime() - before
  end

  it("idle_timeout: a connection without a request is refused with 408", function()
    local s = app.start("", "{ idle_timeout = 0.5 }")
    local connection, response
    local seconds = timed(function()
      connection = s:connect()
      response = connection:response()
    end)
    assert.equal("408 Request Timeout\n\nIdle connection timed out\n", response.body)
    assert(seconds > 0.4 and seconds < 20)
    assert.same({ "", "closed" }, { connection:read_all() })
  end)

  it("idle_timeout: a kept connection is closed without a word, which would answer its next request",
    function()
      local s = app.start("", "{ idle_timeout = 2 }")
      local kept, begun = s:connect(), s:connect()
      for _, connection in ipairs { kept, begun } do
        assert.equal("default", connection:request("/").body)
      end
      begun:send "GET / HT"
      local ended
      local seconds = timed(function() ended = { kept:read_all() } end)
      assert.same({ "", "closed" }, ended)
      assert(seconds > 0.2 and seconds < 20)
      begun:send "TP/1.1\r\nHost: a\r\n\r\n"
      assert.equal("default", begun:response().body)
    end)

  it("request_header_timeout: a head that does not come to its end is refused with 408", function()
    local s = app.start("", "{ request_header_timeout = 0.5 }")
    local connection = s:connect()
    local seconds = timed(function()
      connection:dribble("GET / HTTP/1.1\r\n", 4, 0.05)
      local response = connection:response()
      assert.equal(408, response.status)
    end)
    assert(seconds > 0.4 and seconds < 20, seconds)
  end)

  it("stall_timeout: a body that does not come is refused with 408", function()
    local s = app.start("function routes.body(request) return reply(request, request.body) end",
      "{ stall_timeout = 0.3, request_buffering = false }")
    local connection = s:connect()
    connection:send "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
    local response = connection:response()
    assert.equal(408, response.status)
    assert.equal("default", s:request("/").body)
  end)

  it("stall_timeout: a client that does not read is reset", function()
    local s = app.start([[
      local block = ("x"):rep(1048576)
      function routes.big(request)
        request:send_status("200 OK")
        note(pcall(function() for _ = 1, 64 do request:send_data(block) end end))
        note(request.faulty)
        return true
      end
    ]], "{ stall_timeout = 0.3 }")
    local connection = s:connect()
    connection:send "GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
    socket.sleep(1)
    assert.match("^false .*\ntrue$", s:request("/notes").body)
    local _, ending = connection:read_all()
    assert.equal("reset", ending)
  end)

  it("response_timeout: a handler that takes longer is killed with its worker", function()
    local s = app.start("function routes.slow() while true do end end", "{ response_timeout = 0.3 }")
    local _, ending = s:raw "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal("reset", ending)
    assert.equal("default", s:request("/").body)
  end)

  it("drain_timeout: a client is reset that neither sends nor closes", function()
    local s = app.start("", "{ drain_timeout = 1.2 }")
    local connection = s:connect()
    connection:send "BAD\r\n"
    assert.equal(400, connection:response().status)
    -- As long as it sends, its input is discarded.
    local seconds = timed(function()
      for _ = 1, 18 do
        socket.sleep(0.1)
        assert(connection:send "x")
      end
    end)
    assert(seconds > 1.7)
    socket.sleep(2.5)
    connection:send "x"
    socket.sleep(0.1)
    assert.is_nil(connection:send "x")
  end)

  it("can be switched off by false", function()
    local s = app.start("", [[{ idle_timeout = false, stall_timeout = false, response_timeout = false,
      request_header_timeout = false, drain_timeout = false }]])
    assert.equal("default", s:request("/").body)
  end)

  it("response_timeout = 0 is no limit", function()
    local s = app.start("", "{ response_timeout = 0 }")
    assert.equal("default", s:request("/").body)
  end)

  it("end with the server: kept connections are closed without a word", function()
    local s = app.start ""
    local connection = s:connect()
    connection:request "/"
    s:signal "TERM"
    assert.same({ "", "closed" }, { connection:read_all() })
    assert.equal(0, s:wait())
  end)

  it("nothing is said to a client that closes without a request", function()
    local s = app.start ""
    local connection = s:connect()
    connection:finish()
    assert.same({ "", "closed" }, { connection:read_all() })
  end)

  it("a head that is cut off is refused", function()
    local s = app.start ""
    local connection = s:connect()
    connection:send "GET / HTTP/1.1\r\nHost"
    connection:finish()
    assert.equal(400, connection:response().status)
    assert.same({ "", "closed" }, { connection:read_all() })
  end)
end)

describe("sizes", function()
  after_each(server.cleanup)

  it("request_header_size_limit counts all lines with their ends", function()
    for _, name in ipairs { "request_header_size_limit", "header_size_limit" } do
      local s = app.start("", "{ " .. name .. " = 200 }")
      local function head(size)
        local lines = "GET / HTTP/1.1\r\nHost: a\r\nA: "
        return lines .. ("x"):rep(size - #lines - 4) .. "\r\n\r\n"
      end
      local connection = s:connect()
      connection:send(head(200))
      assert.equal(200, connection:response().status)
      connection:send(head(201))
      assert.equal(431, connection:response().status)
      connection = s:connect()
      connection:send("GET /" .. ("x"):rep(300))
      assert.equal(414, connection:response().status)
      server.cleanup()
    end
  end)

  it("request_body_size_limit has an older name", function()
    local s = app.start("", "{ body_size_limit = 5 }")
    assert.equal(200, s:request { body = "12345" }.status)
    assert.equal(413, s:request { body = "123456" }.status)
  end)

  it("minimum_output_chunk_size: shorter pieces are joined", function()
    local s = app.start([[function routes.default(request)
      request:send_status("200 OK")
      for _ = 1, 5 do request:send_data("ab") end
      return true
    end]], "{ minimum_output_chunk_size = 4 }")
    local bytes = s:raw "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert.match("\r\n\r\n4\r\nabab\r\n4\r\nabab\r\n2\r\nab\r\n0\r\n\r\n$", bytes)
  end)

  it("chunk_size is the default of both chunk sizes", function()
    local s = app.start([[function routes.default(request)
      local sizes = {}
      request:stream_request_body_now(function(chunk) sizes[#sizes + 1] = #chunk end)
      request:send_status("200 OK")
      request:send_data("a")
      request:send_data(#sizes)
      return true
    end]], "{ chunk_size = 2 }")
    local bytes = s:raw "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde"
    assert.match("\r\n\r\n2\r\na3\r\n0\r\n\r\n$", bytes)
  end)

  it("of a head: 1 MiB takes less than 50 ms of the worker's time", function()
    local s = app.start [[
      function routes.default(request)
        local _ = request.headers.a, request.headers_csv_table.a, request.headers_flags.a.b
        _ = request.cookies.a, request.get_params.a
        return reply(request, "ok")
      end
      function routes.clock(request) return reply(request, os.clock()) end
    ]]
    local MIB = 1048576 - 200
    local heads = {
      "A: " .. (" "):rep(MIB) .. "\r\n",
      "A: " .. ("x "):rep(MIB // 2) .. "\r\n",
      "A: " .. (","):rep(MIB) .. "\r\n",
      "Cookie: " .. ("a=" .. ("%41"):rep(84) .. ";"):rep(MIB // 260) .. "\r\n",
      ("A: b\r\n"):rep(999),
      ("\n"):rep(MIB),
    }
    for index, lines in ipairs(heads) do
      local before = tonumber(s:request("/clock").body)
      local connection = s:connect()
      local head = "Host: a\r\n" .. lines
      if lines:sub(1, 1) == "\n" then
        connection:send(lines .. "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      else
        connection:send("GET / HTTP/1.1\r\n" .. head .. "\r\n")
      end
      assert.equal(200, connection:response().status)
      connection:close()
      local seconds = tonumber(s:request("/clock").body) - before
      -- The specs run with unoptimised builds too, and beside other things.
      assert(seconds < 2, ("head %d took %g s"):format(index, seconds))
    end
  end)
end)

describe("static_headers", function()
  after_each(server.cleanup)

  local shapes = {
    ["a string of lines"] = [["X-A: 1\nX-B: 2\r\n"]],
    ["a list of lines"] = [[{ "X-A: 1", "X-B:2\n" }]],
    ["a list of pairs"] = [[{ { "X-A", 1 }, { "X-B", "2" } }]],
    ["a table of names and values"] = [[{ ["X-A"] = "1", ["X-B"] = 2 }]],
  }
  for name, shape in pairs(shapes) do
    it("may be " .. name .. "; they go into refusals too", function()
      local s = app.start("", "{ static_headers = " .. shape .. " }")
      local connection = s:connect()
      local response = connection:request "/"
      assert.same({ "1", "2" }, { response.headers["x-a"], response.headers["x-b"] })
      connection:send "BAD\r\n"
      response = connection:response()
      assert.same({ 400, "1", "2" }, { response.status, response.headers["x-a"], response.headers["x-b"] })
    end)
  end
end)

describe("generate_handler", function()
  local http = require "moonbridge_http"
  local function handler() end

  it("takes options before or after the callback, or none", function()
    assert.is_function(http.generate_handler(handler))
    assert.is_function(http.generate_handler(handler, {}))
    assert.is_function(http.generate_handler({}, handler))
    assert.is_function(http.generate_handler(nil, handler))
  end)

  it("raises errors that name the option", function()
    local cases = {
      { chunk_size = "many" }, { request_body_size_limit = -1 }, { idle_timeout = 0 / 0 },
      { stall_timeout = true }, { request_header_size_limit = {} }, { poll_function = 5 },
    }
    for _, options in ipairs(cases) do
      local ok, message = pcall(http.generate_handler, handler, options)
      assert.is_false(ok)
      assert.is_string(message)
      assert.match(next(options), message, 1, true)
    end
    for _, headers in ipairs { "nonsense", { "A: b\rc" }, { { "A" } }, { A = {} }, "Content-Length: 0", 5 } do
      local ok, message = pcall(http.generate_handler, handler, { static_headers = headers })
      assert.is_false(ok)
      assert.match("static_headers", message, 1, true)
    end
  end)

  it("raises errors for other arguments", function()
    assert.has_error(function() http.generate_handler() end)
    assert.has_error(function() http.generate_handler({}, {}) end)
    assert.has_error(function() http.generate_handler(handler, 5) end)
  end)
end)

describe("without a supervisor", function()
  after_each(server.cleanup)

  -- What a script prints that accepts connections and calls a handler by itself. Connections of `connect` and
  -- `accept` are the two ends of one.
  local function printed(script)
    local code, output, log = server.run_script([[
      local io, http = require "moonbridge_io", require "moonbridge_http"
      local listener = assert(io.tcplisten("127.0.0.1", PORT))
      local function connect() return assert(io.tcpconnect("127.0.0.1", PORT)) end
      local function accept() return listener:accept() end
    ]] .. script)
    assert.same({ "", 0 }, { log, code })
    return output
  end

  it("a handler serves all requests of its connection, waiting by itself", function()
    local output = printed [[
      local polls = 0
      local handler = http.generate_handler(function(request)
        request:send_status("200 OK")
        request:send_header("Content-Length", 2)
        request:send_data("ok")
        return true
      end, { poll_function = function(...) polls = polls + 1 return io.poll(...) end, idle_timeout = 0.2 })
      local client = connect()
      client:flush("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
      print(handler(accept()), polls > 0)
      local bytes = client:read()
      print(select(2, bytes:gsub("\r\n\r\nok", "")), bytes:match("408"))
    ]]
    assert.equal("true\ttrue\n2\tnil\n", output)
  end)

  it("a handler runs in a coroutine whose poll_function yields", function()
    local output = printed [[
      local handler = http.generate_handler({ poll_function = coroutine.yield }, function(request)
        local body = request.body
        request:send_status("200 OK")
        request:send_data(body)
        return true
      end)
      local threads, clients = {}, {}
      for i = 1, 3 do
        clients[i] = connect()
        local socket = accept()
        threads[i] = coroutine.wrap(function() return handler(socket), "over" end)
        threads[i]()
      end
      for i = 3, 1, -1 do clients[i]:flush("POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\n") end
      io.poll(nil, nil, 0.1)
      for i = 1, 3 do threads[i](true) end
      for i = 1, 3 do clients[i]:flush(i) end
      io.poll(nil, nil, 0.1)
      for i = 1, 3 do print(threads[i](true)) end
      for i = 1, 3 do print((clients[i]:read():match("\r\n\r\n(.*)$"))) end
    ]]
    assert.equal("true\tover\ntrue\tover\ntrue\tover\n1\n2\n3\n", output)
  end)

  it("a kept connection in one coroutine does not mix with a request in another", function()
    local output = printed [[
      local handler = http.generate_handler({ poll_function = coroutine.yield }, function(request)
        local path = request.path
        local body = request.method == "POST" and request.body or ""
        request:send_status("200 OK")
        request:send_data(path, request.path, body, "!")
        return true
      end)
      local function open()
        local client = connect()
        local socket = accept()
        local thread = coroutine.wrap(function() return handler(socket), "over" end)
        return function(text)
          client:flush(text)
          io.poll(nil, nil, 0.05)
          thread(true)
        end, function() return (client:read(nil, "!"):match("\r\n\r\n%x+\r\n(.*)$")) end
      end
      local kept_sends, kept_gets = open()
      local slow_sends, slow_gets = open()
      kept_sends("GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
      print(kept_gets())
      slow_sends("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1")
      kept_sends("GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
      slow_sends("2")
      print(slow_gets())
      print(kept_gets())
    ]]
    assert.equal("aa!\nslowslow12!\nbb!\n", output)
  end)
end)

describe("functions of the module", function()
  local http = require "moonbridge_http"

  it("encode_html", function()
    assert.equal("&lt;a href=&quot;x&quot;&gt;&amp;&#39;", http.encode_html("<a href=\"x\">&'"))
    assert.has_error(function() http.encode_html() end)
  end)

  it("encode_uri and decode_uri", function()
    assert.equal("0Az_.~-%20%2f%c3%a4", http.encode_uri("0Az_.~- /\u{e4}"))
    assert.equal("a b/\u{e4}%zz", http.decode_uri("a%20b%2f%C3%a4%zz"))
  end)

  it("encode_path and decode_path", function()
    assert.equal("/a%20b/c+d%3f%23%25;e=f@g:h%c3%a4", http.encode_path("/a b/c+d?#%;e=f@g:h\u{e4}"))
    assert.equal("a b/c+d/\u{e4}%zz%", http.decode_path("a%20b/c+d%2f%C3%a4%zz%"))
    assert.equal("12", http.decode_path(12))
    assert.has_error(function() http.decode_path() end)
  end)

  it("parse_query", function()
    local params, lists = http.parse_query("?a=1&a=2&b=%20")
    assert.same({ "1", " ", nil }, { params.a, params.b, params.c })
    assert.same({ "1", "2" }, lists.a)
  end)
end)

describe("an unknown option of generate_handler", function()
  it("is an error that names the nearest known one", function()
    local http = require "moonbridge_http"
    for options, message in pairs {
      [{ request_body_limit = 1 }] = 'option "request_body_limit" of generate_handler; '
        .. 'did you mean "request_body_size_limit"?',
      [{ idle_time_out = 1 }] = 'did you mean "idle_timeout"?',
      [{ "chunk_size" }] = 'Unknown option "1" of generate_handler; known: request_header_size_limit, ',
    } do
      local ok, text = pcall(function() http.generate_handler(print, options) end)
      assert.falsy(ok)
      assert.truthy(text:find("limits_spec.lua:", 1, true), text)
      assert.truthy(text:find(message, 1, true), text)
    end
  end)
end)
