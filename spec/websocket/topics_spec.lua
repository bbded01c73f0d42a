-- WebSockets that hear topics: what is published reaches them whichever process has them.

local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"
local websocket = require "spec.support.websocket"

local CLOSE, BINARY = websocket.CLOSE, websocket.BINARY

local APP = websocket.ROOM .. [[
  function options.open(ws, request)
    ws.state = request.get_params.state
    ws:subscribe("room")
    ws:send("welcome")
  end
  local chat = http.websocket(options)
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT }, pre_fork = 2, min_fork = 2, max_fork = 2,
    connect = http.generate_handler(function(request)
      if request.path == "say" then
        local get = request.get_params
        assert(moonbridge.publish("room", get.text:rep(tonumber(get.size or 1))))
        request:send("200 OK", "text/plain", "said\n")
        return true
      end
      if request.path == "held" then
        request:send("200 OK", "text/plain", tostring(moonbridge.status().push.held))
        return true
      end
      if request.path == "count" then
        request:send("200 OK", "text/plain", tostring(moonbridge.subscribers("room")))
        return true
      end
      return chat(request)
    end),
  }
  moonbridge.run { hangup = "reload", hold_limit = HOLD_LIMIT }
]]

describe("a WebSocket that hears a topic", function()
  local s, flag
  after_each(server.cleanup)

  local function start(options, hold_limit)
    flag = process.scratch("flag")
    s = server.start {
      script = APP, globals = { OPTIONS = options, FLAG = flag, HOLD_LIMIT = hold_limit },
    }
    return s
  end

  local function connect(state)
    local ws = websocket.connect(s, "/?state=" .. (state or "s"))
    assert.equal("welcome", ws:text())
    return ws
  end

  local function kill_workers()
    local holder = push.process(s)
    for _, pid in ipairs(s:workers()) do
      if pid ~= holder then process.kill(pid, "KILL") end
    end
  end

  -- Waits until a worker has the connection, or none but the push process.
  local function wait_handled(ws, is_handled)
    local held = ("worker %d"):format(push.process(s))
    assert(process.wait_until(function()
      return (status.holders(s, ws.raw) ~= held) == is_handled
    end), "the connection does not move")
  end

  local function count() return tonumber(s:request("/count").body) end

  local function wait_count(wanted)
    assert.truthy(process.wait_until(function() return count() == wanted end), count())
  end

  local function wait_held(wanted)
    assert.truthy(process.wait_until(function() return tonumber(s:request("/held").body) == wanted end))
  end

  it("gets what others say, in order", function()
    start()
    local sockets = {}
    for index = 1, 10 do sockets[index] = connect() end
    wait_count(10)
    for index = 1, 20 do sockets[1]:send("say " .. index) end
    for _, ws in ipairs(sockets) do
      for index = 1, 20 do assert.equal(tostring(index), ws:text()) end
    end
    s:request("/say?text=%ff%00")
    assert.same({ BINARY, "\xff\0" }, { sockets[2]:receive() })
  end)

  it("gets all that is published when it has the answer to its handshake", function()
    start()
    connect()
    local holder = push.process(s)
    process.freeze(holder)
    local raw = s:connect()
    raw:send(websocket.request("/"))
    -- The process that passes messages on sends it.
    assert.falsy(raw:read_until("\r\n\r\n", 0.2))
    process.thaw(holder)
    assert(raw:read_until("\r\n\r\n"):find("^HTTP/1.1 101 "))
    s:request("/say?text=heard")
    assert(raw:read_until("heard"))
  end)

  it("is answered by handlers, in between and with its state", function()
    start()
    local ws = connect "mine"
    wait_count(1)
    for index = 1, 30 do
      assert.equal("mine", ws:ask("state"))
      s:request("/say?text=" .. index)
      assert.equal(tostring(index), ws:text())
    end
  end)

  it("gets what is published while a handler has it after the handler's answer", function()
    start()
    local ws = connect()
    wait_count(1)
    ws:send("busy")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    for index = 1, 5 do s:request("/say?text=" .. index) end
    os.remove(flag)
    assert.equal("done", ws:text())
    for index = 1, 5 do assert.equal(tostring(index), ws:text()) end
  end)

  it("hears nothing after it has left, and again when it comes back", function()
    start()
    local ws = connect()
    wait_count(1)
    assert.equal("left", ws:ask("leave"))
    wait_count(0)
    s:request("/say?text=lost")
    assert.equal("joined", ws:ask("join"))
    wait_count(1)
    s:request("/say?text=heard")
    assert.equal("heard", ws:text())
  end)

  it("gets what was published before it left, also if its messages have come together", function()
    start()
    local ws = connect "s"
    wait_count(1)
    assert(ws.raw:send(websocket.frame(1, "say early") .. websocket.frame(1, "leave")))
    assert.equal("left", ws:text())
    assert.equal("early", ws:text())
    wait_count(0)
    s:request("/say?text=lost")
    assert.equal("s", ws:ask("state"))
    wait_held(0)
    assert.equal("joined", ws:ask("join"))
    wait_count(1)
    s:request("/say?text=late")
    assert.equal("late", ws:text())
  end)

  it("is forgotten when it ends, whichever side ends it", function()
    start()
    local one, two, three = connect "one", connect "two", connect "three"
    wait_count(3)
    assert(one:frame(CLOSE, websocket.reason(1000, "done")))
    assert.equal(1000, (one:closing()))
    assert.truthy(s:wait_log('closed 1000 "done" one'))
    two:send("bye")
    assert.equal(4001, (two:closing()))
    three:close()
    assert.truthy(s:wait_log('closed 1006 "" three'))
    wait_count(0)
  end)

  it("outlives its workers, and is forgotten if one dies that has it", function()
    start()
    local ws, other = connect "kept", connect()
    wait_count(2)
    local pid = other:ask("pid")
    -- The answer comes before the connection is held again.
    wait_handled(other, false)
    kill_workers()
    assert.equal("kept", ws:ask("state"))
    assert.not_equal(pid, other:ask("pid"))
    s:request("/say?text=on")
    assert.equal("on", ws:text())
    assert.equal("on", other:text())
    ws:send("busy")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    kill_workers()
    assert.is_nil((ws:receive()))
    os.remove(flag)
    wait_count(1)
    assert.truthy(s:wait_log('closed 1006 "" kept'))
  end)

  it("goes on in the next generation", function()
    start()
    local ws = connect "kept"
    wait_count(1)
    local pid = ws:ask("pid")
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload.* complete"))
    s:request("/say?text=new")
    assert.equal("new", ws:text())
    assert.equal("kept", ws:ask("state"))
    assert.not_equal(pid, ws:ask("pid"))
  end)

  it("is pinged, and is lost if it does not answer", function()
    start "{ heartbeat = 1.5 }"
    local ws = connect "lost"
    ws:fall_silent()
    assert.truthy(s:wait_log('closed 1006 "" lost'))
    wait_count(0)
  end)

  it("ends when its client says nothing for too long", function()
    start "{ heartbeat = 1.5, timeout = 2.5 }"
    assert.equal(1001, connect():keep_silent())
    assert.truthy(s:wait_log("closed 1001"))
  end)

  it("is closed at a shutdown", function()
    start()
    local ws = connect "last"
    wait_count(1)
    s:signal("TERM")
    assert.equal(1001, (ws:closing()))
    ws:close()
    assert.equal(0, s:wait())
    assert.truthy(s:log():find('closed 1001 .* last\n'))
  end)

  -- More than the kernel takes for a client that does not read.
  local function say_much() s:request("/say?text=x&size=16000000") end

  it("is closed when its client is slow, or gone while something waits for it", function()
    start()
    local slow, gone = connect "slow", connect "gone"
    wait_count(2)
    say_much()
    gone:close()
    assert.truthy(s:wait_log('closed 1006 "" gone'))
    for _ = 1, 3 do say_much() end
    assert.truthy(s:wait_log('closed 1006 "" slow'))
    slow:close()
    wait_count(0)
    assert.equal("mine", connect("mine"):ask("state"))
  end)

  it("gets what waits for it before it is closed at a shutdown", function()
    start()
    local ws = connect "late"
    wait_count(1)
    say_much()
    s:signal("TERM")
    socket.sleep(0.5)
    assert.equal(16000000, #ws:text())
    -- It may take so long that the server does not wait for its end.
    local opcode, payload = ws:receive()
    assert.same({ CLOSE, 1001 }, { opcode, (string.unpack(">I2", payload)) })
    ws:close()
    assert.equal(0, s:wait())
    assert.truthy(s:log():find('closed 1001 .* late\n'))
  end)

  it("is closed if it cannot be held", function()
    start(nil, 1)
    local one = connect "one"
    wait_count(1)
    local two = s:connect()
    two:send(websocket.request("/?state=two"))
    assert.equal("reset", select(2, two:read_all()))
    assert.truthy(s:wait_log('closed 1006 "" two'))
    assert.equal("one", one:ask("state"))
  end)

  it("gets the rest of a message whose beginning has come", function()
    start()
    local ws = connect()
    wait_count(1)
    local bytes = websocket.frame(1, "in pieces")
    assert(ws.raw:send(bytes:sub(1, 9)))
    wait_handled(ws, true)
    s:request("/say?text=meanwhile")
    assert(ws.raw:send(bytes:sub(10)))
    assert.equal("in pieces", ws:text())
    assert.equal("meanwhile", ws:text())
  end)
end)
