-- Processes that handlers make by `fork` (luaposix, LuaSystem, C modules): they leave the worker's
-- listeners, connections and control channel alone, and end with the handler.

local process = require "spec.support.process"
local server = require "spec.support.server"
local posix = require "spec.support.posix"

local function start(pool, extra)
  extra = extra or {}
  return server.start {
    launcher = extra.launcher or true, ready = extra.ready, globals = { POSIX = posix.path() },
    script = (extra.before or "") .. ([[
      local http = require "moonbridge_http"
      local posix = package.loadlib(POSIX, "luaopen_posix")()
      local socket_path = %q
      local listener = socket_path ~= "" and { proto = "local", path = socket_path }
        or { proto = "tcp", host = "127.0.0.1", port = PORT }
      listen{ listener, %s }
    ]]):format(extra.path or "", pool),
  }
end

local one = "min_fork = 1, pre_fork = 1, max_fork = 1, "

-- Ends a process whose pid the log tells as "child PID".
local function end_child(s)
  local pid = assert(s:wait_log("child (%d+)"))
  process.kill(math.tointeger(tonumber(pid)), "KILL")
  assert(process.wait_until(function() return not process.alive(pid) end))
end

-- What happens to be the end of the child: nothing, an error, a result that would end a worker.
local ends = { ["return true"] = 0, ["error('in the child')"] = 1, ["return false"] = 0, ["error({})"] = 1 }

describe("a process that a handler forks", function()
  after_each(server.cleanup)

  for ending, code in pairs(ends) do
    it(("leaves its worker alone: plain handler, %s"):format(ending), function()
      local s = start(one .. ([[
        connect = function(socket)
          if socket:read(1) == "f" then
            socket:write("begun ")
            io.stdout:write("parent ")
            local pid = posix.fork()
            if pid == 0 then
              io.stdout:write("child ")
              %s
            end
            io.stderr:write("ended with ", posix.wait(pid), "\n")
            io.stdout:flush()
          end
          socket:write("served")
          return true
        end
      ]]):format(ending))
      local worker = s:workers()[1]
      for _ = 1, 3 do
        assert.same({ "begun served", "closed" }, { s:raw("f") })
        assert.same({ "served", "closed" }, { s:raw("n") })
      end
      assert.truthy(s:wait_log("ended with " .. code, nil, 3))
      assert.equal(code, select(2, s:log():gsub("Error in \"connect\" function", "")) == 3 and 1 or 0)
      assert.same({ worker }, s:workers())
      assert.equal(0, s:stop())
      assert.equal(("parent child "):rep(3), s:output())
    end)

    it(("leaves its worker alone: HTTP handler, %s"):format(ending), function()
      local s = start(one .. ([[
        connect = http.generate_handler(function(request)
          request:send_status("200 OK")
          request:send_header("Content-Length", 6)
          if request.path == "fork" then
            local pid = posix.fork()
            if pid == 0 then
              request:send_data("child!")
              %s
            end
            io.stderr:write("ended with ", posix.wait(pid), "\n")
          end
          request:send_data("parent")
          return true
        end)
      ]]):format(ending))
      local worker = s:workers()[1]
      local kept = s:connect()
      assert.equal("parent", kept:request("/").body)
      local other = s:connect()
      for _ = 1, 3 do
        assert.equal("parent", kept:request("/fork").body)
        assert.equal("parent", other:request("/").body)
        assert.equal("parent", s:request("/").body)
      end
      assert.truthy(s:wait_log("ended with " .. code, nil, 3))
      assert.same({ worker }, s:workers())
    end)
  end

  it("ends after prepare and finish, and after interval and main listeners", function()
    local s = start([[
      min_fork = 1, pre_fork = 1, max_fork = 1,
      { proto = "interval", name = "tick", delay = 0.05 },
      prepare = function()
        if posix.fork() == 0 then return end
        io.stderr:write("prepared\n")
      end,
      connect = function(socket)
        if socket.interval then
          local pid = posix.fork()
          if pid > 0 then io.stderr:write("ticked ", posix.wait(pid), "\n") end
          return true
        end
        socket:write("served")
        return socket:read(1) == "k"
      end,
      finish = function()
        if posix.fork() == 0 then return end
        io.stderr:write("finished\n")
      end
    ]])
    assert.truthy(s:wait_log("ticked 0", nil, 2))
    assert.equal("served", (s:raw("k")))
    assert.equal("served", (s:raw("e")))
    assert.truthy(s:wait_log("prepared", nil, 2))
    assert.equal("served", (s:raw("k")))
    assert.equal(0, s:stop())
    assert.equal(2, select(2, s:log():gsub("prepared", "")))
    assert.equal(2, select(2, s:log():gsub("finished", "")))
  end)

  for _, how in ipairs { "close", "reset", "finish" } do
    it(("does not end its worker's connection by %s"):format(how), function()
      local s = start(one .. ([[
        connect = function(socket)
          socket:write("a")
          local pid = posix.fork()
          if pid == 0 then
            socket:%s()
            os.exit(0)
          end
          posix.wait(pid)
          socket:write(socket:read(1), "b")
          return true
        end
      ]]):format(how))
      assert.same({ "axb", "closed" }, { s:raw("x") })
    end)
  end

  it("may write to its worker's client while the handler waits for it", function()
    local s = start(one .. [[
      connect = function(socket)
        socket:write("parent ")
        local pid = posix.fork()
        if pid == 0 then
          socket:write("child ")
          socket:flush()
          return
        end
        posix.wait(pid)
        socket:write("parent")
        return true
      end
    ]])
    assert.same({ "child parent parent", "closed" }, { s:raw("") })
  end)

  local lives_on = [[
    local pid = posix.fork()
    if pid == 0 then
      posix.sleep(60)
      os.exit(0)
    end
    io.stderr:write("child ", pid, "\n")
  ]]

  for what, ending in pairs { FIN = "socket:close()", RST = "socket:reset()", ["an implicit FIN"] = "" } do
    it(("that lives on keeps no client from its end: %s"):format(what), function()
      local s = start(one .. ([[
        connect = function(socket)
          socket:write("page")
          socket:flush()
          socket:read(1)
          %s
          %s
          return true
        end
      ]]):format(lives_on, ending))
      local expected = what == "RST" and "reset" or "closed"
      local _, how = s:raw("x", server.TIMEOUT / 2)
      assert.equal(expected, how)
      end_child(s)
    end)
  end

  -- The worker dies in its first run of the handler for a connection.
  local deaths = {
    ["SIGKILL"] = "os.execute('kill -KILL ' .. moonbridge_io.getpid()) moonbridge_io.poll(nil, nil, 30)",
    ["os.exit"] = "os.exit(0)",
    ["a timeout"] = "timeout(0.1) moonbridge_io.poll(nil, nil, 30)",
  }
  for death, code in pairs(deaths) do
    it(("that lives on keeps no client from its end: %s ends the worker"):format(death), function()
      local path = process.scratch("socket")
      local s = start(one .. ([[
        { proto = "local", path = %q },
        connect = function(socket)
          socket:flush("page")
          if socket:read(1) == "x" then
            %s
            %s
          end
          return true
        end
      ]]):format(path, lives_on, code))
      assert.same({ "page", "reset" }, { s:raw("x", server.TIMEOUT / 2) })
      end_child(s)
      local c = s:connect { path = path }
      c:send("x")
      assert.same({ "page", "closed" }, { c:read_all(server.TIMEOUT / 2) })
      for pid in s:log():gmatch("child (%d+)") do process.kill(math.tointeger(tonumber(pid)), "KILL") end
      assert.same({ "page", "closed" }, { s:raw("y") })
    end)
  end

  it("leaves the connection with its worker, which serves it further", function()
    local s = start(one .. [[
      connect = function(socket)
        socket.count = (socket.count or 0) + 1
        if posix.fork() == 0 then os.exit(0) end
        local mode = socket:read(1)
        if mode == "c" then socket:flush(socket.count) socket:close() return true end
        socket:flush(socket.count)
        if mode == "d" then socket.count = nil end
        socket:park()
        return true
      end
    ]])
    local c = s:connect()
    for _, mode in ipairs { "p1", "p2", "d3", "p1", "p2", "c3" } do
      c:send(mode:sub(1, 1))
      assert.equal(mode:sub(2), c:read(1))
    end
    assert.same({ "", "closed" }, { c:read_all(server.TIMEOUT / 2) })
    assert.equal(0, s:stop())
  end)

  it("that lives on keeps no client of a local socket from its end", function()
    local path = process.scratch("socket")
    local s = start(one .. ([[
      connect = function(socket) socket:write("page") %s return true end
    ]]):format(lives_on), { path = path, ready = { log = "Pool #1 created" } })
    assert(process.wait_until(function() return #s:workers() == 1 end))
    local c = s:connect { path = path }
    assert.same({ "page", "closed" }, { c:read_all(server.TIMEOUT / 2) })
    end_child(s)
  end)

  -- Answers HTTP; the path "fork" starts a child that lives on.
  local PAGES = one .. ([[
    connect = http.generate_handler(function(request)
      if request.path == "fork" then %s end
      request:send_status("200 OK")
      request:send_data("page")
      return true
    end)
  ]]):format(lives_on)

  it("that lives on keeps no HTTP client from its end", function()
    local s = start(PAGES)
    local kept = s:connect()
    assert.equal("page", kept:request("/").body)
    assert.equal("page", kept:request("/fork").body)
    local response = kept:request { target = "/", close = true, timeout = server.TIMEOUT / 2 }
    assert.equal("page", response.body)
    assert.same({ "", "closed" }, { kept:read_all(server.TIMEOUT / 2) })
    end_child(s)
  end)

  it("that lives on holds neither the ports nor other clients' connections", function()
    local s = start(PAGES)
    local other = s:connect()
    assert.equal("page", other:request("/").body)
    assert.equal("page", s:request("/fork").body)
    assert.truthy(s:wait_log("child %d+")) -- what a worker writes passes through the supervisor
    local cpu = s:cpu()
    s:signal("KILL")
    assert(process.wait_until(function() return not server.listening(s.port) end))
    assert.not_equal("timeout", select(2, other:read_all(server.TIMEOUT / 2)))
    assert.truthy(s:cpu() - cpu < 1)
    end_child(s)
  end)

  it("keeps its worker from no sleep when a connection has ended", function()
    local s = start(PAGES)
    local kept = s:connect()
    assert.equal("page", kept:request("/").body)
    assert.equal("page", kept:request { target = "/fork", close = true }.body)
    kept:close()
    local before = s:cpu()
    process.wait_until(function() return false end, 1)
    assert.truthy(s:cpu() - before < 0.5)
    end_child(s)
  end)
end)

describe("a program that a handler starts by io.popen or os.execute", function()
  after_each(server.cleanup)

  it("gets no descriptor of the worker's beside the standard streams", function()
    local s = start(one .. [[
      connect = function(socket)
        local mode = socket:read(1)
        if mode == "k" then
          socket:write("parked")
          socket:park()
        else
          socket:write(list(mode) == inherited and "same" or list(mode))
        end
        return true
      end
    ]], { before = [[
      function list(mode)
        local pipe, name
        if mode == "p" then
          pipe = io.popen("ls /proc/self/fd")
        else
          name = os.tmpname()
          os.execute("ls /proc/self/fd >" .. name)
          pipe = io.open(name)
        end
        local numbers = pipe:read("a")
        pipe:close()
        if name then os.remove(name) end
        return numbers
      end
      inherited = list("p")
    ]] })
    local kept = s:connect()
    kept:send("k")
    kept:read(6)
    assert.equal("same", (s:raw("p")))
    assert.equal("same", (s:raw("e")))
  end)
end)
