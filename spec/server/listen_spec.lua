-- listen{...}: listeners, options, and what is wrong with them.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- Calls listen with this argument (Lua source) and prints what it throws.
local function attempt(argument, after)
  local _, output, log = server.run_script(([[
    local moonbridge = require "moonbridge"
    local function connect() end
    print(pcall(function()
      moonbridge.listen%s
    end))
    %s
    os.exit(0)
  ]]):format(argument, after or ""))
  return output .. log
end

local TCP = "{ proto = 'tcp', host = '127.0.0.1', port = 0 }"

describe("a wrong call of listen", function()
  after_each(server.cleanup)

  local function refuses(argument, message)
    local output = attempt(argument)
    assert.truthy(output:find("false\t[^\n]*app%.lua:4: "), argument .. ": " .. output)
    assert.truthy(output:find(message, 1, true), argument .. ": " .. output)
  end

  it("without listeners, or with too many, throws", function()
    refuses("{ connect = connect }", "No listen ports specified; ")
    refuses("{ {}, n = 1, connect = connect }", "No protocol specified for listener #1")
    refuses("((function() local t = { connect = connect } for i = 1, 101 do t[i] = {} end return t end)())",
      "Too many listeners")
    refuses("()", "listen expects one table of listeners and options, not nothing")
    refuses("(7)", "listen expects one table of listeners and options, not integer")
  end)

  it("with a listener that is none throws and tells which", function()
    for _, case in ipairs {
      { "5", "Listener #2 must be a table" },
      { "{ port = 80 }", "No protocol specified for listener #2" },
      { "{ proto = 7 }", 'Field "proto" of listener #2 must be a string' },
      { "{ proto = 'udp' }",
        'Unknown protocol "udp" of listener #2; known: tcp, tls, local, interval' },
      { "{ proto = 'inherited' }",
        'Unknown protocol "inherited" of listener #2; did you mean "inherit"?' },
      { "{ proto = 'tcp' }", "No port specified; " },
      { "{ proto = 'tcp', port = 65536 }", 'Field "port" of listener #2 must be a number from 0 to 65535' },
      { "{ proto = 'tcp', port = -1 }", 'Field "port" of listener #2' },
      { "{ proto = 'tcp', port = 80.5 }", 'Field "port" of listener #2' },
      { "{ proto = 'tcp', port = true }", 'Field "port" of listener #2' },
      { "{ proto = 'tcp', port = '65536' }", 'Field "port" of listener #2' },
      { "{ proto = 'tcp', port = '' }", 'Field "port" of listener #2' },
      { "{ proto = 'tcp', port = 1, host = 7 }", 'Field "host" of listener #2 must be a string' },
      { "{ proto = 'tcp', port = 1, host = 'no.such.host.invalid' }", "(tcp no.such.host.invalid port 1)" },
      { "{ proto = 'tcp', port = 'no-such-service' }", "Could not resolve host: " },
      { "{ proto = 'tcp', port = 1, deferred = 1 }", 'Field "deferred" of listener #2 must be a boolean' },
      { "{ proto = 'local' }", "No valid path specified for local socket; " },
      { "{ proto = 'local', path = 7 }", "No valid path specified for local socket; " },
      { "{ proto = 'local', path = '' }", "No valid path specified for local socket; " },
      { "{ proto = 'local', path = ('x'):rep(108) }", "No valid path specified for local socket; " },
      { "{ proto = 'local', path = 'a\\0b' }", "No valid path specified for local socket; " },
      { "{ proto = 'local', path = '/nowhere/x' }",
        "Could not initialize listener #2: No such file or directory (local /nowhere/x)" },
      { "{ proto = 'interval' }", "No valid interval delay specified; " },
      { "{ proto = 'interval', delay = 0 }", "No valid interval delay specified; " },
      { "{ proto = 'interval', delay = -1 }", "No valid interval delay specified; " },
      { "{ proto = 'interval', delay = 0/0 }", "No valid interval delay specified; " },
      { "{ proto = 'interval', delay = 1/0 }", "No valid interval delay specified; " },
      { "{ proto = 'interval', delay = 'x' }", "No valid interval delay specified; " },
      { "{ proto = 'interval', delay = 1, strict = 1 }", 'Field "strict" of listener #2 must be a boolean' },
      { "{ proto = 'interval', delay = 1, name = 7 }", 'Field "name" of listener #2 must be a string' },
      { "{ proto = 'main', name = {} }", 'Field "name" of listener #2 must be a string' },
    } do
      refuses(("{ %s, %s, connect = connect }"):format(TCP, case[1]), case[2])
    end
  end)

  it("with a wrong option throws and names it", function()
    for _, name in ipairs { "pre_fork", "min_fork", "max_fork", "fork_delay", "fork_error_delay",
      "exit_delay", "idle_timeout", "memory_limit" } do
      for _, value in ipairs { "-1", "0/0", "true", "'x'", "{}", "-0.5", "1/0" } do
        refuses(("{ %s, connect = connect, %s = %s }"):format(TCP, name, value),
          ('Option "%s" is expected to be a non-negative number'):format(name))
      end
    end
    for _, name in ipairs { "pre_fork", "min_fork", "max_fork" } do
      refuses(("{ %s, connect = connect, %s = 1.5 }"):format(TCP, name),
        ('Option "%s" is expected to be a non-negative number'):format(name))
    end
    for _, name in ipairs { "fork_delay", "fork_error_delay", "exit_delay", "idle_timeout" } do
      refuses(("{ %s, connect = connect, %s = 1.1e8 }"):format(TCP, name), ('Option "%s"'):format(name))
    end
  end)

  it("with an unknown option throws and names the nearest known one, or all", function()
    for _, case in ipairs {
      { "{ proto = 'tcp', hostname = '127.0.0.1', port = 1 }",
        'Unknown option "hostname" of listener #2; did you mean "host"?' },
      { "{ proto = 'tcp', Port = 1 }", 'did you mean "port"?' },
      { "{ proto = 'local', paths = '/x' }", 'did you mean "path"?' },
      { "{ proto = 'tcp', port = 1, 7 }", 'option "1" of listener #2; known: proto, host, port, path' },
      { "{ proto = 'interval', delay = 1, named = 'x' }", 'did you mean "name"?' },
      { "{ proto = 'inherit', names = 'x' }", 'did you mean "name"?' },
      -- Without its protocol it would be served in the clear.
      { "{ proto = 'tcp', port = 1, certificate = 'x' }", 'Unknown option "certificate" of listener #2' },
    } do
      refuses(("{ %s, %s, connect = connect }"):format(TCP, case[1]), case[2])
    end
    refuses(("{ %s, connect = connect, pre_forks = 3 }"):format(TCP),
      'Unknown option "pre_forks" of listen; did you mean "pre_fork"?')
    refuses(("{ %s, conect = connect }"):format(TCP), 'option "conect" of listen; did you mean "connect"?')
    refuses(("{ %s, connect = connect, colour = 'red' }"):format(TCP),
      'of listen; known: prepare, connect, finish')
    refuses(("{ %s, connect = connect, [3] = {} }"):format(TCP), 'Unknown option "3" of listen')
    refuses(("{ %s, connect = connect, [true] = 1 }"):format(TCP), 'Unknown option "boolean" of listen')
  end)

  it("with a handler that is no function throws and names it", function()
    refuses(("{ %s }"):format(TCP), 'Option "connect" must be a function; ')
    refuses(("{ %s, connect = 7 }"):format(TCP), 'Option "connect" must be a function')
    refuses(("{ %s, connect = connect, prepare = 7 }"):format(TCP), 'Option "prepare" must be a function')
    refuses(("{ %s, connect = connect, finish = {} }"):format(TCP), 'Option "finish" must be a function')
  end)
end)

describe("port 0", function()
  after_each(server.cleanup)

  it("is any free port, which the log and status() tell in all processes", function()
    local path = process.scratch("socket")
    local s = server.start {
      ready = { log = "chosen by the kernel" },
      globals = { PATH = path },
      script = [[
        local moonbridge = require "moonbridge"
        local function connect(socket)
          for _, pool in ipairs(moonbridge.status()) do
            for _, it in ipairs(pool.listeners) do
              socket:write(it.proto, " ", it.port or "no port", " ", it.host or it.path or it.name, "\n")
            end
          end
          return true
        end
        moonbridge.listen{ { proto = "local", path = PATH }, connect = connect }
        moonbridge.listen{
          { proto = "interval", delay = 60 },
          { proto = "tcp", host = "127.0.0.1", port = 0 },
          connect = connect,
        }
        moonbridge.run()
      ]],
    }
    local port = s:log():match('"127%.0%.0%.1", port (%d+) %(chosen by the kernel%)')
    s.port = tonumber(port)
    assert.equal(("local no port %s\ninterval no port \ntcp %s 127.0.0.1\n"):format(path, port),
      (s:raw("")))
  end)
end)

describe("a failed listen", function()
  after_each(server.cleanup)

  it("closes its other ports and uses up no pool number", function()
    local path = process.scratch("socket")
    local s = server.start {
      globals = { PATH = path },
      script = [[
        local moonbridge = require "moonbridge"
        local function connect(socket) socket:write("hello") return true end
        local taken = require("socket").bind("127.0.0.1", 0)
        local _, port = taken:getsockname()
        print(pcall(moonbridge.listen, {
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          { proto = "local", path = PATH },
          { proto = "tcp", host = "127.0.0.1", port = tonumber(port) },
          connect = connect
        }))
        print(require("lfs").attributes(PATH))
        io.stdout:flush()
        moonbridge.listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, connect = connect }
        moonbridge.run()
      ]],
    }
    assert.truthy(s:output():find("listener #3: Address already in use %(tcp 127%.0%.0%.1 port %d+%)\nnil"),
      s:output())
    assert.equal("hello", (s:raw("")))
    assert.truthy(s:log():find("Pool #1 created", 1, true))
    assert.falsy(s:log():find("Pool #2", 1, true))
  end)
end)

describe("options", function()
  after_each(server.cleanup)

  it("accept numeric strings, and false for times", function()
    for _, options in ipairs {
      "pre_fork = '2', min_fork = ' 3 ', max_fork = '0x10', fork_delay = '0.5', idle_timeout = '1e3'",
      "fork_delay = false, fork_error_delay = false, exit_delay = false, idle_timeout = false",
      "pre_fork = 0, min_fork = 0, max_fork = 1.0, memory_limit = false, fork_delay = 1e8",
    } do
      local output = attempt(("{ %s, connect = connect, %s }"):format(TCP, options))
      assert.equal("true\n", output)
    end
  end)

  it("have the documented defaults: min_fork 2, one worker each fork_delay of 0.25 s", function()
    local s = server.start {
      launcher = true,
      script = "listen{ " .. TCP:gsub("port = 0", "port = PORT")
        .. ", connect = function() return true end }",
    }
    assert.truthy(process.wait_until(function() return #s:workers() == 2 end))
    require("socket").sleep(0.6)
    local begun = {}
    for index, pid in ipairs(s:workers()) do
      -- Field 22 of proc(5): when the process began, in 1/100 s.
      local line = process.slurp("/proc/" .. pid .. "/stat")
      begun[index] = tonumber(line:match("%) %a" .. (" %-?%d+"):rep(18) .. " (%d+)"))
    end
    assert.equal(2, #begun)
    -- The time of the second one does not depend on how late the first one was.
    assert.truthy(math.abs(begun[2] - begun[1]) >= 10)
  end)

  it("leave a pool one worker at least", function()
    local s = server.start {
      launcher = true,
      script = "listen{ " .. TCP:gsub("port = 0", "port = PORT") .. ", pre_fork = 0, min_fork = 0,"
        .. "connect = function(socket) socket:write('hello') return true end }",
    }
    assert.equal("hello", (s:raw("")))
    assert.equal(1, #s:workers())
  end)

  it("let max_fork cap the other two", function()
    local s = server.start {
      launcher = true,
      script = "listen{ " .. TCP:gsub("port = 0", "port = PORT")
        .. ", pre_fork = 7, min_fork = 5, max_fork = 2, fork_delay = 0,"
        .. "connect = function() return true end }",
    }
    require("socket").sleep(0.4)
    assert.equal(2, #s:workers())
  end)
end)

describe("listeners", function()
  after_each(server.cleanup)

  it("of all kinds serve in one pool; several pools serve beside each other", function()
    local path = process.scratch("socket")
    local other = server.free_port()
    local s = server.start {
      launcher = true, globals = { PATH = path, OTHER = other },
      script = [[
        listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          { proto = "tcp", host = "::1", port = tostring(PORT) },
          { proto = "local", path = PATH },
          { proto = "interval", name = "tick", delay = 0.1 },
          connect = function(socket)
            if socket.interval then io.stderr:write("tick of ", socket.interval, "\n") return true end
            socket:write("one ", socket.local_tcpport or "local")
            return true
          end
        }
        listen{
          { proto = "tcp", host = "127.0.0.1", port = OTHER },
          connect = function(socket) socket:write("two") return true end
        }
      ]],
    }
    assert.equal("one " .. s.port, (s:raw("")))
    s.host = "::1"
    assert.equal("one " .. s.port, (s:raw("")))
    assert.equal("one local", (s:connect({ path = path }):read_all()))
    s.host, s.port = "127.0.0.1", other
    assert.equal("two", (s:raw("")))
    assert.truthy(s:wait_log("%[Pool #1, PID %d+%] tick of tick\n", nil, 2))
    for _, text in ipairs {
      "Pool #1 created", 'Adding TCP listener on interface "127.0.0.1", port ',
      'Adding TCP listener on interface "::1", port ',
      ('Adding local socket listener with path "%s"'):format(path), 'Adding interval listener "tick"',
      "Pool #2 created",
    } do
      assert.truthy(s:log():find(text, 1, true), text)
    end
    assert.truthy(lfs.attributes(path))
    s:stop()
    assert.is_nil(lfs.attributes(path))
  end)

  -- A server at a local path, and what it does before it serves.
  local function at_path(path, after)
    return {
      launcher = true, globals = { PATH = path },
      script = [[
        listen{ { proto = "local", path = PATH }, { proto = "tcp", host = "127.0.0.1", port = PORT },
          connect = function(socket) socket:write(moonbridge_io.getpid()) return true end }
      ]] .. (after or ""),
    }
  end

  it("at a local path replace a stale socket file, and refuse to take a server's that runs", function()
    local path = process.scratch("socket")
    local first = server.start(at_path(path))
    first:signal("KILL")
    first:wait()
    assert.truthy(lfs.attributes(path))
    local second = server.start(at_path(path))
    local code, _, log = server.run_script(at_path(path))
    assert.equal(3, code)
    assert.truthy(log:find("Could not initialize listener #1: Address already in use", 1, true))
    assert.truthy(tonumber((second:connect({ path = path }):read_all())))
    second:stop()
    assert.is_nil(lfs.attributes(path))
  end)

  it("at a local path leave another server's file alone at the end", function()
    local path = process.scratch("socket")
    local first = server.start(at_path(path))
    os.remove(path)
    local second = server.start(at_path(path))
    first:stop()
    assert.truthy(tonumber((second:connect({ path = path }):read_all())))
    second:stop("INT")
    assert.is_nil(lfs.attributes(path))
  end)

  it("at a local path leave no file if the script fails or ends the program", function()
    local path = process.scratch("socket")
    for code, ending in pairs {
      [3] = "error('no')", [7] = "os.exit(7)", [8] = "os.exit(8, true)",
    } do
      assert.equal(code, (server.run_script(at_path(path, ending))))
      assert.is_nil(lfs.attributes(path), ending)
    end
    for _, ending in ipairs { "", "error('no')" } do
      server.run_script([[
        require "moonbridge".listen{ { proto = "local", path = "]] .. path .. [[" },
          connect = function() return true end }
      ]] .. ending)
      assert.is_nil(lfs.attributes(path), ending)
    end
  end)

  it("at a local path keep the file when a process ends that the script has started", function()
    local path = process.scratch("socket")
    local s = server.start(at_path(path, "os.execute('exit 0') io.popen('true'):close()"))
    for _ = 1, 3 do
      process.kill(math.tointeger(tonumber((s:connect({ path = path }):read_all()))), "TERM")
    end
    assert.truthy(tonumber((s:connect({ path = path }):read_all())))
  end)

  it("at a local path that is long, given relative to a folder, remove the file at the end", function()
    local folder, name = process.scratch("folder"), ("x"):rep(107)
    assert(lfs.mkdir(folder))
    local s = server.start {
      launcher = true, globals = { PATH = name }, cwd = folder,
      script = [[
        listen{ { proto = "local", path = PATH }, { proto = "tcp", host = "127.0.0.1", port = PORT },
          connect = function() return true end }
      ]],
    }
    assert.truthy(lfs.attributes(folder .. "/" .. name))
    s:stop()
    assert.is_nil(lfs.attributes(folder .. "/" .. name))
  end)

  it("by default listen on IPv4 also where the machine keeps it apart from IPv6", function()
    local apart = "echo 1 >/proc/sys/net/ipv6/bindv6only"
    if process.run("unshare -n sh -c 'ip link set lo up && " .. apart .. "'") ~= 0 then
      return pending("this user may not make a network namespace")
    end
    for _, host in ipairs { "", 'host = "::",' } do
      local code, output = server.run_script {
        launcher = true,
        command = { "unshare", "-n", "sh", "-c", 'ip link set lo up && ' .. apart .. ' && exec "$@"', "sh",
          server.interpreter },
        script = ([[
          listen{ { proto = "tcp", %s port = 7007 },
            connect = function(socket) socket:write("hello") return true end }
          listen{ { proto = "main" }, connect = function()
            for _, host in ipairs { "127.0.0.1", "::1" } do
              print((moonbridge_io.tcpconnect(host, 7007):read()))
            end
            return true
          end }
        ]]):format(host),
      }
      assert.equal(0, code)
      assert.equal("hello\nhello\n", output)
    end
  end)

  it("by default listen on all interfaces, IPv6 and IPv4", function()
    local s = server.start {
      launcher = true,
      script = [[listen{ { proto = "tcp", port = PORT },
        connect = function(socket) socket:write("hello") return true end }]],
    }
    for _, host in ipairs { "127.0.0.1", "::1" } do
      s.host = host
      assert.equal("hello", (s:raw("")))
    end
  end)
end)

describe("after the start", function()
  after_each(server.cleanup)

  it("listen throws, also through a saved reference, in any handler", function()
    local s = server.start {
      launcher = true,
      script = [[
        local saved, moonbridge = listen, require "moonbridge"
        local function try(where)
          for _, f in ipairs{ saved, moonbridge.listen } do
            local ok, message = pcall(f, { { proto = "interval", delay = 1 }, connect = print })
            io.stderr:write(where, " ", tostring(ok), " ", message, "\n")
          end
        end
        listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
          prepare = function() try("prepare") end, connect = function() try("connect") end,
          finish = function() try("finish") end }
      ]],
    }
    s:raw("")
    for _, where in ipairs { "prepare", "connect", "finish" } do
      assert.truthy(s:wait_log(where .. " false [^\n]*the server has been started already", nil, 2), where)
    end
  end)

  it("run throws in a worker, and a second time", function()
    local s = server.start [[
      local moonbridge = require "moonbridge"
      moonbridge.listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = function(socket) socket:write(select(2, pcall(moonbridge.run))) return true end }
      moonbridge.run()
      print(pcall(moonbridge.run))
    ]]
    assert.truthy((s:raw("")):find("run: the server is running already", 1, true))
    assert.equal(0, s:stop())
    assert.truthy(s:output():find("false\t[^\n]*run: the server has run already"))
  end)

  it("run without a pool throws; a state with pools that ends without run says so", function()
    local code, _, log = server.run_script 'require("moonbridge").run()'
    assert.equal(1, code)
    assert.truthy(log:find("app.lua:1: No listener initialized.", 1, true))
    code, _, log = server.run_script(
      'require("moonbridge").listen{ { proto = "interval", delay = 1 }, connect = print }')
    assert.equal(0, code)
    assert.truthy(log:find("run() never", 1, true))
  end)
end)
