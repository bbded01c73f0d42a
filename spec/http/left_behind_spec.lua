-- A coroutine that a handler has left behind while it was receiving or sending, and that goes on during a
-- later request: it must neither get the body of that request nor send in its response.

local app = require "spec.http.app"
local server = require "spec.support.server"

-- "/begin/NAME" begins with one of the transfers and answers without it; "/resume" lets it go on before it
-- answers.
local ROUTES = [[
  local transfers = {}
  local function receive(chunk)
    note("got", chunk)
    -- What the coroutine has not read, the server reads after the handler.
    if coroutine.isyieldable() then coroutine.yield() end
    return true
  end
  function transfers.receive_body(request) request:receive_body(receive) end
  function transfers.body_now(request) request:stream_request_body_now(receive) end
  function transfers.body(request)
    request:stream_request_body(receive)
    request:consume_input()
  end
  function transfers.post_param(request)
    request:stream_post_param("f", receive)
    request:consume_input()
  end
  function transfers.send_body(request)
    request:send_status("200 OK")
    request:send_body(function()
      coroutine.yield()
      return "of the past"
    end)
  end
  function transfers.whole_body(request) note("got", request.body) end

  local left
  function routes.default(request)
    left = coroutine.create(transfers[request.path:match("[^/]*$")])
    assert(coroutine.resume(left, request))
    pcall(request.send_status, request, "413 Content Too Large")
    return true
  end
  function routes.resume(request)
    request:send_status("200 OK")
    note(coroutine.resume(left, true))
    request:send_data(request.body)
    return true
  end
]]

describe("a coroutine that a handler has left behind", function()
  after_each(server.cleanup)

  local FORM = { ["Content-Type"] = "application/x-www-form-urlencoded" }

  for _, name in ipairs { "receive_body", "body_now", "body", "post_param", "send_body" } do
    it("during " .. name .. " does not act on a later request", function()
      local s = app.start(ROUTES)
      s:request { target = "/begin/" .. name, method = "POST", headers = FORM, body = "f=abc" }
      local later = s:request { target = "/resume", method = "POST", headers = FORM, body = "f=secret" }
      assert.equal("f=secret", later.body)
      local notes = s:request("/notes").body
      assert.match("false Response has already been finished$", notes)
      assert.falsy(notes:find("secret"), notes)
    end)
  end

  it("while it waits for the body does not act on a later request", function()
    local s = app.start(ROUTES, [[{ poll_function = function(...)
      if coroutine.isyieldable() then return coroutine.yield() end
      return moonbridge_io.poll(...)
    end }]])
    local slow = s:connect()
    slow:send("POST /begin/whole_body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
    assert.equal(413, slow:response().status)
    assert.equal("secret", s:request({ target = "/resume", method = "POST", body = "secret" }).body)
    assert.equal("false Response has already been finished", s:request("/notes").body)
  end)
end)
