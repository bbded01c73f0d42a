-- The program `moonbridge`: options, presets, exit codes.

local process = require "spec.support.process"
local server = require "spec.support.server"

local ECHO = [[
  listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    connect = function() return true end
  }
]]

local LAUNCHER = server.root .. "/bin/moonbridge"

-- Runs the launcher with these words to its end: exit code, stdout, stderr.
local function launch(words, options)
  options = options or {}
  options.file, options.args = LAUNCHER, words
  return server.run_script(options)
end

local function script(text)
  local path = process.scratch("app.lua")
  process.write(path, text)
  return path
end

describe("moonbridge script.lua", function()
  after_each(server.cleanup)

  it("serves a script that calls the preset listen and nothing else", function()
    local s = server.start { script = ECHO, launcher = true }
    assert.equal("closed", select(2, s:raw("")))
    assert.equal(0, s:stop())
    assert.truthy(s:log():find("Terminating with exit code 0", 1, true))
  end)

  it("presets listen, timeout, moonbridge_io and _MOONBRIDGE_VERSION and passes the arguments", function()
    local code, output, log = server.run_script {
      launcher = true, args = { "a b", "--pidfile" },
      script = [[
        print(type(listen), type(timeout), type(moonbridge_io), type(_MOONBRIDGE_VERSION))
        print(moonbridge_io == require "moonbridge_io", select("#", ...), ...)
        print(#arg, arg[1], arg[2], (arg[0]:match("[^/]+$")))
        os.exit(5)
      ]],
    }
    assert.equal("function\tfunction\ttable\tstring\n" .. "true\t2\ta b\t--pidfile\n"
      .. "2\ta b\t--pidfile\tapp.lua\n", output, log)
    assert.equal(5, code)
  end)

  it("skips a #! line", function()
    local path = script("#!/usr/bin/env moonbridge\nos.exit(6)\n")
    assert.equal(6, (launch { path }))
  end)

  it("takes listen away when the script has ended, and leaves timeout", function()
    local s = server.start {
      launcher = true,
      script = [[
        listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT },
          connect = function(socket)
            socket:write(type(listen), " ", type(timeout))
            return true
          end
        }
      ]],
    }
    assert.equal("nil function", (s:raw("")))
  end)

  it("runs a script that is written for require and run", function()
    local s = server.start {
      launcher = true,
      script = [[
        local moonbridge = require "moonbridge"
        moonbridge.listen{
          { proto = "tcp", host = "127.0.0.1", port = PORT }, connect = function() return true end
        }
        print(moonbridge.run())
      ]],
    }
    assert.equal(0, s:stop())
    assert.equal("0\n", s:output())
  end)

  it("starts with the package paths of its interpreter alone", function()
    local code, _, log = server.run_script { file = LAUNCHER, env = { LUA_CPATH = "/nowhere/?.so" } }
    assert.equal(3, code)
    assert.truthy(log:find("the module could not be loaded", 1, true))
  end)
end)

describe("the command line", function()
  after_each(server.cleanup)

  it("prints the usage on stdout for -h and --help, code 0", function()
    for _, word in ipairs { "-h", "--help", "--he" } do
      local code, output, log = launch { word }
      assert.equal(0, code)
      assert.truthy(output:find("Usage: moonbridge [options] [--] script.lua", 1, true))
      assert.equal("", log)
    end
  end)

  it("prints its version", function()
    local code, output = launch { "--version" }
    assert.equal(0, code)
    assert.truthy(output:find("^moonbridge %d+%.%d+%.%d+ %(Lua 5%.%d%)\n$"))
  end)

  it("prints the usage on stderr for a wrong one, code 1", function()
    for _, case in ipairs {
      { {}, "no script was given" },
      { { "--" }, "no script was given" },
      { { "-x", "a.lua" }, "unknown option -x" },
      { { "--wrong", "a.lua" }, "unknown option --wrong\n" },
      { { "--hangupp", "reload", "a.lua" }, "unknown option --hangupp; did you mean --hangup?" },
      { { "--log-file=x", "a.lua" }, "unknown option --log-file; did you mean --logfile?" },
      { { "--reload_timeout", "1", "a.lua" },
        "unknown option --reload_timeout; did you mean --reload-timeout?" },
      { { "--chekc", "a.lua" }, "unknown option --chekc; did you mean --check?" },
      { { "--log", "a.lua" }, "option --log is ambiguous" },
      { { "-p" }, "option --pidfile needs a value" },
      { { "--stats=1", "a.lua" }, "option --stats takes no value" },
      { { "-f", "MAIL", "a.lua" }, "Option \"logfacility\" must be DAEMON, USER or 0 to 7" },
      { { "--waiting-input-limit" }, "option --waiting-input-limit needs a value" },
      { { "--waiting-input-limit=x", "a.lua" }, "Option \"waiting_input_limit\" is expected to be a" },
      { { "-p", "", "a.lua" }, "Option \"pidfile\" must be the path of a file" },
    } do
      local code, output, log = launch(case[1])
      assert.same({ 1, "" }, { code, output })
      assert.equal(1, (log:find("moonbridge: " .. case[2], 1, true)), log)
      assert.truthy(log:find("\nUsage: moonbridge", 1, true))
    end
  end)

  it("takes short options in a cluster, values attached or not, and long ones with =", function()
    local path, pid = script("os.exit(7)"), process.scratch("pid")
    for _, words in ipairs {
      { "-sp" .. pid, path }, { "-s", "-p", pid, path }, { "--pidfile=" .. pid, "--", path },
      { "--pid", pid, "-d", path },
    } do
      assert.equal(7, (launch(words)), table.concat(words, " "))
    end
  end)

  it("passes on what follows the script, and takes a script with a dash after --", function()
    local folder = process.scratch("x"):match("^(.*)/")
    process.write(folder .. "/-x.lua", "print(...) os.exit(8)")
    local code, output = launch({ "--", "-x.lua", "-h" }, { cwd = folder })
    assert.same({ 8, "-h\n" }, { code, output })
  end)
end)

describe("errors at start-up", function()
  after_each(server.cleanup)

  -- Exit code 3, and the log.
  local function fails(text, pattern)
    local path = script(text)
    local code, _, log = launch { path }
    assert.equal(3, code, log)
    assert.truthy(log:find(pattern:gsub("PATH", path), 1, true), log)
    assert.truthy(log:find("Terminating with exit code 3", 1, true), log)
    return log
  end

  it("tell of a script that cannot be loaded", function()
    fails("this is no Lua", 'Error while loading "PATH": PATH:1:')
    local code, _, log = launch { "/nowhere/app.lua" }
    assert.equal(3, code)
    assert.truthy(log:find('Error while loading "/nowhere/app.lua": cannot open', 1, true))
  end)

  it("tell of an error of the script, with traceback", function()
    local log = fails("local function f() error('oops') end\nf()",
      'Error while executing "PATH": PATH:1: oops')
    assert.truthy(log:find(": stack traceback:", 1, true))
    fails("error({})", 'Error while executing "PATH": (error object is a table value)')
    fails("error(setmetatable({}, {__tostring = function() return 'mine' end}))", ': mine')
  end)

  it("tell of an error after a listen, and of nothing else", function()
    local log = fails("listen { { proto = 'interval', delay = 1 }, connect = print }\nerror('oops')",
      'Error while executing "PATH": PATH:2: oops')
    assert.falsy(log:find("nothing has been served", 1, true), log)
  end)

  it("tell of a script that registers nothing", function()
    fails("", "No listener initialized.")
  end)

  it("tell of a port in use", function()
    local s = server.start { script = ECHO, launcher = true }
    fails(("PORT = %d %s"):format(s.port, ECHO),
      "Could not initialize listener #1: Address already in use")
  end)
end)

describe("errors at run time", function()
  after_each(server.cleanup)

  -- A library to preload, in which waiting for events fails.
  local BROKEN = [[
    #include <errno.h>
    struct epoll_event;
    int epoll_wait(int fd, struct epoll_event *events, int size, int timeout) {
      (void) fd, (void) events, (void) size, (void) timeout;
      errno = EBADF;
      return -1;
    }
  ]]

  it("are that the supervisor hears nothing any more; code 4, and the workers end", function()
    local source, library = process.scratch("broken.c"), process.scratch("broken.so")
    process.write(source, BROKEN)
    assert.truthy(os.execute(("cc -shared -fPIC -o %s %s"):format(library, source)))
    local s = server.start {
      script = ECHO, launcher = true, env = { LD_PRELOAD = library }, ready = false,
    }
    assert.equal(4, (s:wait()))
    assert.truthy(s:log():find("Waiting for events failed: Bad file descriptor", 1, true), s:log())
    assert.truthy(s:log():find("Terminating with exit code 4", 1, true), s:log())
  end)

  it("end with code 4", function()
    -- Whatever is thrown while the server starts to serve, or serves.
    local path = script [[
      listen { { proto = "tcp", host = "127.0.0.1", port = 0 }, connect = print }
      debug.sethook(function()
        if debug.getinfo(2, "S").source == "=moonbridge.run" then error("broken") end
      end, "l")
    ]]
    local code, _, log = launch { path }
    assert.equal(4, code, log)
    assert.truthy(log:find("Error while serving: .-broken\n.-stack traceback"), log)
    assert.truthy(log:find("Terminating with exit code 4", 1, true), log)
  end)
end)
