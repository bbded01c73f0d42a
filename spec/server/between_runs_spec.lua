-- Connections between two runs of the handler belong to nobody who could take them down: they
-- survive their worker, wait for no slow one, and are shed in order when descriptors run short.
-- Takes long: much of it is waiting for time-outs.
-- Any version: nothing of it depends on Lua's.

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"
local status = require "spec.support.status"
local tables = require "spec.support.tables"

-- HTTP; the path says what the handler does. OPTIONS: Lua text of the pool's options.
local SERVER = [[
  moonbridge = require "moonbridge"
  local mio, http = require "moonbridge_io", require "moonbridge_http"
  local function answer(request)
    local path = request.path
    if path == "slow" or path == "held" then io.stderr:write("begun\n") end
    if path == "slow" then os.execute("exec sleep 1") end
    if path == "tardy" then mio.poll(nil, nil, 0.044) end
    if path == "held" then repeat mio.poll(nil, nil, 0.01) until io.open(FLAG) end
    if path == "error" then error("oops") end
    request:send_status("200 OK")
    if path == "status" then
      ]] .. status.ANSWER .. [[
    else
      request:send_data(mio.getpid(), " ", #request.headers_csv_string.x)
    end
    return path ~= "false"
  end
  local pool = assert(load("return { " .. OPTIONS .. "}", "=options"))()
  pool[1] = { proto = "tcp", host = "127.0.0.1", port = PORT }
  local handler = http.generate_handler(answer, { idle_timeout = IDLE, request_header_timeout = HEAD })
  pool.connect = WRAPPED and function(socket)
    io.stderr:write("wrapped ", tostring(socket.wakeup), "\n")
    local result = handler(socket)
    io.stderr:write("returned ", tostring(result), "\n")
    return result
  end or handler
  moonbridge.listen(pool)
  moonbridge.run()
]]

local function start(options, more)
  local defaults = { OPTIONS = options, IDLE = 60, HEAD = 60, FLAG = process.scratch("flag") }
  local globals = tables.with(defaults, more)
  local s = server.start { script = SERVER, globals = globals, command = globals.command }
  s.flag = globals.FLAG
  return s
end

-- Lets the handlers for /held return.
local function release(s) assert(io.open(s.flag, "w")):close() end

local GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
local COLD = status.COLD

local function pid(connection) return tonumber(connection:request("/").body:match("%d+")) end

-- A connection whose handler runs until it is released.
local function hold(s)
  local c = s:connect()
  c:send((GET:gsub("/", "/held", 1)))
  assert.truthy(s:wait_log("begun"))
  return c
end

local count, figure = status.wait_figure, status.figure

describe("an idle connection survives the end of the worker that served it", function()
  after_each(server.cleanup)

  local function kept(s, number)
    local connections = {}
    for index = 1, number do
      connections[index] = s:connect()
      pid(connections[index])
    end
    return connections
  end

  -- Kills the only worker while it has none of the connections that it has answered: it is done with them
  -- when it answers another one, not as soon as their clients have their responses.
  local function kill_at_rest(s)
    assert.equal(200, s:request("/").status)
    process.kill(s:workers()[1], "KILL")
    assert.truthy(s:wait_log("died from signal 9"))
  end

  local function all_served(connections)
    for _, c in ipairs(connections) do assert.equal(200, c:request("/").status) end
  end

  local ends = {
    ["by a result that is not true"] = function(s) assert.equal(200, s:request("/false").status) end,
    ["by an error"] = function(s) assert.equal(500, s:request("/error").status) end,
    ["by kill -9"] = kill_at_rest,
  }
  for how, bring_about in pairs(ends) do
    for when, pause in pairs { hot = 0.05, cold = COLD } do
      it(how .. ", " .. when, function()
        local s = start "min_fork = 1, max_fork = 1"
        local connections = kept(s, 5)
        socket.sleep(pause)
        bring_about(s)
        all_served(connections)
      end)
    end
  end

  it("by kill -9 while it is in another handler", function()
    local s = start "min_fork = 1, max_fork = 1"
    local connections = kept(s, 5)
    local slow = hold(s)
    process.kill(s:workers()[1], "KILL")
    local _, ending = slow:read_all()
    assert.equal("reset", ending)
    all_served(connections)
    -- Also if it was in its first handler.
    count(s, "lost", 1)
  end)

  it("by kill -9, which is counted: those that are taken back, and the one in the handler", function()
    local s = start "min_fork = 1, max_fork = 1"
    local connections = kept(s, 6)
    local slow = table.remove(connections)
    slow:send((GET:gsub("/", "/held", 1)))
    assert.truthy(s:wait_log("begun"))
    process.kill(s:workers()[1], "KILL")
    local _, ending = slow:read_all()
    assert.equal("reset", ending)
    all_served(connections)
    count(s, "lost", 1)
    count(s, "reclaimed", 5)
  end)

  it("though there are many", function()
    local s = start "min_fork = 1, max_fork = 1"
    local connections = kept(s, 600)
    all_served(connections)
    kill_at_rest(s)
    all_served(connections)
  end)

  it("by the pool's idle_timeout", function()
    local s = start "min_fork = 1, max_fork = 1, idle_timeout = 0.2"
    local c = s:connect()
    local first = pid(c)
    assert.truthy(process.wait_until(function()
      local workers = s:workers()
      return workers[1] and workers[1] ~= first
    end))
    assert.are_not.equal(first, pid(c))
  end)

  it("by exit_delay", function()
    local s = start "pre_fork = 1, min_fork = 1, max_fork = 4, fork_delay = 0, exit_delay = 0.1"
    local slow = {}
    for index = 1, 3 do
      slow[index] = s:connect()
      slow[index]:send((GET:gsub("/", "/slow", 1)))
    end
    assert.truthy(process.wait_until(function() return #s:workers() == 4 end))
    for _, c in ipairs(slow) do assert.equal(200, c:response().status) end
    assert.truthy(process.wait_until(function() return #s:workers() == 1 end))
    all_served(slow)
  end)

  it("with a head that is half there, small or large", function()
    for _, size in ipairs { 10, 30000, 200000, 1000000 } do
      local s = start "min_fork = 1, max_fork = 1"
      local c = s:connect()
      c:send("GET / HTTP/1.1\r\nHost: x\r\nX: " .. ("a"):rep(size))
      socket.sleep(0.2)
      assert.equal(200, s:request("/false").status)
      c:send("\r\n\r\n")
      assert.equal(tostring(size), c:response().body:match(" (%d+)$"))
    end
  end)

  it("with requests that were received and not served yet", function()
    local s = start "min_fork = 1, max_fork = 1"
    local c = s:connect()
    local other = s:connect()
    local batch = {}
    for index = 1, 20 do batch[index] = GET end
    c:send(table.concat(batch))
    other:send((GET:gsub("/", "/false", 1)))
    for index = 1, 20 do assert.equal(200, c:response().status, index) end
    assert.equal(200, other:response().status)
  end)
end)

describe("a slow handler", function()
  after_each(server.cleanup)

  it("does not delay other connections of its worker", function()
    local s = start "pre_fork = 2, min_fork = 2, max_fork = 2"
    local connections, workers = {}, {}
    for index = 1, 8 do connections[index] = s:connect() end
    local slow, neighbour
    for index, c in ipairs(connections) do
      local worker = pid(c)
      slow, neighbour = workers[worker], c
      workers[worker] = c
      if slow then
        table.remove(connections, index)
        break
      end
    end
    -- Both are hot, and their worker is to be busy.
    assert.equal(200, neighbour:request("/").status)
    slow:send((GET:gsub("/", "/held", 1)))
    assert.truthy(s:wait_log("begun"))
    assert.equal(200, neighbour:request("/").status)
    assert.is_true(figure(s, "reclaimed") >= 1)
    for _, c in ipairs(connections) do
      if c ~= slow then assert.equal(200, c:request("/").status) end
    end
    release(s)
    assert.equal(200, slow:response().status)
  end)

  it("gets back what was taken from it when it has time again and nobody else has", function()
    for attempt = 1, 4 do
      local s = start "pre_fork = 2, min_fork = 2, max_fork = 2"
      local slow = hold(s)
      local c, tardy = s:connect(), s:connect()
      pid(c)
      tardy:send "GET /tardy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
      socket.sleep(0.044 + 0.003 * attempt)
      assert.equal(200, c:request("/").status)
      assert.is_true(slow:silent(0), "the request had to wait for the slow one")
      release(s)
      server.cleanup()
    end
  end)

  it("serves at once what was taken from it if it is the only one", function()
    local s = start "min_fork = 1, max_fork = 1"
    local c, tardy = s:connect(), s:connect()
    pid(c)
    local waits, round_trips = {}, {}
    for attempt = 1, 15 do
      tardy:send((GET:gsub("/", "/tardy", 1)))
      socket.sleep(0.04)
      c:send(GET)
      assert.equal(200, tardy:response().status)
      local begun = socket.gettime()
      assert.equal(200, c:response().status)
      waits[attempt] = socket.gettime() - begun
      begun = socket.gettime()
      pid(c)
      round_trips[attempt] = socket.gettime() - begun
    end
    table.sort(waits)
    table.sort(round_trips)
    assert.is_true(waits[8] < 0.003 + 5 * round_trips[8], "usually waits " .. waits[8])
  end)

  it("asks for what is reserved for others only now and then", function()
    local s = start "pre_fork = 2, min_fork = 2, max_fork = 2"
    local slow = hold(s)
    local c, tardy = s:connect(), s:connect()
    local quick = pid(c)
    local function waits()
      local text = process.slurp("/proc/" .. quick .. "/status")
      return tonumber(text:match("\nvoluntary_ctxt_switches:%s*(%d+)"))
    end
    local before = waits()
    for _ = 1, 8 do
      tardy:send((GET:gsub("/", "/tardy", 1)))
      socket.sleep(0.042)
      assert.equal(quick, pid(c))
      assert.equal(200, tardy:response().status)
    end
    assert.is_true(slow:silent(0))
    release(s)
    assert.is_true(waits() - before < 1000, waits() - before)
  end)

  it("loses no request that was pipelined on another connection", function()
    local s = start "min_fork = 1, max_fork = 1"
    local c, slow = s:connect(), s:connect()
    pid(c)
    pid(slow)
    s:signal("STOP")
    process.kill(s:workers()[1], "STOP")
    c:send(GET:rep(3))
    slow:send((GET:gsub("/", "/slow", 1)))
    process.kill(s:workers()[1], "CONT")
    s:signal("CONT")
    for index = 1, 3 do assert.equal(200, c:response().status, index) end
    assert.equal(200, slow:response().status)
  end)
end)

describe("a client that pipelines without end", function()
  after_each(server.cleanup)

  local function flood(c)
    c.raw:settimeout(0)
    c.raw:send(GET:rep(100))
    c.raw:receive(65536)
  end

  it("does not keep others of the same worker waiting, nor the end of the server", function()
    local s = start "min_fork = 1, max_fork = 1"
    local greedy = s:connect()
    for _ = 1, 20 do flood(greedy) end
    local other = s:connect()
    for _ = 1, 10 do
      flood(greedy)
      assert.equal(200, other:request("/").status)
    end
    s:signal("TERM")
    local ended = process.wait_until(function()
      flood(greedy)
      return s:status()
    end)
    assert.equal(0, ended)
  end)
end)

describe("a shutdown", function()
  after_each(server.cleanup)

  it("tells clients that wait: 408 where a request has begun, nothing where one was served", function()
    local s = start "min_fork = 1, max_fork = 1"
    local idle, cold, half, fresh = s:connect(), s:connect(), s:connect(), s:connect()
    pid(cold)
    socket.sleep(COLD)
    pid(idle)
    half:send("GET / HT")
    socket.sleep(0.1)
    s:signal("TERM")
    assert.equal(408, half:response().status)
    assert.equal(408, fresh:response().status)
    for name, c in pairs { idle = idle, cold = cold, half = half, fresh = fresh } do
      assert.same({ "", "closed" }, { c:read_all() }, name)
    end
    assert.equal(0, s:wait())
  end)

  it("answers what a worker was too slow for, and does not wait for another one", function()
    for _ = 1, 4 do
      local s = start "pre_fork = 2, min_fork = 2, max_fork = 2"
      local slow = hold(s)
      local c, tardy = s:connect(), s:connect()
      pid(c)
      tardy:send((GET:gsub("/", "/tardy", 1)))
      socket.sleep(0.042)
      c:send(GET)
      s:signal("TERM")
      assert.equal(200, c:response().status)
      assert.is_true(slow:silent(0), "the request had to wait for the slow one")
      release(s)
      server.cleanup()
    end
  end)

  it("closes after the response to a request that came in time", function()
    local s = start "min_fork = 1, max_fork = 1"
    local other = s:connect()
    pid(other)
    local slow = hold(s)
    s:signal("TERM")
    socket.sleep(0.1)
    other:send(GET)
    release(s)
    local response = other:response()
    assert.same({ 200, "close" }, { response.status, response.headers.connection })
    assert.equal(200, slow:response().status)
    assert.equal(0, s:wait())
  end)
end)

describe("a connect function around the handler", function()
  after_each(server.cleanup)

  it("is called for each turn of a connection and returns its result", function()
    local s = start("min_fork = 1, max_fork = 1", { WRAPPED = true })
    local c = s:connect()
    assert.equal(200, c:request("/").status)
    assert.equal(200, c:request("/").status)
    socket.sleep(COLD)
    assert.equal(200, c:request("/").status)
    assert.equal(200, c:request("/false").status)
    assert.truthy(s:wait_log("wrapped nil\n"))
    assert.truthy(s:wait_log("wrapped input\n"))
    assert.truthy(s:wait_log("returned true\n"))
    assert.truthy(s:wait_log("returned false\n"))
    assert.falsy(s:log():find("returned nil", 1, true))
  end)
end)
