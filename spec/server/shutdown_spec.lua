-- The end of a server: what waits is served, ports are free at once, and nothing makes it last.

local client = require "spec.support.client"
local lfs = require "lfs"
local socket = require "socket"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tables = require "spec.support.tables"

-- Signals end a wait early.
local REST = [[
  local function rest(seconds)
    local start = moonbridge_io.timeref()
    while moonbridge_io.timeref(start) < seconds do
      moonbridge_io.poll(nil, nil, seconds - moonbridge_io.timeref(start))
    end
  end
]]

-- A pool whose handler answers a line, after some seconds or when it is released if the line says so.
local POOL = [[
  connect = function(socket)
    local line = socket:read(100, "\n")
    local seconds = tonumber(line)
    if seconds or line == "held\n" then
      io.stderr:write("busy\n")
      if seconds then rest(seconds) else repeat rest(0.05) until io.open(FLAG) end
    end
    socket:write("served")
    return true
  end,
]]

local function start(pool, options)
  local globals = tables.with({ FLAG = process.scratch("flag") }, options and options.globals)
  local s = server.start_pool(pool, tables.with({ before = REST }, options, { globals = globals }))
  s.flag = globals.FLAG
  return s
end

-- Lets the handlers return that are held.
local function release(s) assert(io.open(s.flag, "w")):close() end

-- A connection whose handler takes some seconds, or until it is released ("held").
local function occupy(s, seconds, options)
  local before = select(2, s:log():gsub("busy\n", ""))
  local c = s:connect(options)
  c:send(seconds .. "\n")
  assert.truthy(process.wait_until(function()
    return select(2, s:log():gsub("busy\n", "")) > before
  end))
  return c
end

local function asking(s, count, options)
  local clients = {}
  for index = 1, count do
    clients[index] = s:connect(options)
    clients[index]:send("x\n")
  end
  return clients
end

local function assert_served(clients)
  for index, c in ipairs(clients) do
    assert.same({ "served", "closed" }, { c:read_all() }, "client " .. index)
  end
end

local function terminate(s, signal)
  s:signal(signal or "TERM")
  assert.truthy(s:wait_log("Initiate shutdown"))
end

-- What a terminal or a service manager sends to all processes of the server.
local function to_all(s, signal)
  local pids = s:workers()
  pids[#pids + 1] = s.pid
  process.run(("kill -%s %s"):format(signal, table.concat(pids, " ")))
end

describe("a port of a server that shuts down", function()
  after_each(server.cleanup)

  it("is closed at once, also while all workers are busy; what waits there is served", function()
    local s = start("min_fork = 2, max_fork = 2," .. POOL)
    local busy = { occupy(s, 2.5), occupy(s, 2.5) }
    local waiting = asking(s, 30)
    terminate(s)
    assert.is_false(server.listening(s.port))
    assert.falsy(pcall(s.connect, s))
    assert.falsy(s:log():find("served"), "no handler has returned")
    assert_served(busy)
    assert_served(waiting)
    assert.equal(0, s:wait())
  end)

  it("refuses each client that it does not serve", function()
    local s = start("min_fork = 1, max_fork = 1," .. POOL)
    local busy = occupy(s, 0.7)
    os.execute(("(sleep 0.2; kill -TERM %d) &"):format(s.pid))
    local clients, refused = {}, 0
    local stop = socket.gettime() + server.TIMEOUT
    while refused < 20 and socket.gettime() < stop do
      local ok, c = pcall(s.connect, s)
      if ok then
        c:send("x\n")
        clients[#clients + 1] = c
      else
        refused = refused + 1
      end
      socket.sleep(0.002)
    end
    assert.is_true(#clients > 0 and refused > 0)
    assert_served { busy }
    assert_served(clients)
    assert.equal(0, s:wait())
  end)

  it("is free for a new server, which serves while the old one finishes", function()
    local s = start("min_fork = 1, max_fork = 1," .. POOL)
    local busy = occupy(s, "held")
    terminate(s)
    local new = start(POOL, { port = s.port })
    assert_served(asking(new, 3))
    assert.is_nil(s:status())
    release(s)
    assert_served { busy }
    assert.equal(0, s:wait())
    assert_served(asking(new, 3))
  end)

  it("is closed by a main handler's end as well", function()
    local done = process.scratch("done")
    local s = server.start { launcher = true, globals = { DONE = done }, script = REST .. [[
      listen{ { proto = "main" },
        connect = function() repeat rest(0.05) until io.open(DONE) return true end }
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
        min_fork = 1, max_fork = 1,]] .. POOL .. "}" }
    local busy = occupy(s, 2)
    local waiting = asking(s, 3)
    io.open(done, "w"):close()
    assert.truthy(s:wait_log("Initiate shutdown"))
    assert.falsy(pcall(s.connect, s))
    assert_served { busy, table.unpack(waiting) }
    assert.equal(0, s:wait())
  end)

  it("at a local path serves what waits there and is free for a new server, whose file stays", function()
    local path = process.scratch("socket")
    local options = { globals = { PATH = path } }
    local pool = '{ proto = "local", path = PATH }, min_fork = 1, max_fork = 1,' .. POOL
    local s = start(pool, options)
    local busy = occupy(s, "held", { path = path })
    local waiting = asking(s, 30, { path = path })
    terminate(s)
    assert.is_nil(lfs.attributes(path))
    local new = start(pool, { globals = options.globals })
    assert_served(asking(new, 3, { path = path }))
    assert.is_nil(s:status())
    release(s)
    assert_served { busy }
    assert_served(waiting)
    assert.equal(0, s:wait())
    assert_served(asking(new, 3, { path = path }))
  end)

  it("at a local path is closed also if clients never stop, and takes no more than waited", function()
    local path = process.scratch("socket")
    local s = start('{ proto = "local", path = PATH }, min_fork = 1, max_fork = 1,' .. [[
      connect = function(socket) rest(0.02) socket:write("served") return true end,
    ]], { globals = { PATH = path } })
    local clients = {}
    for index = 1, 20 do clients[index] = s:connect { path = path } end
    s:signal("TERM")
    local ended = process.wait_until(function()
      pcall(function() for _ = 1, 5 do s:connect { path = path } end end)
      return s:status()
    end)
    assert.equal(0, ended)
    for index, c in ipairs(clients) do assert.equal("served", (c:read_all()), index) end
  end)
end)

describe("what waits at the ports of a server that shuts down", function()
  after_each(server.cleanup)

  it("is served also if there are not enough descriptors for all of it at once", function()
    local s = start("min_fork = 1, max_fork = 1," .. POOL, {
      command = { "sh", "-c", 'ulimit -n 48; exec "$@"', "sh", server.interpreter },
    })
    local busy = occupy(s, 0.5)
    local waiting = asking(s, 120)
    s:signal("TERM")
    assert_served { busy }
    assert_served(waiting)
    assert.equal(0, s:wait())
  end)

  it("is served by further workers while one is busy for long", function()
    local s = start("min_fork = 1, max_fork = 3, pre_fork = 0, fork_delay = 0.1," .. POOL)
    local busy = occupy(s, "held")
    local waiting = asking(s, 5)
    terminate(s)
    assert_served(waiting)
    assert.is_true(busy:silent(0))
    s:signal("INT")
    assert.equal(0, s:wait())
  end)

  it("is served though prepare fails at first", function()
    local flag = process.scratch("flag")
    local s = start("fork_error_delay = 0.2, min_fork = 1, max_fork = 1," .. [[
      prepare = function()
        local file = io.open(FLAG)
        if not file then return end
        file:close()
        os.remove(FLAG)
        error("not yet")
      end,
      connect = function(socket)
        if socket:read(100, "\n") == "first\n" then
          io.stderr:write("busy\n")
          rest(0.5)
        end
        socket:write("served")
        return false
      end,
    ]], { globals = { FLAG = flag } })
    local first = s:connect()
    first:send("first\n")
    assert.truthy(s:wait_log("busy\n"))
    local waiting = asking(s, 3)
    terminate(s)
    io.open(flag, "w"):close()
    assert_served { first, table.unpack(waiting) }
    assert.equal(0, s:wait())
    assert.truthy(s:log():find("not yet", 1, true))
  end)

  it("is closed if prepare does nothing but fail", function()
    local s = start("fork_error_delay = 0.1, min_fork = 1, max_fork = 1," .. [[
      prepare = function() error("never") end, connect = function() return true end,
    ]], { ready = { log = "never" } })
    local c = s:connect()
    terminate(s)
    assert.equal(0, s:wait())
    assert.equal("", (c:read_all()))
  end)
end)

-- Its response has begun before, and cannot say any more that the connection ends: a proxy may send somebody
-- else's request over it at any moment.
describe("a connection that is in use when the server shuts down", function()
  after_each(server.cleanup)

  for what, case in pairs {
    ["whose handler goes on"] = {},
    ["whose handler ends its worker by its result"] = { result = "false" },
    ["whose handler ends its worker by its number"] = { pool = "max_requests = 1," },
    ["that has user fields"] = { set = "request.socket.user_field = 1" },
    ["whose client has not received everything"] = { size = 8000000, receive_buffer = 200000 },
  } do
    it("serves one more request: one " .. what, function()
      local flag = process.scratch("flag")
      local s = server.start { globals = { FLAG = flag }, script = ([[
        local moonbridge = require "moonbridge"
        local http = require "moonbridge_http"
        moonbridge.listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2, %s
          connect = http.generate_handler({ response_buffering = 16000000 }, function(request)
            %s
            request:send_status("200 OK")
            if request.method == "POST" then
              request:send_data(#request.body)
            else
              request:send_data(("x"):rep(%d))
              %s
              io.stderr:write("begun\n")
              repeat moonbridge.io.poll(nil, nil, 0.02) until io.open(FLAG)
              io.stderr:write("returns\n")
            end
            return %s
          end),
        }
        moonbridge.run()
      ]]):format(case.pool or "", case.set or "", case.size or 1, case.size and "" or "request:flush()",
        case.result or "true") }
      local connection = s:connect { receive_buffer = case.receive_buffer }
      connection:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.truthy(s:wait_log("begun"))
      local function let_go()
        local file = assert(io.open(flag, "w"))
        file:close()
      end
      -- A worker sends what its client has not received once the handler has returned.
      if case.receive_buffer then
        let_go()
        process.wait_asleep(s:wait_log("PID (%d+)%] returns"))
      end
      s:signal("TERM")
      assert.truthy(s:wait_log("Initiate shutdown"))
      let_go()
      local again = client.format { method = "POST", body = "abc" }
      -- The server waits for a second from when it has sent everything, which a slow client does not see.
      if case.size then connection:send(again) end
      local response = connection:response("GET")
      assert.is_nil(response.headers.connection)
      assert.equal(case.size or 1, #response.body)
      if not case.size then
        socket.sleep(0.1)
        connection:send(again)
      end
      response = connection:response()
      assert.equal("3", response.body)
      assert.equal("close", response.headers.connection)
      assert.equal(0, s:wait())
    end)
  end
end)

describe("SIGTERM to the whole process group", function()
  after_each(server.cleanup)

  for _, signal in ipairs { "TERM", "QUIT" } do
    it("loses nothing while workers are in prepare: SIG" .. signal, function()
      local s = start("min_fork = 2, max_fork = 2," .. [[
        prepare = function()
          io.stderr:write("prepare\n")
          rest(1.5)
        end,
      ]] .. POOL, { ready = { log = "prepare\n.*prepare\n" } })
      local waiting = asking(s, 5)
      to_all(s, signal)
      assert_served(waiting)
      assert.equal(0, s:wait())
      assert.falsy(s:log():find("signal", 1, true))
    end)
  end
end)

describe("SIGQUIT", function()
  after_each(server.cleanup)

  it("to the supervisor, or to all, ends the server in order", function()
    for _, kill in ipairs { process.kill, function(_, signal, s) to_all(s, signal) end } do
      local s = start([[
        min_fork = 2, max_fork = 2, fork_delay = 0,
        prepare = function() io.stderr:write('prepared\n') end,
        finish = function() io.stderr:write('finish\n') end,
      ]] .. POOL, { ready = { log = "prepared.*prepared" } })
      local busy = occupy(s, 0.5)
      kill(s.pid, "QUIT", s)
      assert_served { busy }
      assert.equal(0, s:wait())
      assert.equal(2, select(2, s:log():gsub("finish\n", "")))
    end
  end)

  it("means nothing to an idle worker", function()
    local s = start("min_fork = 1, max_fork = 1," .. POOL)
    local worker = s:workers()[1]
    assert_served(asking(s, 1))
    process.wait_asleep(worker)
    process.kill(worker, "QUIT")
    assert_served(asking(s, 3))
    assert.same({ worker }, s:workers())
  end)

  it("lets a busy worker answer, which is then replaced", function()
    local s = start("min_fork = 1, max_fork = 1," .. POOL)
    local worker = s:workers()[1]
    local busy = occupy(s, 0.5)
    process.kill(worker, "QUIT")
    assert_served { busy }
    assert_served(asking(s, 1))
    assert.not_same({ worker }, s:workers())
  end)
end)
