-- A handler that sends without anything leaving, as in answer to HEAD, notices the end of its client
-- as one does whose data is sent.

local socket = require "socket"
local server = require "spec.support.server"
local app = require "spec.http.app"

describe("a handler that sends nothing notices that its client is gone", function()
  local ENDLESS = [[
    local function endless(request, status, piece)
      request:send_status(status)
      request:finish_headers()
      for _ = 1, 200 do
        if piece then request:send_data(piece) end
        request:flush()
        moonbridge_io.poll(nil, nil, 0.1)
      end
      return true
    end
    function routes.events(request) return endless(request, "200 OK", "data: x\n\n") end
    function routes.data(request)
      request:send_status("200 OK")
      for _ = 1, 200 do
        request:send_data(("x"):rep(2000))
        moonbridge_io.poll(nil, nil, 0.1)
      end
      return true
    end
    function routes.nothing(request) return endless(request, "204 No Content") end
    function routes.silent(request) return endless(request, "200 OK") end
    function routes.once(request)
      reply(request, "x")
      request:flush()
      moonbridge_io.poll(nil, nil, 0.2)
      request:flush()
      return true
    end
  ]]

  local s
  setup(function() s = app.start(ENDLESS) end)
  teardown(server.cleanup)

  for _, request in ipairs { "HEAD /events", "HEAD /data", "GET /nothing", "GET /silent", "GET /events" } do
    for _, way in ipairs { "reset", "close" } do
      -- A client that has sent FIN may still read what a GET brings.
      if request ~= "GET /silent" or way == "reset" then
        it(("%s, %s"):format(request, way), function()
          local connection = s:connect()
          connection:send(request .. " HTTP/1.1\r\nHost: a\r\n\r\n")
          -- A client that closes with something unread resets.
          assert(connection:read_until("\r\n\r\n"))
          connection[way](connection)
          local begun = socket.gettime()
          assert.equal("default", s:request("/").body)
          assert(socket.gettime() - begun < 9)
        end)
      end
    end
  end

  it("but one that half-closes gets its response", function()
    for _, method in ipairs { "HEAD", "GET" } do
      local connection = s:connect()
      connection:send(method .. " /once HTTP/1.1\r\nHost: a\r\n\r\n")
      connection:finish()
      local bytes, ending = connection:read_all()
      assert.match("^HTTP/1.1 200 OK\r\n", bytes)
      assert.equal("closed", ending)
    end
  end)
end)
