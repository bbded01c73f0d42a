-- http.websocket: the handshake, messages, what a client must not do, and what becomes of a connection whose
-- handler, worker or server ends.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local websocket = require "spec.support.websocket"

local frame, reason = websocket.frame, websocket.reason
local TEXT, BINARY, CONTINUATION = websocket.TEXT, websocket.BINARY, websocket.CONTINUATION
local CLOSE, PING, PONG = websocket.CLOSE, websocket.PING, websocket.PONG

-- Echoes; some texts are orders.
local APP = websocket.APP .. [[
  function orders.fail() error("on purpose") end
  function orders.protocol(ws) ws:send(tostring(ws.protocol)) end
  function orders.more(ws) ws:send(("x"):rep(65536)) end
  function orders.bye(ws)
    ws:send("last")
    ws:close(4001, "bye")
    ws:send("never")
  end
  function options.open(ws, request)
    ws.state = request.get_params.state
    if request.get_params.fail then error("not today") end
    if request.get_params.bye then ws:close(4401, "who are you?") end
    if request.get_params.greets then ws:send("hello " .. request.get_params.greets) end
  end
  function options.message(ws, text, kind)
    local value = text:match("^state=(.*)")
    if value then ws.state = value end
    local order = orders[text]
    if order then return order(ws) end
    ws:send(text, kind)
  end
  local tell = options.close
  function options.close(ws, ...)
    if ws.state == "deadly" then os.execute("kill -9 $PPID") end
    tell(ws, ...)
  end
  local echo = http.websocket(options)
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    pre_fork = WORKERS or 1, min_fork = WORKERS or 1, max_fork = WORKERS or 1,
    connect = http.generate_handler(function(request)
      if request.path == "plain" then
        request:send_status("200 OK")
        request:send_data(moonbridge.io.getpid())
        return true
      end
      if request.path == "late" then
        echo(request)
        error("too late")
      end
      return echo(request)
    end, { stall_timeout = STALL }),
  }
  moonbridge.run { hangup = "reload" }
]]

describe("a WebSocket", function()
  local s, flag
  after_each(server.cleanup)

  local function start(options, globals)
    flag = process.scratch("flag")
    globals = globals or {}
    globals.OPTIONS, globals.FLAG = options, flag
    s = server.start { script = APP, globals = globals }
    return s
  end

  local function connect(path, headers) return websocket.connect(s, path, headers) end

  describe("is refused", function()
    local function refusal(headers, path, body)
      local c = s:connect()
      assert(c:send(websocket.request(path or "/", headers) .. (body or "")))
      return c:response()
    end

    it("to a request that does not ask for it, in the proper way", function()
      start()
      local response = refusal { Upgrade = false }
      assert.equal(426, response.status)
      assert.equal("websocket", response.headers.upgrade)
      assert.equal("13", response.headers["sec-websocket-version"])
      assert.equal(426, refusal({ Connection = "keep-alive" }).status)
      response = refusal { ["Sec-WebSocket-Version"] = "8" }
      assert.same({ 426, "13" }, { response.status, response.headers["sec-websocket-version"] })
      assert.equal(400, refusal({ ["Sec-WebSocket-Key"] = "short" }).status)
      assert.equal(400, refusal({ ["Sec-WebSocket-Key"] = false }).status)
    end)

    it("to a request with a body, and the worker stays", function()
      start()
      local pid = s:request("/plain").body
      assert.equal(400, refusal({ ["Content-Length"] = "5" }, "/", "hello").status)
      assert.equal(400, refusal({ ["Transfer-Encoding"] = "chunked" }, "/", "0\r\n\r\n").status)
      assert.equal(pid, s:request("/plain").body)
      connect("/", { ["Content-Length"] = "0" })
    end)

    it("to pages of other hosts", function()
      start()
      assert.equal(403, refusal({ Origin = "http://evil.example" }).status)
      connect("/", { Origin = "http://x" })
      connect("/", { Origin = "https://X:443" })
      s:stop()
      start '{ origins = { "https://friend.example" } }'
      assert.equal(403, refusal({ Origin = "http://x" }).status)
      connect("/", { Origin = "https://friend.example" })
    end)

    it("and the connection is as before", function()
      start()
      local c = s:connect()
      assert(c:send(websocket.request("/", { Upgrade = false })))
      assert.equal(426, c:response().status)
      assert.equal(200, c:request("/plain").status)
    end)
  end)

  it("answers the key, and agrees on a subprotocol", function()
    start '{ protocols = { "b", "a" } }'
    local ws, head = connect("/", { ["Sec-WebSocket-Protocol"] = "a, b" })
    assert.truthy(head:find("\r\nSec-WebSocket-Accept: " .. websocket.ACCEPT .. "\r\n", 1, true))
    assert.truthy(head:find("\r\nSec-WebSocket-Protocol: b\r\n", 1, true))
    assert.falsy(head:find("Extensions", 1, true))
    assert.equal("b", ws:ask("protocol"))
    ws, head = connect("/", { ["Sec-WebSocket-Protocol"] = "c" })
    assert.falsy(head:find("Sec-WebSocket-Protocol", 1, true))
    assert.equal("nil", ws:ask("protocol"))
  end)

  it("sends what its open function says after the handshake", function()
    start()
    local ws = connect "/?greets=you"
    assert.equal("hello you", ws:text())
  end)

  it("gets messages as they were sent, with frames that come with the handshake", function()
    start()
    local raw = s:connect()
    raw:send(websocket.request("/") .. frame(TEXT, "early") .. frame(BINARY, "\0\xff"))
    assert(raw:read_when(function(buffer) return select(2, buffer:find("\r\n\r\n", 1, true)) end))
    local ws = setmetatable({ raw = raw }, getmetatable(connect("/")))
    assert.equal("early", ws:text())
    assert.same({ BINARY, "\0\xff" }, { ws:receive() })
    for _, size in ipairs { 0, 125, 126, 65535, 65536, 300000 } do
      assert(ws:frame(BINARY, ("\0"):rep(size)))
      local opcode, payload = ws:receive()
      assert.same({ BINARY, size }, { opcode, #payload })
    end
  end)

  it("is assembled from fragments, with pings in between, in pieces of any size", function()
    start()
    local ws = connect "/"
    local bytes = frame(TEXT, "a\xc3", { last = false }) .. frame(PING, "p")
      .. frame(CONTINUATION, "", { last = false }) .. frame(CONTINUATION, "\xa4") .. frame(TEXT, "next")
    for _, size in ipairs { #bytes, 1, 7 } do
      ws.raw:dribble(bytes, size, size < #bytes and 0.002)
      assert.same({ PONG, "p" }, { ws:receive() })
      assert.equal("a\u{e4}", ws:text())
      assert.equal("next", ws:text())
    end
  end)

  it("keeps half a message while others are served, and while its worker is busy", function()
    start(nil, { WORKERS = 2 })
    local ws = connect "/?state=kept"
    assert(ws:frame(TEXT, "one ", { last = false }))
    assert(ws.raw:send(frame(CONTINUATION, "two"):sub(1, 4)))
    local busy = connect "/"
    busy:send("busy")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    socket.sleep(0.1)
    assert(ws.raw:send(frame(CONTINUATION, "two"):sub(5)))
    assert.equal("one two", ws:text())
    assert.equal("kept", ws:ask("state"))
    os.remove(flag)
    assert.equal("done", busy:text())
  end)

  it("answers many frames of a packet in order", function()
    start()
    local ws, all = connect("/"), {}
    for index = 1, 500 do all[index] = frame(TEXT, tostring(index)) end
    assert(ws.raw:send(table.concat(all)))
    for index = 1, 500 do assert.equal(tostring(index), ws:text()) end
  end)

  it("bears floods of pings, and of fragments without content, which others do not notice", function()
    start()
    local flood, other = connect "/", connect "/"
    local pings = frame(PING, "x"):rep(500)
    for _ = 1, 40 do assert(flood.raw:send(pings)) end
    assert.equal("still served", other:ask("still served"))
    for _ = 1, 20000 do assert.equal(PONG, (flood:receive())) end
    assert(flood:frame(TEXT, "begun", { last = false }))
    local fragments = frame(CONTINUATION, "", { last = false }):rep(500)
    for _ = 1, 40 do assert(flood.raw:send(fragments)) end
    assert.equal("still served", other:ask("still served"))
    assert(flood:frame(CONTINUATION, " and ended"))
    assert.equal("begun and ended", flood:text())
  end)

  describe("is closed", function()
    it("by its client, who gets the same code", function()
      start()
      local ws = connect "/?state=s"
      assert(ws:frame(CLOSE, reason(1000, "done")))
      assert.equal(1000, (ws:closing()))
      assert.truthy(s:wait_log('closed 1000 "done" s'))
      ws = connect "/"
      assert(ws:frame(CLOSE, ""))
      assert.is_nil((ws:closing()))
      assert.truthy(s:wait_log('closed 1005 ""'))
    end)

    it("by its handler, after what that has sent", function()
      start()
      local ws = connect "/"
      assert.equal("last", ws:ask("bye"))
      assert.same({ 4001, "bye" }, { ws:closing() })
      assert.truthy(s:wait_log('closed 4001 "bye"'))
    end)

    it("by a client that is gone", function()
      start()
      local ws = connect "/?state=gone"
      ws:close()
      assert.truthy(s:wait_log('closed 1006 "" gone'))
    end)

    it("by a client that takes nothing, or is gone before it has taken all", function()
      for stall, ends in pairs { [0.3] = false, [60] = true } do
        start(nil, { STALL = stall })
        local ws = connect "/?state=slow"
        for _ = 1, 200 do
          if not ws:frame(TEXT, "more") then break end -- it was reset already
          socket.sleep(0.002)
        end
        if ends then ws:close() end
        assert.truthy(s:wait_log('closed 1006 "" slow'))
        assert.equal("still served", connect("/"):ask("still served"))
        s:stop()
      end
    end)

    it("with the code that says what was wrong", function()
      start '{ message_limit = 1000 }'
      for _, case in ipairs {
        { 1002, frame(TEXT, "x", { key = false }) },
        { 1002, frame(TEXT, "x", { reserved = 0x40 }) },
        { 1002, frame(TEXT, "x", { reserved = 0x20 }) },
        { 1002, frame(3, "x") },
        { 1002, frame(11, "x") },
        { 1002, frame(CONTINUATION, "x") },
        { 1002, frame(TEXT, "x", { last = false }) .. frame(TEXT, "y") },
        { 1002, frame(PING, "x", { last = false }) },
        { 1002, frame(PING, ("x"):rep(126)) },
        { 1002, frame(CLOSE, "x") },
        { 1002, frame(CLOSE, reason(1005)) },
        { 1007, frame(TEXT, "\xff") },
        { 1007, frame(TEXT, "\xc3", { last = false }) .. frame(CONTINUATION, "x") },
        { 1007, frame(CLOSE, reason(1000, "\xff")) },
        { 1009, frame(BINARY, ("\0"):rep(1001)) },
        { 1009, frame(BINARY, "", { length = 1 << 40 }) },
        { 1009, frame(TEXT, ("x"):rep(600), { last = false }) .. frame(CONTINUATION, ("x"):rep(401)) },
      } do
        local ws = connect "/"
        assert(ws.raw:send(case[2]))
        assert.equal(case[1], (ws:closing()))
      end
      assert.equal("still here", connect("/"):ask("still here"))
    end)

    it("with 1011 if a handler fails, which the log tells; others go on", function()
      start(nil, { WORKERS = 2 })
      local other = connect "/?state=other"
      local ws = connect "/?state=s"
      ws:send("fail")
      assert.equal(1011, (ws:closing()))
      assert.truthy(s:wait_log('GET /%?state=s %[%x+%]: .*on purpose'))
      assert.truthy(s:log():find('closed 1011 "" s', 1, true))
      assert.equal("other", other:ask("state"))
      local failed = connect "/?state=f&fail=1"
      assert.equal(1011, (failed:closing()))
      assert.truthy(s:wait_log("not today"))
      assert.truthy(s:log():find('closed 1011 "" f', 1, true))
      local place = s:log():match("(%S+:%d+): not today"):gsub("%p", "%%%0")
      assert.truthy(s:wait_log(place .. ": in "))
    end)

    it("with 1011 if the HTTP handler fails after the handshake", function()
      start()
      local ws = connect "/late?state=l&greets=you"
      assert.equal("hello you", ws:text())
      assert.equal(1011, (ws:closing()))
      assert.truthy(s:wait_log("GET /late%?state=l&greets=you %[%x+%]: .*too late"))
      assert.truthy(s:log():find('closed 1011 "" l\n', 1, true))
      assert.equal("still served", connect("/"):ask("still served"))
    end)

    it("by its open function, without waiting for the client's answer", function()
      start()
      local ws = connect "/?state=s&bye=1"
      assert.same({ 4401, "who are you?" }, { ws:closing() })
      assert.truthy(s:wait_log('closed 4401 "who are you%?" s'))
    end)

    it("at a shutdown", function()
      start()
      local ws = connect "/?state=s"
      assert.equal("hello", ws:ask("hello"))
      s:signal("TERM")
      assert.equal(1001, (ws:closing()))
      assert.equal(0, s:wait())
      assert.truthy(s:log():find('closed 1001 .* s\n'))
    end)
  end)

  it("is pinged when it is quiet, and is lost if it does not answer", function()
    start "{ heartbeat = 1.5 }"
    local ws = connect "/?state=s"
    ws:fall_silent()
    assert.truthy(s:wait_log('closed 1006 "" s'))
  end)

  it("ends when nothing is sent for too long, though pings are answered", function()
    start "{ heartbeat = 1.5, timeout = 2.5 }"
    assert.equal(1001, connect "/":keep_silent())
  end)

  it("goes on in another worker when its own is killed, with its state", function()
    start(nil, { WORKERS = 2 })
    local ws = connect "/?state=first"
    local pid = ws:ask("pid")
    assert.equal("state=second", ws:ask("state=second"))
    process.wait_asleep(pid)
    process.kill(tonumber(pid), "KILL")
    assert.equal("second", ws:ask("state"))
    assert.not_equal(pid, ws:ask("pid"))
  end)

  it("is closed if its worker is killed in an event, and another one tells the handler once", function()
    start(nil, { WORKERS = 2 })
    local ws = connect "/?state=mine"
    local pid = ws:ask("pid")
    process.wait_asleep(pid)
    ws:send("busy")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    process.kill(tonumber(pid), "KILL")
    assert.is_nil((ws:receive()))
    assert.truthy(s:wait_log('closed 1006 "" mine'))
    os.remove(flag)
    assert.equal("other", connect("/?state=other"):ask("state"))
    s:stop()
    assert.equal(1, select(2, s:log():gsub('closed %d+ "" mine', "")))
  end)

  it("has its close function called once more if that has killed the worker", function()
    start(nil, { WORKERS = 2 })
    local ws = connect "/?state=deadly"
    assert.equal("deadly", ws:ask("state"))
    process.wait_asleep(ws:ask("pid"))
    ws:close()
    assert.truthy(s:wait_log("died from signal 9", nil, 2))
    assert.equal("other", connect("/?state=other"):ask("state"))
    s:stop()
    assert.equal(2, select(2, s:log():gsub("died from signal 9", "")))
  end)

  it("goes on in another worker while its own is busy, also after it was cold", function()
    start(nil, { WORKERS = 2 })
    local ws = connect "/?state=mine"
    local pid = ws:ask("pid")
    local busy
    repeat
      busy = connect "/"
      busy.pid = busy:ask("pid")
    until busy.pid == pid
    busy:send("busy")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    assert.equal("mine", ws:ask("state"))
    assert.not_equal(pid, ws:ask("pid"))
    os.remove(flag)
    socket.sleep(1.3)
    assert.equal("mine", ws:ask("state"))
  end)

  it("goes on in the next generation", function()
    start(nil, { WORKERS = 2 })
    local ws = connect "/?state=kept"
    local pid = ws:ask("pid")
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload.* complete"))
    assert.equal("kept", ws:ask("state"))
    assert.not_equal(pid, ws:ask("pid"))
  end)

  it("refuses misuse with clear errors", function()
    local function message(code)
      return select(2, process.run(([[cd %s && LUA_PATH="lua/?.lua;;" LUA_CPATH="build/lua%s/?.so;;" ]]
        .. [[%s -e 'http = require "moonbridge.http" print(select(2, pcall(function() %s end)))']]):format(
        server.root, server.lua_version, server.interpreter, code)))
    end
    for code, text in pairs {
      ["http.websocket()"] = "table of options expected, got nil",
      ["http.websocket{ mesage = print }"] = 'Unknown option "mesage" of websocket; did you mean "message"?',
      ["http.websocket{ open = 1 }"] = 'Option "open" of websocket is expected to be a function',
      ["http.websocket{ message_limit = 0 }"] = "at least 1",
      ["http.websocket{ protocols = { \"a b\" } }"] = "a list of subprotocols",
      ["http.websocket{ origins = { \"example.com\" } }"] = "a list of origins",
      ["http.websocket{ heartbeat = -1 }"] = "a positive number of seconds, or false",
      ["for _ = 1, 2 do http.websocket{ name = \"a\" } end"] = "with the name \"a\" already",
      ["http.websocket{}({})"] = "with the request that is being handled",
    } do
      local said = message(code)
      assert.truthy(said:find(text, 1, true), code .. ": " .. said)
      assert.truthy(said:find('^%(command line%):1: '), said)
    end
  end)
end)
