-- The users that supervisor and workers run as, who may connect to a local socket, the backlog.
-- Any version: nothing of it depends on Lua's.

local lfs = require "lfs"
local process = require "spec.support.process"
local root = require "spec.support.root"
local server = require "spec.support.server"
local shared = require "spec.support.shared"

local root_it = root.it(it, pending)

-- The users and groups of a process: "uid uid uid uid" and so on, as the kernel shows them.
local function ids(pid)
  local status = process.slurp(("/proc/%d/status"):format(pid))
  local function line(name) return (status:match("\n" .. name .. ":%s*([^\n]-)%s*\n"):gsub("%s+", " ")) end
  return line("Uid"), line("Gid"), line("Groups")
end

local NOBODY = "65534 65534 65534 65534"

local function script(options, run)
  return ([[
    local moonbridge = require "moonbridge"
    moonbridge.listen{
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      connect = function(socket) socket:write(io.popen("id -un"):read("l")) return true end,
      %s
    }
    moonbridge.run{%s}
  ]]):format(options or "", run or "")
end

-- What runs a script as another user than root.
local function as_nobody()
  return { "setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", server.interpreter }
end

describe("user and group", function()
  after_each(server.cleanup)

  root_it("of a pool are those of its workers, with the user's supplementary groups", function()
    local s = server.start(script('user = "nobody"'))
    -- A worker that has just been forked may still be root.
    local uid, _, groups
    assert.truthy(process.wait_until(function()
      uid, _, groups = ids(s:workers()[1])
      return uid == NOBODY
    end), uid)
    assert.equal("65534", groups)
    assert.equal("0 0 0 0", (ids(s.pid)))
    assert.equal("nobody", (s:raw("")))
    assert.falsy(s:log():find("run as root", 1, true), s:log())
    -- The kernel still tells the worker that its supervisor has died.
    s:signal("KILL")
    assert.truthy(process.wait_until(function() return #s:descendants() == 0 end))
  end)

  root_it("of run are those of supervisor and workers, once pid file and log are open", function()
    local folder = process.scratch("log"):match("^(.*)/")
    local log, pid_file = folder .. "/log", folder .. "/pid"
    local s = server.start(script(nil, ('user = "nobody", group = "daemon", logfile = %q, pidfile = %q')
      :format(log, pid_file)))
    for _, pid in ipairs { s.pid, s:workers()[1] } do
      local uid, gid = ids(pid)
      assert.equal(NOBODY, uid)
      assert.equal("1 1 1 1", gid)
    end
    assert.equal(tostring(s.pid), process.slurp(pid_file))
    assert.equal("nobody", (s:raw("")))
    assert.equal(65534, lfs.attributes(log, "uid"))
    assert.equal(0, s:stop())
    -- It may not be allowed to remove the file, but leaves no process id there.
    assert.equal("", process.slurp(pid_file) or "")
    assert.truthy(process.slurp(log):find("Pool #1 created", 1, true))
  end)

  root_it("of run are options of the launcher, which a script may set as well", function()
    for launcher, run in pairs { [{ "--user", "nobody" }] = "", [{}] = 'user = "nobody"' } do
      local s = server.start { launcher = launcher, script = script(nil, run) }
      assert.equal("nobody", (s:raw("")))
      assert.equal(NOBODY, (ids(s.pid)))
      assert.equal(0, s:stop())
    end
  end)

  root_it("are told once if they are missing and handlers run as root", function()
    local s = server.start(script())
    local _, count = s:log():gsub("handlers of pool #1 run as root", "")
    assert.equal(1, count)
    assert.equal(0, s:stop())
    s = server.start(script(nil, 'user = "root"'))
    assert.falsy(s:log():find("run as root", 1, true), s:log())
  end)

  root_it("that the server may not become are errors at start-up", function()
    for options, message in pairs {
      [{ 'user = "nobody"', 'user = "daemon"' }] = "Pool #1 cannot have a user of its own",
      [{ nil, 'user = "daemon"', true }] = 'Could not become user "daemon": Operation not permitted',
      [{ 'user = "daemon"', nil, true }] = 'Pool #1: Could not become user "daemon": ',
    } do
      local text = script(options[1], options[2])
      local command = { server.interpreter }
      if options[3] then
        root.open_folder()
        command = as_nobody()
      end
      local code, _, log = server.run_script { script = text, command = command }
      assert.truthy(log:find(message, 1, true), log)
      assert.equal(1, code)
    end
  end)

  root_it("need no rights where the process is that user already", function()
    root.open_folder()
    local s = server.start {
      script = script('user = "nobody"', 'user = "nobody"'),
      command = as_nobody(),
    }
    assert.equal("nobody", (s:raw("")))
  end)

  it("have to exist", function()
    for options, message in pairs {
      ['user = "no-such-user"'] = 'Option "user": there is no user "no-such-user"',
      ['group = "no-such-group"'] = 'Option "group": there is no group "no-such-group"',
      ["user = 4000000"] = "4000000 is not in the user database; option \"group\" is required",
      ["user = {}"] = 'Option "user" must be a name or an integer, not a table',
    } do
      local _, _, log = server.run_script(script(options))
      assert.truthy(log:find(message, 1, true), log)
      _, _, log = server.run_script(script(nil, options))
      assert.truthy(log:find(message, 1, true), log)
    end
  end)
end)

describe("a local socket", function()
  after_each(server.cleanup)

  local function listens(fields, ready)
    return server.start {
      ready = ready or { log = "Adding local socket listener" },
      script = ([[
        local moonbridge = require "moonbridge"
        moonbridge.listen{
          { proto = "local", %s },
          connect = function(socket) socket:write("hello") return true end,
        }
        moonbridge.run()
      ]]):format(fields),
    }
  end

  it("has the mode that was asked for", function()
    local modes = { ['"0660"'] = "rw-rw----", ['"666"'] = "rw-rw-rw-", ["384"] = "rw-------" }
    for mode, expected in pairs(modes) do
      local path = process.scratch("socket")
      local s = listens(("path = %q, mode = %s"):format(path, mode))
      assert.equal(expected, lfs.attributes(path, "permissions"))
      assert.equal(0, s:stop())
    end
  end)

  root_it("has the owner and the group that were asked for", function()
    local path = process.scratch("socket")
    listens(('path = %q, owner = "nobody", group = "daemon"'):format(path))
    assert.same({ 65534, 1 }, { lfs.attributes(path, "uid"), lfs.attributes(path, "gid") })
  end)

  it("may have an abstract name, without a file", function()
    local name = "@moonbridge spec " .. shared.port(function() return true end)
    local s = listens(("path = %q"):format(name), { log = "Adding local socket listener" })
    local code, output = server.run_script(([[
      local moonbridge_io = require "moonbridge_io"
      print(assert(moonbridge_io.localconnect(%q)):read())
      print(moonbridge_io.locallisten(%q))
    ]]):format(name, name))
    assert.equal("hello\teof\nnil\tAddress already in use\t98\n", output)
    assert.equal(0, code)
    assert.falsy(lfs.attributes(name))
    assert.equal(0, s:stop())
    local _, _, log = server.run_script(([[
      require("moonbridge").listen{ { proto = "local", path = %q, mode = "0666" }, connect = print }
    ]]):format(name))
    assert.truthy(log:find("is an abstract name", 1, true), log)
  end)

  it("refuses a mode or an owner that is none", function()
    for fields, message in pairs {
      ["mode = 660"] = 'Field "mode" of listener #1 must be a string of octal digits such as "0660"',
      ['mode = "rw"'] = 'Field "mode" of listener #1',
      ['mode = "1777"'] = 'Field "mode" of listener #1',
      ["mode = {}"] = 'Field "mode" of listener #1',
      ['owner = "no-such-user"'] = 'Field "owner" of listener #1: there is no user "no-such-user"',
      ['group = "no-such-group"'] = 'Field "group" of listener #1: there is no group "no-such-group"',
    } do
      local _, _, log = server.run_script(([[
        require("moonbridge").listen{ { proto = "local", path = "/nowhere", %s }, connect = print }
      ]]):format(fields))
      assert.truthy(log:find(message, 1, true), log)
    end
  end)
end)

describe("backlog", function()
  after_each(server.cleanup)

  it("is how many connections wait to be accepted", function()
    local s = server.start {
      ready = "listening",
      script = [[
        require("moonbridge").listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT, backlog = 7 },
          connect = function() return true end,
        }
        require("moonbridge").run()
      ]],
    }
    local _, output = process.run(("ss -Hltn 'sport = :%d'"):format(s.port))
    assert.equal("7", output:match("^LISTEN%s+%d+%s+(%d+)"), output)
  end)

  it("has to be a number of connections", function()
    for _, value in ipairs { "0", "-1", "1.5", "false", "'x'", "65536" } do
      local _, _, log = server.run_script(([[
        require("moonbridge").listen{ { proto = "tcp", port = 1, backlog = %s }, connect = print }
      ]]):format(value))
      assert.truthy(log:find('Field "backlog" of listener #1 must be', 1, true), log)
    end
  end)
end)
