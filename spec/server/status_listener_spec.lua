-- Listeners of the status process: /live and /ready, whatever the workers do.
-- Any version: nothing of it depends on Lua's.

local client = require "spec.support.client"
local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"
local status = require "spec.support.status"
local status_listener = require "spec.support.status_listener"
local tables = require "spec.support.tables"

-- The handler runs for as long as the file at the path that it is sent is there.
local SERVER = [[
  listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "status", host = "127.0.0.1", port = STATUS, stuck_limit = LIMIT or nil },
    min_fork = 1, max_fork = 1,
    prepare = function()
      while PREPARES and io.open(PREPARES) do moonbridge_io.poll(nil, nil, 0.05) end
    end,
    connect = function(socket)
      socket:write("begun\n"):flush()
      local path = socket:read(nil, "\n"):gsub("\n", "")
      while io.open(path) do moonbridge_io.poll(nil, nil, 0.05) end
      socket:write("done")
      return true
    end,
  }
]]

local ask = status_listener.ask

local function start(globals, options)
  return status_listener.start(tables.with({ script = SERVER, globals = globals }, options))
end

local function wait_status(s, code)
  local response
  local reached = process.wait_until(function()
    response = ask(s, "/ready")
    return response.status == code
  end)
  assert(reached, "/ready says " .. response.status .. " " .. response.body)
  return response.body
end

local function touch(name)
  local path = process.scratch(name)
  assert(io.open(path, "w")):close()
  return path
end

-- The status process: the one that has the port.
local function find(s)
  for _, pid in ipairs(s:workers()) do
    local port = (":%04X"):format(s.status_port)
    local text = process.slurp("/proc/" .. pid .. "/net/tcp") or ""
    local inode = text:match(port .. " %x+:%x+ 0A %S+ %S+ %S+ +%d+ +%d+ (%d+)")
    if status.descriptors(pid)[("socket:[%s]"):format(inode)] then return pid end
  end
end

describe("a status listener", function()
  after_each(server.cleanup)

  it("answers /live and /ready, refuses the rest, and keeps connections", function()
    local s = start()
    wait_status(s, 200)
    local connection = client.connect(s.status_port, "127.0.0.1")
    for _ = 1, 3 do
      local response = connection:request("/live")
      assert.equal(200, response.status)
      assert.equal("live\n", response.body)
      assert.equal("text/plain; charset=utf-8", response.headers["content-type"])
      assert.equal("ready\n", connection:request("/ready?x=y").body)
    end
    assert.equal(404, connection:request("/").status)
    local post = connection:request{ method = "POST", target = "/live", body = "x" }
    assert.equal(405, post.status)
    assert.equal("GET, HEAD", post.headers.allow)
    assert.equal("closed", select(2, connection:read_all()))
    assert.equal("", ask(s, { method = "HEAD", target = "/ready" }).body)
    assert.equal(400, ask(s, { target = "/live", host = false }).status)
    assert.equal(431, ask(s, { target = "/live", headers = { a = ("x"):rep(9000) } }).status)
    assert.equal(414, ask(s, { target = "/" .. ("x"):rep(9000) }).status)
  end)

  it("stays bounded: slow clients make room for others", function()
    local s = start()
    local slow = {}
    for index = 1, 100 do
      slow[index] = client.connect(s.status_port, "127.0.0.1")
      slow[index]:send("GET / HT")
    end
    for _ = 1, 3 do assert.equal(200, ask(s, "/live").status) end
  end)

  it("is ready when each pool has a worker that serves", function()
    local path = touch "prepares"
    local s = start({ PREPARES = path })
    assert.equal("live\n", ask(s, "/live").body)
    assert.equal("not ready: pool #1 has no worker that serves\n", wait_status(s, 503))
    os.remove(path)
    assert.equal("ready\n", wait_status(s, 200))
  end)

  it("answers while all workers are busy, and is not ready if a pool is stuck for too long", function()
    local path = touch "busy"
    local s = start({ LIMIT = 1.5 })
    wait_status(s, 200)
    local connection = s:connect()
    assert(connection:read_until("begun\n"))
    connection:send(path .. "\n")
    assert.equal("ready\n", ask(s, "/ready").body)
    local text = wait_status(s, 503)
    assert.truthy(text:find("^not ready: pool #1 is stuck: .* none has got on for %d+ s\n$"), text)
    local worker = tonumber(s:log():match("pool #1 with PID (%d+)")) -- none has ended
    assert.equal(nil, worker)
    assert.equal("live\n", ask(s, "/live").body)
    os.remove(path)
    assert(connection:read_until("done"))
    wait_status(s, 200)
  end)

  it("is not ready while the workers of a pool are stopped", function()
    local s = start()
    wait_status(s, 200)
    local attendant = find(s)
    for _, pid in ipairs(s:workers()) do
      if pid ~= attendant then process.freeze(pid) end
    end
    assert.equal("not ready: pool #1 is stuck: signals have stopped its workers\n", ask(s, "/ready").body)
    assert.equal("live\n", ask(s, "/live").body)
    wait_status(s, 200)
  end)

  it("is a process that is replaced when it ends or is stopped", function()
    local s = start()
    wait_status(s, 200)
    for _, signal in ipairs { "KILL", "STOP" } do
      local pid = assert(find(s))
      for _, ignored in ipairs { "TERM", "INT", "HUP", "USR1" } do process.kill(pid, ignored) end
      process.kill(pid, signal)
      assert.truthy(process.wait_until(function()
        local now = find(s)
        return now and now ~= pid
      end), s:log())
      assert.equal("live\n", ask(s, "/live").body)
      local text = ("The status process (PID %d) has ended by signal 9"):format(pid)
      assert.truthy(s:log():find(text, 1, true))
    end
    assert.falsy(s:log():find("shutdown", 1, true))
  end)

  it("ends with a supervisor that was killed", function()
    local s = start()
    wait_status(s, 200)
    s:signal("KILL")
    s:wait()
    assert.truthy(process.wait_until(function() return not server.listening(s.status_port) end))
  end)

  it("may be alone, or at a local socket with its permissions", function()
    local path = process.scratch("status")
    local s = server.start {
      launcher = true, globals = { PATH = path }, ready = false,
      script = [[ listen{ { proto = "status", path = PATH, mode = "0600" } } ]],
    }
    assert.truthy(process.wait_until(function() return lfs.attributes(path, "mode") == "socket" end))
    local response
    process.wait_until(function()
      local connected, connection = pcall(client.connect, nil, nil, { path = path })
      response = connected and connection:request("/ready")
      return response
    end)
    assert.equal("ready\n", response.body)
    assert.equal("rw-------", lfs.attributes(path, "permissions"))
    assert.equal(0, s:stop())
    assert.equal(nil, lfs.attributes(path, "mode"))
  end)

  it("is told by status(), with the port that the kernel has chosen", function()
    local code, output = server.run_script [[
      local moonbridge = require "moonbridge"
      moonbridge.listen{ { proto = "status", host = "127.0.0.1", port = 0 } }
      local status = moonbridge.status()
      local found = status.status_listeners[1]
      print(#status, #status.status_listeners, found.proto, found.host, found.port > 0)
      os.exit(0)
    ]]
    assert.equal(0, code)
    assert.equal("0\t1\tstatus\t127.0.0.1\ttrue\n", output)
  end)

  it("is shown by --check, which opens nothing", function()
    local path = process.scratch("status")
    local code, output, errors = server.run_script {
      launcher = { "--check" }, script = [[
        listen{ { proto = "tcp", port = 1 }, { proto = "status", port = 2 }, connect = print }
        listen{ { proto = "status", path = PATH } }
      ]], globals = { PATH = path },
    }
    assert.equal("", errors)
    assert.equal(0, code)
    assert.truthy(output:find('\nTCP listener on interface "::", port 2 for status requests\n'
      .. ('local socket listener with path "%s" for status requests\n'):format(path), 1, true), output)
    assert.equal(nil, lfs.attributes(path, "mode"))
  end)

  it("says what is wrong", function()
    for script, message in pairs {
      ["{ proto = 'status' }"] = 'Status listener #1 needs a field "port" or "path"',
      ["{ proto = 'status', port = 1, path = 'x' }"] = 'Status listener #1 has both "port" and "path"',
      ["{ proto = 'status', port = 'x y' }"] = 'Field "port" of listener #1 must be',
      ["{ proto = 'status', port = 1, stuck_limit = 0 }"] =
        'Field "stuck_limit" of listener #1 must be a positive number of seconds, or false',
      ["{ proto = 'status', port = 1, stuck_limits = 1 }"] = 'did you mean "stuck_limit"?',
      ["{ proto = 'status', port = 1 }, connect = print"] =
        'Option "connect" of listen has no effect: status listeners have no workers',
      ["{ proto = 'status', host = '192.0.2.1', port = 1 }"] =
        "Could not initialize listener #1: Cannot assign requested address (tcp 192.0.2.1 port 1)",
    } do
      local code, _, errors = server.run_script { launcher = true, script = ("listen{ %s }"):format(script) }
      assert.equal(3, code, script)
      assert.truthy(errors:find(message, 1, true), errors)
    end
  end)

  it("is as ready as the next generation when it answers its last request", function()
    local s = start({}, { launcher = { "--hangup", "reload" } })
    wait_status(s, 200)
    local kept = client.connect(s.status_port, "127.0.0.1")
    assert.equal("ready\n", kept:request("/ready").body)
    local first = assert(find(s))
    process.freeze(first)
    kept:send "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
    s:signal("HUP")
    assert(s:wait_log("Reload complete"))
    process.thaw(first)
    -- Unless it was killed meanwhile: a status process that is stopped is replaced.
    local text = kept:read_all() or ""
    assert.truthy(text == "" or text:find("ready\n$") and not text:find("not ready", 1, true), text)
  end)

  it("moves to the next generation without a refused connection", function()
    local s = start({}, { launcher = { "--hangup", "reload" } })
    wait_status(s, 200)
    local kept = client.connect(s.status_port, "127.0.0.1")
    assert.equal("live\n", kept:request("/live").body)
    local first = assert(find(s))
    for round = 1, 3 do
      s:signal("HUP")
      assert.truthy(process.wait_until(function()
        local response = ask(s, "/ready")
        assert.equal("ready\n", response.body)
        return select(2, s:log():gsub("Reload complete", "")) == round
      end), s:log())
      assert.equal("live\n", ask(s, "/live").body)
    end
    -- A client that is slow to notice finds FIN all the same.
    assert(process.wait_until(function() return not process.alive(first) end))
    assert.equal("closed", select(2, kept:read_all()))
    -- The port belongs to nobody but the generation that serves.
    assert.equal(0, s:stop())
    assert.falsy(server.listening(s.status_port))
  end)
end)

describe("drain_delay", function()
  after_each(server.cleanup)

  local function started(delay)
    local s = start({}, { launcher = { "--drain-delay", tostring(delay) } })
    wait_status(s, 200)
    return s
  end

  local function serves(s)
    local connection = s:connect()
    connection:send("/nowhere\n")
    assert.equal("begun\ndone", (connection:read_all()))
  end

  it("lets the server serve on after SIGTERM, while it says that it is not ready", function()
    local s = started(2)
    s:signal("TERM")
    assert.equal("not ready: the server shuts down\n", wait_status(s, 503))
    assert.equal("live\n", ask(s, "/live").body)
    serves(s)
    assert.equal(0, s:wait())
    assert.truthy(s:log():find("Shutdown in 2 s: the server is not ready any more\n", 1, true))
    assert.truthy(s:log():find("Initiate shutdown\n", 1, true))
  end)

  it("ends early at a second SIGTERM, and at once at SIGINT", function()
    for _, signal in ipairs { "TERM", "INT" } do
      local s = started(1000)
      s:signal("TERM")
      wait_status(s, 503)
      serves(s)
      s:signal(signal)
      assert.equal(0, s:wait())
    end
  end)

  it("refuses a reload meanwhile, also of a later generation", function()
    local s = start({}, { launcher = { "--drain-delay", "1000", "--hangup", "reload" } })
    wait_status(s, 200)
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload complete"))
    s:signal("TERM")
    wait_status(s, 503)
    serves(s)
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload refused: the server shuts down"))
    serves(s)
    s:signal("TERM")
    assert.equal(0, s:wait())
  end)
end)
