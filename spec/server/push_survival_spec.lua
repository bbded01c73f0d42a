-- Held responses outlive workers, reloads and slow neighbours, and end in order at a shutdown.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local push = require "spec.support.push"
local server = require "spec.support.server"

local function open_many(s, count, target)
  local streams = {}
  for index = 1, count do
    local c = s:connect()
    c:send("GET " .. (target or "/") .. " HTTP/1.1\r\nHost: x\r\n\r\n")
    streams[index] = c
  end
  push.wait_held(s, count)
  return streams
end

-- What a stream has heard until a message: its chunks, joined.
local function heard(c, last)
  local text = assert(c:read_until(last .. "\r\n"))
  text = text:gsub("^.-\r\n\r\n", "")
  local parts, at = {}, 1
  while at <= #text do
    local size, first = text:match("^(%x+)\r\n()", at)
    if not size then break end
    parts[#parts + 1] = text:sub(first, first + tonumber(size, 16) - 1)
    at = first + tonumber(size, 16) + 2
  end
  return table.concat(parts)
end

describe("held responses", function()
  after_each(server.cleanup)

  it("outlive the workers that have held them, whatever kills these", function()
    local s = push.start { workers = 4 }
    local streams = open_many(s, 60)
    local expected = "hello\n"
    for round = 1, 5 do
      local pid = push.get(s, "/pid"):match("%d+$")
      process.kill(math.tointeger(tonumber(pid)), "KILL")
      assert(process.wait_until(function()
        local ok, text = pcall(push.get, s, "/pid")
        return ok and text:match("%d+$") ~= pid
      end))
      push.publish(s, "news", "m" .. round .. ";")
      expected = expected .. "m" .. round .. ";"
    end
    for _, c in ipairs(streams) do assert.equal(expected, heard(c, "m5;")) end
    assert.equal(60, push.status(s).held)
  end)

  it("are not lost when their worker dies right after its handler", function()
    local s = push.start { workers = 2, handler = [[
      request:send_status "200 OK"
      request:hold { topics = "news" }
      -- The next call of the handler, in the same worker, kills it.
      return false
    ]] }
    local streams = open_many(s, 20)
    push.publish(s, "news", "x;")
    for _, c in ipairs(streams) do assert.equal("x;", heard(c, "x;")) end
  end)

  it("hear every message that is published when their clients have the head", function()
    local s = push.start { workers = 1 }
    push.open(s)
    local holder = push.process(s)
    process.freeze(holder)
    local c = s:connect()
    c:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    -- The only worker answers this when the handler of the other request has returned.
    push.get(s, "/pid")
    assert.truthy(c:silent(0))
    process.thaw(holder)
    assert(c:read_until("hello\n\r\n"))
    push.publish(s, "news", "x;")
    assert.equal("x;", heard(c, "x;"))
  end)

  it("are sent at once what their handler flushes", function()
    local s = push.start { workers = 1, handler = [[
      request:send_status "200 OK"
      request:send_data "early;"
      if get.flush then request:flush() end
      return request:hold { topics = "news" }
    ]] }
    push.open(s)
    local holder = push.process(s)
    process.freeze(holder)
    local c = s:connect()
    c:send("GET /?flush=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert(c:read_until("early;\r\n"))
    process.thaw(holder)
  end)

  it("hear each message once and in order over reloads, 1,000 of them", function()
    local s = push.start { workers = 2, before = [[moonbridge.topic("news", { history = 10 })]] }
    local streams = open_many(s, 1000)
    local expected, number = "hello\n", 0
    local function publish(count)
      for _ = 1, count do
        number = number + 1
        push.publish(s, "news", ("%d;"):format(number), number)
        expected = expected .. number .. ";"
      end
    end
    for _ = 1, 3 do
      publish(2)
      assert.equal("true", push.get(s, "/reload"))
      publish(2)
    end
    publish(1)
    for _, c in ipairs(streams) do assert.equal(expected, heard(c, number .. ";")) end
    local c = push.open(s, "/", { headers = "Last-Event-ID: " .. number - 2 .. "\r\n" })
    assert.equal(("hello\n%d;%d;"):format(number - 1, number), c.chunk() .. c.chunk() .. c.chunk())
  end)

  it("survive a reload when their response is over, in the pool that replaces theirs", function()
    local mark = process.scratch("mark")
    local s = push.start { workers = 1, before = ([[
      local again = io.open(%q)
      if not again then io.open(%q, "w"):close() end
      AGAIN = again
    ]]):format(mark, mark), handler = [[
      if request.path == "who" then
        request:send("200 OK", "text/plain", number .. " " .. tostring(AGAIN ~= nil))
        return true
      end
      request:send_status "200 OK"
      return request:hold { topics = "news", once = true }
    ]] }
    local one = push.open(s)
    assert.equal("true", push.get(s, "/reload"))
    local other = push.open(s)
    push.publish(s, "news", "x")
    assert.equal("xx", one:response().body .. other:response().body)
    for _, c in ipairs { one, other } do assert.equal("1 true", c:request("/who").body) end
  end)

  it("end when the process that holds them is killed, which is started again", function()
    local s = push.start { before = [[moonbridge.topic("news", { history = 10 })]] }
    local c = push.open(s)
    assert.equal("hello\n", c.chunk())
    local pid = push.process(s)
    process.kill(pid, "KILL")
    assert.equal("reset", select(2, c:read_all()))
    assert(process.wait_until(function()
      local expected = "The push process (PID %d) has ended by signal 9, and with it 1 held connections"
      return s:log():find(expected:format(pid), 1, true)
    end))
    assert(process.wait_until(function() return push.process(s) end))
    push.publish(s, "news", "a", 1)
    push.publish(s, "news", "b", 2)
    c = push.open(s, "/", { headers = "Last-Event-ID: 1\r\n" })
    assert.equal("hello\nb", c.chunk() .. c.chunk())
  end)

  it("are told of a shutdown, and end in order", function()
    local s = push.start { handler = [[
      if request.path == "once" then
        return request:hold { topics = "news", once = true, farewell = get.farewell }
      end
      request:send_status "200 OK"
      return request:hold { topics = "news", farewell = "bye" }
    ]] }
    local stream, plain = push.open(s), push.open(s, "/", { version = "1.0" })
    local once, last = push.open(s, "/once"), push.open(s, "/once?farewell=end")
    s:signal("TERM")
    assert.equal("bye", stream.chunk() .. stream.chunk())
    assert.same({ "", "closed" }, { stream:read_all() })
    local body, ending = plain:read_all()
    assert.same({ "bye", "closed" }, { body:match("\r\n\r\n(.*)$"), ending })
    assert.equal(204, once:response().status)
    local response = last:response()
    assert.same({ "end", "close" }, { response.body, response.headers.connection })
    assert.equal(0, s:wait())
  end)

  it("do not delay a shutdown for longer than they may", function()
    local s = push.start { handler = [[
      request:send_status "200 OK"
      return request:hold { topics = "news", limit = false }
    ]] }
    local c = push.open(s, "/", { receive_buffer = 4096 })
    for _ = 1, 20 do push.get(s, "/publish?topic=news&message=x&size=1000000") end
    s:signal("TERM")
    assert.equal(0, s:wait(30))
    assert.truthy(s:log():find("Shutdown timeout", 1, true))
    c:close()
  end)

  it("are dropped if their client is too slow, which others do not notice", function()
    local s = push.start()
    local slow = push.open(s, "/", { receive_buffer = 4096 })
    local fast = push.open(s)
    assert.equal("hello\n", fast.chunk())
    local sent = 0
    repeat
      assert.equal("true nil", push.get(s, "/publish?topic=news&message=x&size=100000"))
      assert.equal(100000, #fast.chunk())
      sent = sent + 1
    until push.status(s).slow > 0 or sent > 200
    push.wait_held(s, 1)
    assert.equal("reset", select(2, slow:read_all()))
    assert(process.wait_until(function()
      return s:log():find("1 held connections were closed, as their clients were too slow", 1, true)
    end))
  end)

  it("lose their oldest messages instead, by choice", function()
    local s = push.start { handler = [[
      request:send_status "200 OK"
      return request:hold { topics = "news", overflow = "drop_oldest", limit = 200000 }
    ]] }
    local slow = push.open(s, "/", { receive_buffer = 4096 })
    for _ = 1, 100 do push.get(s, "/publish?topic=news&message=x&size=100000") end
    push.publish(s, "news", "last")
    local text = heard(slow, "last")
    local status = push.status(s)
    assert.truthy(status.dropped > 0 and status.slow == 0 and status.held == 1)
    assert.equal((100 - status.dropped) * 100000 + 4, #text)
  end)

  it("are refused if there are too many", function()
    local s = push.start { hold_limit = 2 }
    local first, second = push.open(s), push.open(s)
    assert.equal("reset", select(2, s:raw "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    push.publish(s, "news", "x")
    assert.equal("hello\nx", first.chunk() .. first.chunk())
    assert.equal("hello\nx", second.chunk() .. second.chunk())
    local status = push.status(s)
    assert.same({ 2, 1 }, { status.held, status.refused })
    for _ = 1, 3 do s:raw "GET / HTTP/1.1\r\nHost: x\r\n\r\n" end
    s:signal("TERM")
    assert.equal(0, s:wait())
    local told = 0
    for number in s:log():gmatch("(%d+) connections could not be held") do told = told + number end
    assert.equal(4, told, s:log())
  end)

  it("are refused if no descriptor is left", function()
    local s = push.start { command = { "sh", "-c", 'ulimit -n 120; exec "$@"', "sh", server.interpreter } }
    local connections = {}
    for index = 1, 110 do
      connections[index] = s:connect()
      connections[index]:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    end
    assert(process.wait_until(function() return push.status(s).refused > 0 end))
    assert(process.wait_until(function() return s:log():find("connections could not be held", 1, true) end))
    local held = push.status(s).held
    assert.truthy(held >= 60, held)
    push.publish(s, "news", "x")
  end)

  it("hear all messages of a publisher in order, many at once", function()
    local s = push.start { workers = 3, handler = [[
      if request.path == "burst" then
        for number = 1, 2000 do
          local ok, text = moonbridge.publish("news", get.name .. number .. ";")
          if not ok then return request:send("503 X", "text/plain", text) or true end
        end
        request:send("200 OK", "text/plain", "done")
        return true
      end
      request:send_status "200 OK"
      return request:hold { topics = "news", limit = false }
    ]] }
    local streams = open_many(s, 5)
    local publishers = {}
    for index = 1, 2 do
      publishers[index] = s:connect()
      local name = ("ab"):sub(index, index)
      publishers[index]:send(("GET /burst?name=%s HTTP/1.1\r\nHost: x\r\n\r\n"):format(name))
    end
    for _, c in ipairs(publishers) do assert.equal("done", c:response().body) end
    push.publish(s, "news", "end")
    for _, c in ipairs(streams) do
      local text = heard(c, "end")
      for _, name in ipairs { "a", "b" } do
        local number = 0
        for found in text:gmatch(name .. "(%d+);") do
          number = number + 1
          assert.equal(number, tonumber(found))
        end
        assert.equal(2000, number)
      end
    end
  end)
end)
