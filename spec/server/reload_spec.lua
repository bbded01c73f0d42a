-- Reloading: the script is run anew, and nobody notices.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

local write = process.write

-- A server whose answer is what the file VERSION says. /reload reloads it and tells what came of that.
local APP = [[
local moonbridge = require "moonbridge"
local http = require "moonbridge.http"
local function slurp(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end
local version = slurp(VERSION)
local code, message = load(version)
if code then code() else version = version end
local handler = http.generate_handler(function(request)
  if request.path == "reload" then
    local ok, why = moonbridge.reload()
    request:send_status("200 OK")
    request:send_data(tostring(ok), " ", tostring(why))
  elseif request.path == "slow" then
    local begun = assert(io.open(VERSION .. ".begun", "w"))
    begun:close()
    os.execute("sleep 1")
    request:send_status("200 OK")
    request:send_data(version)
  elseif request.path == "big" then
    request:send_status("200 OK")
    request:send_data(("x"):rep(2000000))
  elseif request.path == "upload" then
    local size = #request.body
    request:send_status("200 OK")
    request:send_data(size, " ", version)
  else
    request:send_status("200 OK")
    request:send_data(version)
  end
  return true
end, { response_buffering = 3000000 })
listen_more = listen_more or function() end
listen_more()
moonbridge.listen{
  { proto = "tcp", host = "127.0.0.1", port = port or PORT }, min_fork = 2, max_fork = 4,
  prepare = prepare, finish = finish, connect = handler,
}
io.stdout:write("run has returned ", moonbridge.run(options or { hangup = "reload" }), "\n")
]]

describe("a reload", function()
  after_each(server.cleanup)

  local version

  -- The version is its own source as well: `--NAME` for a name alone.
  local function start(options)
    options = options or {}
    version = process.scratch("version")
    write(version, options.version or "--one")
    options.version = nil
    options.globals = options.globals or {}
    options.globals.VERSION = version
    options.script = APP
    return server.start(options)
  end

  local function body(s, target) return s:request(target or "/").body end

  -- Reloads with another version; returns what `reload` has returned.
  local function reload(s, text)
    if text then write(version, text) end
    return body(s, "/reload")
  end

  local function hang_up(s, text)
    write(version, text)
    s:signal("HUP")
    assert.truthy(process.wait_until(function() return body(s) == text end), s:log())
  end

  it("runs the script anew in the same process id", function()
    local pid_file = process.scratch("pid")
    local s = start { version = ("--one\noptions = { hangup = 'reload', pidfile = %q }"):format(pid_file) }
    local pid = process.slurp(pid_file)
    for _, name in ipairs { "--two", "--three", "--four" } do
      hang_up(s, name)
      assert.equal(pid, process.slurp(pid_file))
    end
    assert.truthy(process.alive(s.pid))
    assert.equal(0, s:stop())
    assert.equal("run has returned 0\n", s:output())
    assert.falsy(process.slurp(pid_file))
  end)

  it("leaves no process of the old generation", function()
    local s = start()
    assert.equal("true nil", reload(s, "--two"))
    -- The first process and the supervisor that serves have two workers.
    assert.truthy(process.wait_until(function()
      local children = s:workers()
      return #children == 1 and #s:descendants() <= 5
    end), s:log())
  end)

  it("keeps idle connections", function()
    local s = start()
    local hot, cold = s:connect(), s:connect()
    assert.equal("--one", cold:request("/").body)
    assert.truthy(cold:silent(1.5))
    assert.equal("--one", hot:request("/").body)
    for _, name in ipairs { "--two", "--three" } do
      assert.equal("true nil", reload(s, name))
      for _, connection in ipairs { hot, cold } do
        assert.equal(name, connection:request("/").body)
      end
    end
  end)

  it("keeps what a client has sent of a request", function()
    local s = start()
    local connections = {}
    for index = 1, 3 do
      local connection = s:connect()
      connection:send(("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n"):sub(1, 8 * index))
      connections[index] = connection
    end
    assert.truthy(connections[1]:silent(0.1))
    assert.equal("true nil", reload(s, "--two"))
    for index, connection in ipairs(connections) do
      connection:send(("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n"):sub(8 * index + 1))
      assert.equal("--two", connection:response("GET").body)
    end
  end)

  it("keeps the output that slow clients have not taken", function()
    local s = start()
    local slow = s:connect { receive_buffer = 4096 }
    slow:send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    slow:fill(1)
    for _, name in ipairs { "--two", "--three" } do
      assert.equal("true nil", reload(s, name))
    end
    assert.equal(2000000, #slow:response("GET").body)
    assert.equal("--three", slow:request("/").body)
  end)

  it("lets running handlers end", function()
    local s = start { version = "--one\nfunction finish() io.stderr:write('finished\\n') end" }
    local connection, upload = s:connect(), s:connect()
    connection:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    upload:send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" .. ("x"):rep(90000))
    assert.truthy(process.wait_until(function() return process.slurp(version .. ".begun") end))
    assert.equal("true nil", reload(s, "--two"))
    assert.equal("--two", body(s))
    upload:send(("x"):rep(10000))
    assert.truthy(upload:response("POST").body:find("^100000 "))
    assert.truthy(connection:response("GET").body:find("^--one"))
    assert.equal("--two", connection:request("/").body)
    assert.truthy(s:wait_log("finished", nil, 2))
  end)

  for name, wrong in pairs {
    ["does not compile"] = { "this is no Lua", "this is no Lua", compiled = false },
    ["throws"] = { "error('this is wrong')", "this is wrong" },
    ["cannot open a port"] = { "port = TAKEN", "Could not initialize listener #1" },
    ["cannot prepare"] = { "function prepare() error('not prepared') end", "not prepared" },
    ["ends without serving"] = { "os.exit(0)", "the new script has ended without serving" },
    ["ends with an error"] = { "os.exit(7)", "exit code 7" },
    ["never ends"] = { "while true do end", "not ready after 1 s" },
    ["never ends to prepare"] = { "function prepare() while true do end end", "not ready after 1 s" },
    ["kills its worker"] = { "function prepare() os.exit(0) end", "exit code 3" },
  } do
    it("goes back to what was if the script " .. name, function()
      local s = start { version = "--one\noptions = { hangup = 'reload', reload_timeout = 1 }" }
      local other = server.start { port = server.free_port(), script = [[
        local moonbridge = require "moonbridge"
        moonbridge.listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 1,
          connect = function(socket) return true end }
        moonbridge.run()
      ]] }
      local kept = s:connect()
      local one = kept:request("/").body
      local text = wrong[1]:gsub("TAKEN", tostring(other.port))
      if wrong.compiled == false then text = "error('" .. text .. "')" end
      local answer = reload(s, text)
      assert.truthy(answer:find("^nil "), answer)
      assert.truthy(answer:find(wrong[2], 1, true), answer)
      assert.truthy(s:log():find("Reload failed", 1, true))
      assert.equal(one, kept:request("/").body)
      assert.equal(one, body(s))
      assert.truthy(process.wait_until(function() return #s:descendants() <= 4 end), s:log())
      assert.equal("true nil", reload(s, "--two"))
      assert.equal("--two", body(s))
    end)
  end

  it("opens, keeps and closes ports as the new script says", function()
    local one, two = server.free_port(), server.free_port()
    local path, gone = process.scratch("kept.sock"), process.scratch("gone.sock")
    local LOCAL = [[
      function listen_more()
        require("moonbridge").listen{ %s, connect = function(socket) socket:write(%q) return true end }
      end]]
    local function pool(listeners, name) return LOCAL:format(listeners, name) end
    local function tcp(port) return ("{ proto = 'tcp', host = '127.0.0.1', port = %d }"):format(port) end
    local function unix(where) return ("{ proto = 'local', path = %q }"):format(where) end
    local s = start { version = pool(tcp(one) .. "," .. unix(path) .. "," .. unix(gone), "old") }
    local client = require "spec.support.client"
    local function ask(port, where)
      local connection = client.connect(port, nil, where and { path = where })
      return (connection:read_all())
    end
    assert.equal("old", ask(one))
    assert.equal("old", ask(nil, gone))
    assert.equal("true nil", reload(s, pool(unix(path) .. "," .. tcp(two), "new")))
    assert.equal("new", ask(two))
    assert.equal("new", ask(nil, path))
    assert.truthy(process.wait_until(function()
      return not server.listening(one) and not lfs.attributes(gone)
    end))
    s:stop()
    assert.falsy(lfs.attributes(path))
    assert.falsy(server.listening(two))
  end)

  it("does not run an interval job while the old one runs", function()
    local journal = process.scratch("journal")
    local JOB = [[
      function listen_more()
        local moonbridge = require "moonbridge"
        moonbridge.listen{ { proto = "interval", name = "job", delay = 0.1 }, min_fork = 1, max_fork = 1,
          connect = function()
            local file = io.open(%q, "a")
            file:write("+") file:flush()
            moonbridge.io.poll(nil, nil, 0.4)
            file:write("-") file:close()
            return true
          end }
      end --%s]]
    local s = start { version = JOB:format(journal, "one") }
    for round = 1, 4 do
      local before = #(process.slurp(journal) or "")
      assert.truthy(process.wait_until(function() return #(process.slurp(journal) or "") > before end))
      assert.equal("true nil", reload(s, JOB:format(journal, round)))
    end
    local before = #process.slurp(journal)
    assert.truthy(process.wait_until(function() return #process.slurp(journal) > before + 2 end))
    s:stop()
    assert.falsy(process.slurp(journal):find("++", 1, true))
  end)

  for kind, options in pairs { interval = "delay = 0.05", main = "" } do
    it(("(%s) does not run a job while that of two generations ago runs"):format(kind), function()
      local journal = process.scratch("journal")
      local JOB = ([[
        function listen_more()
          require("moonbridge").listen{ { proto = "%s", name = "job", %s }, min_fork = 1, max_fork = 2,
            connect = function()
              local file = io.open(%%q, "a")
              file:write("+") file:flush()
              for _ = 1, %%d do os.execute("sleep 0.1") end
              file:write("-") file:close()
              return true
            end }
        end --%%s]]):format(kind, options)
      local s = start { version = JOB:format(journal, 15, "one") }
      assert.truthy(process.wait_until(function() return process.slurp(journal) == "+" end))
      for round = 1, 2 do
        assert.equal("true nil", reload(s, JOB:format(journal, kind == "main" and 600 or 1, round)))
      end
      assert.equal("+", process.slurp(journal))
      assert.truthy(process.wait_until(function()
        return process.slurp(journal):find("+-+", 1, true)
      end), s:log())
      s:stop("INT")
      assert.falsy(process.slurp(journal):find("++", 1, true))
    end)
  end

  it("takes no processor time while the new script prepares", function()
    local s = start { version = "--one" }
    local c = s:connect()
    local begun = process.scratch("begun")
    write(version, ("function prepare() io.open(%q, 'w'):close() os.execute('sleep 1') end"):format(begun))
    c:send("GET /reload HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(process.wait_until(function() return process.slurp(begun) end))
    local before = s:cpu()
    socket.sleep(0.7)
    local used = s:cpu() - before
    assert.is_true(used < 0.1, used .. " s")
    assert.equal("true nil", c:response("GET").body)
  end)

  it("comes after one that has begun", function()
    local s = start { version = "--one" }
    local first, second = s:connect(), s:connect()
    write(version, "function prepare() os.execute('sleep 0.5') end --two")
    first:send("GET /reload HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(s:wait_log("Reload: the script is run anew"))
    process.wait_until(function() return #s:descendants() > 3 end)
    write(version, "--three")
    second:send("GET /reload HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.equal("true nil", first:response("GET").body)
    assert.equal("true nil", second:response("GET").body)
    assert.equal("--three", body(s))
    assert.truthy(s:wait_log("Reload complete", nil, 2))
  end)

  it("is complete when the old code serves no more", function()
    local s = start()
    assert.equal("true nil", reload(s, "--two"))
    assert.truthy(process.wait_until(function() return #s:workers() == 1 end))
    -- The supervisor that serves is slow to hand over.
    local pid = s:workers()[1]
    local three = "function prepare() os.execute('kill -STOP %d; (sleep 0.5; kill -CONT %d) >&- 2>&- &') end"
    three = three:format(pid, pid)
    assert.equal("true nil", reload(s, three))
    assert.equal(three, body(s))
  end)

  it("kills old handlers whose time is up, and says whose they are", function()
    local s = start { version = "--one\noptions = { shutdown_timeout = 0.2 }" }
    local busy = s:connect()
    busy:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(process.wait_until(function() return process.slurp(version .. ".begun") end))
    assert.equal("true nil", reload(s, "--two"))
    assert.truthy(s:wait_log("Shutdown timeout: what still runs of the old generation is killed"))
    assert.equal("--two", body(s))
  end)

  it("is refused while the server shuts down", function()
    local s = start()
    local busy = s:connect()
    busy:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(process.wait_until(function() return process.slurp(version .. ".begun") end))
    s:signal("TERM")
    assert.truthy(s:wait_log("Initiate shutdown"))
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload refused: the server shuts down"))
    assert.equal(0, s:wait())
  end)

  it("that has begun is given up when the server shuts down", function()
    local s = start()
    local asking = s:connect()
    write(version, "function prepare() os.execute('sleep 60') end")
    asking:send("GET /reload HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(s:wait_log("Reload: the script is run anew"))
    s:signal("TERM")
    assert.truthy(asking:response("GET").body:find("^nil the server shuts down"))
    assert.equal(0, s:wait())
  end)

  it("happens in the working directory as it is named", function()
    local base = process.scratch("releases")
    for _, name in ipairs { "", "/one", "/two" } do assert(lfs.mkdir(base .. name)) end
    for _, name in ipairs { "one", "two" } do write(base .. "/" .. name .. "/name", "--" .. name) end
    assert(lfs.link("one", base .. "/current", true))
    local s = start {
      version = [[
        local file = io.open("name") version = file:read("*a") file:close()
        options = { hangup = "reload" }
      ]],
      cwd = base .. "/current", env = { PWD = base .. "/current" },
      globals = { dummy = "" },
    }
    local file = base .. "/answer"
    local code = ([[local f = io.open("name") local name = f:read("*a") f:close()
      function prepare() local f = io.open(%q, "w") f:write(name) f:close() end]]):format(file)
    assert.equal("true nil", reload(s, code))
    assert.equal("--one", process.slurp(file))
    os.remove(base .. "/current")
    assert(lfs.link("two", base .. "/current", true))
    assert.equal("true nil", reload(s))
    assert.equal("--two", process.slurp(file))
    os.remove(base .. "/current")
    local message = 'nil the new generation could not be started: working directory "%s/current": '
    assert.equal(message:format(base) .. "No such file or directory", reload(s))
    s:stop()
    for _, name in ipairs { "/one/name", "/two/name", "/one", "/two", "/current", "/answer", "" } do
      os.remove(base .. name)
    end
  end)

  it("leaves no descriptor behind", function()
    local s = start()
    local kept = s:connect()
    kept:request("/")
    local function descriptors(pid)
      local count = 0
      for _ in lfs.dir(("/proc/%d/fd"):format(pid)) do count = count + 1 end
      return count
    end
    local function settle()
      assert.truthy(process.wait_until(function() return #s:workers() == 1 and #s:descendants() <= 5 end))
      local first, current
      assert.truthy(process.wait_until(function()
        first, current = descriptors(s.pid), descriptors(s:workers()[1])
        return first <= 16 -- "." and ".." are among them
      end))
      return first, current
    end
    reload(s, "--1")
    local first, current = settle()
    for round = 2, 8 do assert.equal("true nil", reload(s, "--" .. round)) end
    local last_first, last_current = settle()
    assert.truthy(last_first <= first + 1, last_first .. " and " .. first)
    assert.truthy(last_current <= current + 6, last_current .. " and " .. current)
    assert.equal("--8", kept:request("/").body)
  end)

  it("also works for the program moonbridge, in the background", function()
    version = process.scratch("version")
    write(version, "one")
    local app, pid_file, log = process.scratch("app.lua"), process.scratch("pid"), process.scratch("log")
    local port = server.free_port()
    write(app, ([[
      local file = io.open(%q) local version = file:read("*a") file:close()
      local argument = ...
      if version == "wrong" then error("no version") end
      listen{ { proto = "tcp", host = "127.0.0.1", port = %d }, min_fork = 1,
        connect = function(socket) socket:write(version, " ", argument) return true end }
    ]]):format(version, port))
    local s = server.start { port = port, ready = false, file = app, args = { "argument" },
      launcher = { "-b", "-p", pid_file, "-l", log, "--hangup", "reload" } }
    assert.equal(0, s:wait())
    local pid = math.tointeger(tonumber(process.slurp(pid_file)))
    assert.truthy(process.wait_until(function() return server.listening(port) end))
    assert.equal("one argument", (s:raw("")))
    write(version, "two")
    process.kill(pid, "HUP")
    assert.truthy(process.wait_until(function() return s:raw("") == "two argument" end), process.slurp(log))
    write(version, "wrong")
    process.kill(pid, "HUP")
    assert.truthy(process.wait_until(function() return process.slurp(log):find("Reload failed") end))
    assert.truthy(process.slurp(log):find("no version", 1, true))
    -- The process that writes the log reopens it.
    assert(os.rename(log, log .. ".1"))
    process.kill(pid, "USR1")
    assert.truthy(process.wait_until(function() return lfs.attributes(log) end))
    process.kill(pid, "TERM")
    assert.truthy(process.wait_until(function() return not process.alive(pid) end))
    assert.falsy(lfs.attributes(pid_file))
    assert.truthy(process.slurp(log):find("Terminating with exit code 0", 1, true))
    os.remove(log .. ".1")
  end)

  it("does not outlive the first process", function()
    local s = start()
    assert.equal("true nil", reload(s, "--two"))
    s:signal("KILL")
    s:wait()
    assert.truthy(process.wait_until(function() return not server.listening(s.port) end))
  end)

  it("ends with the generation that serves", function()
    local s = start()
    assert.equal("true nil", reload(s, "--two"))
    assert.truthy(process.wait_until(function() return #s:workers() == 1 end))
    process.kill(s:workers()[1], "KILL")
    assert.equal(0, s:wait())
    assert.equal("run has returned 4\n", s:output())
    assert.truthy(s:log():find("has ended by signal 9", 1, true))
  end)

  it("ends at once on SIGINT", function()
    local s = start()
    local busy = s:connect()
    busy:send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(process.wait_until(function() return process.slurp(version .. ".begun") end))
    assert.equal("true nil", reload(s, "--two"))
    s:signal("INT")
    assert.equal(0, s:wait())
  end)

  it("needs a server that runs", function()
    local code, output = server.run_script [[
      local moonbridge = require "moonbridge"
      print(moonbridge.reload())
      print(pcall(moonbridge.run, { hangup = "restart" }))
    ]]
    assert.equal(0, code)
    assert.truthy(output:find("nil\treload: this is no worker of a running server", 1, true))
    assert.truthy(output:find('Option "hangup" must be "reload" or "end", not "restart"', 1, true))
  end)
end)
