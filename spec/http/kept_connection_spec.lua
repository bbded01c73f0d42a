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

-- RFC 9112 9.3: a server reads the whole body or closes the connection after its response.
describe("the rest of a body that the handler has not asked for", function()
  after_each(server.cleanup)

  local IGNORING = [[
    local http = require "moonbridge.http"
    require "moonbridge".listen {
      { proto = "tcp", host = "127.0.0.1", port = PORT },
      pre_fork = 1, min_fork = 1, max_fork = 1,
      connect = http.generate_handler({ drain_timeout = 60, request_buffering = false }, function(request)
        request:send_status("200 OK")
        request:send_data("answer")
        return true
      end),
    }
    require "moonbridge".run()
  ]]

  it("occupies no process, however slow its client is", function()
    local s = server.start(IGNORING)
    local slow = {}
    for index = 1, 10 do
      slow[index] = s:connect()
      slow[index]:send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
    end
    -- With the only process waiting for one of them, this would take a minute.
    assert.equal("answer", s:request("/").body)
    for index = 1, 10 do
      local response = slow[index]:response()
      assert.same({ 200, "answer" }, { response.status, response.body })
    end
    -- It is skipped before the next request, wherever the connection is when it comes.
    for index = 1, 10 do
      slow[index]:dribble(("x"):rep(997), 500, index > 8 and 1.2 or 0)
      assert.equal("answer", slow[index]:request("/").body)
    end
    assert.equal("answer", s:request("/").body)
  end)

  it("does not cost the connection if it is there", function()
    local c = server.start(IGNORING):connect()
    for _ = 1, 3 do
      assert.equal("answer", c:request({ body = ("x"):rep(100000) }).body)
    end
  end)
end)

-- RFC 9112 9.3 and C.2.2
describe("a connection of HTTP/1.0", function()
  local s
  setup(function()
    s = server.start [[
      local http = require "moonbridge.http"
      require "moonbridge".listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        pre_fork = 1, min_fork = 1, max_fork = 1,
        connect = http.generate_handler(function(request)
          request:send_status(request.path == "none" and "204 No Content" or "200 OK")
          if request.path == "length" then request:send_header("Content-Length", 2) end
          if request.path == "close" then request:close_after_finish() end
          if request.path == "said" then
            request:send_header("Connection", "Keep-Alive")
            request:send_header("Content-Length", 2)
          end
          if request.path ~= "none" then request:send_data("ok") end
          return true
        end),
      }
      require "moonbridge".run()
    ]]
  end)
  teardown(server.cleanup)

  local function get(path, option)
    return ("GET /%s HTTP/1.0\r\n%s\r\n"):format(path, option and "Connection: " .. option .. "\r\n" or "")
  end

  it("is kept, which the response says, if the client asks and the response has a length", function()
    for _, path in ipairs { "length", "said", "none" } do
      local connection = s:connect()
      for _ = 1, 3 do
        connection:send(get(path, "Keep-Alive"))
        local response = connection:response()
        assert.equal("keep-alive", response.headers.connection:lower())
        assert.equal(path == "none" and "" or "ok", response.body)
      end
      connection:send(get(path))
      assert.match("close$", connection:response().headers.connection)
      assert.same({ "", "closed" }, { connection:read_all() })
    end
  end)

  it("ends otherwise, which the response says", function()
    for _, request in ipairs { get "length", get("length", "close"), get("length", "keep-alive, close"),
      get("stream", "keep-alive"), get("close", "keep-alive") } do
      local reply, ending = s:raw(request)
      assert.match("\r\nConnection: close\r\n", reply)
      assert.falsy(reply:lower():find("keep-alive", 1, true))
      assert.falsy(reply:find("chunked", 1, true))
      assert.equal("closed", ending)
    end
  end)

  it("takes pipelined requests", function()
    local connection = s:connect()
    connection:send(get("length", "keep-alive"):rep(2) .. get "length")
    for _ = 1, 3 do assert.equal("ok", connection:response().body) end
    assert.same({ "", "closed" }, { connection:read_all() })
  end)
end)
