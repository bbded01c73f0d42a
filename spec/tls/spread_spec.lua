-- Handshakes, which cannot move to another worker, spread over the workers: those of one are not held up by a
-- handler, while others have time.

local certificates = require "spec.support.certificates"
local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"
local server = require "spec.support.server"
local tls_listener = require "spec.support.tls_listener"

local WORKERS = 4

describe("TLS handshakes that go on at a time", function()
  local flag
  after_each(function()
    process.write(flag, "")
    server.cleanup()
  end)

  local function start(made)
    flag = process.scratch("flag")
    local s = server.start(([[
      local moonbridge, http = require "moonbridge", require "moonbridge_http"
      local moonbridge_io = require "moonbridge_io"
      moonbridge.listen {
        { %s }, pre_fork = %d, min_fork = %d, max_fork = %d,
        connect = http.generate_handler(function(request)
          if request.path == "hang" then
            io.stderr:write("hangs\n")
            while not io.open(%q) do moonbridge_io.poll(nil, nil, 0.05) end
          end
          request:send("200 OK", "text/plain", "served")
          return true
        end),
      }
      moonbridge.run()
    ]]):format(tls_listener.fields(made), WORKERS, WORKERS, WORKERS, flag))
    assert(process.wait_until(function() return #s:workers() == WORKERS end))
    return s
  end

  -- A client whose handshake the server has answered.
  local function begin(s, made)
    local handle = assert(moonbridge_io.tlsconnect_nb("127.0.0.1", s.port, {
      ca = made.certificate, server_name = "localhost",
    }))
    repeat
      assert(moonbridge_io.poll(nil, { [handle] = true }, process.TIMEOUT))
      handle:flush_nb()
    until handle:events() == "r"
    assert(moonbridge_io.poll({ [handle:getfd()] = true }, nil, process.TIMEOUT))
    return handle
  end

  local function ask(handle, path)
    assert(handle:write("GET /" .. path .. " HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert(handle:flush())
  end

  it("are not held up by handlers while there are workers with time", function()
    local made = certificates.make {}
    local s = start(made)
    local handles = {}
    for index = 1, WORKERS do handles[index] = begin(s, made) end
    for index = 1, WORKERS - 1 do
      ask(handles[index], "hang")
      assert.truthy(s:wait_log("hangs", nil, index))
    end
    ask(handles[WORKERS], "quick")
    assert.is_true(moonbridge_io.poll({ [handles[WORKERS]] = true }, nil, process.TIMEOUT))
    assert.equal("HTTP/1.1 200 OK\r\n", (handles[WORKERS]:read(nil, "\n")))
    process.write(flag, "")
    for index = 1, WORKERS - 1 do
      assert.equal("HTTP/1.1 200 OK\r\n", (handles[index]:read(nil, "\n")))
    end
  end)
end)
