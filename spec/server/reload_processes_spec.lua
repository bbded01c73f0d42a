-- The processes of a server that is reloaded: as process 1 of a container, with another version of the
-- library, with generations that die.
-- Any version: nothing of it depends on Lua's.

local lfs = require "lfs"
local process = require "spec.support.process"
local root = require "spec.support.root"
local server = require "spec.support.server"
local socket = require "socket"

local root_it = root.it(it, pending)

-- What the file SOURCE says; the answer is what that calls `version`.
local APP = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge.http"
  version = "?"
  assert(loadfile(SOURCE))()
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2, max_fork = 2, prepare = prepare,
    connect = http.generate_handler(function(request)
      local text = answer and answer() or version
      if request.path == "reload" then
        local ok, why = moonbridge.reload()
        text = tostring(ok) .. " " .. tostring(why)
      end
      request:send_status("200 OK")
      request:send_data(text)
      return true
    end),
  }
  moonbridge.run{ hangup = "reload" }
]]

describe("a server that is reloaded", function()
  after_each(server.cleanup)

  local source

  local function write(text) process.write(source, text) end

  local function start(text, options)
    options = options or {}
    source = process.scratch("source")
    write(text)
    options.script, options.globals = APP, { SOURCE = source }
    return server.start(options)
  end

  local function answers(s, text)
    return process.wait_until(function() return s:request("/").body == text end)
  end

  root_it("as process 1 reloads, reaps orphans, and ends on SIGTERM with all that it has started", function()
    local s = start("version = 'one'", {
      command = { "unshare", "-pf", "--kill-child", "--mount-proc", server.interpreter },
      ready = "listening",
    })
    local first = s:workers()[1] -- the child of unshare is process 1 inside
    assert.equal("1", process.slurp(("/proc/%d/status"):format(first)):match("\nNSpid:%s*%d+%s+(%d+)"))
    -- The port is open before the server reacts to signals.
    assert.truthy(answers(s, "one"), s:log())
    for _, name in ipairs { "two", "three" } do
      write(("version = %q"):format(name))
      process.kill(first, "HUP")
      assert.truthy(answers(s, name), s:log())
    end
    local function zombies()
      local count = 0
      for _, entry in ipairs(s:descendants()) do
        if entry.state == "Z" then count = count + 1 end
      end
      return count
    end
    -- Each leaves a process whose parent is gone. Process 1 gets it, and has to reap it.
    write [[version = "four" function answer()
      os.execute("(sleep 0.3 & sleep 0.2 &) >/dev/null 2>&1")
      return version
    end]]
    assert.equal("true nil", s:request("/reload").body)
    local kept = s:connect()
    for _ = 1, 5 do assert.equal("four", kept:request("/").body) end
    socket.sleep(0.4)
    assert.truthy(process.wait_until(function() return zombies() == 0 end))
    assert.equal("four", kept:request("/").body)
    process.kill(first, "TERM")
    assert.equal(0, s:wait())
    assert.truthy(s:log():find("Terminating with exit code 0", 1, true))
  end)

  it("loads the library that is there now", function()
    local folder = process.scratch("lib"):match("^(.*)/")
    local built = ("%s/build/lua%s/moonbridge.so"):format(server.root, server.lua_version)
    for _, name in ipairs { "one", "two" } do
      assert(lfs.mkdir(folder .. "/" .. name))
      assert.equal(0, (process.run(("cp %s %s/%s/moonbridge.so"):format(built, folder, name))))
    end
    assert(lfs.link("one", folder .. "/current", true))
    -- The path of the library that is mapped, without links.
    local s = start([[
      function answer()
        local maps = io.open("/proc/self/maps"):read("a")
        return maps:match("[^ \n]*/(%a+)/moonbridge%.so\n")
      end
    ]], { env = { LUA_CPATH = folder .. "/current/?.so;;" } })
    local kept = s:connect()
    assert.equal("one", kept:request("/").body)
    os.remove(folder .. "/current")
    assert(lfs.link("two", folder .. "/current", true))
    assert.equal("one", kept:request("/").body)
    assert.equal("true nil", s:request("/reload").body)
    assert.equal("two", kept:request("/").body)
    -- One that does not load leaves everything as it is.
    os.remove(folder .. "/current")
    local why = s:request("/reload").body
    assert.truthy(why:find("^nil "), why)
    assert.truthy(why:find("no compiled module for Lua", 1, true), why)
    assert.equal("two", kept:request("/").body)
  end)

  it("logs that workers of the new code die in their first seconds", function()
    local s = start "version = 'one'"
    write "version = 'two' function answer() os.exit(9, false) end"
    assert.equal("true nil", s:request("/reload").body)
    s:raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(s:wait_log("exit code 9"), s:log())
    write "version = 'three'"
    s:signal("HUP")
    assert.truthy(s:wait_log("Reload complete", nil, 2), s:log())
    assert.equal("three", s:request("/").body)
  end)

  it("ends with its new code, if that dies as a whole, and the log says so", function()
    local s = start "version = 'one'"
    write "version = 'two' function answer() os.execute('kill -9 $(ps -o ppid= $PPID)') return 'x' end"
    assert.equal("true nil", s:request("/reload").body)
    assert.truthy(process.wait_until(function() return #s:workers() == 1 end))
    s:raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.truthy(s:wait())
    assert.truthy(s:log():find("has ended by signal 9", 1, true), s:log())
    assert.falsy(server.listening(s.port))
  end)
end)
