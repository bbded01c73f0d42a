-- Connections that a script opens before `run` are shared by all workers: the log warns of them.

local process = require "spec.support.process"
local server = require "spec.support.server"

local function start(before, launcher)
  return server.start { launcher = launcher or true, globals = { PATH = process.scratch("socket") },
    script = ([[
      %s
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, connect = function(socket)
        socket:write("served")
        return true
      end }
    ]]):format(before) }
end

local function warnings(s)
  assert.equal("served", (s:raw("")))
  local lines = {}
  for line in s:log():gmatch("WARNING: ([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

describe("a connection that is open when the server starts", function()
  after_each(server.cleanup)

  it("is warned of once, with its descriptor and its peer", function()
    local s = start [[
      local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
      other = assert(require "socket".connect("127.0.0.1", listener.local_tcpport))
      io.stderr:write(("expected %d (to 127.0.0.1:%d)\n"):format(other:getfd(), listener.local_tcpport))
      local locals = assert(moonbridge_io.locallisten(PATH))
      ours = assert(moonbridge_io.localconnect(PATH))
    ]]
    local lines = warnings(s)
    assert.equal(1, #lines)
    local expected = assert(s:log():match("expected ([^\n]*)\n"))
    assert.truthy(lines[1]:find("descriptor " .. expected .. ", ", 1, true), lines[1])
    assert.truthy(lines[1]:find("%d+ %(to /%S*/socket%)%. Open them in \"prepare\""), lines[1])
    s:raw("")
    assert.equal(0, s:stop())
    assert.equal(1, select(2, s:log():gsub("WARNING", "")))
  end)

  it("is the server's own business if it is a listener, the system log or an idle client", function()
    local other = server.start { launcher = true, script = [[
      listen{ { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = require "moonbridge_http".generate_handler(function(request)
          request:send_status("200 OK")
          request:send_data("kept")
          return true
        end) }
    ]] }
    local s = start(([[
      listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
      assert((require "moonbridge_http".request("%s/")))
    ]]):format(other.url), { "-i", "moonbridge-spec" })
    assert.same({}, warnings(s))
  end)

  it("is not looked for in what was closed again", function()
    local s = start [[
      local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))
      assert(require "socket".connect("127.0.0.1", listener.local_tcpport)):close()
    ]]
    assert.same({}, warnings(s))
  end)
end)
