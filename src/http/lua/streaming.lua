-- The body of a request into a receive callback, and that of a response from a send callback.

local native, protocol = ...
local codes = native.codes
local REFUSED, INPUT, END = codes.REFUSED, codes.INPUT, codes.END

local error, tostring, type = error, tostring, type
local guarded, give, take = protocol.guarded, protocol.give, protocol.take

-- Adds the methods to those of the request.
return function(steps, body, methods)
  local send_data = methods.send_data

  -- The callback wants no more: what the client still sends is discarded, and the connection closed
  -- after the response.
  local function abandon()
    steps.discard_body(true)
  end

  -- Tells the callback what stopped the body. A refusal has been sent already: the handler can only end.
  local function broken(request, receive_cb, code, text)
    protocol.fail(receive_cb, text)
    body.check_turn(request)
    if code == REFUSED then body.problem(code, text) end
    return nil, text
  end

  function methods.receive_body(request, receive_cb)
    steps.check_self(request, "receive_body")
    protocol.check(receive_cb, 1, "receive_body", "receive callback")
    body.claim()
    local total = 0
    while true do
      local chunk, text = steps.next_chunk()
      if type(chunk) == "string" then
        total = total + #chunk
        local next_cb, message = give(receive_cb, chunk)
        guarded(next_cb, body.check_turn, request)
        if not next_cb then
          abandon()
          return nil, message
        end
        receive_cb = next_cb
      elseif chunk == INPUT then
        local code, words = guarded(receive_cb, body.await)
        if code then return broken(request, receive_cb, code, words) end
      elseif chunk == END then
        local done, message = protocol.finish(receive_cb)
        if not done then return nil, message end
        return total
      else
        return broken(request, receive_cb, chunk, text)
      end
    end
  end

  -- The response cannot be completed: the client must not take what it got for all.
  local function abort(request, message)
    steps.error_log("the response was aborted by its send callback: " .. tostring(message))
    steps.fail()
    request.socket:reset()
    return nil, message
  end

  function methods.send_body(request, send_cb)
    steps.check_self(request, "send_body")
    if send_cb == nil then return 0 end
    protocol.check(send_cb, 1, "send_body", "send callback")
    if not steps.has_status() then
      protocol.release(send_cb)
      error("HTTP status has not been sent yet", 2)
    end
    if request.method == "HEAD" then
      protocol.release(send_cb)
      return 0
    end
    local total = 0
    while true do
      local chunk, next_cb = take(send_cb)
      guarded(next_cb, body.check_turn, request)
      if chunk == nil then return abort(request, next_cb) end
      send_cb = next_cb
      if chunk == "" then
        protocol.release(send_cb)
        return total
      end
      total = total + #chunk
      guarded(send_cb, send_data, request, chunk)
    end
  end
end
