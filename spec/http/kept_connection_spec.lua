-- Connections between requests and with incomplete heads.

local server = require "spec.support.server"
local socket = require "socket"

local ECHO_SIZE = [[
  local http = require "moonbridge.http"
  require "moonbridge".listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    connect = http.generate_handler(function(request)
      request:send_status("200 OK")
      request:send_data(#request.body)
      return true
    end),
  }
  require "moonbridge".run()
]]

describe("a kept connection", function()
  after_each(server.cleanup)

  it("has a request.body for each of its requests", function()
    local connection = server.start(ECHO_SIZE):connect()
    for size = 1, 3 do
      local response = connection:request { body = ("x"):rep(size) }
      assert.same({ 200, tostring(size) }, { response.status, response.body })
    end
  end)

  it("costs no processor time while a head or a line end before it is incomplete", function()
    local s = server.start(ECHO_SIZE)
    local begun = {}
    for index = 1, 20 do
      begun[index] = s:connect()
      for _, bytes in ipairs { "\r\n", "GE", "T / HT" } do
        begun[index]:send(index <= 10 and bytes or "\r\n")
        socket.sleep(0.002)
      end
    end
    local before = s:cpu()
    socket.sleep(0.5)
    assert.is_true(s:cpu() - before < 0.1)
    begun[1]:send("TP/1.1\r\nHost: localhost\r\n\r\n")
    assert.equal(200, begun[1]:response().status)
    assert.equal(200, begun[20]:request("/").status)
  end)
end)
