-- A system that runs out of something: the server waits, tells, and goes on.
-- Any version: nothing of it depends on Lua's.

local socket = require "socket"
local faults = require "spec.support.faults"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- Starts a server with a limit on descriptors per process.
local function start(limit, app)
  local port = server.free_port()
  local path = process.scratch("app.lua")
  process.write(path, ("PORT = %d %s"):format(port, app))
  local s = server.start {
    port = port, ready = "listening",
    script = ("os.execute(%q)"):format(("ulimit -n %d; exec %s %s/bin/moonbridge -p %s.pid %s"):format(
      limit, server.interpreter, server.root, path, path)),
  }
  s.server_pid = math.tointeger(tonumber(process.slurp(path .. ".pid")))
  return s
end

local function count(s, text)
  return select(2, s:log():gsub(text, ""))
end

describe("a worker without descriptors", function()
  after_each(server.cleanup)

  it("pauses to accept, says so once a second, and goes on when there are some", function()
    local s = start(60, [[
      listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        { proto = "interval", name = "relief", delay = 1.5 },
        min_fork = 1, max_fork = 1,
        prepare = function()
          hoard = {}
          repeat hoard[#hoard + 1] = io.open("/dev/null") until #hoard > 100 or not io.open("/dev/null")
        end,
        connect = function(socket)
          if socket.interval then
            for _, file in ipairs(hoard) do file:close() end
            hoard = {}
            return true
          end
          socket:write("hello")
          return true
        end
      }
    ]])
    local begun = socket.gettime()
    local c = s:connect()
    assert.truthy(s:wait_log("%] Could not accept a connection: Too many open files\n"))
    assert.equal("hello", (c:read_all()))
    assert.truthy(socket.gettime() - begun > 0.5)
    local complaints = count(s, "Could not accept")
    assert.truthy(complaints >= 1 and complaints <= 3, complaints)
    assert.truthy(s:cpu() < 1)
    process.kill(s.server_pid, "TERM")
    s:wait()
  end)
end)

-- A server with one worker. After a request for /hoard the worker has so many descriptors left; /false ends
-- it. The body of each answer is the Lua value given, of `request` and `moonbridge`.
local function start_hoarder(left, answer)
  return server.start {
    command = { "sh", "-c", "ulimit -Sn 64 && exec " .. server.interpreter .. ' "$@"', "sh" },
    script = ([[
      local moonbridge = require "moonbridge"
      moonbridge.listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        min_fork = 1, max_fork = 1,
        connect = require "moonbridge_http".generate_handler(function(request)
          if request.path == "hoard" then
            hoard = {}
            repeat hoard[#hoard + 1] = io.open("/dev/null") until not io.open("/dev/null")
            for _ = 1, %d do table.remove(hoard):close() end
          end
          request:send_status("200 OK")
          request:send_data(%s)
          return request.path ~= "false"
        end),
      }
      moonbridge.run()
    ]]):format(left, answer),
  }
end

describe("a worker that has no descriptor left for a connection that comes back", function()
  after_each(server.cleanup)

  it("ends: another one gets it, and none is lost", function()
    local s = start_hoarder(0, "moonbridge.status()[1].lost")
    local cold = {}
    for index = 1, 5 do
      cold[index] = s:connect()
      assert.equal("0", cold[index]:request("/").body)
    end
    socket.sleep(1.4)
    local hot = s:connect()
    assert.equal("0", hot:request("/hoard").body)
    for _, c in ipairs(cold) do c:send("GET / HTTP/1.1\r\nHost: x\r\n\r\n") end
    for _, c in ipairs(cold) do assert.equal("0", c:response().body) end
    assert.equal("0", hot:request("/").body)
    assert.truthy(s:log():find("] No descriptor is left for a connection: another worker gets it\n", 1, true))
  end)
end)

describe("a worker that has one descriptor left for a connection that comes with a file", function()
  after_each(server.cleanup)

  it("ends: another one gets both", function()
    local s = start_hoarder(1, "#request.headers_csv_string.x")
    local large = s:connect()
    large:send("GET / HTTP/1.1\r\nHost: x\r\nX: " .. ("a"):rep(100000))
    socket.sleep(0.2)
    assert.equal(200, s:request("/false").status)
    local hot = s:connect()
    assert.equal(200, hot:request("/hoard").status)
    large:send("\r\n\r\n")
    assert.equal("100000", large:response().body)
    assert.equal(200, hot:request("/").status)
  end)
end)

describe("a kernel that refuses to accept connections for good", function()
  after_each(server.cleanup)

  for _, errno in ipairs { "EPERM", "EACCES", "ENOSYS", "ENETDOWN" } do
    it("is asked again now and then, and the log tells: " .. errno, function()
      local s = faults.server [[
        local moonbridge = require "moonbridge"
        moonbridge.listen {
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          min_fork = 1, max_fork = 1,
          connect = function(socket) socket:write("hello") return true end,
        }
        moonbridge.run()
      ]]
      s.faults:set { call = "accept4", process = "workers", errno = errno }
      local c = s:connect()
      assert.truthy(s:wait_log("Could not accept a connection: "))
      local before = s.faults:hits("accept4")
      socket.sleep(1)
      local tries = s.faults:hits("accept4") - before
      assert.truthy(tries < (errno == "ENETDOWN" and 64 * 30 or 30), tries)
      s.faults:clear()
      assert.equal("hello", (c:read_all()))
    end)
  end
end)

describe("a supervisor without descriptors", function()
  after_each(server.cleanup)

  it("serves with the workers it could fork, and tries again after fork_error_delay", function()
    local s = start(40, [[
      listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        min_fork = 40, max_fork = 40, fork_delay = 0, fork_error_delay = 0.3,
        connect = function(socket) socket:write("hello") return true end
      }
    ]])
    assert.truthy(s:wait_log("Could not fork a worker for pool #1: Too many open files\n", nil, 2))
    for _ = 1, 20 do assert.equal("hello", (s:raw(""))) end
    local before = count(s, "Could not fork")
    socket.sleep(1)
    local failures = count(s, "Could not fork") - before
    assert.truthy(failures >= 1 and failures <= 8, failures)
    process.kill(s.server_pid, "TERM")
    s:wait()
  end)
end)

describe("what the system refuses at the start", function()
  after_each(server.cleanup)

  local APP = [[
    listen{
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      fork_error_delay = 0.3,
      connect = function(socket) socket:write("hello") return true end
    }
  ]]

  for call, expected in pairs {
    mmap = { "ENOMEM", "Could not initialize the pool: Cannot allocate memory\n" },
    signalfd = { "EMFILE", "Could not start to serve: Too many open files\n" },
    epoll_create1 = { "EMFILE", "Could not start to serve: Too many open files\n" },
  } do
    local errno, text = table.unpack(expected)
    it("is told by the log, exit code 3: " .. call, function()
      local s = faults.server {
        script = APP, launcher = true, ready = false, faults = { { call = call, errno = errno } },
      }
      assert.equal(3, s:wait())
      assert.truthy(s:log():find(text, 1, true), s:log())
    end)
  end

  it("is told where it concerns a worker, which is tried again", function()
    local s = faults.server {
      script = APP, launcher = true, ready = "serving",
      faults = { { call = "epoll_create1", process = "workers", errno = "EMFILE", count = 1 } },
    }
    assert.truthy(s:wait_log("Could not start the worker: Too many open files\n"))
    assert.equal("hello", (s:raw("")))
  end)
end)
