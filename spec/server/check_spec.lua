-- moonbridge --check: says what a script would serve, without serving it.

local process = require "spec.support.process"
local server = require "spec.support.server"

-- Checks a script: exit code, standard output, standard error.
local function check(text, options)
  options = options or {}
  options.script, options.launcher = text, { "--check", table.unpack(options.words or {}) }
  return server.run_script(options)
end

local SERVES = [[
  assert(select("#", ...) == 2)
  listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    { proto = "local", path = PATH },
    { proto = "interval", name = "clean", delay = 1 },
    { proto = "inherit", name = "web" },
    connect = print, min_fork = 3, max_fork = 5,
    prepare = function() io.open(PATH, "w"):close() end,
  }
  listen{ { proto = "tcp", port = 0 }, connect = print, max_fork = 2 }
]]

describe("moonbridge --check", function()
  after_each(server.cleanup)

  it("runs the script and shows what it would serve, while the server runs already", function()
    local path, pid_file = process.scratch("x"), process.scratch("pid")
    local s = server.start {
      launcher = { "-p", pid_file },
      script = [[ listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, connect = print } ]],
    }
    local code, output, errors = check(SERVES, {
      port = s.port, args = { "a", "b" }, globals = { PATH = path },
      words = { "-p", pid_file, "-l", path, "-b" },
    })
    assert.equal("", errors)
    assert.equal(("Pool #1, workers: 3 to 5\n"
      .. '  TCP listener on interface "127.0.0.1", port %d\n'
      .. '  local socket listener with path "%s"\n'
      .. '  interval listener "clean"\n'
      .. '  inherited listener "web" (a service manager must pass the socket)\n'
      .. "Pool #2, workers: 2\n"
      .. '  TCP listener on interface "::", port 0\n'):format(s.port, path), output)
    assert.equal(0, code)
    assert.equal(nil, process.slurp(path))
    assert.equal(tostring(s.pid), process.slurp(pid_file))
  end)

  it("ends a script where it calls run", function()
    local script = [[
      local moonbridge = require "moonbridge"
      moonbridge.listen{ { proto = "tcp", port = PORT }, connect = print }
      moonbridge.run%s
      print "goes on"
    ]]
    local code, output = check(script:format("{ pidfile = '/nowhere/pid' }"))
    assert.equal(0, code)
    assert.truthy(output:find("^Pool #1, workers: 2 to 16\n  TCP listener[^\n]*\n$"), output)
    local errors
    code, output, errors = check(script:format("{ pidfiles = 'x' }"))
    assert.equal(3, code)
    assert.equal("", output)
    assert.truthy(errors:find('Unknown option "pidfiles" of run; did you mean "pidfile"?', 1, true), errors)
  end)

  it("says what is wrong, and exits with 3", function()
    for script, message in pairs {
      ["("] = 'Error while loading "',
      ["error 'no database'"] = "no database",
      [""] = "No listener initialized",
      ["listen{ { proto = 'tcp', port = 1 }, connect = print, pre_forks = 1 }"] = 'did you mean "pre_fork"?',
      ["listen{ { proto = 'tcp', host = 'no.such.host.invalid', port = 1 }, connect = print }"] =
        "(tcp no.such.host.invalid port 1)",
      ["DATA = {} for i = 1, 50000 do DATA[i] = {} end "
        .. "listen{ { proto = 'tcp', port = 1 }, connect = print, memory_limit = 1e6 }"] =
        "Pool #1: memory_limit is 1000000, but the script holds ",
      ["listen{ { proto = 'tcp', port = 1 }, connect = print, user = 'daemon' }"
        .. " require('moonbridge').run{ user = 'nobody' }"] = "Pool #1 cannot have a user of its own",
    } do
      local code, output, errors = check(script)
      assert.truthy(errors:find("^moonbridge: "), errors)
      assert.truthy(errors:find(message, 1, true), errors)
      assert.same({ 3, "" }, { code, output })
    end
    local _, _, errors = check("listen{ { proto = 'tcp', port = 1 }, connect = print, user = 'daemon' }",
      { words = { "--user", "nobody" } })
    assert.truthy(errors:find("Pool #1 cannot have a user of its own", 1, true), errors)
    assert.equal(1, (server.run_script { file = server.root .. "/bin/moonbridge", args = { "--check" } }))
  end)

  it("finds what would keep a listener from being opened", function()
    local folder = process.scratch("file"):match("^(.*)/")
    local file = assert(io.open(folder .. "/file", "w"))
    file:close()
    local tcp, unix = "{ proto = 'tcp', host = '%s', port = %s }", "{ proto = 'local', path = '%s' }"
    local USED = "Address already in use "
    local inside = folder .. "/x"
    for _, case in ipairs {
      { tcp:format("127.0.0.1", 5), tcp:format("127.0.0.1", 5), USED .. "(tcp 127.0.0.1 port 5)" },
      { tcp:format("127.0.0.1", 5), tcp:format("::", "'5'"), USED .. "(tcp :: port 5)" },
      { tcp:format("0.0.0.0", 5), tcp:format("127.0.0.1", 5), USED .. "(tcp 127.0.0.1 port 5)" },
      { tcp:format("127.0.0.1", 5), tcp:format("127.0.0.2", 5) },
      { tcp:format("127.0.0.1", 0), tcp:format("127.0.0.1", 0) },
      { tcp:format("127.0.0.1", 5), tcp:format("192.0.2.7", 6),
        "Cannot assign requested address (tcp 192.0.2.7 port 6)" },
      { unix:format(inside), unix:format(folder .. "/../" .. folder:match("[^/]+$") .. "/x"),
        USED .. "(local " .. folder .. "/../" },
      { unix:format(inside), unix:format(folder .. "/y") },
      { unix:format("@x"), unix:format("@x"), USED .. "(local @x)" },
      { unix:format(inside), unix:format(folder .. "/none/x"),
        ("No such file or directory (local %s/none/x)"):format(folder) },
      { unix:format(inside), unix:format(folder .. "/file/x"),
        ("Not a directory (local %s/file/x)"):format(folder) },
      { unix:format(inside), unix:format(folder .. "/file"), USED .. "(local " .. folder .. "/file)" },
    } do
      -- In one pool, and in two.
      for separator, index in pairs { [", "] = 2, [", connect = print } listen{ "] = 1 } do
        local text = "listen{ " .. case[1] .. separator .. case[2] .. ", connect = print }"
        local code, output, errors = check(text)
        if case[3] then
          local message = ("Could not initialize listener #%d: %s"):format(index, case[3])
          assert.truthy(errors:find(message, 1, true), errors)
          assert.same({ 3, "" }, { code, output })
        else
          assert.same({ 0, "" }, { code, errors })
        end
      end
    end
  end)

  it("looks for the sockets that a service manager has passed to it", function()
    local port = server.free_port()
    -- Descriptor 3 is a listening socket.
    local function activated(text)
      local script = process.scratch("app.lua")
      process.write(script, text)
      local code, output = process.run(([[LUA_PATH='%s/lua/?.lua;;' LUA_CPATH='%s/build/lua%s/?.so;;' \
        python3 -c 'import os, socket, sys
s = socket.create_server(("127.0.0.1", %d))
os.dup2(s.fileno(), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
os.execvp(sys.argv[1], sys.argv[1:])' %s %s/bin/moonbridge --check %s]]):format(server.root, server.root,
        server.lua_version, port, server.interpreter, server.root, script))
      return code, output
    end
    local text = "listen{ { proto = 'inherit', name = %q }, "
      .. "{ proto = 'tcp', host = '127.0.0.1', port = %d }, connect = print }"
    local code, output = activated(text:format("web", port + 1))
    assert.equal(0, code, output)
    assert.truthy(output:find('\n  inherited listener "web"\n', 1, true), output)
    code, output = activated(text:format("wbe", port))
    assert.equal(3, code, output)
    assert.truthy(output:find('listener #1: No inherited socket has the name "wbe"', 1, true), output)
  end)
end)
