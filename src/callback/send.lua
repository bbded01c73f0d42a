-- The predefined send callbacks.

local protocol, filter, callback = ...

local error, type = error, type

local send = {}

--- A callback for the contents of a string; nil for nil, which sends nothing.
function send.string(str)
  if str == nil then return nil end
  if type(str) ~= "string" then
    error("bad argument #1 to 'string' (string expected, got " .. type(str) .. ")", 2)
  end
  return function()
    local chunk = str
    str = ""
    return chunk
  end
end

--- A callback for the contents of a file, which it closes at the end or after a read error.
function send.file(file, io_err)
  if not file then
    local message = io_err or "unable to open file"
    return function() return nil, message end
  end
  local function close()
    local open = file
    file = nil
    if open then open:close() end
  end
  return protocol.holds(function()
    if not file then return "" end
    local chunk, err = file:read(callback.BLOCKSIZE)
    if chunk then return chunk end
    close()
    if err then return nil, err end
    return ""
  end, close)
end

--- A callback that passes the output of another one through a filter; nil for nil.
function send.chain(send_cb, f)
  if send_cb == nil then return nil end
  protocol.check(send_cb, 1, "chain", "send callback")
  protocol.check(f, 2, "chain", "filter")
  local pass = filter.adapt(f)
  local current = send_cb
  local input -- what the filter is to be asked with again
  local state = "taking" -- "taking" from the callback, "asking" the filter again, "done"

  local function fail(message)
    state = "done"
    protocol.release(current)
    return nil, message
  end

  local function chained()
    while state ~= "done" do
      if state == "taking" then
        local chunk, next_cb = protocol.take(current)
        if chunk == nil then return fail(next_cb) end
        current = next_cb
        -- The end of the data is nil for a filter, and "" asks for the rest of a chunk.
        input = chunk ~= "" and chunk or nil
      end
      local piece, more, message = protocol.guarded(current, pass, input)
      if message then return fail(message) end
      if more then
        state = "asking"
        if input then input = "" end
      else
        state = input and "taking" or "done"
      end
      if piece ~= "" then return piece end
    end
    return ""
  end

  return protocol.holds(chained, function() protocol.release(current) end)
end

--- A callback for an ltn12 source; nil for nil.
function send.from_source(source)
  if source == nil then return nil end
  protocol.check(source, 1, "from_source", "source")
  return function()
    -- An empty chunk marks the end for a callback, but not for a source.
    while source do
      local chunk, err_or_new = source()
      if chunk == nil then
        source = nil
        if err_or_new ~= nil then return nil, err_or_new end
      else
        if err_or_new then source = err_or_new end
        if chunk ~= "" then return chunk end
      end
    end
    return ""
  end
end

--- An ltn12 source for a callback; empty for nil.
function send.to_source(send_cb)
  if send_cb ~= nil then protocol.check(send_cb, 1, "to_source", "send callback") end
  return function()
    if not send_cb then return nil end
    local chunk, err_or_next = protocol.take(send_cb)
    if not chunk then
      send_cb = nil
      return nil, err_or_next
    end
    send_cb = err_or_next
    if chunk ~= "" then return chunk end
    send_cb = nil
    return nil
  end
end

return send
