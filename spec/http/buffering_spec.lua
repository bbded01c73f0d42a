-- request_buffering: bodies up to a size are received before the handler is called.

local socket = require "socket"
local server = require "spec.support.server"
local app = require "spec.http.app"

describe("request_buffering", function()
  after_each(server.cleanup)

  local ROUTES = [[function routes.body(request) return reply(request, request.body) end]]

  it("calls the handler when the body is there: slow uploads occupy no process", function()
    local s = app.start(ROUTES, "{ request_buffering = 1000 }")
    local head = "POST /body HTTP/1.1\r\nHost: a\r\n"
    local framings = {
      ["Content-Length: 10\r\n\r\n"] = { "01234", "56789" },
      ["Transfer-Encoding: chunked\r\n\r\n"] = { "5\r\n01234\r\n5\r\n5", "6789\r\n0\r\n\r\n" },
    }
    for framing, pieces in pairs(framings) do
      local slow = {}
      for i = 1, 3 do
        slow[i] = s:connect()
        slow[i]:send(head .. framing .. pieces[1])
      end
      assert.equal("default", s:request("/").body)
      for i = 1, 3 do
        slow[i]:send(pieces[2])
        assert.equal("0123456789", slow[i]:response().body)
        assert.equal("default", slow[i]:request("/").body)
      end
    end
  end)

  it("tells a client that asks that it may send the body, and waits without a process", function()
    local s = app.start(ROUTES, "{ request_buffering = 100000 }")
    for _, size in ipairs { 10, 100000, 100001 } do
      local connection = s:connect()
      connection:send("POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: "
        .. size .. "\r\n\r\n")
      assert.equal(100, connection:response().status)
      if size <= 100000 then assert.equal("default", s:request("/").body) end
      connection:send(("x"):rep(size // 2))
      if size <= 100000 then assert.equal("default", s:request("/").body) end
      connection:send(("x"):rep(size - size // 2))
      assert.equal(size, #connection:response().body)
      assert.equal("default", connection:request("/").body)
    end
  end)

  it("keeps a body that is half there when the process ends, but for its death", function()
    local s = app.start(ROUTES .. [[
      function routes.last(request) reply(request, "last") return false end
    ]], "{ request_buffering = 1000000 }")
    for _, size in ipairs { 10, 50000, 1000000 } do
      local connection = s:connect()
      local body = ("0123456789"):rep(size // 10)
      connection:send("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: " .. size .. "\r\n\r\n"
        .. body:sub(1, size // 2))
      socket.sleep(0.1)
      assert.equal("last", s:request("/last").body)
      connection:send(body:sub(size // 2 + 1))
      assert.is_true(body == connection:response().body)
    end
  end)

  it("calls the handler when chunks without end have come to the limit", function()
    local s = app.start([[
      function routes.body(request)
        io.stderr:write("called\n")
        return reply(request, #request.body)
      end
    ]], "{ request_buffering = 100 }", 2)
    local connection = s:connect()
    local function chunk(size) connection:send(("%x\r\n%s\r\n"):format(size, ("x"):rep(size))) end
    connection:send("POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk(60)
    assert.equal("default", s:request("/").body)
    assert.falsy(s:log():find("called", 1, true))
    chunk(41)
    assert.truthy(s:wait_log("called"))
    connection:send("0\r\n\r\n")
    assert.equal("101", connection:response().body)
  end)

  it("is 64 KiB unless something else is asked for, for bodies of announced length", function()
    local s = app.start(ROUTES .. [[
      function routes.early(request) return reply(request, "early") end
    ]])
    local head = "POST /%s HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n"
    local slow = {}
    for i = 1, 5 do
      slow[i] = s:connect()
      slow[i]:send(head:format("body", "Content-Length: 65536") .. "x")
    end
    assert.equal("default", s:request("/").body)
    for i = 1, 5 do
      slow[i]:send(("x"):rep(65535))
      assert.equal(65536, #slow[i]:response().body)
    end
    for _, fields in ipairs {
      "Content-Length: 65537", "Transfer-Encoding: chunked",
      "Content-Length: 10\r\nExpect: 100-continue",
    } do
      local connection = s:connect()
      connection:send(head:format("early", fields))
      assert.equal("early", connection:response().body, fields)
    end
  end)

  it("is off if it is switched off", function()
    local s = app.start("function routes.early(request) return reply(request, 'early') end",
      "{ request_buffering = false }")
    local connection = s:connect()
    connection:send "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
    assert.equal("early", connection:response().body)
  end)

  it("does not wait for the body of a request that is refused", function()
    local s = app.start(ROUTES)
    for refusal, lines in pairs {
      ["400 Bad Request\n\nNo valid host header\n"] = "POST / HTTP/1.1",
      ["400 Bad Request\n\nInvalid request target\n"] = "POST x HTTP/1.1\r\nHost: a",
      ["417 Expectation Failed\n\nUnexpected Expect header\n"] =
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: wonders",
    } do
      local connection = s:connect()
      connection:send(lines .. "\r\nContent-Length: 10\r\n\r\nabc")
      assert.equal(refusal, connection:response().body)
      assert.same({ "", "closed" }, { connection:read_all() })
    end
  end)

  it("does not wait for larger bodies, nor forever", function()
    local s = app.start(ROUTES, "{ request_buffering = 5, stall_timeout = 1 }")
    for _, length in ipairs { 5, 6 } do
      local connection = s:connect()
      connection:send("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: " .. length .. "\r\n\r\n0")
      assert.equal("408 Request Timeout\n\nRequest body timed out\n", connection:response().body)
    end
    local connection = s:connect()
    connection:send "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n0"
    connection:finish()
    assert.equal(400, connection:response().status)
  end)
end)
