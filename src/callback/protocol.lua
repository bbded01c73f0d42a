-- The two protocols of streaming with callbacks, each in one place.
--
--     ret, err_or_f = receive_cb(chunk, err)     chunk, err_or_f = send_cb()
--
-- The protocol does not inform a callback that a transfer has ended with a thrown error, nor a send callback
-- of any failure but its own. The predefined callbacks hold files, so they register here how to release them.

local getmetatable, pcall, setmetatable, tostring, type = getmetatable, pcall, setmetatable, tostring, type
local error = error

local protocol = {}

--- The message of an abort without one.
protocol.ABORTED = "callback aborted"

local ABORTED = protocol.ABORTED

-- callback → function that releases its resources
local releases = setmetatable({}, { __mode = "k" })

--- Registers how to release the resources of a callback; returns the callback.
function protocol.holds(callback, free)
  releases[callback] = free
  return callback
end

--- Releases the resources of a callback that is not informed of the end of the transfer.
local function release(callback)
  local free = releases[callback]
  if free then
    releases[callback] = nil
    free()
  end
end

protocol.release = release

local function settle(callback, ok, ...)
  if ok then return ... end
  release(callback)
  error((...), 0)
end

--- Calls f(...) for a transfer with this callback. If it throws, releases the callback's resources and passes
--- the error on.
local function guarded(callback, f, ...)
  if not releases[callback] then return f(...) end
  return settle(callback, pcall(f, ...))
end

protocol.guarded = guarded

--- Whether a value can be called.
local function callable(value)
  if type(value) == "function" then return true end
  local meta = getmetatable(value)
  return type(meta) == "table" and meta.__call ~= nil
end

protocol.callable = callable

--- Throws unless the argument of a public function can be called; `level` as for error.
function protocol.check(value, position, name, what, level)
  if not callable(value) then
    error(("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, what, type(value)),
      (level or 1) + 2)
  end
end

-- The callback that follows after a second result; nil and a message if the result is of a wrong type.
local function successor(callback, replacement, kind)
  if not replacement then return callback end
  if callable(replacement) then return replacement end
  release(callback)
  local text = "%s callback returned a %s as second result, expected a function"
  return nil, text:format(kind, type(replacement))
end

--- Passes a chunk (not empty) to a receive callback.
-- @return the callback for what follows, or nil and the message of the abort
function protocol.give(receive_cb, chunk)
  local ret, err_or_f = guarded(receive_cb, receive_cb, chunk)
  if ret == nil then
    release(receive_cb)
    return nil, err_or_f or ABORTED
  end
  if err_or_f == nil then return receive_cb end
  return successor(receive_cb, err_or_f, "receive")
end

--- Tells a receive callback that the transfer is complete.
--
-- The manual's own example returns nothing here, so nil without a message is not a failure.
-- @return true, or nil and a message
function protocol.finish(receive_cb)
  local ret, err = guarded(receive_cb, receive_cb, "")
  release(receive_cb)
  if ret == nil and err ~= nil then return nil, err end
  return true
end

--- A thrown value as a message.
function protocol.describe(thrown)
  local ok, text = pcall(tostring, thrown)
  return ok and text or "(an error that cannot be shown)"
end

--- Tells a receive callback that the transfer has failed; ignores its result.
function protocol.fail(receive_cb, message)
  guarded(receive_cb, receive_cb, nil, message)
  release(receive_cb)
end

--- Calls f(...) for a transfer to this receive callback. If it throws, informs the callback and passes the
--- error on.
function protocol.attempt(receive_cb, f, ...)
  local ok, a, b, c = pcall(f, ...)
  if ok then return a, b, c end
  pcall(protocol.fail, receive_cb, protocol.describe(a))
  error(a, 0)
end

--- Takes the next chunk from a send callback.
-- @return chunk ("" at the end) and the callback for what follows, or nil and a message
function protocol.take(send_cb)
  local chunk, err_or_f = guarded(send_cb, send_cb)
  if type(chunk) == "string" then
    if err_or_f == nil then return chunk, send_cb end
    local next_cb, message = successor(send_cb, err_or_f, "send")
    if next_cb then return chunk, next_cb end
    return nil, message
  end
  release(send_cb)
  if chunk == nil then return nil, err_or_f or ABORTED end
  return nil, ("send callback returned a %s, expected a string"):format(type(chunk))
end

return protocol
