-- What the handler sends: the reference, from "request:close_after_finish" to "request:send_status".

local server = require "spec.support.server"
local app = require "spec.http.app"

-- Serves one request with a handler given as text; returns the bytes on the wire and the notes.
local function wire(handler, request, options)
  local s = app.start("function routes.default(request)\n" .. handler .. "\nend", options)
  local connection = s:connect()
  connection:send(request or "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
  local bytes, ending = connection:read_all()
  local pid = s:workers()[1]
  server.cleanup()
  return bytes:gsub("Date: %a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT\r\n", ""), ending, pid
end

local function notes(handler, request, options)
  local s = app.start("function routes.default(request)\n" .. handler .. "\nend", options)
  if request then s:raw(request) else s:request "/" end
  local text = s:request("/notes").body
  server.cleanup()
  return text
end

local function expect(expected, handler, request, options)
  local bytes, ending = wire(handler, request, options)
  assert.equal(expected, bytes)
  assert.equal("closed", ending)
end

local OLD = "GET / HTTP/1.0\r\n\r\n"
local HEAD = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

describe("a response", function()
  after_each(server.cleanup)

  it("without Content-Length is chunked, small pieces joined", function()
    expect("HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
      .. "7\r\nab1true\r\n0\r\n\r\n", [[
      request:send_status("200 OK")
      request:send_header("A", "b")
      request:send_data("a", "b")
      request:send_data(1, true)
      return true]])
  end)

  it("with Content-Length is sent as it is", function()
    expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab", [[
      request:send_status("200 OK")
      request:send_header("Content-Length", 2)
      request:send_data("ab")
      return true]])
  end)

  it("to HTTP/1.0 ends with the connection", function()
    expect("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab", [[
      request:send_status("200 OK")
      request:send_data("ab")
      return true]], OLD)
  end)

  it("to HEAD has no body", function()
    expect("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", [[
      request:send_status("200 OK")
      request:send_header("Content-Length", "5")
      request:send_data("abcdefgh")
      return true]], HEAD)
    expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", [[
      request:send_status("200 OK")
      request:send_data("abc")
      return true]], HEAD)
  end)

  it("may consist of the header section alone", function()
    expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
      [[request:send_status("200 OK") return true]])
  end)

  for status, line in pairs { ["204 No Content"] = "", ["304 Not Modified"] = "",
    ["205 Reset Content"] = "Content-Length: 0\r\n" }
  do
    it("has no body with status " .. status, function()
      expect("HTTP/1.1 " .. status .. "\r\n" .. line .. "Connection: close\r\n\r\n",
        ("request:send_status(%q) return true"):format(status))
      assert.equal("false Cannot send response data for body-less status message", (notes(([[
        request:send_status(%q)
        local ok, message = pcall(request.send_data, request, "x")
        note(ok, (message:gsub("^.-:%%d+: ", "")))
        return true]]):format(status))))
    end)
  end

  it("has a Date", function()
    local s = app.start ""
    assert.match("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$", s:request("/").headers.date)
  end)

  it("may follow informational responses, ended by finish_headers or a further status", function()
    expect("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
      .. "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", [[
      request:send_status("103 Early Hints")
      request:send_header("Link", "</a>")
      note(pcall(request.send_header, request, "Content-Length", 0))
      note(pcall(request.send_header, request, "Connection", "close"))
      request:finish_headers()
      request:send_status("102 Processing")
      request:send_status("204 No Content")
      return true]])
  end)

  it("goes out in one segment if it is small", function()
    local s = app.start [[function routes.default(request)
      request:send_status("200 OK")
      request:send_header("Content-Length", 5)
      request:send_data("ab")
      request:send_data("cde")
      return true
    end]]
    local connection = s:connect()
    connection:send "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    connection:fill(5)
    assert.match("\r\n\r\nabcde$", connection.buffer)
  end)

  it("is flushed by flush and by finish_headers", function()
    local s = app.start([[function routes.default(request)
      request:send_status("200 OK")
      request:finish_headers()
      moonbridge_io.poll({ [request.socket] = true }, nil, 60)
      request:send_data("ab")
      request:flush()
      moonbridge_io.poll({ [request.socket] = true }, nil, 60)
      return true
    end]], "{ request_buffering = false }")
    local connection = s:connect()
    connection:send "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    assert(connection:read_until("\r\n\r\n"))
    connection:send "x"
    assert.equal("2\r\nab\r\n", connection:read(7))
    connection:send "y"
    assert.equal("0\r\n\r\n", connection:read(5))
  end)
end)

describe("wrong use", function()
  after_each(server.cleanup)

  local function message_of(call, before)
    return notes([[
      local function try(f, ...)
        local ok, message = pcall(f, ...)
        note(type(message) == "string" and message:gsub("^.-:%d+: ", "") or message)
      end
      ]] .. (before or "") .. "\n" .. call .. [[

      if request.fresh or not pcall(request.finish, request) then
        pcall(request.send_status, request, "204 x")
      end
      return true]])
  end

  it("names what is missing or too late", function()
    local cases = {
      { "try(request.send_header, request, 'a', 'b')", "", "HTTP status has not been sent yet" },
      { "try(request.send_data, request, 'a')", "", "HTTP status has not been sent yet" },
      { "try(request.finish_headers, request)", "", "HTTP status has not been sent yet" },
      { "try(request.send_status, request, '200 OK')", "request:send_status('200 OK')",
        "HTTP status has already been sent: call send_status once for each response" },
      { "try(request.send_header, request, 'a', 'b')",
        "request:send_status('200 OK') request:finish_headers()", "All HTTP headers have already been sent" },
      { "try(request.close_after_finish, request)",
        "request:send_status('200 OK') request:finish_headers()", "All HTTP headers have already been sent" },
      { "try(request.send_data, request, 'a')", "request:send_status('200 OK') request:finish()",
        "Response has already been finished" },
      { "try(request.send_status, request, '200 OK')", "request:send_status('200 OK') request:finish()",
        "Response has already been finished" },
      { "try(request.send_data, request, 'abc') request:send_data('ab')",
        "request:send_status('200 OK') request:send_header('Content-Length', 2)",
        "Content length exceeded: Content-Length is 2, but 3 bytes were to be sent" },
    }
    for _, case in ipairs(cases) do
      assert.equal(case[3], message_of(case[1], case[2]), case[1])
    end
  end)

  it("finish may be called several times", function()
    local before = "request:send_status('200 OK') request:finish()"
    assert.equal("nil", message_of("try(request.finish, request)", before))
  end)

  it("finish with too little data is an error", function()
    local text = message_of("try(request.finish, request) request:send_data('b')",
      "request:send_status('200 OK') request:send_header('Content-Length', 2) request:send_data('a')")
    assert.equal("Content length not used: Content-Length is 2, but only 1 bytes were sent", text)
  end)

  it("CR, LF and NUL are refused in status, name and value, and never sent", function()
    for _, bad in ipairs { "a\\rb", "a\\nb", "a\\0b", "a\\r\\nX: y" } do
      local bytes = wire(([[
        assert(not pcall(request.send_status, request, "200 %s"))
        request:send_status("200 OK")
        assert(not pcall(request.send_header, request, "Name", "%s"))
        assert(not pcall(request.send_header, request, "%s", "value"))
        request:send_header("Content-Length", 0)
        return true]]):format(bad, bad, bad))
      assert.equal("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", bytes)
    end
  end)

  it("is raised at the caller's position", function()
    assert.match("^routes:2: ", (notes([[
      note(select(2, pcall(function() request:send_data("x") end)))
      request:send_status("204 No Content")
      return true]])))
    assert.match("^routes:2: .*malformed pattern", (notes([[
      note(select(2, pcall(function() request:stream_post_params("[", print) end)))
      request:send_status("204 No Content")
      return true]])))
  end)

  it("of arguments is an error", function()
    assert.equal("HTTP status is expected to be a string, got nil: send e.g. \"200 OK\"",
      message_of("try(request.send_status, request)"))
    assert.equal("HTTP header value is expected to be a string, got nil: give a a value, or leave it out",
      message_of("try(request.send_header, request, 'a')", "request:send_status('200 OK')"))
  end)
end)

describe("the connection", function()
  after_each(server.cleanup)

  it("is kept, also for requests that are pipelined", function()
    local s = app.start ""
    local connection = s:connect()
    local request = "GET /pid HTTP/1.1\r\nHost: a\r\n\r\n"
    connection:send(request:rep(20))
    for _ = 1, 20 do assert.equal(200, connection:response().status) end
    assert.equal(200, connection:request("/pid").status)
  end)

  it("is closed when the client asks for it, in any list", function()
    local s = app.start ""
    local connection = s:connect()
    local response = connection:request { headers = { Connection = "foo, Close" } }
    assert.equal("close", response.headers.connection)
    assert.same({ "", "closed" }, { connection:read_all() })
  end)

  it("is closed by close_after_finish, announced", function()
    expect("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", [[
      request:close_after_finish()
      request:send_status("204 No Content")
      return true]], "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
  end)

  it("is closed by a Connection: close of the handler's", function()
    expect("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", [[
      request:send_status("204 No Content")
      request:send_header("Connection", "close")
      return true]], "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
  end)

  it("is closed by monologue, which discards all input", function()
    expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", [[
      request:monologue()
      request:send_status("200 OK")
      request:send_header("Content-Length", 2)
      request:send_data("ok")
      return true]], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" .. ("x"):rep(100000))
  end)

  it("ends with the worker if the handler does not return true, once the response is out", function()
    local s = app.start([[function routes.last(request) reply(request, "bye") return "no" end]])
    local connection = s:connect()
    local before = connection:request("/pid").body
    local response = connection:request "/last"
    assert.equal("bye", response.body)
    assert.same({ "", "closed" }, { connection:read_all() })
    assert.not_equal(before, s:request("/pid").body)
  end)

  it("can be reset by request.socket", function()
    local s = app.start([[function routes.reset(request) request.socket:reset() return true end]])
    local pid = s:request("/pid").body
    local bytes, ending = s:raw "GET /reset HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.same({ "", "reset" }, { bytes, ending })
    assert.equal(pid, s:request("/pid").body)
  end)

  it("may be finished or closed by the handler itself", function()
    local s = app.start [[
      function routes.finish(request)
        request:close_after_finish()
        reply(request, "ok")
        request:finish()
        request.socket:finish()
        return true
      end
      function routes.close(request)
        request:close_after_finish()
        reply(request, "ok")
        request:finish()
        request.socket:close()
        return true
      end
      function routes.unannounced(request)
        reply(request, "ok")
        request:finish()
        request.socket:close()
        return true
      end
    ]]
    local pid = s:request("/pid").body
    for _, target in ipairs { "/finish", "/close", "/unannounced" } do
      local connection = s:connect()
      assert.equal("ok", connection:request(target).body)
      assert.same({ "", "closed" }, { connection:read_all() })
    end
    assert.equal(pid, s:request("/pid").body)
  end)

  it("leaves HTTP with status 101; request.socket sees what was pipelined", function()
    expect("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nabc\ndef\n", [[
      request:send_status("101 Switching Protocols")
      request:send_header("Connection", "upgrade")
      request:send_header("Upgrade", "echo")
      request:finish_headers()
      for _ = 1, 2 do request.socket:flush((request.socket:read(nil, "\n"))) end
      return true]], "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nabc\ndef\n")
  end)
end)

describe("status 101", function()
  after_each(server.cleanup)

  -- What a handler gets that tries to upgrade, and what goes out when it says 426 then.
  local UPGRADE = [[
    local ok, message = pcall(request.send_status, request, "101 Switching Protocols")
    note(ok, message)
    request:send_status("426 Upgrade Required")
    return true]]

  local function refused(words, request)
    local s = app.start("function routes.default(request)\n" .. UPGRADE .. "\nend")
    local bytes, ending = s:raw(request)
    assert.match("^HTTP/1.1 426 Upgrade Required\r\n", bytes)
    assert.equal("closed", ending)
    assert.match("^false [^\n]*" .. words .. "$", s:request("/notes").body)
    server.cleanup()
  end

  it("is misuse before the request's body was read", function()
    local fields = "Host: a\r\nConnection: upgrade, close\r\nUpgrade: echo\r\n"
    local words = "Status 101 cannot be sent before the request body has been read"
    refused(words, "POST / HTTP/1.1\r\n" .. fields .. "Content-Length: 3\r\n\r\nabc")
    local chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    refused(words, "POST / HTTP/1.1\r\n" .. fields .. chunked)
  end)

  it("may be sent when the body has been read", function()
    expect("HTTP/1.1 101 Switching Protocols\r\n\r\nabc rest\n", [[
      local body = request.body
      request:send_status("101 Switching Protocols")
      request:finish_headers()
      request.socket:flush(body, " ", (request.socket:read(nil, "\n")))
      return true]], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcrest\n")
  end)

  it("is misuse for a client of HTTP/1.0", function()
    local words = "Status 101 cannot be sent to a client of HTTP/1.0"
    refused(words, "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
  end)
end)

describe("a handler's error", function()
  after_each(server.cleanup)

  it("is answered by 500 if nothing was sent; the worker is replaced and the log tells all", function()
    local s = app.start [[function routes.fail(request) error("oh dear") end]]
    local pid = s:request("/pid").body
    local connection = s:connect()
    local response = connection:request "/fail?x=1"
    assert.equal(500, response.status)
    assert.equal("500 Internal Server Error\n", response.body)
    assert.equal("close", response.headers.connection)
    assert.same({ "", "closed" }, { connection:read_all() })
    assert.not_equal(pid, s:request("/pid").body)
    connection:close() -- a shutdown would wait for it
    s:stop()
    local log = s:log()
    assert.match('Error in "connect" function: GET /fail%?x=1 %[%x+%]: routes:1: oh dear', log)
    assert.match("stack traceback:", log)
    assert.match("routes:1: in ", log)
  end)

  it("is logged with the bytes of the target that are no printable ASCII as escapes", function()
    local s = app.start [[function routes.default() error("oh \xe4\x1b[31m dear") end]]
    s:raw("GET /\xe4\xff?\u{e4}\\x HTTP/1.1\r\nHost: a\r\n\r\n")
    local line = [["connect" function: GET /\xE4\xFF%?\xC3\xA4\x5Cx %[%x+%]: routes:1: oh \xE4\x1B%[31m dear]]
    assert.truthy(s:wait_log(line), s:log())
    assert.falsy(s:log():find("\u{fffd}", 1, true))
  end)

  it("resets the connection later on", function()
    local s = app.start [[function routes.fail(request)
      request:send_status("200 OK")
      request:send_data("x")
      request:flush()
      error({})
    end]]
    local _, ending = s:raw "GET /fail HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal("reset", ending)
    assert.equal("default", s:request("/").body)
  end)

  it("is not that the client has gone: the worker stays", function()
    local s = app.start [[
      local block = ("x"):rep(1048576)
      function routes.big(request)
        request:send_status("200 OK")
        for _ = 1, 64 do request:send_data(block) end
        return true
      end
    ]]
    local pid = s:request("/pid").body
    for _, ending in ipairs { "reset", "close" } do
      local connection = s:connect()
      connection:send "GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
      connection:fill(5)
      connection[ending](connection)
      assert.equal(pid, s:request("/pid").body)
    end
    s:stop()
    assert.not_match("Error in", s:log())
  end)

  it("is that of a handler that sends no status, too", function()
    local s = app.start [[function routes.silent() return true end]]
    assert.equal(500, s:request("/silent").status)
    s:stop()
    assert.match("HTTP status has not been sent yet", s:log())
  end)

  it("keeps its type when the handler is called by a connect function", function()
    local code, output = server.run_script [[
      local io = require "moonbridge_io"
      local http = require "moonbridge_http"
      local mine = setmetatable({ x = 1 }, { __name = "mine" })
      local handler = http.generate_handler(function() error(mine) end)
      local listener = io.tcplisten("127.0.0.1", PORT)
      local client = io.tcpconnect("127.0.0.1", PORT)
      client:flush("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
      client:finish()
      local ok, err = pcall(handler, listener:accept())
      print(ok, type(err), err.x, getmetatable(err).__name, (client:read(nil, "\n")))
    ]]
    assert.equal(0, code)
    assert.equal("false\ttable\t1\tmine\tHTTP/1.1 500 Internal Server Error\r\n\n", output)
  end)
end)
