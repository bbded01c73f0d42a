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
      .. '  inherited listener "web"\n'
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
      ["DATA = ('x'):rep(2e6) listen{ { proto = 'tcp', port = 1 }, connect = print, memory_limit = 1e6 }"] =
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
end)
