-- http.request against servers that say exactly what the spec tells them: what is sent, what is accepted,
-- what is refused, what becomes of the connection.

local callback = require "moonbridge_callback"
local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"
local mime = require "mime"
local ltn12 = require "ltn12"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- A server of one process that plays a script: for each connection a function gets the LuaSocket object.
-- What it received is written to a file, a request a line.
local SERVER = [[
  local socket = require "socket"
  local listener
  if UNIX then
    listener = assert(require "socket.unix"())
    assert(listener:bind(UNIX))
    assert(listener:listen())
  else
    listener = assert(socket.bind("127.0.0.1", PORT))
  end
  local log = io.open(LOG, "a")
  log:setvbuf("no")
  local connections = 0
  -- Reads a request; returns its head and body.
  local function read(c)
    local lines = {}
    repeat
      local line = c:receive("*l")
      if not line then return nil end
      lines[#lines + 1] = line
    until line == ""
    local head = table.concat(lines, "\r\n")
    local length = head:match("\r\n[Cc]ontent%-[Ll]ength: (%d+)")
    local body = ""
    if length then
      -- LuaSocket's receive(0) waits for input.
      body = length == "0" and "" or c:receive(tonumber(length)) or "?"
    elseif head:find("\r\nTransfer%-Encoding: chunked") then
      local parts = {}
      while true do
        local line = c:receive("*l")
        if not line then return head, table.concat(parts), "cut off" end
        local size = tonumber(line, 16)
        if size > 0 then parts[#parts + 1] = c:receive(size) end
        c:receive("*l")
        if size == 0 then break end
      end
      body = table.concat(parts)
    end
    log:write(connections, " ", (("%q"):format(head .. "\0" .. body):gsub("\\\n", "\\n")), "\n")
    return head, body
  end
  local function serve(c, number)
    SCRIPT
  end
  io.stderr:write("listening\n")
  while true do
    local c = listener:accept()
    connections = connections + 1
    c:settimeout(10)
    if not UNIX then c:setoption("tcp-nodelay", true) end
    serve(c, connections)
    c:close()
  end
]]

local scripted = {}
scripted.__index = scripted

-- Starts a server with the body of `function serve(c, number)`.
local function play(script, options)
  options = options or {}
  local log = process.scratch("requests")
  io.open(log, "w"):close()
  local text = SERVER:gsub("SCRIPT", function() return script end)
  local s = server.start {
    script = text, globals = { LOG = log, UNIX = options.path },
    ready = options.path and { log = "listening" } or "listening",
  }
  return setmetatable({ url = s.url .. "/", log = log, port = s.port }, scripted)
end

-- The requests received so far: list of {connection, head, body}.
function scripted:requests()
  local list = {}
  for line in io.lines(self.log) do
    local number, text = line:match("^(%d+) (.*)$")
    local head, body = load("return " .. text)():match("^([^\0]*)\0(.*)$")
    list[#list + 1] = { connection = tonumber(number), head = head, body = body }
  end
  return list
end

-- The text as it stands in a script, on one line.
local function literal(text)
  return (("%q"):format(text):gsub("\\\n", "\\n"))
end

-- A server that answers each request of a connection with the same bytes.
local function always(response, options)
  return play("while read(c) do c:send(" .. literal(response) .. ") end", options)
end

-- A server that answers the first request with the given bytes and closes.
local function once(response)
  return play("read(c) c:send(" .. literal(response) .. ")")
end

local function ok(body, extra)
  return ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s"):format(#body, extra or "", body)
end

local function recorder(results)
  local calls = {}
  return function(chunk, err)
    calls[#calls + 1] = { chunk, err }
    if results and results[#calls] then return table.unpack(results[#calls], 1, 2) end
    return true
  end, calls
end

local function chunks(...)
  local list, index = { ... }, 0
  return function()
    index = index + 1
    return list[index] or ""
  end
end

after_each(function()
  http.close_idle_connections()
  server.cleanup()
end)

describe("the short form", function()
  it("returns body, status, headers and status line", function()
    local s = always(ok("hello", "X-A: b\r\n"))
    local body, status, headers, line = http.request(s.url)
    assert.equal("hello", body)
    assert.equal(200, status)
    assert.equal("b", headers["x-a"])
    assert.equal("b", headers["X-A"])
    assert.equal("HTTP/1.1 200 OK", line)
  end)

  it("posts a body as a form, as LuaSocket does", function()
    local s = always(ok("x"))
    assert.equal("x", (http.request(s.url, "a=b")))
    local request = s:requests()[1]
    assert.truthy(request.head:find("^POST / HTTP/1.1\r\n"))
    assert.truthy(request.head:find("\r\nContent%-Type: application/x%-www%-form%-urlencoded\r\n"))
    assert.equal("a=b", request.body)
  end)

  it("returns nil and a message if nobody listens", function()
    local port = server.free_port()
    assert.same({ nil, "Connection refused" }, { http.request("http://127.0.0.1:" .. port) })
  end)

  it("returns errors of the server as any response", function()
    local s = always("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    local body, status = http.request(s.url)
    assert.same({ "no", 404 }, { body, status })
  end)
end)

describe("a request", function()
  it("has a Host field, the target, and a User-Agent", function()
    local s = always(ok(""))
    http.request("http://127.0.0.1:" .. s.port .. "/a/b?c=d#e")
    local head = s:requests()[1].head
    assert.truthy(head:find("^GET /a/b%?c=d HTTP/1.1\r\nHost: 127.0.0.1:" .. s.port .. "\r\n"))
    assert.truthy(head:find("\r\nUser%-Agent: moonbridge/"))
    assert.falsy(head:find("Content%-Length"))
  end)

  it("carries the caller's headers: values, lists of values, pairs", function()
    local s = always(ok(""))
    http.request { url = s.url, headers = { ["X-A"] = "b", ["X-N"] = 5, ["X-L"] = { "1", "2" },
      { "X-P", "q" }, Host = "other.example", ["user-agent"] = "me" } }
    local head = s:requests()[1].head .. "\r\n"
    for _, line in ipairs { "X-A: b", "X-N: 5", "X-L: 1\r\nX-L: 2", "X-P: q", "Host: other.example",
        "user-agent: me" } do
      assert.truthy(head:find("\r\n" .. line .. "\r\n", 1, true), line)
    end
    assert.equal(1, select(2, head:gsub("[Hh]ost:", "")))
    assert.equal(1, select(2, head:lower():gsub("user%-agent:", "")))
  end)

  it("authenticates with user and password of the URL", function()
    local s = always(ok(""))
    http.request("http://me:se%3Acret@127.0.0.1:" .. s.port .. "/")
    local head = s:requests()[1].head
    assert.truthy(head:find("\r\nAuthorization: Basic " .. mime.b64("me:se:cret"), 1, true))
    assert.truthy(head:find("\r\nHost: 127.0.0.1:" .. s.port, 1, true))
  end)

  it("sends a string with its length, also an empty one", function()
    local s = always(ok(""))
    http.request { url = s.url, body = "abc", method = "PUT" }
    http.request { url = s.url, body = "" }
    http.request { url = s.url, method = "POST" }
    local list = s:requests()
    assert.truthy(list[1].head:find("^PUT "))
    assert.truthy(list[1].head:find("\r\nContent%-Length: 3"))
    assert.equal("abc", list[1].body)
    assert.truthy(list[2].head:find("^POST ") and list[2].head:find("\r\nContent%-Length: 0"))
    assert.truthy(list[3].head:find("\r\nContent%-Length: 0"))
  end)

  it("sends what a callback gives, chunked", function()
    local s = always(ok(""))
    http.request { url = s.url, body = chunks("ab", "c", ("x"):rep(100000)) }
    local request = s:requests()[1]
    assert.truthy(request.head:find("^POST .*\r\nTransfer%-Encoding: chunked"))
    assert.equal("abc" .. ("x"):rep(100000), request.body)
  end)

  it("sends what a callback gives with the length the caller announces", function()
    local s = always(ok(""))
    local headers = { ["content-length"] = 3 }
    assert.equal("", (http.request { url = s.url, body = chunks("ab", "c"), headers = headers }))
    local request = s:requests()[1]
    assert.truthy(request.head:find("\r\nContent%-Length: 3"))
    assert.equal("abc", request.body)
  end)

  it("does not go out complete if the callback gives more or less than announced", function()
    local s = play("read(c)")
    for _, case in ipairs { { "ab", "less" }, { "abcd", "more" } } do
      local body, message = http.request { url = s.url, body = chunks(case[1]), timeout = 5,
        headers = { ["content-length"] = 3 } }
      assert.is_nil(body)
      assert.equal("send callback sent " .. case[2] .. " than the announced length", message)
    end
  end)

  it("takes the results of send.file, and filters", function()
    local s = always(ok(""))
    http.request { url = s.url, body = callback.send.chain(callback.send.file(io.open("LICENSE")),
      mime.encode("base64")) }
    assert.equal(process.slurp("LICENSE"), (mime.unb64(s:requests()[1].body)))
  end)

  it("has no body for a nil callback", function()
    local s = always(ok(""))
    http.request { url = s.url, body = callback.send.string(nil) }
    assert.truthy(s:requests()[1].head:find("^GET "))
  end)

  it("takes ltn12 sources and sinks too", function()
    local s = always(ok("answer"))
    local sink, out = ltn12.sink.table()
    local one, status = http.request { url = s.url, source = ltn12.source.string("question"), sink = sink }
    assert.same({ 1, 200 }, { one, status })
    assert.equal("answer", table.concat(out))
    assert.equal("question", s:requests()[1].body)
  end)

  it("waits for 100 Continue when told to expect it", function()
    local s = play [[
      local lines = {}
      repeat local line = c:receive("*l") lines[#lines + 1] = line until line == ""
      c:settimeout(0.2)
      local early = c:receive(1)
      c:settimeout(5)
      c:send("HTTP/1.1 100 Continue\r\n\r\n")
      local body = (early or "") .. c:receive(early and 2 or 3)
      local text = (early and "early " or "late ") .. body
      c:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#text, text))
    ]]
    local headers = { Expect = "100-continue" }
    assert.equal("late abc", (http.request { url = s.url, body = "abc", headers = headers }))
  end)
end)

describe("what must not be sent", function()
  it("is refused with nil and a message", function()
    for _, case in ipairs {
      { { headers = { ["X-A"] = "a\r\nX-B: c" } }, "invalid header value of X-A" },
      { { headers = { ["X-A"] = "a\0" } }, "invalid header value of X-A" },
      { { headers = { ["X A"] = "a" } }, "invalid header name" },
      { { headers = { ["X-A:"] = "a" } }, "invalid header name" },
      { { headers = { [""] = "a" } }, "invalid header name" },
      { { headers = { ["X-A"] = true } }, "invalid header value" },
      { { headers = { ["Content-Length"] = "5" }, body = "abc" }, "differs" },
      { { headers = { ["Content-Length"] = "+3" }, body = "abc" }, "invalid header value" },
      { { headers = { ["Transfer-Encoding"] = "gzip" }, body = chunks("a") }, "Transfer-Encoding" },
      { { headers = { ["Transfer-Encoding"] = "chunked" }, body = "abc" }, "Transfer-Encoding" },
      { { headers = { ["Transfer-Encoding"] = "chunked", ["Content-Length"] = 1 }, body = chunks("a") },
        "exclude each other" },
      { { headers = { Connection = "upgrade" } }, "Connection" },
      { { headers = { Host = { "a", "b" } } }, "twice" },
      { { method = "GET / HTTP/1.1\r\nX:" }, "invalid method" },
      { { method = "CONNECT" }, "invalid method" },
      { { method = "" }, "invalid method" },
    } do
      local options = { url = "http://127.0.0.1:1/" }
      for key, value in pairs(case[1]) do options[key] = value end
      local body, message = http.request(options)
      assert.is_nil(body)
      assert.truthy(message:find(case[2], 1, true), message)
    end
  end)

  it("covers URLs", function()
    for url, part in pairs {
      ["https://example.org/"] = "TLS is not built in",
      ["ftp://example.org/"] = "unsupported URL scheme",
      ["example.org"] = "invalid URL: no scheme",
      ["http://"] = "invalid URL: no host",
      ["http://a b/"] = "invalid URL: blank or control character",
      ["http://a/\r\nX: y"] = "invalid URL: blank or control character",
      ["http://a:99999/"] = "invalid URL: host or port",
      [""] = "invalid URL",
    } do
      local cb, calls = recorder()
      local body, message = http.request { url = url, receive = cb }
      assert.is_nil(body)
      assert.truthy(message:find(part, 1, true), message)
      assert.same({ { nil, message } }, calls)
    end
  end)

  it("throws for wrong types, at the caller's position, and names the option", function()
    for _, case in ipairs {
      { {}, "option 'url' is missing" },
      { { url = 5 }, "option 'url' is expected to be a string, got number" },
      { { url = "http://a/", method = 5 }, "option 'method'" },
      { { url = "http://a/", headers = "X: y" }, "option 'headers'" },
      { { url = "http://a/", body = 5 }, "option 'body'" },
      { { url = "http://a/", receive = "x" }, "option 'receive'" },
      { { url = "http://a/", timeout = 0 }, "option 'timeout'" },
      { { url = "http://a/", timeout = "5" }, "option 'timeout'" },
      { { url = "http://a/", timeout = { read = 5 } }, "option 'timeout'" },
      { { url = "http://a/", redirect = "no" }, "option 'redirect'" },
      { { url = "http://a/", keepalive = -1 }, "option 'keepalive'" },
      { { url = "http://a/", recieve = print }, "unknown option 'recieve'" },
    } do
      local done, message = pcall(function() local _ = http.request(case[1]) end)
      assert.falsy(done)
      assert.equal("string", type(message))
      assert.truthy(message:find("client_spec.lua:%d+: bad argument"), message)
      assert.truthy(message:find(case[2], 1, true), message)
    end
    assert.has_error(function() http.request() end)
    assert.has_error(function() http.request_call("wait", "http://a/") end)
  end)
end)

describe("a response", function()
  local function body_of(response)
    local s = once(response)
    return http.request { url = s.url, timeout = 5 }
  end

  it("may be chunked, with extensions and trailers", function()
    assert.equal("hello world", (body_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" ..
      "5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n")))
  end)

  it("may end with the connection", function()
    assert.equal("hello", (body_of("HTTP/1.1 200 OK\r\n\r\nhello")))
    assert.equal("hello", (body_of("HTTP/1.0 200 OK\r\n\r\nhello")))
  end)

  it("has no body after HEAD, with 204 and with 304", function()
    local s = always("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    local body, status, headers = http.request { url = s.url, method = "HEAD" }
    assert.same({ "", 200, "5" }, { body, status, headers["content-length"] })
    for _, status_line in ipairs { "204 No Content", "304 Not Modified" } do
      body, status = body_of("HTTP/1.1 " .. status_line .. "\r\n\r\n")
      assert.same({ "", tonumber(status_line:sub(1, 3)) }, { body, status })
    end
  end)

  it("may come behind interim responses", function()
    local interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    local body, status = body_of(interim .. ok("x"))
    assert.same({ "x", 200 }, { body, status })
  end)

  it("may come in any pieces", function()
    local response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    local s = play(([[
      read(c)
      for byte in (%s):gmatch(".") do c:send(byte) socket.sleep(0.001) end
    ]]):format(literal(response)))
    local body, _, headers = http.request(s.url)
    assert.equal("hello", body)
    assert.equal("b", headers["x-a"])
  end)

  it("joins the values of a repeated field, and unfolds lines", function()
    local fields = "A: 1\r\na: 2\r\nB: x\r\n y\r\nA: 3\r\n"
    local _, _, headers = body_of(ok("", fields))
    assert.equal("1, 2, 3", headers.a)
    assert.equal("x y", headers.b)
    assert.is_nil(headers.c)
    _, _, headers = body_of(ok("", "Set-Cookie: a=b; Expires=Wed, 21 Oct\r\nSet-Cookie: c=d\r\n"))
    assert.equal("a=b; Expires=Wed, 21 Oct\nc=d", headers["set-cookie"])
  end)

  it("is binary", function()
    local bytes = {}
    for index = 0, 255 do bytes[#bytes + 1] = string.char(index) end
    bytes = table.concat(bytes)
    local s = play [[
      read(c)
      local bytes = {}
      for index = 0, 255 do bytes[#bytes + 1] = string.char(index) end
      c:send("HTTP/1.1 200 OK\r\nContent-Length: 256\r\n\r\n" .. table.concat(bytes))
    ]]
    assert.equal(bytes, (http.request(s.url)))
  end)
end)

describe("a receive callback", function()
  it("gets the body chunk by chunk, then an empty string; the first result is 1", function()
    local s = always(ok("hello"))
    local cb, calls = recorder()
    local one, status, headers = http.request { url = s.url, receive = cb }
    assert.same({ 1, 200, "5" }, { one, status, headers["content-length"] })
    assert.same({ { "hello" }, { "" } }, calls)
  end)

  it("gets only the end of an empty body", function()
    local s = always(ok(""))
    local cb, calls = recorder()
    assert.equal(1, (http.request { url = s.url, receive = cb }))
    assert.same({ { "" } }, calls)
  end)

  it("works with the predefined ones", function()
    local s = always(ok("hello"))
    local cb, concat = callback.receive.concat()
    http.request { url = s.url, receive = callback.receive.chain(mime.encode("base64"), cb) }
    assert.equal(mime.b64("hello"), tostring(concat))
    local path = process.scratch("download")
    http.request { url = s.url, receive = callback.receive.file(io.open(path, "wb")) }
    assert.equal("hello", process.slurp(path))
  end)

  it("may replace itself", function()
    local s = play [[
      read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na") socket.sleep(0.05) c:send("b")
    ]]
    local second, calls = recorder()
    assert.equal(1, (http.request { url = s.url, receive = function() return 1, second end }))
    assert.same({ { "b" }, { "" } }, calls)
  end)

  it("aborts: nil and its message; the connection is not used again", function()
    local s = always(ok("hello"))
    http.request(s.url)
    for _, case in ipairs { { { nil, "enough" }, "enough" }, { { nil }, "callback aborted" } } do
      local cb, calls = recorder { case[1] }
      assert.same({ nil, case[2] }, { http.request { url = s.url, receive = cb } })
      assert.equal(1, #calls)
      assert.equal("hello", (http.request(s.url)))
    end
    assert.equal(3, s:requests()[#s:requests()].connection)
  end)

  it("may fail at the end: a file that cannot be closed", function()
    local s = always(ok("hello"))
    local file = {
      write = function() return true end,
      close = function() return nil, "Disk quota exceeded" end,
    }
    assert.same({ nil, "Disk quota exceeded" },
      { http.request { url = s.url, receive = callback.receive.file(file) } })
  end)

  it("may throw: the error passes, the connection is closed, files too", function()
    local s = always(ok("hello"))
    local thrown = {}
    local done, what = pcall(http.request, { url = s.url, receive = function() error(thrown) end })
    assert.falsy(done)
    assert.equal(thrown, what)
    local closed
    local file = { write = function() error(thrown) end, close = function() closed = true return true end }
    done, what = pcall(http.request, { url = s.url, receive = callback.receive.file(file) })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.truthy(closed)
    assert.equal("hello", (http.request(s.url)))
    assert.equal(3, s:requests()[3].connection)
  end)

  it("is told of every failure", function()
    local port = server.free_port()
    local cb, calls = recorder()
    local _, message = http.request { url = "http://127.0.0.1:" .. port, receive = cb }
    assert.same({ { nil, message } }, calls)
    local s = once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    cb, calls = recorder()
    _, message = http.request { url = s.url, receive = cb }
    assert.equal("connection closed before the response was complete", message)
    assert.same({ { "abc" }, { nil, message } }, calls)
  end)
end)

describe("the head function", function()
  it("is called once, before the body, with status, headers and status line", function()
    local s = always(ok("hello", "X-A: b\r\n"))
    local events = {}
    local one, status = http.request {
      url = s.url,
      head = function(...)
        local code, headers, line = ...
        events[#events + 1] = ("%d %s %s"):format(code, headers["x-a"], line)
      end,
      receive = function(chunk) events[#events + 1] = chunk return 1 end,
    }
    assert.same({ 1, 200 }, { one, status })
    assert.same({ "200 b HTTP/1.1 200 OK", "hello", "" }, events)
  end)

  it("may choose the receive callback", function()
    local s = always(ok("hello"))
    local cb, concat = callback.receive.concat()
    assert.equal(1, (http.request { url = s.url, head = function() return cb end }))
    assert.equal("hello", tostring(concat))
  end)

  it("may throw", function()
    local s = always(ok("hello"))
    local thrown = {}
    local cb, calls = recorder()
    local done, what = pcall(http.request, { url = s.url, receive = cb, head = function() error(thrown) end })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.equal(1, #calls)
  end)
end)

describe("a send callback", function()
  it("aborts: nil and its message, the request is not completed", function()
    local s = play "read(c)"
    local cb, calls = recorder()
    assert.same({ nil, "no more" }, { http.request { url = s.url, receive = cb,
      body = function() return "abc", function() return nil, "no more" end end } })
    assert.same({ { nil, "no more" } }, calls)
    assert.equal(0, #s:requests())
  end)

  it("must return strings", function()
    local s = always(ok(""))
    for _, bad in ipairs { 42, {}, false } do
      local body, message = http.request { url = s.url, body = function() return bad end }
      assert.is_nil(body)
      assert.truthy(message:find("^send callback returned a "))
    end
  end)

  it("may throw: the error passes, and what was to be received is closed", function()
    local s = always(ok(""))
    local closed
    local file = { write = function() return true end, close = function() closed = true return true end }
    local thrown = {}
    local done, what = pcall(http.request, { url = s.url, body = function() error(thrown) end,
      receive = callback.receive.file(file) })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.truthy(closed)
  end)

  it("is stopped by a server that refuses early; its file is closed", function()
    local s = play [[
      c:receive("*l")
      c:send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
      socket.sleep(0.3)
    ]]
    local closed, reads = false, 0
    local file = {
      read = function() reads = reads + 1 return ("x"):rep(65536) end,
      close = function() closed = true end,
    }
    local body, status = http.request { url = s.url, body = callback.send.file(file), timeout = 5 }
    assert.same({ "no", 413 }, { body, status })
    assert.truthy(closed)
  end)

  it("cannot deadlock with a server that answers while it reads", function()
    local s = play [[
      local size = 0
      repeat local line = c:receive("*l") until line == ""
      c:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
      while true do
        local n = tonumber((c:receive("*l")), 16)
        local data = n > 0 and c:receive(n)
        c:receive("*l")
        if n == 0 then break end
        c:send(("%x\r\n"):format(n) .. data .. "\r\n")
      end
      c:send("0\r\n\r\n")
    ]]
    local block, count, received = ("0123456789abcdef"):rep(4096), 0, 0
    local one, message = http.request {
      url = s.url, timeout = 5,
      body = function()
        count = count + 1
        return count <= 200 and block or ""
      end,
      receive = function(chunk) received = received + #(chunk or "") return 1 end,
    }
    assert.equal(1, one, message)
    assert.equal(200 * #block, received)
  end)
end)

describe("servers that misbehave", function()
  -- None of the responses is accepted, and none is asked for twice. Each is {bytes, part of the message}.
  local function refused(cases)
    local list = {}
    for index, case in ipairs(cases) do list[index] = literal(case[1]) end
    local s = play("local list = { " .. table.concat(list, ", ") .. " } read(c) c:send(list[number])")
    for _, case in ipairs(cases) do
      local cb, calls = recorder()
      local body, message = http.request { url = s.url, timeout = 5, receive = cb }
      assert.is_nil(body)
      assert.truthy(message:find(case[2], 1, true), message)
      assert.same({ nil, message }, calls[#calls])
    end
    assert.equal(#cases, #s:requests())
  end

  it("close before they answer, or in the middle", function()
    local message = "connection closed before the response was complete"
    refused {
      { "", message },
      { "HTTP/1.1 200 OK\r\nContent-Le", message },
      { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", message },
      { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", message },
      { "HTTP/1.1 100 Continue\r\n\r\n", message },
    }
  end)

  it("send garbage", function()
    refused {
      { "220 mail.example ESMTP\r\n", "does not speak HTTP/1" },
      { "<html>\r\n\r\n", "does not speak HTTP/1" },
      { "HTTP/2 200\r\n\r\n", "does not speak HTTP/1" },
      { "HTTP/1.1 two hundred\r\n\r\n", "invalid status line" },
      { "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "invalid header line" },
      { "HTTP/1.1 101 Switching Protocols\r\n\r\n", "switches protocols" },
    }
  end)

  it("frame their body in two ways or in none that is known (RFC 9112 6.3)", function()
    local function with(version, fields, body)
      return ("HTTP/%s 200 OK\r\n%s\r\n\r\n%s"):format(version, table.concat(fields, "\r\n"), body)
    end
    local chunked = "Transfer-Encoding: chunked"
    local cases = {
      { with("1.1", { "Content-Length: 3", chunked }, "0\r\n\r\n"), "both" },
      { with("1.1", { "Content-Length: 3", "Content-Length: 4" }, "abcd"), "Content-Length" },
      { with("1.1", { "Content-Length: +3" }, "abc"), "Content-Length" },
      { with("1.1", { "Content-Length: 3, 4" }, "abc"), "Content-Length" },
      { with("1.1", { "Transfer-Encoding: gzip, chunked" }, "0\r\n\r\n"), "Transfer-Encoding" },
      { with("1.0", { chunked }, "0\r\n\r\n"), "Transfer-Encoding" },
    }
    for _, bytes in ipairs { "x\r\n", "5\nhello\r\n", "5\r\nhelloX", "-1\r\n", "0x5\r\nhello\r\n",
        "fffffffffffffffff\r\n", "\r\n", " 5\r\nhello\r\n" } do
      cases[#cases + 1] = { with("1.1", { chunked }, bytes), "chunked coding" }
    end
    refused(cases)
  end)

  it("send endless heads", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\n")
      for _ = 1, 1e6 do if not c:send("X-Endless: " .. ("x"):rep(80) .. "\r\n") then break end end
    ]]
    assert.same({ nil, "response header section too big" }, { http.request { url = s.url, timeout = 5 } })
    s = play [[read(c) for _ = 1, 1e6 do if not c:send("HTTP/1.1 100 Continue\r\n\r\n") then break end end]]
    assert.same({ nil, "too many interim responses" }, { http.request { url = s.url, timeout = 5 } })
  end)

  it("send more than they announced: that is not part of the response, nor of the next one", function()
    local s = play [[
      while read(c) do
        local evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" .. evil)
      end
    ]]
    for _ = 1, 3 do assert.equal("hello", (http.request(s.url))) end
    s = play [[
      while read(c) do
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        socket.sleep(0.05)
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
      end
    ]]
    for _ = 1, 2 do
      assert.equal("hello", (http.request(s.url)))
      require "socket".sleep(0.15)
    end
  end)

  it("send bodies that do not end: the callback decides, a string has a limit", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\n\r\n")
      for _ = 1, 1e6 do if not c:send(("x"):rep(65536)) then break end end
    ]]
    local size = 0
    assert.same({ nil, "too much" }, { http.request { url = s.url, receive = function(chunk)
      size = size + #chunk
      if size > 1e6 then return nil, "too much" end
      return 1
    end } })
    assert.same({ nil, "response body too big" }, { http.request { url = s.url, body_limit = 1000000 } })
  end)

  it("reset the connection", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\n\r\nabc")
      socket.sleep(0.05)
      c:setoption("linger", { on = true, timeout = 0 })
    ]]
    local cb, calls = recorder()
    assert.same({ nil, "Connection reset by peer" }, { http.request { url = s.url, receive = cb } })
    assert.same({ { "abc" }, { nil, "Connection reset by peer" } }, calls)
  end)
end)

describe("time limits", function()
  local function elapsed(f)
    local start = moonbridge_io.timeref()
    local results = table.pack(f())
    return moonbridge_io.timeref(start), table.unpack(results, 1, results.n)
  end

  it("end a wait for the response, its rest, and for sending", function()
    for _, script in ipairs {
      "read(c) socket.sleep(2)",
      "read(c) c:send('HTTP/1.1 200 OK\\r\\nContent-Le') socket.sleep(2)",
      "read(c) c:send('HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nab') socket.sleep(2)",
      "socket.sleep(2)",
    } do
      local s = play(script)
      local time, body, message = elapsed(function()
        return http.request { url = s.url, body = ("x"):rep(2e7), timeout = 0.3 }
      end)
      assert.same({ nil, "timeout" }, { body, message })
      assert.truthy(time > 0.25 and time < 1.5, time)
    end
  end)

  it("end a connect that nobody answers", function()
    -- A listener with a full backlog drops what else comes.
    local listener = assert(require "socket".tcp4())
    assert(listener:bind("127.0.0.1", 0))
    assert(listener:listen(0))
    local _, port = listener:getsockname()
    local fillers = {}
    for index = 1, 4 do
      fillers[index] = moonbridge_io.tcpconnect_nb("127.0.0.1", tonumber(port))
    end
    local time, body, message = elapsed(function()
      return http.request { url = "http://127.0.0.1:" .. port .. "/", timeout = { connect = 0.3, stall = 5 } }
    end)
    listener:close()
    for _, filler in ipairs(fillers) do filler:reset() end
    assert.same({ nil, "timeout" }, { body, message })
    assert.truthy(time > 0.25 and time < 1.5, time)
  end)

  it("do not count what makes progress, unless there is a limit for all of it", function()
    local s = play [[
      read(c)
      c:send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
      for _ = 1, 10 do socket.sleep(0.1) c:send("x") end
    ]]
    assert.equal(("x"):rep(10), (http.request { url = s.url, timeout = 0.5 }))
    local time, body, message = elapsed(function()
      return http.request { url = s.url, timeout = { stall = 5, total = 0.5 } }
    end)
    assert.same({ nil, "timeout" }, { body, message })
    assert.truthy(time > 0.4 and time < 1.5, time)
  end)
end)

describe("kept connections", function()
  local function connections(s)
    local list = {}
    for index, request in ipairs(s:requests()) do list[index] = request.connection end
    return list
  end

  it("are used again", function()
    local s = always(ok("x"))
    for _ = 1, 3 do http.request(s.url) end
    http.request { url = s.url, body = "abc" }
    http.request { url = s.url, body = chunks("abc") }
    http.request { url = s.url, method = "DELETE", receive = callback.receive.concat() }
    assert.same({ 1, 1, 1, 1, 1, 1 }, connections(s))
  end)

  it("are used again after chunked and empty responses", function()
    local s = play [[
      read(c) c:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
      read(c) c:send("HTTP/1.1 204 No Content\r\n\r\n")
      read(c) c:send("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
      read(c) c:send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx")
      read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    ]]
    for _ = 1, 5 do assert.truthy(http.request(s.url)) end
    assert.same({ 1, 1, 1, 1, 1 }, connections(s))
  end)

  it("are not kept if either side says so", function()
    local s = always(ok("x", "Connection: close\r\n"))
    http.request(s.url)
    http.request(s.url)
    assert.same({ 1, 2 }, connections(s))
    s = play [[
      while true do
        local head = read(c)
        if not head then break end
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        if head:find("close") then break end
      end
    ]]
    http.request { url = s.url, keepalive = false }
    http.request { url = s.url, headers = { Connection = "close" } }
    http.request { url = s.url, keepalive = 0 }
    http.request { url = s.url }
    assert.same({ 1, 2, 3, 4 }, connections(s))
    assert.truthy(s:requests()[1].head:find("\r\nConnection: close"))
    assert.truthy(s:requests()[2].head:find("\r\nConnection: close"))
  end)

  it("are replaced if the server has closed them meanwhile", function()
    local s = play [[read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")]]
    for number = 1, 3 do
      assert.equal("x", (http.request { url = s.url, body = "p" .. number }))
      require "socket".sleep(0.05)
    end
    assert.same({ 1, 2, 3 }, connections(s))
  end)

  it("that break without a word: what may be repeated is, on a new one", function()
    -- The first connection is closed when the second request comes in.
    local script = [[
      read(c) c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
      if number == 1 then read(c) end
    ]]
    local s = play(script)
    assert.equal("x", (http.request(s.url)))
    assert.equal("x", (http.request(s.url)))
    assert.same({ 1, 1, 2 }, connections(s))
    s = play(script)
    assert.equal("x", (http.request(s.url)))
    local body, message = http.request { url = s.url, body = "order" }
    assert.is_nil(body)
    assert.equal("connection closed before the response was complete", message)
    assert.same({ 1, 1 }, connections(s))
  end)

  it("expire", function()
    local s = always(ok("x"))
    http.request { url = s.url, keepalive = 0.05 }
    require "socket".sleep(0.1)
    http.close_idle_connections()
    s = play [[while read(c) do c:send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx") end]]
    http.request { url = s.url, keepalive = 0.05 }
    require "socket".sleep(0.1)
    http.request(s.url)
    assert.same({ 1, 2 }, connections(s))
  end)

  it("belong to one server, and to one process", function()
    local s, t = always(ok("s")), always(ok("t"))
    for _ = 1, 2 do
      assert.equal("s", (http.request(s.url)))
      assert.equal("t", (http.request(t.url)))
    end
    assert.same({ 1, 1 }, connections(s))
    assert.same({ 1, 1 }, connections(t))
  end)

  it("are closed on demand", function()
    local s = always(ok("x"))
    http.request(s.url)
    http.close_idle_connections()
    http.request(s.url)
    assert.same({ 1, 2 }, connections(s))
  end)
end)

describe("redirects", function()
  -- A server that redirects /N to /N-1, down to /0.
  local function countdown(status, location)
    return play(([[
      while true do
        local head, body = read(c)
        if not head then break end
        local n = tonumber(head:match("/(%%d+)"))
        if n == 0 then
          local text = head:match("^%%S+") .. " " .. body
          c:send(("HTTP/1.1 200 OK\r\nContent-Length: %%d\r\n\r\n%%s"):format(#text, text))
        else
          local location = (%q):gsub("N", n - 1):gsub("PORT", PORT)
          c:send("HTTP/1.1 %s\r\nContent-Length: 4\r\nLocation: " .. location .. "\r\n\r\nmove")
        end
      end
    ]]):format(location or "/N", status))
  end

  it("are followed, with all kinds of references, over the same connection", function()
    for _, location in ipairs { "/N", "N", "./x/../N", "//127.0.0.1:PORT/N", "http://127.0.0.1:PORT/N#f" } do
      local s = countdown("302 Found", location)
      assert.equal("GET ", (http.request(s.url .. "2")))
      assert.equal(3, #s:requests())
      assert.equal(1, s:requests()[3].connection)
    end
  end)

  it("lead to other servers", function()
    local t = always(ok("other"))
    local s = always("HTTP/1.1 301 Moved\r\nLocation: " .. t.url .. "x\r\nContent-Length: 0\r\n\r\n")
    assert.equal("other", (http.request { url = s.url:gsub("//", "//me:pw@"), headers = { Cookie = "a=b",
      Authorization = "secret", ["X-A"] = "b" } }))
    local head = t:requests()[1].head
    assert.truthy(head:find("^GET /x ") and head:find("\r\nX%-A: b"))
    assert.falsy(head:find("Cookie") or head:find("Authorization"))
  end)

  it("keep credentials on the same server", function()
    local s = countdown("302 Found")
    http.request(s.url:gsub("//", "//me:pw@") .. "1")
    assert.truthy(s:requests()[2].head:find("\r\nAuthorization: Basic"))
  end)

  it("turn POST into GET after 301, 302 and 303, and repeat it after 307 and 308", function()
    for status, expected in pairs {
      ["301 Moved"] = "GET ", ["302 Found"] = "GET ", ["303 See Other"] = "GET ",
      ["307 Temporary Redirect"] = "POST abc", ["308 Permanent Redirect"] = "POST abc",
    } do
      local s = countdown(status)
      local headers = { ["Content-Type"] = "x/y" }
      assert.equal(expected, (http.request { url = s.url .. "1", body = "abc", headers = headers }))
      assert.equal(expected ~= "GET ", s:requests()[2].head:find("Content%-Type") ~= nil)
    end
  end)

  it("cannot repeat a send callback: the response is returned", function()
    local s = countdown("307 Temporary Redirect")
    local body, status = http.request { url = s.url .. "1", body = chunks("abc") }
    assert.same({ "move", 307 }, { body, status })
    s = countdown("303 See Other")
    assert.equal("GET ", (http.request { url = s.url .. "1", body = chunks("abc") }))
  end)

  it("have a limit, and can be switched off", function()
    local s = countdown("302 Found")
    assert.equal("GET ", (http.request(s.url .. "5")))
    local cb, calls = recorder()
    assert.same({ nil, "too many redirects" }, { http.request { url = s.url .. "6", receive = cb } })
    assert.same({ { nil, "too many redirects" } }, calls)
    assert.equal("GET ", (http.request { url = s.url .. "8", redirect = 8 }))
    for _, off in ipairs { false, 0 } do
      local body, status, headers = http.request { url = s.url .. "1", redirect = off }
      assert.same({ "move", 302, "/0" }, { body, status, headers.location })
    end
  end)

  it("do not pass their own bodies to the receive callback", function()
    local s = countdown("302 Found")
    local cb, calls = recorder()
    http.request { url = s.url .. "2", receive = cb }
    assert.same({ { "GET " }, { "" } }, calls)
  end)

  it("to https, to local sockets and to nonsense are errors", function()
    for location, part in pairs {
      ["https://example.org/"] = "TLS is not built in", ["unix:/tmp/x.sock:/"] = "unsupported URL scheme",
      ["http:// x"] = "invalid URL",
    } do
      local s = always("HTTP/1.1 302 Found\r\nLocation: " .. location .. "\r\nContent-Length: 0\r\n\r\n")
      local body, message = http.request(s.url)
      assert.is_nil(body)
      assert.truthy(message:find("^redirected: ") and message:find(part, 1, true), message)
    end
  end)

  it("without a location are responses", function()
    local s = always("HTTP/1.1 300 Multiple Choices\r\nContent-Length: 1\r\n\r\nx")
    assert.same({ "x", 300 }, { (http.request(s.url)), (select(2, http.request(s.url))) })
  end)
end)

describe("local sockets", function()
  it("are addressed by unix:/path:/target", function()
    local path = process.scratch("socket"):match("^(.*)/") .. "/s.sock"
    local s = always(ok("x"), { path = path })
    for _ = 1, 2 do assert.equal("x", (http.request("unix:" .. path .. ":/a?b=c"))) end
    local request = s:requests()[2]
    assert.truthy(request.head:find("^GET /a%?b=c HTTP/1.1\r\nHost: localhost"))
    assert.equal(1, request.connection)
  end)

  it("that are not there are errors", function()
    assert.same({ nil, "No such file or directory" }, { http.request("unix:/nonexistent/x.sock:/") })
    local body = http.request("unix:/" .. ("x"):rep(200) .. ":/")
    assert.is_nil(body)
  end)
end)

describe("the forms that wait by a function", function()
  it("yield socket, mode and module, so that one thread serves many requests", function()
    local s = play [[
      for number = 1, 3 do
        local head = read(c)
        if not head then break end
        socket.sleep(0.02)
        c:send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" .. ("x"):rep(100000))
      end
    ]]
    local t = play [[read(c) socket.sleep(0.1) c:send("HTTP/1.1 200 OK\r\n\r\nslow")]]
    local results, waits = {}, 0
    local function task(name, url)
      return coroutine.wrap(function()
        results[name] = http.request_yield(url)
        return nil
      end)
    end
    local tasks = { task("a", s.url), task("b", t.url) }
    local waiting = {}
    for _, run in ipairs(tasks) do waiting[run] = table.pack(run()) end
    while next(waiting) do
      local input, output = {}, {}
      for _, wait in pairs(waiting) do
        assert.equal(moonbridge_io, wait[3])
        if wait[2] == "r" then input[wait[1]] = true else output[wait[1]] = true end
      end
      assert(moonbridge_io.poll(input, output, 10))
      waits = waits + 1
      for run in pairs(waiting) do
        local wait = table.pack(run())
        waiting[run] = wait[1] and wait or nil
      end
    end
    assert.equal(100000, #results.a)
    assert.equal("slow", results.b)
    assert.truthy(waits > 1)
  end)

  it("stream both ways, more than is buffered", function()
    local s = play [[
      local size = 0
      repeat local line = c:receive("*l") until line == ""
      c:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
      while true do
        local n = tonumber((c:receive("*l")), 16)
        local data = n > 0 and c:receive(n)
        c:receive("*l")
        if n == 0 then break end
        c:send(("%x\r\n"):format(n) .. data .. "\r\n")
      end
      c:send("0\r\n\r\n")
    ]]
    local block, count, received, modes = ("0123456789abcdef"):rep(4096), 0, 0, {}
    local one, message = http.request_call(function(handle, mode, module)
      modes[mode] = true
      local set = { [handle] = true }
      assert(module.poll(mode == "r" and set or nil, mode == "w" and set or nil, 5))
    end, {
      url = s.url,
      body = function()
        count = count + 1
        return count <= 200 and block or ""
      end,
      receive = function(chunk) received = received + #chunk return 1 end,
    })
    assert.equal(1, one, message)
    assert.equal(200 * #block, received)
    assert.truthy(modes.w and modes.r)
  end)

  it("request_call passes on what the function throws, and closes the connection", function()
    local s = play "read(c) socket.sleep(0.2)"
    local thrown = {}
    local cb, calls = recorder()
    local done, what = pcall(http.request_call, function() error(thrown) end, { url = s.url, receive = cb })
    assert.falsy(done)
    assert.equal(thrown, what)
    assert.equal(1, #calls)
    assert.is_nil(calls[1][1])
  end)

  it("keep to the time limit as soon as they are resumed", function()
    local s = play "read(c) socket.sleep(2)"
    local body, message = http.request_call(function() require "socket".sleep(0.1) end,
      { url = s.url, timeout = 0.3 })
    assert.same({ nil, "timeout" }, { body, message })
  end)
end)

describe("filters that fail", function()
  it("end the request with an error; files are closed, the connection is not used again", function()
    local s = always(ok("hello"))
    local thrown = {}
    local failures = {
      { function() return nil, "odd data" end, "odd data" },
      { function() return 42 end, "filter returned a number, expected a string" },
      { function() error(thrown) end, thrown },
    }
    for _, failure in ipairs(failures) do
      local filter, expected = failure[1], failure[2]
      local closed = 0
      local file = {
        read = function() return "data" end,
        write = function() return true end,
        close = function() closed = closed + 1 return true end,
      }
      for _, options in ipairs {
        { receive = callback.receive.chain(filter, callback.receive.file(file)) },
        { body = callback.send.chain(callback.send.file(file), filter) },
      } do
        options.url = s.url
        local done, body, message = pcall(http.request, options)
        assert.equal(expected ~= thrown, done)
        assert.equal(expected, done and message or body)
        assert.falsy(done and body)
      end
      assert.equal(2, closed)
    end
    http.request(s.url)
    local list = s:requests()
    assert.truthy(list[#list].connection > list[#list - 1].connection)
  end)
end)

describe("in a server", function()
  -- A server whose handler asks another one, with an option to ask it before the workers are forked.
  local function front(upstream, early)
    return server.start {
      script = [[
        local moonbridge = require "moonbridge"
        local http = require "moonbridge_http"
        if EARLY ~= "" then io.stderr:write("early ", (http.request(UPSTREAM)), "\n") end
        moonbridge.listen {
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          min_fork = 2, max_fork = 2,
          connect = http.generate_handler(function(request)
            local body, status = http.request(UPSTREAM)
            request:send_status("200 OK")
            request:send_data(moonbridge.io.getpid(), " ", tostring(body), " ", status)
            return true
          end),
        }
        moonbridge.run()
      ]],
      globals = { UPSTREAM = upstream, EARLY = early and "yes" or "" },
    }
  end

  local APPLICATION = [[
    local moonbridge = require "moonbridge"
    local http = require "moonbridge_http"
    moonbridge.listen {
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      connect = http.generate_handler(function(request)
        request:send_status("200 OK")
        request:send_data(request.socket.remote_tcpport)
        return true
      end),
    }
    moonbridge.run()
  ]]

  it("a worker uses its connections again, and never those of the process that forked it", function()
    local app = server.start(APPLICATION)
    local s = front(app.url, true)
    local owners = {} -- port of a connection → the process that used it
    local count, ports = 0, 0
    for _ = 1, 40 do
      local pid, port, status = s:request("/").body:match("^(%d+) (%d+) (%d+)$")
      assert.equal("200", status)
      if not owners[port] then ports = ports + 1 end
      owners[port] = owners[port] or pid
      assert.equal(owners[port], pid)
      count = count + 1
    end
    assert.truthy(ports <= 2, ports .. " connections for " .. count .. " requests")
    assert.is_nil(owners[s:log():match("early (%d+)")])
  end)

  it("names with several addresses are tried in turn", function()
    local app = server.start(APPLICATION)
    local body, status = http.request("http://localhost:" .. app.port .. "/")
    assert.truthy(tonumber(body))
    assert.equal(200, status)
  end)
end)

describe("a server that closes while it is sent to", function()
  it("is an error, as far as it has not answered", function()
    local s = play [[c:receive("*l") c:setoption("linger", { on = true, timeout = 0 })]]
    local function endless() return ("x"):rep(65536) end
    local body, message = http.request { url = s.url, body = endless, timeout = 5 }
    assert.is_nil(body)
    assert.truthy(message == "Connection reset by peer" or message == "Broken pipe", message)
  end)
end)

describe("the pool of idle connections", function()
  it("keeps 8 for a server and 64 in all, and closes the oldest", function()
    local app = server.start [[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge_http"
      moonbridge.listen {
        { proto = "tcp", host = "0.0.0.0", port = PORT },
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data("Hello")
          return true
        end),
      }
      moonbridge.run()
    ]]
    local function open_connections()
      local wanted, found = (":%04X"):format(app.port), 0
      for line in io.lines("/proc/net/tcp") do
        local _, remote, state = line:match("^%s*%d+: (%S+) (%S+) (%S+)")
        if state == "01" and remote:sub(-5) == wanted then found = found + 1 end
      end
      return found
    end
    -- Each request holds its connection until all have one.
    local function at_once(hosts, each)
      local threads = {}
      for host = 1, hosts do
        for _ = 1, each do
          local url = ("http://127.0.0.%d:%d/"):format(host, app.port)
          local thread = coroutine.wrap(function()
            assert(http.request { url = url, head = function() coroutine.yield() end })
          end)
          thread()
          threads[#threads + 1] = thread
        end
      end
      for _, thread in ipairs(threads) do thread() end
    end
    at_once(1, 5)
    assert.equal(5, open_connections())
    at_once(1, 12)
    assert.truthy(process.wait_until(function() return open_connections() == 8 end))
    at_once(12, 7)
    assert.truthy(process.wait_until(function() return open_connections() == 64 end))
    http.close_idle_connections()
    assert.truthy(process.wait_until(function() return open_connections() == 0 end))
  end)
end)
