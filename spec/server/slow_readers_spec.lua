-- A process is occupied only while a handler runs: a client that takes its response slowly, or not
-- at all, occupies none when the handler has returned.
-- Takes long: much of it is waiting for time-outs.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"
local tables = require "spec.support.tables"

-- HTTP; the target says how the handler answers. POOL and HTTP: Lua text of options.
local SERVER = [[
  moonbridge = require "moonbridge"
  local mio, http = require "moonbridge_io", require "moonbridge_http"
  local function options(text) return assert(load("return {" .. text .. "}", "=options"))() end
  local function pattern(size)
    local parts = {}
    for index = 1, size // 1024 do parts[index] = ("%08d"):format(index):rep(128) end
    return table.concat(parts)
  end
  local function answer(request)
    if request.path == "error" then error("oops") end
    if request.path == "sleep" then mio.poll(nil, nil, 0.5) end
    request:send_status("200 OK")
    local size = tonumber(request.get_params.size)
    if request.path == "pieces" then
      for index = 1, size // 1024 do request:send_data((("%08d"):format(index)):rep(128)) end
    elseif size then
      if request.path == "length" then request:send_header("Content-Length", size) end
      request:send_data(pattern(size))
    elseif request.path == "status" then
      ]] .. status.ANSWER .. [[
    else
      request:send_data(mio.getpid())
    end
    if request.path == "finish" then request:finish() end
    io.stderr:write("answered ", request.path, "\n")
    return request.path ~= "last"
  end
  local pool = options(POOL)
  pool[1] = { proto = "tcp", host = "127.0.0.1", port = PORT }
  pool[2] = { proto = "local", path = PATH }
  pool.finish = function() io.stderr:write("finished\n") end
  pool.connect = PROTOCOL and load("return " .. PROTOCOL)() or http.generate_handler(answer, options(HTTP))
  moonbridge.listen(pool)
  moonbridge.run()
]]

-- More than the system takes for a client that does not read.
local BIG = 6 * 1024 * 1024
-- The same for a local socket; what remains is queued also without the option.
local SMALL = 384 * 1024
local ROOMY = "response_buffering = 16 * 1024 * 1024, "

local function start(more, command)
  local path = process.scratch("socket")
  local globals = tables.with({ POOL = "min_fork = 1, max_fork = 1", HTTP = ROOMY, PATH = path }, more)
  local s = server.start { script = SERVER, globals = globals, command = command }
  s.path = path
  return s
end

local patterns = {} -- size → text: what takes long is made once

local function pattern(size)
  if not patterns[size] then
    local parts = {}
    for index = 1, size // 1024 do parts[index] = ("%08d"):format(index):rep(128) end
    patterns[size] = table.concat(parts)
  end
  return patterns[size]
end

pattern(BIG)

local function get(target, headers, version)
  return ("GET %s HTTP/%s\r\nHost: x\r\n%s\r\n"):format(target, version or "1.1", headers or "")
end

-- A client that has asked and reads nothing; its handler has returned.
local function slow(s, request, options)
  local c = s:connect(options or { receive_buffer = 4096 })
  c:send(request or get("/data?size=" .. BIG))
  assert.truthy(s:wait_log("answered"))
  return c
end

local function others_are_served(s, number)
  for _ = 1, number or 20 do
    assert.equal(200, s:request("/").status)
  end
end

local count = status.wait_figure

describe("a client that does not read its response", function()
  after_each(server.cleanup)

  it("occupies no process, and gets all of it when it reads", function()
    local s = start()
    local c = slow(s)
    others_are_served(s)
    count(s, "sending", 1)
    assert.equal(pattern(BIG), c:response().body)
    count(s, "sending", 0)
    for _ = 1, 3 do assert.equal(200, c:request("/").status) end
  end)

  it("occupies no process for what is queued without the option", function()
    local s = start { HTTP = "" }
    -- The system takes less on a local socket.
    local c = slow(s, get("/data?size=" .. SMALL), { path = s.path })
    others_are_served(s)
    assert.equal(pattern(SMALL), c:response().body)
    assert.equal(200, c:request("/").status)
  end)

  it("occupies no process when the handler finishes the response itself", function()
    local s = start()
    local c = slow(s, get("/finish?size=" .. BIG))
    others_are_served(s)
    assert.equal(pattern(BIG), c:response().body)
  end)

  it("is waited for by the handler where more than response_buffering is queued", function()
    local s = start { HTTP = "response_buffering = 1000000" }
    local c = s:connect { receive_buffer = 4096 }
    c:send(get("/pieces?size=" .. BIG))
    socket.sleep(0.3)
    assert.falsy(s:log():find("answered"))
    assert.equal(BIG, #c:response().body)
  end)

  for name, request in pairs {
    ["Connection: close"] = get("/length?size=" .. BIG, "Connection: close\r\n"),
    ["chunked and Connection: close"] = get("/data?size=" .. BIG, "Connection: close\r\n"),
    ["HTTP/1.0"] = get("/data?size=" .. BIG, nil, "1.0"),
  } do
    it("occupies no process with " .. name, function()
      local s = start { HTTP = ROOMY .. "drain_timeout = 1.5" }
      local c = slow(s, request)
      others_are_served(s)
      -- The end comes after all the output, however long that takes.
      assert.equal(pattern(BIG):sub(1, 100), c:response("HEAD") and c:read_when(function(buffer)
        local at = buffer:find("00000001", 1, true)
        return at and #buffer >= at + 99 and at + 99
      end):sub(-100))
      socket.sleep(1.8)
      local rest, ending = c:read_all()
      assert.equal("closed", ending)
      assert.truthy(rest:find(("%08d"):format(BIG // 1024), 1, true))
    end)
  end

  it("occupies no process on a local socket, kept or closed", function()
    local s = start()
    for _, headers in ipairs { "", "Connection: close\r\n" } do
      local c = slow(s, get("/data?size=" .. BIG, headers), { path = s.path })
      others_are_served(s)
      assert.equal(pattern(BIG), c:response().body)
      if headers == "" then
        assert.equal(200, c:request("/").status)
      else
        assert.equal("", (c:read_all()))
      end
    end
  end)

  it("occupies no process with many of its kind", function()
    local s = start { HTTP = "" }
    local clients = {}
    for index = 1, 40 do
      clients[index] = s:connect { path = s.path }
      clients[index]:send(get("/length?size=" .. SMALL))
    end
    others_are_served(s)
    for _, c in ipairs(clients) do assert.equal(pattern(SMALL), c:response().body) end
  end)

  it("is reset when it takes nothing for stall_timeout", function()
    local s = start { HTTP = ROOMY .. "stall_timeout = 0.4" }
    local c = slow(s)
    count(s, "sending", 0)
    local bytes, ending = c:read_all()
    assert.equal("reset", ending)
    assert.is_true(#bytes < BIG)
    others_are_served(s, 1)
  end)

  it("may take longer than stall_timeout as long as it takes something", function()
    local s = start { HTTP = ROOMY .. "stall_timeout = 0.8" }
    local c = slow(s)
    local begun = socket.gettime()
    local parts = {}
    -- So little that the system's buffer counts as full all the time.
    while socket.gettime() - begun < 2 do
      parts[#parts + 1] = assert(c:read(4096))
      socket.sleep(0.05)
    end
    c.buffer = table.concat(parts) .. c.buffer
    assert.equal(pattern(BIG), c:response().body)
  end)

  for name, parked_before in pairs { ["at once"] = false, ["over a parked connection"] = true } do
    it("makes room where no descriptor is left, if it has waited longest; it asks " .. name, function()
      local limit = { "sh", "-c", "ulimit -n 40; exec \"$@\"", "sh", server.interpreter }
      local s = start({ HTTP = "" }, limit)
      local clients = {}
      for index = 1, 60 do
        clients[index] = s:connect { path = s.path }
        if parked_before then assert.equal(200, clients[index]:request("/").status) end
        clients[index]:send(get("/length?size=" .. SMALL))
        assert.truthy(s:wait_log("answered length", nil, index))
      end
      others_are_served(s)
      local bytes, ending = clients[1]:read_all()
      assert.same({ true, "closed" }, { #bytes < SMALL, ending })
      assert.equal(pattern(SMALL), clients[60]:response().body)
    end)
  end

  it("that is gone is forgotten", function()
    local s = start()
    slow(s):reset()
    count(s, "sending", 0)
    slow(s):close()
    count(s, "sending", 0)
    others_are_served(s)
  end)

  it("may have ended its side before", function()
    local s = start()
    for _, headers in ipairs { "", "Connection: close\r\n" } do
      local c = slow(s, get("/data?size=" .. BIG, headers))
      c:finish()
      others_are_served(s)
      assert.equal(pattern(BIG), c:response().body)
      local rest, ending = c:read_all()
      assert.same({ "", "closed" }, { rest, ending })
    end
  end)
end)

describe("a connection that the supervisor knows", function()
  after_each(server.cleanup)

  it("is not taken from a worker with a slow handler before its output is sent", function()
    local s = start { POOL = "min_fork = 2, max_fork = 2" }
    local clients = {}
    for index = 1, 4 do
      clients[index] = s:connect { receive_buffer = 4096 }
      assert.equal(200, clients[index]:request("/").status)
      clients[index]:send(get("/data?size=" .. BIG) .. get("/"))
    end
    assert.truthy(s:wait_log("answered data", nil, 4))
    local sleepers = {}
    for index = 1, 2 do
      sleepers[index] = s:connect()
      sleepers[index]:send(get("/sleep"))
    end
    for _, c in ipairs(sleepers) do assert.equal(200, c:response().status) end
    for _, c in ipairs(clients) do
      assert.equal(pattern(BIG), c:response().body)
      assert.equal(200, c:response().status)
      assert.equal(200, c:request("/").status)
    end
  end)
end)

describe("a client that sends while it does not read", function()
  after_each(server.cleanup)

  it("gets the responses to pipelined requests in their order", function()
    local s = start()
    local c = s:connect { receive_buffer = 4096 }
    local requests = {}
    for index = 1, 5 do requests[index] = get("/data?size=" .. index * 262144) end
    c:send(table.concat(requests))
    others_are_served(s)
    for index = 1, 5 do assert.equal(pattern(index * 262144), c:response().body) end
  end)

  it("has to wait: no more is received, and no further request is served", function()
    local s = start()
    local c = slow(s)
    c.raw:settimeout(0.5)
    local sent, message, last = c.raw:send(get("/data?size=8"):rep(1000000))
    assert.same({ nil, "timeout" }, { sent, message })
    assert.is_true(last < 16 * 1024 * 1024)
    local _, answered = s:log():gsub("answered data", "")
    assert.equal(1, answered)
    others_are_served(s)
  end)

  it("does not block an end that it has asked for", function()
    local s = start()
    local c = slow(s, get("/data?size=" .. BIG, "Connection: close\r\n"))
    -- More than the buffers of both sides hold.
    for _ = 1, 48 do assert.is_true(c:send(("x"):rep(1024 * 1024))) end
    others_are_served(s)
    assert.equal(pattern(BIG), c:response().body)
  end)
end)

describe("a client that does not close its connection", function()
  after_each(server.cleanup)

  it("occupies no process after the answer to a handler's error", function()
    local s = start { HTTP = "drain_timeout = 60" }
    local clients = {}
    for index = 1, 3 do
      clients[index] = s:connect()
      assert.equal(500, clients[index]:request("/error").status)
      others_are_served(s, 2)
    end
    for _, c in ipairs(clients) do
      local rest, ending = c:read_all()
      assert.same({ "", "closed" }, { rest, ending })
    end
  end)
end)

describe("output that is queued when a worker ends", function()
  after_each(server.cleanup)

  it("is sent before the server ends on SIGTERM", function()
    local s = start()
    local clients = {}
    for index, headers in ipairs { "", "Connection: close\r\n", "" } do
      clients[index] = slow(s, get("/data?size=" .. BIG, headers))
    end
    s:signal("TERM")
    assert.truthy(s:wait_log("Initiate shutdown"))
    socket.sleep(0.3)
    assert.is_nil(s:status())
    for _, c in ipairs(clients) do
      assert.equal(pattern(BIG), c:response().body)
      local _, ending = c:read_all()
      assert.equal("closed", ending)
    end
    assert.equal(0, s:wait())
  end)

  it("keeps a server that ends no longer than stall_timeout", function()
    local s = start { HTTP = ROOMY .. "stall_timeout = 0.4" }
    slow(s)
    assert.equal(0, s:stop())
  end)

  it("goes on in another worker when its worker ends by a result that is not true", function()
    local s = start()
    local c = slow(s)
    local last = s:connect { receive_buffer = 4096 }
    last:send(get("/last?size=" .. BIG))
    for _ = 1, 4 do assert.equal(200, s:request("/last").status) end
    others_are_served(s)
    assert.equal(pattern(BIG), c:response().body)
    assert.equal(pattern(BIG), last:response().body)
    assert.equal(200, c:request("/").status)
    -- The head had left when the handler returned: its end could not be announced any more.
    assert.equal(200, last:request("/").status)
  end)

  it("goes on with the input after it", function()
    local s = start()
    local c = slow(s, get("/data?size=" .. BIG) .. get("/"):rep(2000))
    assert.equal(200, s:request("/last").status)
    assert.equal(pattern(BIG), c:response().body)
    for _ = 1, 2000 do assert.equal(200, c:response().status) end
  end)

  it("goes on with its timeouts", function()
    local s = start { HTTP = ROOMY .. "stall_timeout = 2" }
    local c = slow(s)
    assert.equal(200, s:request("/last").status)
    assert.truthy(status.wait_gone(c))
    local bytes, ending = c:read_all()
    assert.equal("reset", ending)
    assert.is_true(#bytes < BIG)
  end)

  it("goes on in another worker when its worker ends by an error, whatever the protocol", function()
    local s = start { PROTOCOL = [[function(socket)
      local line = socket:read(nil, "\n")
      if line == "error\n" then error("oops") end
      socket:write_nb(("x"):rep(]] .. BIG .. [[))
      io.stderr:write("answered\n")
      if line == "close\n" then return true end
      if line == "linger\n" then return socket:linger(10) end
      return socket:park()
    end]] }
    local kept, closed, lingering = slow(s, "big\n"), slow(s, "close\n"), slow(s, "linger\n")
    for _ = 1, 2 do assert.same({ "", "reset" }, { s:raw("error\n") }) end
    for _ = 1, 2 do
      assert.equal(BIG, #assert(kept:read(BIG)))
      kept:send("big\n")
    end
    for _, c in ipairs { closed, lingering } do
      local bytes, ending = c:read_all()
      assert.same({ BIG, "closed" }, { #bytes, ending })
    end
  end)

  it("goes on when the server shuts down between two workers", function()
    local slowly = "prepare = function() os.execute('exec sleep 0.3') end"
    local s = start { POOL = "min_fork = 1, max_fork = 1, " .. slowly }
    local c = slow(s)
    assert.equal(200, s:request("/last").status)
    s:signal("TERM")
    assert.equal(pattern(BIG), c:response().body)
    assert.equal(0, s:wait())
  end)

  it("is lost with a worker that is killed, and nothing else is", function()
    local s = start()
    local c = slow(s)
    local idle = s:connect()
    assert.equal(200, idle:request("/").status)
    -- The worker is done with that connection when it answers another one.
    others_are_served(s, 1)
    process.kill(s:workers()[1], "KILL")
    assert.truthy(s:wait_log("died from signal 9"))
    local _, ending = c:read_all()
    assert.equal("reset", ending)
    assert.equal(200, idle:request("/").status)
    others_are_served(s)
  end)
end)

describe("output of any protocol", function()
  after_each(server.cleanup)

  -- Writes SIZE bytes for each line, then does what FATE says.
  local function protocol(fate)
    return start { PROTOCOL = ([[function(socket)
      if socket.wakeup == "timeout" then socket:write("timeout") return true end
      local line, status = socket:read(nil, "\n")
      if status == "eof" then return true end
      socket:write_nb(("x"):rep(%d))
      io.stderr:write("answered\n")
      if line == "small\n" then return true end
      %s
    end]]):format(BIG, fate) }
  end

  it("is sent before a parked connection is called again, or its time begins", function()
    local s = protocol "return socket:park(0.3)"
    local c = slow(s, "a line\n")
    socket.sleep(0.6)
    assert.equal(BIG, #assert(c:read(BIG)))
    assert.equal("timeout", (c:read_all()))
  end)

  it("is sent before the end of a connection that the handler has left", function()
    local s = protocol "return true"
    for _, options in ipairs { { receive_buffer = 4096 }, { path = s.path } } do
      local c = slow(s, "a line\n", options)
      local other = s:connect()
      other:send("small\n")
      assert.equal(BIG, #assert(other:read(BIG)))
      assert.equal(BIG, #c:read_all())
    end
  end)

  it("is sent before the end of a lingering connection, though an error comes after", function()
    local s = start { POOL = "min_fork = 1, max_fork = 1", PROTOCOL = [[function(socket)
      socket:write_nb(("x"):rep(]] .. BIG .. [[))
      io.stderr:write("answered\n")
      socket:linger(10)
      error("oops")
    end]] }
    local c = slow(s, "")
    assert.truthy(s:wait_log("oops"))
    local bytes, ending = c:read_all()
    assert.same({ BIG, "closed" }, { #bytes, ending })
  end)

  it("is sent before the end of a lingering connection", function()
    local s = protocol "return socket:linger(0.2)"
    for _, options in ipairs { { receive_buffer = 4096 }, { path = s.path } } do
      local c = slow(s, "a line\n", options)
      local other = s:connect()
      other:send("small\n")
      assert.equal(BIG, #assert(other:read(BIG)))
      socket.sleep(0.5)
      assert.equal(BIG, #c:read_all())
    end
  end)

  it("may be left untaken for as long as the handler says", function()
    for _, fate in ipairs { "return socket:park(nil, 0.3)", "return socket:linger(nil, 0.3)" } do
      local c = slow(protocol(fate), "a line\n")
      socket.sleep(1)
      local bytes, ending = c:read_all()
      assert.equal("reset", ending)
      assert.is_true(#bytes < BIG)
    end
  end)

  it("takes no nonsense for that time", function()
    local s = start { PROTOCOL = [[function(socket)
      for _, value in ipairs { "x", -1, 0 / 0, true } do
        for _, method in ipairs { "park", "linger" } do
          local ok, message = pcall(socket[method], socket, 1, value)
          socket:write(tostring(ok), message:match("expects.*"), "\n")
        end
      end
      return true
    end]] }
    local text = "falseexpects a stall as a non-negative number of seconds\n"
    assert.equal(text:rep(8), (s:raw("")))
  end)
end)
