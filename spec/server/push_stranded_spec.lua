-- A reload without the pool that has held a connection ends that connection as a shutdown does.

local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"
local websocket = require "spec.support.websocket"

local BEFORE = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  local chat = http.websocket {
    open = function(ws, request)
      ws.state = request.get_params.name
      ws:subscribe("news")
      ws:subscribe(ws.state)
      ws:send("welcome")
    end,
    message = function(ws, text)
      io.open(FLAG, "w"):close()
      repeat moonbridge.io.poll(nil, nil, 0.01) until not io.open(FLAG)
      ws:send(text)
    end,
    close = function(ws, code, reason)
      io.stderr:write(("closed %d %q %s\n"):format(code, reason, ws.state))
    end,
  }
  -- The pool that goes. It is the first one at first.
  local function listen_second()
    moonbridge.listen {
      { proto = "tcp", host = "127.0.0.1", port = SECOND }, min_fork = 2, max_fork = 2,
      connect = http.generate_handler(function(request)
        local get = request.get_params
        if request.path == "chat" then return chat(request) end
        if request.path == "busy" then
          io.open(FLAG, "w"):close()
          repeat moonbridge.io.poll(nil, nil, 0.01) until not io.open(FLAG)
        end
        if request.path ~= "once" then
          request:send_status "200 OK"
          request:send_data "hello\n"
        end
        return request:hold { topics = "news", once = request.path == "once",
          farewell = request.path ~= "once" and "bye" or nil }
      end),
    }
  end
  local generation = #assert(io.open(GENERATION)):read("a")
  if generation == 0 then listen_second() end
]]

local AFTER = "if generation == 1 then listen_second() end"

describe("a reload without a pool", function()
  local s, flag, generation
  after_each(server.cleanup)

  local function start(shutdown_timeout)
    flag, generation = process.scratch("flag"), process.scratch("generation")
    process.write(generation, "")
    local second = server.free_port()
    local globals = ("local FLAG, GENERATION, SECOND = %q, %q, %d\n"):format(flag, generation, second)
    s = push.start { before = globals .. BEFORE, after = AFTER, shutdown_timeout = shutdown_timeout or 60 }
    s.second = second
  end

  local function reload(text)
    process.write(generation, text)
    assert.equal("true", push.get(s, "/reload"))
  end

  -- Opens a stream in the pool that goes.
  local function open(target, options)
    options = options or {}
    options.port = s.second
    return push.open(s, target, options)
  end

  local function connect(name, options)
    options = options or {}
    options.port = s.second
    local before = push.status(s).held
    local ws = websocket.connect({ connect = function() return s:connect(options) end },
      "/chat?name=" .. name)
    assert.equal("welcome", ws:text())
    push.wait_held(s, before + 1)
    return ws
  end

  it("ends held responses in order, and leaves those of other pools", function()
    start()
    local other = push.open(s)
    local chunked, plain, once = open("/"), open("/", { version = "1.0" }), open("/once")
    reload "xx"
    assert.equal("hello\nbye", chunked.chunk() .. chunked.chunk())
    assert.same({ "", "closed" }, { chunked.chunk(), select(2, chunked:read_all()) })
    local body, ending = plain:read_all()
    assert.same({ "hello\nbye", "closed" }, { body:match("\r\n\r\n(.*)$"), ending })
    local response = once:response()
    assert.same({ 204, "close" }, { response.status, response.headers.connection })
    push.wait_held(s, 1)
    push.publish(s, "news", "on")
    assert.equal("hello\non", other.chunk() .. other.chunk())
  end)

  it("closes WebSockets with 1001, and calls close", function()
    start()
    local idle, busy, slow = connect "idle", connect "busy", connect("slow", { receive_buffer = 4096 })
    busy:send("answer")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    push.get(s, "/publish?topic=slow&message=x&size=8000000")
    push.publish(s, "busy", "waits")
    reload "xx"
    assert.equal(1001, (idle:closing()))
    idle:close()
    assert.truthy(s:wait_log 'closed 1001 .* idle\n')
    os.remove(flag)
    assert.equal("answer", busy:text())
    assert.equal("waits", busy:text())
    assert.equal(1001, (busy:closing()))
    busy:close()
    assert.truthy(s:wait_log 'closed 1001 .* busy\n')
    assert.equal(8000000, #slow:text())
    assert.equal(1001, (slow:closing()))
    slow:close()
    assert.truthy(s:wait_log 'closed 1001 .* slow\n')
    push.wait_held(s, 0)
  end)

  it("resets WebSockets whose clients need too long", function()
    start(1)
    local slow = connect("slow", { receive_buffer = 4096 })
    push.get(s, "/publish?topic=slow&message=x&size=8000000")
    reload "xx"
    assert.truthy(s:wait_log "Shutdown timeout: what still runs of the old generation is killed")
    assert.same({ nil, "reset" }, { slow:receive() })
    push.wait_held(s, 0)
  end)

  it("ends what handlers hold that still run", function()
    start()
    local c = s:connect { port = s.second }
    c:send("GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.truthy(process.wait_until(function() return io.open(flag) end))
    push.open(s)
    reload "xx"
    os.remove(flag)
    local text, ending = c:read_all()
    assert.matches("hello\n\r\n3\r\nbye\r\n0\r\n\r\n$", text)
    assert.equal("closed", ending)
  end)

  it("concerns connections of all generations, wherever their pool stands", function()
    start()
    local stream, ws = open("/"), connect "old"
    reload "x"
    push.publish(s, "news", "on")
    assert.equal("hello\non", stream.chunk() .. stream.chunk())
    assert.equal("on", ws:text())
    reload "xx"
    assert.equal("bye", stream.chunk())
    assert.equal(1001, (ws:closing()))
    ws:close()
    assert.truthy(s:wait_log 'closed 1001 .* old\n')
    -- Nothing of the old generations is left but the first process.
    assert.truthy(process.wait_until(function() return #s:children() == 2 end), #s:children())
  end)
end)
