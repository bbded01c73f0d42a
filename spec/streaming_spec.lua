-- request:receive_body and request:send_body: bodies of any size through callbacks.

local callbacks = require "spec.support.callbacks"
local process = require "spec.support.process"
local server = require "spec.support.server"

local SETUP = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge_http"
  local callback = require "moonbridge_callback"
  local mime = require "mime"
  local function reply(request, status, text)
    request:send_status(status)
    request:send_header("Content-Type", "text/plain")
    request:send_data(text)
    return true
  end
  local handlers = {}
  HANDLERS
  moonbridge.listen {
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    min_fork = 1, max_fork = 2,
    connect = http.generate_handler({ maximum_input_chunk_size = 65536, request_body_size_limit = 2^32 | 0 },
      function(request) return handlers[request.path](request) end),
  }
  moonbridge.run()
]]

local function serve(handlers)
  return server.start((SETUP:gsub("HANDLERS", function() return handlers end)))
end

after_each(server.cleanup)

describe("request:receive_body", function()
  local HANDLERS = [[
    function handlers.collect(request)
      local cb, concat = callback.receive.concat()
      local count, message = request:receive_body(cb)
      return reply(request, "200 OK", ("%s %s %s"):format(count, message, concat))
    end
    function handlers.calls(request)
      local calls = {}
      request:receive_body(function(chunk, err)
        calls[#calls + 1] = ("%q,%s"):format(chunk, err)
        return 1
      end)
      return reply(request, "200 OK", table.concat(calls, ";"))
    end
    function handlers.limit(request)
      local size = 0
      local count, message = request:receive_body(function(chunk)
        size = size + #chunk
        if size > 10 then return nil, "too large" end
        return 1
      end)
      if not count then return reply(request, "413 Content Too Large", message) end
      return reply(request, "200 OK", count)
    end
    function handlers.decode(request)
      local cb, concat = callback.receive.concat()
      request:receive_body(callback.receive.chain(mime.decode("base64"), cb))
      return reply(request, "200 OK", tostring(concat))
    end
    function handlers.echo(request)
      ]] .. callbacks.ECHO .. [[
      return true
    end
    function handlers.throws(request)
      request:receive_body(function() error("callback has thrown") end)
      return true
    end
    function handlers.log(request)
      local count, message = request:receive_body(function(chunk, err)
        io.stderr:write("chunk: ", chunk or "nil", " ", err or "", "\n")
        return 1
      end)
      io.stderr:write("result: ", tostring(count), " ", tostring(message), "\n")
      return true
    end
    function handlers.twice(request)
      request:receive_body(callback.receive.concat())
      local ok, message = pcall(request.receive_body, request, callback.receive.concat())
      return reply(request, "200 OK", tostring(ok) .. " " .. message)
    end
    function handlers.misuse(request)
      local ok, message = pcall(function() request:receive_body("no function") end)
      return reply(request, "200 OK", message)
    end
  ]]

  it("passes the body on and returns the number of bytes", function()
    local s = serve(HANDLERS)
    assert.equal("3 nil abc", s:request({ target = "/collect", body = "abc" }).body)
    assert.equal("6 nil abcdef", s:request({ target = "/collect", body = { "abc", "def" } }).body)
    assert.equal("0 nil ", s:request("/collect").body)
    assert.equal("0 nil ", s:request({ target = "/collect", body = "" }).body)
  end)

  it("ends with an empty chunk", function()
    local s = serve(HANDLERS)
    assert.equal([["abc",nil;"",nil]], s:request({ target = "/calls", body = "abc" }).body)
    assert.equal([["",nil]], s:request("/calls").body)
  end)

  it("keeps the connection for the next request", function()
    local s = serve(HANDLERS)
    local c = s:connect()
    for _ = 1, 3 do assert.equal("3 nil abc", c:request({ target = "/collect", body = "abc" }).body) end
    assert.equal("false", c:request({ target = "/twice", body = "abc" }).body:match("^%a+"))
    assert.equal("3 nil abc", c:request({ target = "/collect", body = { "abc" } }).body)
  end)

  it("takes filters", function()
    local s = serve(HANDLERS)
    assert.equal("hello", s:request({ target = "/decode", body = { "aGV", "sbG8", "=" } }).body)
  end)

  it("can be aborted: the handler still answers, the rest is not read", function()
    local s = serve(HANDLERS)
    assert.equal("10", s:request({ target = "/limit", body = ("x"):rep(10) }).body)
    local c = s:connect()
    local response = c:request { target = "/limit", body = ("x"):rep(1000000) }
    assert.same({ 413, "too large", "close" },
      { response.status, response.body, response.headers.connection })
    assert.equal("closed", select(2, c:read_all()))
    local endless = s:connect()
    endless:send("POST /limit HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000000\r\n\r\n" .. ("x"):rep(100))
    assert.equal(413, endless:response().status)
    assert.equal("10", s:request({ target = "/limit", body = ("x"):rep(10) }).body)
    assert.falsy(s:log():find("Error"))
  end)

  it("can answer while it reads, more than both sides buffer", function()
    local s = serve(HANDLERS)
    local block = ("0123456789abcdef"):rep(4096)
    local path = process.scratch("upload")
    local file = assert(io.open(path, "wb"))
    for _ = 1, 200 do file:write(block) end
    file:close()
    local code, output = s:curl("--data-binary @" .. path .. " URL/echo | cmp - " .. path .. " && echo same")
    assert.same({ 0, "same\n" }, { code, output })
  end)

  it("tells the callback and the handler that the client is gone", function()
    local s = serve(HANDLERS)
    local c = s:connect()
    c:send("POST /log HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
    assert.truthy(s:wait_log("chunk: abc"))
    c:reset()
    assert.truthy(s:wait_log("result: nil %a+"))
    assert.truthy(s:log():find("chunk: nil %a+"))
  end)

  it("tells the callback that the body is malformed; the client is answered", function()
    local s = serve(HANDLERS)
    local c = s:connect()
    c:send("POST /log HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n")
    assert.equal(400, c:response().status)
    assert.truthy(s:wait_log("chunk: nil Invalid chunk size"))
    assert.equal("3 nil abc", s:request({ target = "/collect", body = "abc" }).body)
  end)

  it("lets thrown errors through: 500, logged", function()
    local s = serve(HANDLERS)
    assert.equal(500, s:request({ target = "/throws", body = "abc" }).status)
    assert.truthy(s:wait_log("callback has thrown"))
    assert.equal("3 nil abc", s:request({ target = "/collect", body = "abc" }).body)
  end)

  it("throws for what is no callback", function()
    local s = serve(HANDLERS)
    local message = s:request({ target = "/misuse", body = "abc" }).body
    assert.truthy(message:find("app.lua:%d+: bad argument #1 to 'receive_body' %(receive callback expected"))
  end)
end)

describe("request:send_body", function()
  local HANDLERS = [[
    local function begin(request)
      request:send_status("200 OK")
      request:send_header("Content-Type", "application/octet-stream")
    end
    local function count(n, text)
      local sent = 0
      return function()
        sent = sent + 1
        return sent <= n and text or ""
      end
    end
    function handlers.text(request)
      begin(request)
      local n = request:send_body(callback.send.string("hello"))
      request:send_data(" ", n)
      return true
    end
    handlers["nil"] = function(request)
      begin(request)
      request:send_data(request:send_body(callback.send.string(nil)))
      return true
    end
    function handlers.file(request)
      begin(request)
      request:send_body(callback.send.chain(callback.send.file(io.open("LICENSE")), mime.encode("base64")))
      return true
    end
    function handlers.length(request)
      begin(request)
      request:send_header("Content-Length", 6)
      request:send_body(count(2, "abc"))
      return true
    end
    function handlers.big(request)
      begin(request)
      local n = request:send_body(count(4096, ("x"):rep(65536)))
      local status = io.open("/proc/self/status"):read("a")
      io.stderr:write("sent ", n, " peak ", status:match("VmHWM:%s+(%d+)"), "\n")
      return true
    end
    function handlers.abort(request)
      begin(request)
      local n, message = request:send_body(function()
        return ("x"):rep(100000), function() return nil, "source is gone" end
      end)
      io.stderr:write("result: ", tostring(n), " ", tostring(message), "\n")
      return true
    end
    function handlers.early(request)
      begin(request)
      request:send_body(callback.send.file(io.open("/nonexistent/file")))
      return true
    end
    function handlers.endless(request)
      begin(request)
      local file = { read = function() return ("x"):rep(65536) end }
      function file:close() io.stderr:write("file is closed\n") end
      request:send_body(callback.send.file(file))
      io.stderr:write("never\n")
      return true
    end
    function handlers.throws(request)
      begin(request)
      request:send_body(function()
        return ("x"):rep(100000), function() error("callback has thrown") end
      end)
      return true
    end
    function handlers.misuse(request)
      local list = {}
      list[1] = select(2, pcall(function() request:send_body(callback.send.string("x")) end))
      list[2] = select(2, pcall(function() request:send_body("text") end))
      return reply(request, "200 OK", table.concat(list, "\n"))
    end
    function handlers.wrong(request)
      begin(request)
      request:send_body(function() return 42 end)
      return true
    end
  ]]

  it("sends what the callback gives and returns the number of bytes", function()
    local s = serve(HANDLERS)
    local response = s:request("/text")
    assert.equal("hello 5", response.body)
    assert.equal("chunked", response.headers["transfer-encoding"])
    local license = s:request("/file").body
    assert.equal(process.slurp("LICENSE"), (require "mime".unb64(license)))
  end)

  it("sends nothing for a nil callback", function()
    assert.equal("0", serve(HANDLERS):request("/nil").body)
  end)

  it("keeps to a Content-Length", function()
    local response = serve(HANDLERS):request("/length")
    assert.same({ "abcabc", "6" }, { response.body, response.headers["content-length"] })
  end)

  it("sends no body to HEAD, and keeps the connection", function()
    local c = serve(HANDLERS):connect()
    for _, path in ipairs { "/text", "/file", "/length" } do
      local response = c:request { method = "HEAD", target = path }
      assert.same({ 200, "" }, { response.status, response.body })
    end
    assert.equal("hello 5", c:request("/text").body)
  end)

  it("sends 256 MiB in flat memory", function()
    local s = serve(HANDLERS)
    local code, output = s:curl("URL/big | wc -c")
    assert.same({ 0, "268435456\n" }, { code, output })
    assert.truthy(s:wait_log("sent 268435456 peak"))
    local peak = tonumber(s:log():match("peak (%d+)"))
    assert.truthy(peak < 32 * 1024, peak .. " KiB")
  end)

  it("an abort resets the connection and is logged; the worker goes on", function()
    local s = serve(HANDLERS)
    for _, path in ipairs { "/abort", "/early", "/wrong" } do
      local c = s:connect()
      c:send("GET " .. path .. " HTTP/1.1\r\nHost: x\r\n\r\n")
      assert.equal("reset", select(2, c:read_all()))
    end
    local aborted = " %[%x+%]: the response was aborted by its send callback: "
    assert.truthy(s:wait_log("GET /abort" .. aborted .. "source is gone"))
    assert.truthy(s:wait_log("result: nil source is gone"))
    assert.truthy(s:wait_log("GET /early" .. aborted .. "/nonexistent/file: No such file"))
    assert.truthy(s:wait_log("send callback returned a number, expected a string"))
    assert.equal("hello 5", s:request("/text").body)
    assert.falsy(s:log():find("Error in"))
  end)

  it("the client's disappearance stops the callback with an error, and closes its file", function()
    local s = serve(HANDLERS)
    local c = s:connect()
    c:send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    c:read(100000)
    c:reset()
    assert.truthy(s:wait_log("file is closed"))
    -- An error ends the handler; as it is the client's doing alone, the worker stays.
    assert.falsy(s:log():find("never"))
    assert.falsy(s:log():find("returned with exit code"))
    assert.equal("hello 5", s:request("/text").body)
  end)

  it("lets thrown errors through: reset, logged", function()
    local s = serve(HANDLERS)
    local c = s:connect()
    c:send("GET /throws HTTP/1.1\r\nHost: x\r\n\r\n")
    assert.equal("reset", select(2, c:read_all()))
    assert.truthy(s:wait_log("callback has thrown"))
    assert.equal("hello 5", s:request("/text").body)
  end)

  it("throws without a status, and for what is no callback", function()
    local body = serve(HANDLERS):request("/misuse").body
    assert.truthy(body:find("app.lua:%d+: HTTP status has not been sent yet\n"))
    assert.truthy(body:find("app.lua:%d+: bad argument #1 to 'send_body' %(send callback expected, got str"))
  end)
end)
