-- http.websocket_connect: against this server, Python's `websockets`, Node's `ws`, and servers that do wrong.

local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"
local websocket = require "spec.support.websocket"

local APP = [[
  local moonbridge, http = require "moonbridge", require "moonbridge.http"
  local echo = http.websocket {
    compress = true, protocols = { "b", "a" },
    message = function(ws, text, kind)
      if text == "close" then return ws:close(4002, "enough") end
      if text == "later" then moonbridge.io.poll(nil, nil, 0.1) end
      ws:send(text, kind)
    end,
  }
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT }, pre_fork = 1, min_fork = 1, max_fork = 1,
    connect = http.generate_handler(echo),
  }
  moonbridge.run()
]]

-- Starts a peer of spec/support; returns its process and its URL.
local function peer(command, mode)
  local port = server.free_port()
  local argv = { "/bin/sh", "-c", ("exec %s %s %d"):format(command, mode, port) }
  local p = process.start(argv, {})
  p:wait_log "listening"
  return p, ("ws://127.0.0.1:%d/"):format(port)
end

local PYTHON = "/usr/bin/python3 spec/support/websocket_peer.py"
local NODE = "env NODE_PATH=/usr/share/nodejs node spec/support/websocket_peer.js"

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

describe("a WebSocket client", function()
  after_each(server.cleanup)

  local function converse(url)
    for _, compress in ipairs { false, true } do
      local ws = assert(http.websocket_connect(url, { compress = compress }))
      for _, size in ipairs { 0, 1, 125, 126, 65535, 65536, 1000000 } do
        assert(ws:send(("\0"):rep(size), "binary"))
        local text, kind = ws:receive(10)
        assert.same({ size, "binary" }, { text and #text, kind })
        assert(ws:send(("\u{e4}"):rep(size // 2)))
        text, kind = ws:receive(10)
        assert.same({ "text", true }, { kind, text == ("\u{e4}"):rep(size // 2) })
      end
      assert.is_true(ws:ping("there?"))
      assert(ws:send("after"))
      assert.equal("after", (ws:receive(10)))
      assert.is_true(ws:close(1000, "done"))
      assert.same({ nil, "WebSocket is closed" }, { ws:send("more") })
    end
  end

  it("talks to this server", function()
    local s = server.start { script = APP }
    local url = ("ws://127.0.0.1:%d/"):format(s.port)
    converse(url)
    local ws = assert(http.websocket_connect(url, { protocols = { "x", "a" }, headers = { ["X-Y"] = "z" } }))
    assert.equal("a", ws.protocol)
    assert(ws:send("close"))
    assert.same({ nil, "enough", 4002 }, { ws:receive() })
    assert.is_true(ws:close())
  end)

  it("talks to Python's websockets", function()
    local _, url = peer(PYTHON, "echo")
    converse(url)
    local ws = assert(http.websocket_connect(url, { compress = true, protocols = { "a" } }))
    assert.equal("a", ws.protocol)
    assert(ws:send("long"))
    assert.equal(("part"):rep(1000), (ws:receive(10)))
    assert(ws:send("close"))
    assert.same({ nil, "enough", 4002 }, { ws:receive(10) })
  end)

  it("talks to Node's ws", function()
    local _, url = peer(NODE, "echo")
    converse(url)
  end)

  it("says why a handshake failed", function()
    local s = server.start { script = APP }
    local url = ("ws://127.0.0.1:%d/"):format(s.port)
    local ws, message, status = http.websocket_connect(url, { origin = "http://evil.example" })
    assert.same({ nil, "the server does not accept a WebSocket: HTTP/1.1 403 Forbidden", 403 },
      { ws, message, status })
    assert.same({ nil, "Connection refused" }, { http.websocket_connect("ws://127.0.0.1:1/") })
    assert.same({ nil, "header Upgrade is the WebSocket's own" },
      { http.websocket_connect(url, { headers = { Upgrade = "x" } }) })
    local _, raw = peer(PYTHON, "raw")
    for answer, text in pairs {
      ["HTTP/1.1 101 X\r\n\r\n"] = "the server does not upgrade to a WebSocket",
      ["HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"]
        = "the server has not answered the key of the WebSocket",
    } do
      assert.same({ nil, text }, { http.websocket_connect(raw .. "=" .. hex(answer)) })
    end
  end)

  it("closes with the code that says what its server has done wrong", function()
    local frame, reason = websocket.frame, websocket.reason
    local p, url = peer(PYTHON, "raw")
    local plain = { key = false }
    local seen = {}
    for _, case in ipairs {
      { frame(1, "x"), 1002 },
      { frame(1, "\xff", plain), 1007 },
      { frame(3, "", plain), 1002 },
      { frame(2, ("x"):rep(11), plain), 1009 },
      { frame(1, "x", { key = false, reserved = 0x40 }), 1002 },
      { frame(8, reason(1000, "bye"), plain), 1000 },
    } do
      local ws = assert(http.websocket_connect(url .. hex(case[1]), { message_limit = 10 }))
      local text, _, code = ws:receive(10)
      assert.same({ nil, case[2] }, { text, code })
      seen[case[2]] = (seen[case[2]] or 0) + 1
      local said = "received 88:" .. hex(string.pack(">I2", case[2])) .. "%x*\n"
      assert.truthy(p:wait_log(said, nil, seen[case[2]]))
    end
  end)

  it("answers pings, and tells the end of a server that is gone", function()
    local frame = websocket.frame
    local p, url = peer(PYTHON, "raw")
    local ws = assert(http.websocket_connect(url .. hex(frame(9, "?", { key = false }))))
    assert.same({ nil, "timeout" }, { ws:receive(0.2) })
    ws:close()
    assert.truthy(p:wait_log "received 8a:3f 88:03e8\n")
    ws = assert(http.websocket_connect(url .. hex(frame(1, "x", { key = false })) .. "/end"))
    assert.equal("x", (ws:receive(10)))
    assert.same({ nil, "connection closed", 1006 }, { ws:receive(10) })
  end)

  it("waits by functions of the caller's, or not at all", function()
    local s = server.start { script = APP }
    local url = ("ws://127.0.0.1:%d/"):format(s.port)
    local waits = 0
    local function wait(handle, mode)
      waits = waits + 1
      local set = { [handle] = true }
      moonbridge_io.poll(mode == "r" and set or nil, mode == "w" and set or nil)
    end
    local ws = assert(http.websocket_connect_call(wait, url))
    assert(ws:send_call(wait, "one"))
    assert.equal("one", (ws:receive_call(wait)))
    -- An answer may be there at once, where this process is slow.
    assert.truthy(process.wait_until(function()
      assert(ws:send_call(wait, "later"))
      assert.equal("later", (ws:receive_call(wait)))
      return waits > 0
    end))
    assert.same({ nil, "block" }, { ws:receive_nb() })
    assert.equal(0, ws:send_nb("two"))
    moonbridge_io.poll { [ws.socket] = true }
    assert.same({ "two", "text" }, { ws:receive_nb() })
    ws:close_call(wait)
    local thread = coroutine.wrap(function()
      local other = assert(http.websocket_connect_yield(url))
      assert(other:send_yield("three"))
      local text = other:receive_yield()
      other:close_yield()
      return "done", text
    end)
    local results = { thread() }
    while results[1] ~= "done" do
      wait(results[1], results[2])
      results = { thread() }
    end
    assert.equal("three", results[2])
  end)

  it("refuses misuse at the caller's position", function()
    for text, call in pairs {
      ["URL expected, got nil"] = function() http.websocket_connect() end,
      ["unknown option 'protocol'; did you mean 'protocols'?"] =
        function() http.websocket_connect("ws://x/", { protocol = "a" }) end,
      ["option 'timeout' is expected to be a positive number of seconds, got string"] =
        function() http.websocket_connect("ws://x/", { timeout = "1" }) end,
      ["option 'protocols' is expected to be a list of subprotocols, got table"] =
        function() http.websocket_connect("ws://x/", { protocols = { chat = true, a = "b" } }) end,
    } do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
      assert.truthy(message:find("client_spec.lua:%d+: "), message)
    end
  end)
end)
