-- A handler that does not simply run to its end: it yields, throws, is entered again, or never ends.
-- Reference, "http.generate_handler"; what is true of one turn must not depend on how others ended.

local client = require "spec.support.client"
local server = require "spec.support.server"

local function start(connect)
  return server.start {
    script = [[
      local moonbridge = require "moonbridge"
      local http = require "moonbridge.http"
      local last
      handler = http.generate_handler(function(request)
        local path = request.path
        if last then
          local ok, message = pcall(last.send_data, last, "x")
          note(path, " after ", tostring(ok), " ", tostring(message))
        end
        if path ~= "abandoned" then last = request end
        request.mark = path
        if path == "yield" or path == "abandoned" then coroutine.yield(path) end
        if path == "throw" then error { code = 7 } end
        if path == "yield/throw" then coroutine.yield(path) error "after the yield" end
        if path == "nested" then nested() end
        request:send_status("200 OK")
        if path == "table" then return { "no boolean" } end
        request:send_data(request.mark, " ", request.method, " ", request.get_params.a or "-")
        return true
      end)
      notes = {}
      function note(...) notes[#notes + 1] = table.concat { ... } end
      CONNECT = assert(load(CONNECT, "=connect"))
      moonbridge.listen {
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        pre_fork = 1, min_fork = 1, max_fork = 1,
        connect = CONNECT,
        finish = function() for i = 1, #notes do io.stderr:write("note ", notes[i], "\n") end end,
      }
      moonbridge.run()
    ]],
    globals = { CONNECT = connect },
  }
end

-- Resumes as long as the handler yields.
local RESUMING = [[
  local turn = coroutine.wrap(function(...) return "over", handler(...) end)
  local what, result = turn(...)
  while what ~= "over" do what, result = turn() end
  return result
]]

describe("the turn of a handler", function()
  after_each(server.cleanup)

  -- Ends the server, which then tells its notes. It would wait for clients that are still connected.
  local function finish(s)
    client.cleanup()
    assert.equal(0, s:stop())
  end

  local function get(connection, path)
    local response = connection:request(path)
    return response and { response.status, response.body }
  end

  it("may be interrupted by a yield across the handler", function()
    local c = start(RESUMING):connect()
    for _ = 1, 3 do
      assert.same({ 200, "yield GET 1" }, get(c, "/yield?a=1"))
      assert.same({ 200, "plain GET -" }, get(c, "/plain"))
      assert.same({ 200, "plain GET 2" }, get(c, "/plain?a=2"))
    end
  end)

  it("is the only one in which its request can be used", function()
    local s = start(RESUMING)
    local c = s:connect()
    for _ = 1, 3 do get(c, "/plain") end
    finish(s)
    local _, count = s:log():gsub("note plain after false[^\n]*Response has already been finished", "")
    assert.equal(2, count)
  end)

  it("passes an error on as it was thrown, also after a yield, and the next turn is as usual", function()
    local s = start [[
      local socket = ...
      local turn = coroutine.create(handler)
      local ok, result = coroutine.resume(turn, socket)
      if coroutine.status(turn) == "suspended" then ok, result = coroutine.resume(turn) end
      if not ok then note("caught ", type(result) == "table" and result.code or result) end
      return ok and result or true
    ]]
    for _ = 1, 2 do
      for _, path in ipairs { "/throw", "/yield/throw" } do
        assert.same(500, s:request(path).status)
        assert.same({ 200, "plain GET -" }, get(s:connect(), "/plain"))
      end
    end
    finish(s)
    local _, tables = s:log():gsub("note caught 7\n", "")
    local _, texts = s:log():gsub("note caught [^\n]*app%.lua:%d+: after the yield\n", "")
    assert.same({ 2, 2 }, { tables, texts })
  end)

  it("may contain the turn of another connection", function()
    local s = start [[
      nested = nested or function()
        local io = require "moonbridge.io"
        local path = os.tmpname()
        os.remove(path)
        local listener = assert(io.locallisten(path))
        local near = assert(io.localconnect(path))
        local far = assert(listener:accept())
        near:flush("GET /inner?a=3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        handler(far)
        note("inner ", (near:read():match("\r\n\r\n.-(inner GET 3)")))
        listener:close()
        os.remove(path)
      end
      return handler(...)
    ]]
    local c = s:connect()
    for _ = 1, 2 do
      assert.same({ 200, "nested GET 4" }, get(c, "/nested?a=4"))
      assert.same({ 200, "plain GET -" }, get(c, "/plain"))
    end
    finish(s)
    local _, count = s:log():gsub("note inner inner GET 3\n", "")
    assert.equal(2, count)
  end)

  it("that never ends does not keep others from being served", function()
    local s = start [[
      local socket = ...
      abandoned = abandoned or {}
      local turn = coroutine.create(handler)
      local ok, result = coroutine.resume(turn, socket)
      assert(ok, result)
      if coroutine.status(turn) == "suspended" then
        socket:reset()
        abandoned[#abandoned + 1] = turn
        return true
      end
      return result
    ]]
    for _ = 1, 3 do
      assert.has_error(function() get(s:connect(), "/abandoned") end)
      local c = s:connect()
      for _ = 1, 2 do assert.same({ 200, "plain GET -" }, get(c, "/plain")) end
    end
  end)

  it("gives the result that the application's function gave", function()
    local s = start [[
      local result = handler(...)
      note("result ", type(result))
      return true
    ]]
    assert.equal(200, s:request("/plain").status)
    s:request("/table")
    finish(s)
    assert.truthy(s:log():find("note result boolean\n", 1, true))
    assert.truthy(s:log():find("note result table\n", 1, true))
  end)
end)
