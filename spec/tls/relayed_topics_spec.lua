-- WebSockets over TLS 1.2 hear topics, too: the worker has the keys and passes on what the push process says.

local certificates = require "spec.support.certificates"
local client = require "spec.support.client"
local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"
local websocket = require "spec.support.websocket"

local PING, PONG = websocket.PING, websocket.PONG

local APP = websocket.ROOM .. [[
  function options.open(ws, request)
    ws.state = request.get_params.name
    ws:subscribe("room")
    ws:subscribe(ws.state)
    ws:send("welcome")
  end
  local chat = http.websocket(options)
]]

describe("a WebSocket over TLS 1.2 that hears topics", function()
  local s, flag, bridge, port

  after_each(function()
    if bridge then bridge:destroy() end
    server.cleanup()
  end)

  local function start(options, websocket_options)
    options = options or {}
    local localhost, authority = certificates.signed()
    flag = process.scratch("flag")
    local globals = ("local FLAG, OPTIONS = %q, %q\n"):format(flag, websocket_options or "{}")
    options.tls, options.before = localhost, globals .. APP
    options.handler = [[
      if request.path == "chat" then return chat(request) end
      if request.path == "leave" then
        request:send("200 OK", "text/plain", "leaving")
        return false
      end
    ]]
    s = push.start(options)
    local script = server.root .. "/spec/support/tls_bridge.py"
    bridge = process.start { "python3", "-u", script, tostring(s.tls_port), authority.certificate,
      options.buffer and tostring(options.buffer) }
    bridge:expect_output("\n")
    port = tonumber(bridge:output())
  end

  local function connect(name, options)
    local before = push.status(s).held
    local peer = { connect = function() return client.connect(port, "127.0.0.1", options) end }
    local ws = websocket.connect(peer, "/chat?name=" .. name)
    assert.equal("welcome", ws:text())
    push.wait_held(s, before + 1)
    return ws
  end

  local function closed(ws, code)
    local opcode, payload = ws:receive()
    assert.equal(websocket.CLOSE, opcode)
    ws:frame(websocket.CLOSE, payload)
    assert.equal(code, (string.unpack(">I2", payload)))
    ws:close()
  end

  it("gets what others say, between its own events and with its state", function()
    start()
    local one, other = connect "one", connect "other"
    for round = 1, 20 do
      one:send("say " .. round)
      assert.equal(tostring(round), one:text())
      assert.equal(tostring(round), other:text())
      assert.equal("one", one:ask("state"))
      assert.equal("echo", other:ask("echo"))
    end
    push.publish(s, "room", "%ff")
    for _, ws in ipairs { one, other } do assert.same({ websocket.BINARY, "\xff" }, { ws:receive() }) end
    push.get(s, "/publish?topic=room&message=x&size=1000000")
    assert.equal(1000000, #other:text())
    assert.equal("echo", other:ask("echo"))
  end)

  it("misses nothing that is published when it has the answer of a subscription", function()
    start()
    local one, other = connect "one", connect "other"
    for round = 1, 20 do
      assert.equal("left", one:ask("leave"))
      assert.equal("joined", one:ask("join"))
      other:send("say " .. round)
      assert.equal(tostring(round), one:text())
      assert.equal(tostring(round), other:text())
    end
  end)

  it("gets what is published while a handler has it after the handler's answer", function()
    start()
    local ws = connect "one"
    ws:send("busy")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    for index = 1, 5 do push.publish(s, "room", index) end
    os.remove(flag)
    assert.equal("done", ws:text())
    for index = 1, 5 do assert.equal(tostring(index), ws:text()) end
  end)

  it("gets what was published before it left, and nothing afterwards", function()
    start()
    local ws = connect "one"
    assert(ws.raw:send(websocket.frame(1, "say early") .. websocket.frame(1, "leave")))
    assert.equal("left", ws:text())
    assert.equal("early", ws:text())
    assert.truthy(process.wait_until(function() return push.subscribers(s, "room") == 0 end))
    push.publish(s, "room", "lost")
    assert.equal("echo", ws:ask("echo"))
    push.publish(s, "one", "own")
    assert.equal("own", ws:text())
  end)

  it("gets the rest of a message whose beginning has come", function()
    start()
    local ws = connect "one"
    local bytes = websocket.frame(1, "in pieces")
    assert(ws.raw:send(bytes:sub(1, 9)))
    push.publish(s, "room", "meanwhile")
    assert(ws.raw:send(bytes:sub(10)))
    local texts = { ws:text(), ws:text() }
    table.sort(texts)
    assert.same({ "in pieces", "meanwhile" }, texts)
  end)

  it("is forgotten when it ends, whichever side ends it", function()
    start { workers = 1 }
    local pid = tonumber(push.get(s, "/pid"):match("%d+$"))
    local function descriptors() return select(2, process.run(("ls /proc/%d/fd | wc -l"):format(pid))) end
    local before = descriptors()
    local one, two, three = connect "one", connect "two", connect "three"
    one:frame(websocket.CLOSE, websocket.reason(1000, "done"))
    closed(one, 1000)
    assert.truthy(s:wait_log 'closed 1000 "done" one')
    two:send("bye")
    closed(two, 4001)
    three:close()
    assert.truthy(s:wait_log 'closed 1006 "" three')
    push.wait_held(s, 0)
    assert.equal(0, push.subscribers(s, "room"))
    assert.truthy(process.wait_until(function() return descriptors() == before end))
  end)

  it("is pinged, and is lost if it does not answer", function()
    start(nil, "{ heartbeat = 0.3 }")
    local ws = connect "lost"
    for _ = 1, 4 do
      assert.equal(PING, (ws:receive()))
      assert(ws:frame(PONG, ""))
    end
    push.publish(s, "room", "still")
    local opcode, payload
    repeat
      opcode, payload = ws:receive()
      if opcode == PING then ws:frame(PONG, "") end
    until opcode ~= PING
    assert.equal("still", payload)
    repeat opcode = ws:receive() until opcode ~= PING
    assert.is_nil(opcode)
    assert.truthy(s:wait_log 'closed 1006 "" lost')
    push.wait_held(s, 0)
  end)

  it("ends when its client says nothing for too long", function()
    start(nil, "{ heartbeat = 0.2, timeout = 0.7 }")
    local ws = connect "quiet"
    local opcode, payload = ws:receive()
    while opcode == PING do
      assert(ws:frame(PONG, ""))
      opcode, payload = ws:receive()
    end
    assert.same({ websocket.CLOSE, 1001 }, { opcode, (string.unpack(">I2", payload)) })
    assert.truthy(s:wait_log 'closed 1001 "nothing was sent for too long" quiet')
  end)

  it("is closed with its worker: at a shutdown, at a reload and otherwise", function()
    start { workers = 1 }
    local ws = connect "one"
    assert.equal("leaving", push.get(s, "/leave"))
    closed(ws, 1001)
    assert.truthy(s:wait_log 'closed 1001 .* one\n')
    ws = connect "two"
    assert.equal("true", push.get(s, "/reload"))
    closed(ws, 1001)
    assert.truthy(s:wait_log 'closed 1001 .* two\n')
    ws = connect "three"
    s:signal("TERM")
    closed(ws, 1001)
    assert.equal(0, s:wait())
    assert.truthy(s:log():find('closed 1001 .* three\n'))
  end)

  it("is lost if the push process is killed, or its client is slow, which its handler is told", function()
    start { buffer = 4096 }
    local one = connect "one"
    process.kill(push.process(s), "KILL")
    assert.is_nil((one:receive()))
    assert.truthy(s:wait_log 'closed 1006 "" one')
    push.wait_held(s, 0)
    local slow = connect("slow", { receive_buffer = 4096 })
    for _ = 1, 3 do push.get(s, "/publish?topic=slow&message=x&size=8000000") end
    assert.truthy(s:wait_log 'closed 1006 "" slow')
    slow:close()
    push.wait_held(s, 0)
  end)

  it("ends with its worker if that is killed", function()
    start { workers = 1 }
    local ws = connect "one"
    process.kill(math.tointeger(tonumber(push.get(s, "/pid"):match("%d+$"))), "KILL")
    assert.is_nil((ws:receive()))
    push.wait_held(s, 0)
  end)
end)
