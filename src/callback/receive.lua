-- The predefined receive callbacks.

local protocol, filter = ...

local concat, error, pcall, setmetatable = table.concat, error, pcall, setmetatable

local receive = {}

local Concat = { __name = "moonbridge.callback.concat" }
Concat.__index = Concat

--- Adds a chunk.
function Concat:addstring(chunk)
  self[#self + 1] = chunk
end

--- All chunks as one string.
function Concat:getresult()
  if #self > 1 then
    local whole = concat(self)
    for index = #self, 2, -1 do self[index] = nil end
    self[1] = whole
  end
  return self[1] or ""
end

Concat.__tostring = Concat.getresult

--- A callback that collects all chunks in an object, and the object.
function receive.concat(object)
  if object == nil then object = setmetatable({}, Concat) end
  return function(chunk)
    if chunk and chunk ~= "" then
      object:addstring(chunk)
      return 1
    end
  end, object
end

-- A callback that aborts with the message.
local function failing(message)
  return function() return nil, message end
end

--- A callback that writes to a file and closes it at the end, after an error, or if a write fails.
function receive.file(file, io_err)
  if not file then return failing(io_err or "unable to open file") end
  local function close()
    local open = file
    file = nil
    if open then return open:close() end
  end
  return protocol.holds(function(chunk, err)
    if not file then return nil, "file is already closed" end
    if chunk == nil then
      close()
      return nil, err
    end
    if chunk == "" then return close() end
    local written, message = file:write(chunk)
    if written then return 1 end
    close()
    return nil, message
  end, close)
end

--- A callback that passes its input through a filter to another callback.
function receive.chain(f, receive_cb)
  protocol.check(f, 1, "chain", "filter")
  protocol.check(receive_cb, 2, "chain", "receive callback")
  local pass = filter.adapt(f)
  local current, ended = receive_cb, nil

  local function over(message)
    ended = ended or message or protocol.ABORTED
    return nil, message
  end

  -- A failure of the filter is an error for the next callback.
  local function fail(message)
    protocol.fail(current, message)
    return over(message)
  end

  local function filtered(input)
    local ok, piece, more, message = pcall(pass, input)
    if ok then return piece, more, message end
    pcall(fail, protocol.describe(piece))
    error(piece, 0)
  end

  -- Passes on the filter's output for a chunk, or for nil at the end.
  local function pump(input)
    repeat
      local piece, more, message = filtered(input)
      if message then return fail(message) end
      if piece ~= "" then
        local next_cb, why = protocol.give(current, piece)
        if not next_cb then return over(why) end
        current = next_cb
      end
      if input then input = "" end
    until not more
    return true
  end

  local function chained(chunk, err)
    if ended then return nil, ended end
    if chunk == nil then return fail(err) end
    if chunk ~= "" then return pump(chunk) end
    local done, message = pump(nil)
    if not done then return nil, message end
    ended = "transfer is already over"
    return protocol.finish(current)
  end

  return protocol.holds(chained, function() protocol.release(current) end)
end

--- A callback for an ltn12 sink.
function receive.from_sink(sink)
  protocol.check(sink, 1, "from_sink", "sink")
  return function(chunk, err)
    local data = chunk
    if chunk == "" then data = nil end
    local ret, err_or_new = sink(data, err)
    if not ret then return nil, err_or_new end
    if err_or_new then sink = err_or_new end
    return 1
  end
end

--- An ltn12 sink for a callback. It ignores empty chunks, which do not mark the end for a sink.
function receive.to_sink(receive_cb)
  protocol.check(receive_cb, 1, "to_sink", "receive callback")
  return function(chunk, err)
    if chunk == "" then return 1 end
    if chunk then
      local next_cb, message = protocol.give(receive_cb, chunk)
      if not next_cb then return nil, message end
      receive_cb = next_cb
      return 1
    end
    if err ~= nil then
      protocol.fail(receive_cb, err)
      return nil, err
    end
    local done, message = protocol.finish(receive_cb)
    if not done then return nil, message end
    return 1
  end
end

return receive
