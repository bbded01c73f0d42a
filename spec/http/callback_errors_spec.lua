-- A callback for the request body that raises an error: it is not called again, what is left of the body
-- is thrown away, and what the handler answers goes out (reference, "request:stream_post_param",
-- "request:stream_request_body", "request:consume_input").

local server = require "spec.support.server"
local app = require "spec.http.app"

-- Each of them refuses an upload over 10 bytes by an error of its callback, by the handler named so.
local ROUTES = [[
  local calls = 0
  local function guard()
    local size = 0
    return function(chunk)
      calls = calls + 1
      size = size + #(chunk or "")
      if size > 10 then error("file too large", 0) end
    end
  end
  local readers = {}
  function readers.post_param(request)
    request:stream_post_param("f", guard())
    request:consume_input()
  end
  function readers.post_params(request)
    request:stream_post_params("^f", guard())
    local _ = request.post_params
  end
  function readers.body(request)
    request:stream_request_body(guard())
    request:consume_input()
  end
  function readers.body_now(request)
    request:stream_request_body_now(guard())
  end
  function readers.receive(request)
    local check = guard()
    local function receive(chunk)
      check(chunk)
      return receive
    end
    request:receive_body(receive)
  end
  function routes.default(request)
    calls = 0
    local ok, message = pcall(readers[request.path], request)
    request:send_status("413 Content Too Large")
    request:send_data(tostring(ok), " ", tostring(message))
    return true
  end
  function routes.calls(request) return reply(request, calls) end
  -- The error and what reading on comes to.
  function routes.again(request)
    local fail = function() error { code = 7 } end
    request:stream_post_param("f", fail)
    local function outcome(read)
      local ok, err = pcall(read)
      return ("%s %s"):format(ok, type(err) == "table" and err.code or err)
    end
    return reply(request,
      outcome(function() request:consume_input() end), ",",
      outcome(function() request:consume_input() end), ",",
      outcome(function() return request.post_params end), ",",
      outcome(function() return request.post_metadata end), ",",
      outcome(function() return request.body end))
  end
  function routes.uncaught(request)
    request:stream_request_body(function() error("broken sink") end)
    request:consume_input()
  end
  -- Nobody reads before the response is complete.
  function routes.late(request)
    request:stream_request_body(function() calls = calls + 1 error("broken sink") end)
    reply(request, "answered")
    request:finish()
    return true
  end
  -- The body comes while the client does not take the response.
  function routes.sending(request)
    request:stream_request_body(function()
      calls = calls + 1
      io.stderr:write("called while sending\n")
      error("broken sink", 0)
    end)
    calls = 0
    request:send_status("200 OK")
    local words
    for _ = 1, 8 do
      local ok, message = pcall(request.send_data, request, ("x"):rep(1000000))
      if not ok then words = message end
    end
    request:send_data(calls, " ", words)
    return true
  end
  function routes.nested(request)
    local seen = {}
    request:stream_post_param("a", function()
      seen[#seen + 1] = "a"
      pcall(request.consume_input, request)
    end)
    request:stream_post_param("b", function() seen[#seen + 1] = "b" error("inner", 0) end)
    local ok, message = pcall(request.consume_input, request)
    return reply(request, table.concat(seen), " ", tostring(ok), " ", tostring(message))
  end
]]

local function form(size)
  return '--XX\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' .. ("x"):rep(size)
    .. "\r\n--XX--\r\n"
end

describe("an error of a callback for the request body", function()
  local s, pid
  setup(function()
    s = app.start(ROUTES, "{ maximum_input_chunk_size = 1000, request_buffering = 0 }")
    pid = s:request("/pid").body
  end)
  teardown(server.cleanup)

  local function post(target, body, connection)
    return (connection or s:connect()):request {
      target = target, body = body, headers = { ["Content-Type"] = "multipart/form-data; boundary=XX" },
    }
  end

  for _, reader in ipairs { "post_param", "post_params", "body", "body_now", "receive" } do
    it("is the last call, and the handler's answer goes out: " .. reader, function()
      for _, size in ipairs { 500, 20000, 300000 } do
        local answer = post("/" .. reader, form(size))
        assert.equal(413, answer.status)
        assert.match("^false .*file too large$", answer.body)
        assert.equal("1", s:request("/calls").body)
      end
      assert.equal(pid, s:request("/pid").body)
    end)

    it("leaves the connection as it is if the body was there completely: " .. reader, function()
      local connection = s:connect()
      for _ = 1, 2 do assert.equal(413, post("/" .. reader, form(500), connection).status) end
      assert.equal(pid, connection:request("/pid").body)
    end)
  end

  it("is what reading on raises, too", function()
    assert.equal(("false 7,"):rep(4) .. "false 7", post("/again", form(5000)).body)
  end)

  it("ends a reader from within another callback", function()
    local first = form(500):gsub('"f"', '"a"', 1):gsub("%-%-XX%-%-\r\n$", "")
    local second = form(500):gsub('"f"', '"b"', 1)
    assert.equal("aab false inner", post("/nested", first .. second).body)
  end)

  it("that nobody catches is answered with 500 and logged where it was raised", function()
    assert.equal(500, post("/uncaught", form(100000)).status)
    local line = s:wait_log('Error in "connect" function: POST /uncaught %[%x+%]: routes:%d+: broken sink')
    assert.truthy(line, s:log())
    local number = s:log():match("routes:(%d+): broken sink")
    assert.truthy(s:wait_log("routes:" .. number .. ": in function"), s:log())
    pid = s:request("/pid").body
  end)

  it("reaches the handler also where it sends, and the answer is complete", function()
    local connection = s:connect { receive_buffer = 4096 }
    connection:send("POST /sending HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" .. ("x"):rep(1000))
    -- A client that reads as fast as the handler sends would let it send without a wait for room.
    assert.truthy(s:wait_log("called while sending"))
    local answer = connection:response()
    assert.equal(200, answer.status)
    assert.equal(8000000 + #"1 broken sink", #answer.body)
    assert.match("x1 broken sink$", answer.body)
    assert.equal(pid, s:request("/pid").body)
  end)

  it("after the response lets the response out", function()
    local connection = s:connect()
    connection:send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" .. ("x"):rep(3000))
    local answer = connection:response()
    assert.same({ 200, "answered" }, { answer.status, answer.body })
    connection:send(("x"):rep(2000))
    local rest, ending = connection:read_all()
    assert.same({ "", "closed" }, { rest, ending })
  end)
end)
