-- Held responses and topics: the handler returns, its process is free, the response hears messages.

local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"

describe("a held response", function()
  after_each(server.cleanup)

  it("hears what is published on its topics, after what was sent before", function()
    local s = push.start { workers = 1 }
    local c = push.open(s)
    assert.truthy(c.head():find("Transfer%-Encoding: chunked"))
    assert.equal("hello\n", c.chunk())
    push.publish(s, "news", "one")
    push.publish(s, "other", "nothing")
    push.publish(s, "news", "two")
    assert.equal("one", c.chunk())
    assert.equal("two", c.chunk())
  end)

  it("occupies no worker", function()
    local s = push.start { workers = 1 }
    local streams = {}
    for index = 1, 20 do streams[index] = push.open(s) end
    assert.equal(20, push.subscribers(s, "news"))
    push.publish(s, "news", "all")
    for _, c in ipairs(streams) do
      assert.equal("hello\n", c.chunk())
      assert.equal("all", c.chunk())
    end
    assert.equal("0 true nil 20", push.subscribers(s, "nobody") .. " "
      .. push.get(s, "/publish?topic=nobody&message=x") .. " " .. push.status(s).held)
  end)

  it("hears several topics, and each once", function()
    local s = push.start { handler = [[
      request:send_status("200 OK")
      return request:hold { topics = { "a", "b", "a" } }
    ]] }
    local c = push.open(s)
    for _, topic in ipairs { "a", "b", "c", "a" } do push.publish(s, topic, topic) end
    assert.equal("aba", c.chunk() .. c.chunk() .. c.chunk())
    assert.equal(1, push.subscribers(s, "a"))
  end)

  it("passes on any bytes, whole, also a megabyte", function()
    local s = push.start { before = [[
      local bytes = {}
      for byte = 0, 255 do bytes[byte + 1] = string.char(byte) end
      ALL = table.concat(bytes)
    ]], handler = [[
      if request.path == "all" then
        request:send_status "200 OK"
        request:send_data(tostring(moonbridge.publish("\0\255", ALL)))
        return true
      end
      request:send_status("200 OK")
      return request:hold { topics = get.topic or "\0\255" }
    ]] }
    local c = push.open(s)
    assert.equal("true", push.get(s, "/all"))
    local expected = {}
    for byte = 0, 255 do expected[byte + 1] = string.char(byte) end
    assert.equal(table.concat(expected), c.chunk())
    c = push.open(s, "/?topic=large")
    for _, size in ipairs { 61440, 61441, 1048576 } do
      assert.equal("true nil", push.get(s, "/publish?topic=large&message=x&size=" .. size))
      assert.equal(("x"):rep(size), c.chunk())
    end
    push.publish(s, "large", "")
    push.publish(s, "large", "after")
    assert.equal("after", c.chunk())
  end)

  it("notices that its client has gone", function()
    local s = push.start()
    local one, other = push.open(s), push.open(s)
    one:close()
    push.wait_held(s, 1)
    other:reset()
    push.wait_held(s, 0)
    assert.equal(0, push.subscribers(s, "news"))
  end)

  it("ends with the connection for clients of HTTP/1.0", function()
    local s = push.start { handler = [[
      request:send_status("200 OK")
      return request:hold { topics = "news", timeout = 4 }
    ]] }
    local c = push.open(s, "/", { version = "1.0" })
    push.publish(s, "news", "one")
    push.publish(s, "news", "two")
    local body, ending = c:read_all()
    assert.equal("closed", ending)
    assert.truthy(body:find("Connection: close\r\n", 1, true))
    assert.equal("onetwo", body:match("\r\n\r\n(.*)$"))
  end)

  it("is over at once for HEAD, and the connection goes on", function()
    local s = push.start()
    local c = s:connect()
    local response = c:request { method = "HEAD", target = "/" }
    assert.equal("text/event-stream", response.headers["content-type"])
    assert.equal("0", c:request("/subscribers?topic=news").body)
  end)

  it("works on local sockets", function()
    local s = push.start()
    local c = push.open(s, "/", { path = s.path })
    push.publish(s, "news", "x")
    assert.equal("hello\nx", c.chunk() .. c.chunk())
    c:close()
    push.wait_held(s, 0)
  end)

  it("hears messages from other pools and from interval jobs", function()
    local s = push.start { after = [[
      moonbridge.listen {
        { proto = "interval", delay = 0.05, name = "ticks" },
        connect = function() return moonbridge.publish("ticks", "tick") end,
      }
    ]] }
    local c = push.open(s, "/?topic=ticks")
    assert.equal("hello\n", c.chunk())
    assert.equal("ticktick", c.chunk() .. c.chunk())
  end)

  it("sends a heartbeat when nothing else is sent", function()
    local s = push.start { handler = [[
      request:send_status("200 OK")
      return request:hold { topics = "news", heartbeat = { 0.1, ":\n\n" } }
    ]] }
    local c = push.open(s)
    assert.equal(":\n\n:\n\n", c.chunk() .. c.chunk())
    push.publish(s, "news", "x")
    local chunk
    repeat chunk = c.chunk() until chunk ~= ":\n\n"
    assert.equal("x", chunk)
  end)

  it("ends after its timeout, and the connection is kept", function()
    local s = push.start { handler = [[
      request:send_status("200 OK")
      return request:hold { topics = "news", timeout = 0.5 }
    ]] }
    local c = push.ask(s)
    c.head()
    -- Pipelined: it waits for the end of the response.
    c:send("GET /subscribers?topic=news HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal("", c.chunk())
    assert.equal("0", c:response().body)
    assert.equal("0", c:request("/subscribers?topic=news").body)
  end)

  it("is closed after the response if the handler says so", function()
    local s = push.start { handler = [[
      request:close_after_finish()
      request:send_status("200 OK")
      return request:hold { topics = "news", timeout = 0.2 }
    ]] }
    local c = push.ask(s)
    assert.truthy(c.head():find("Connection: close"))
    assert.equal("", c.chunk())
    assert.same({ "", "closed" }, { c:read_all() })
  end)

  it("has its line in the access log when it is over", function()
    local s = push.start()
    local c = push.open(s, "/line")
    push.publish(s, "news", "12345")
    assert.equal("hello\n12345", c.chunk() .. c.chunk())
    c:close()
    local line
    assert.truthy(process.wait_until(function()
      line = (process.slurp(s.access_log) or ""):match("[^\n]*/line[^\n]*")
      return line
    end))
    assert.truthy(line:find('"status":200', 1, true), line)
    local head = #c.head()
    assert.truthy(line:find('"bytes_out":' .. head + 11 + 10, 1, true), line)
    assert.truthy(line:find("aborted", 1, true), line)
  end)

  it("is followed by requests whose lines in the access log name the client", function()
    local s = push.start { handler = [[
      request:send_status("200 OK")
      return request:hold { topics = "news", timeout = 0.2 }
    ]] }
    local c = push.ask(s)
    assert.equal("", c.chunk())
    assert.equal("0", c:request("/subscribers?topic=next").body)
    local line
    assert.truthy(process.wait_until(function()
      line = (process.slurp(s.access_log) or ""):match("[^\n]*topic=next[^\n]*")
      return line
    end))
    assert.truthy(line:find('"client_ip":"127.0.0.1"', 1, true), line)
  end)
end)

describe("a response that is held once", function()
  after_each(server.cleanup)

  local HANDLER = [[
    request:set_cookie { name = "a", value = "b" }
    return request:hold { topics = "news", once = true, timeout = tonumber(get.timeout),
      otherwise = get.otherwise, last_id = get.last }
  ]]

  it("is completed by the first message, with the length of the body", function()
    local s = push.start { handler = HANDLER }
    local c = push.open(s)
    push.publish(s, "news", "first")
    push.publish(s, "news", "second")
    local response = c:response()
    assert.same({ 200, "OK", "first", "5" },
      { response.status, response.reason, response.body, response.headers["content-length"] })
    assert.same({ "a=b", "x" }, { response.headers["set-cookie"], response.headers.server })
    assert.truthy(response.headers.date)
    assert.equal("0", c:request("/subscribers?topic=news").body)
    assert.equal(0, push.status(s).held)
  end)

  it("has no heartbeat: that would be a response of its own", function()
    local s = push.start { handler = [[
      return request:hold { topics = "news", once = true, timeout = 0.5, heartbeat = { 0.05, "beat" } }
    ]] }
    local c = s:connect()
    assert.equal(204, c:request("/").status)
    -- Nothing of the first response is taken for the next one.
    assert.equal("0", c:request("/subscribers?topic=news").body)
  end)

  it("ends with the other status when no message comes", function()
    local s = push.start { handler = HANDLER }
    local c = s:connect()
    local response = c:request("/?timeout=0.1")
    assert.same({ 204, "No Content", nil, "" },
      { response.status, response.reason, response.headers["content-length"], response.body })
    response = c:request("/?timeout=0.1&otherwise=503+Come+Again")
    assert.same({ 503, "Come Again", "0" },
      { response.status, response.reason, response.headers["content-length"] })
    assert.equal("x", response.headers.server)
  end)

  it("may have begun before", function()
    local s = push.start { handler = [[
      request:send_status "200 OK"
      request:send_data "a"
      return request:hold { topics = "news", once = true }
    ]] }
    local c = push.open(s)
    push.publish(s, "news", "b")
    assert.equal("ab", c:response().body)
    assert.equal("0", c:request("/subscribers?topic=news").body)
  end)

  it("may have a status and headers of its own", function()
    local s = push.start { handler = [[
      request:send_status "201 Created"
      request:send_header("Content-Type", "text/plain")
      return request:hold { topics = "news", once = true }
    ]] }
    local c = push.open(s, "/", { version = "1.0", headers = "Connection: keep-alive\r\n" })
    push.publish(s, "news", "b")
    local response = c:response()
    assert.same({ 201, "text/plain", "b", "keep-alive" }, { response.status, response.headers["content-type"],
      response.body, response.headers.connection })
    assert.equal("0", c:request("/subscribers?topic=news").body)
  end)
end)

describe("a topic with a history", function()
  after_each(server.cleanup)

  local function start()
    return push.start { before = [[
      moonbridge.topic("news", { history = 3 })
      moonbridge.topic("other", { history = 3 })
    ]], handler = [[
      request:send_status "200 OK"
      return request:hold { topics = { "news", "other" }, on_gap = "GAP",
        last_id = request.headers_value["Last-Event-ID"], once = get.once and true }
    ]] }
  end

  it("tells who comes back what was missed, once and in order", function()
    local s = start()
    for id = 1, 4 do push.publish(s, id % 2 == 0 and "news" or "other", "m" .. id, id) end
    local c = push.open(s, "/", { headers = "Last-Event-ID: 2\r\n" })
    push.publish(s, "news", "m5", 5)
    assert.equal("m3m4m5", c.chunk() .. c.chunk() .. c.chunk())
    c = push.open(s, "/", { headers = "Last-Event-ID: 5\r\n" })
    push.publish(s, "other", "m6", 6)
    assert.equal("m6", c.chunk())
  end)

  it("says so if too much was missed", function()
    local s = start()
    for id = 1, 5 do push.publish(s, "news", "m" .. id, id) end
    for _, last in ipairs { "1", "unknown", ("x"):rep(5000) } do
      local c = push.open(s, "/", { headers = "Last-Event-ID: " .. last .. "\r\n" })
      assert.equal("GAP", c.chunk())
      push.publish(s, "news", "next")
      assert.equal("next", c.chunk())
      c:close()
      push.wait_held(s, 0)
      for id = 1, 5 do push.publish(s, "news", "m" .. id, id) end
    end
  end)

  it("completes a response that is held once at once", function()
    local s = start()
    push.publish(s, "news", "m1", 1)
    push.publish(s, "news", "m2", 2)
    local response = s:request { target = "/?once=1", headers = { ["Last-Event-ID"] = "1" } }
    assert.equal("m2", response.body)
  end)
end)

describe("misuse of held responses", function()
  after_each(server.cleanup)

  -- What the log says of a handler.
  local function failure(handler)
    local s = push.start { handler = handler }
    assert.equal(500, s:request("/").status)
    local text
    assert(process.wait_until(function()
      text = s:log():match("Error in \"connect\" function[^\n]*\n?[^\n]*")
      return text
    end))
    server.cleanup()
    return text
  end

  it("is told", function()
    for handler, expected in pairs {
      [ [[request:hold()]] ] = "hold expects a table of options, not nothing",
      [ [[request:hold { topics = {} }]] ] = "there must be 1 to 100 topics",
      [ [[request:hold { topics = "" }]] ] = "must have 1 to 255 bytes, not 0",
      [ [[request:hold { topics = "a", topic = "b" }]] ] =
        'Unknown option "topic" of hold; did you mean "topics"?',
      [ [[request:hold { topics = { 1 } }]] ] =
        'Option "topics" of hold must be a name, or a list of names, not a number',
      [ [[request:hold { topics = "a", heartbeat = 5 }]] ] =
        'Option "heartbeat" of hold must be { seconds, text }',
      [ [[request:hold { topics = "a", overflow = "x" }]] ] = 'must be "close" or "drop_oldest", not "x"',
      [ [[request:hold { topics = "a", otherwise = "204 x" }]] ] = '"otherwise" needs "once"',
      [ [[request:hold { topics = "a" }]] ] = "HTTP status has not been sent yet",
      [ [[request:send_status "204 No Content" request:hold { topics = "a" }]] ] =
        "status has no body cannot be held",
      [ [[request:send_status "200 OK"
          request:send_header("Content-Length", 5)
          request:hold { topics = "a" }]] ] =
        "A response with a Content-Length cannot be held",
      [ [[moonbridge.publish("", "x")]] ] = "the name of a topic must have 1 to 255 bytes, not 0",
      [ [[moonbridge.publish(nil, "x")]] ] = "the name of a topic must be a string, not nil",
      [ [[moonbridge.publish("a")]] ] = "publish expects a message as a string, not nothing",
      [ [[moonbridge.publish("a", "b", { i = 1 })]] ] = 'Unknown option "i" of publish',
      [ [[moonbridge.topic("a", { history = 1 })]] ] = "topics are declared before",
    } do
      local text = failure(handler)
      assert.truthy(text:find(expected, 1, true), handler .. ": " .. text)
    end
  end)

  it("leaves the response as it was", function()
    local s = push.start { handler = [[
      local ok, text = pcall(request.hold, request, { topics = "a", once = true, otherwise = "soon" })
      assert(not ok and text:find("three digits", 1, true), text)
      ok, text = pcall(request.hold, request, { topics = "a", once = true, otherwise = "100 Continue" })
      assert(not ok and text:find("final status", 1, true), text)
      ok, text = pcall(request.hold, request, { topics = {}, once = true })
      assert(not ok, text)
      request:send("503 Service Unavailable", "text/plain", "told")
      return true
    ]] }
    local response = s:request("/")
    assert.same({ 503, "told" }, { response.status, response.body })
  end)

  it("is told after hold, and the response goes on", function()
    local s = push.start { handler = [[
      request:send_status "200 OK"
      request:hold { topics = "news" }
      local texts = {}
      for _, call in ipairs {
        function() request:send_data "x" end, function() request:hold { topics = "a" } end,
        function() request:send_status "200 OK" end, function() request:finish() end,
      } do texts[#texts + 1] = select(2, pcall(call)) end
      moonbridge.publish("errors", table.concat(texts, "\n"))
      return true
    ]], before = [[moonbridge.topic("errors", { history = 1 })]] }
    local c = push.open(s)
    push.publish(s, "news", "x")
    assert.equal("x", c.chunk())
  end)

  it("is told after finish", function()
    local s = push.start { handler = [[
      request:send("200 OK", "text/plain", "done")
      request:finish()
      local _, text = pcall(request.hold, request, { topics = "a" })
      io.stderr:write(text, "\n")
      return true
    ]] }
    assert.equal("done", s:request("/").body)
    assert.truthy(process.wait_until(function()
      return s:log():find("Response has already been finished")
    end))
  end)

  it("outside of a server gets an answer", function()
    local code, output = server.run_script [[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge.http"
      print(moonbridge.publish("a", "b"))
      print(moonbridge.subscribers("a"))
      print(select(2, pcall(moonbridge.topic, "a", { history = -1 })))
    ]]
    assert.equal(0, code)
    assert.truthy(output:find("^nil\tNo server runs in this process\tnil\nnil\tNo server"), output)
    assert.truthy(output:find('Option "history" of topic must be a number of messages'))
  end)
end)
