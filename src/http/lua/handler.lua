-- generate_handler: turns a function that answers requests into a `connect` function.
--
-- One call serves one request. Between requests, and while a request's head is incomplete, the
-- socket is parked, so that no process is occupied. Where nobody supervises, the call itself waits
-- for further requests and returns when the connection ends.

local native, io, new_connection = ...
local codes = native.codes
local PARTIAL, BUFFERING, KEPT, CLOSED = codes.PARTIAL, codes.BUFFERING, codes.KEPT, codes.CLOSED

local type, error, setmetatable = type, error, setmetatable
local now = native.now

-- The longest time that can be waited for, in seconds.
local LONGEST = 1e8

local function check(callback, options)
  if type(callback) ~= "function" then
    error("bad argument to 'generate_handler' (function expected)", 3)
  end
  if options ~= nil and type(options) ~= "table" then
    error("bad argument to 'generate_handler' (table of options expected)", 3)
  end
end

-- Hands the socket over until there is input; false if nobody supervises.
local function park(socket, seconds, stall)
  local method = socket.park
  if not method then return false end
  if seconds and seconds < 0 then seconds = 0 end
  return method(socket, seconds, stall)
end

local function after(seconds)
  return seconds and now() + seconds
end

return function(callback, options)
  -- From Lua 5.4 on, `require` also returns where the module was found: generate_handler(require "app").
  if type(callback) == "function" and type(options) == "string" then options = nil end
  if type(callback) ~= "function" then callback, options = options, callback end
  check(callback, options)
  options = options or {}
  local times, new_steps = native.configure(options)
  if not new_steps then error(times, 2) end
  local poll = options.poll_function or io.poll

  local free = {} -- connection objects that serve no connection now
  local usual = new_connection(new_steps(), callback, times, poll) -- the one of the usual turn
  local begun = setmetatable({}, { __mode = "k" }) -- socket → state of its incomplete request

  -- How long a body is waited for of which so many bytes are missing, before the handler is called.
  local function body_time(missing)
    local stall, limit = times.stall_timeout, times.request_body_timeout
    local rate = times.request_body_minimum_rate
    if not (limit and rate) then return stall end
    return math.min(math.min(stall or limit, limit) + missing / rate, LONGEST)
  end

  -- Waits for input; returns how that ended: "input", "timeout" or "shutdown".
  local function wait(socket, deadline)
    local left = deadline and deadline - now()
    local ready, _, terminated = poll({ [socket] = true }, nil, left or nil, true)
    if ready then return "input" end
    return terminated and "shutdown" or "timeout"
  end

  -- Serves the requests that are there and waits for more as far as nobody else does, after a first
  -- turn with the given outcome. Returns whether the connection's end was no error, and the result.
  local function serve(connection, socket, state, outcome, result)
    local wakeup, idle_until
    local first = true
    while true do
      if not first then outcome, result = connection.turn(socket, state and state.head) end
      local waits = outcome == PARTIAL or outcome == BUFFERING
      if state and not waits then begun[socket], state = nil, nil end
      if outcome == nil then return false, result end
      if outcome == CLOSED then return true, result end
      if outcome == KEPT then
        if park(socket, times.idle_timeout, times.stall_timeout) then return true, result end
        wakeup, idle_until = nil, after(times.idle_timeout)
      else
        if first then wakeup = socket.wakeup end
        if wakeup == "timeout" and waits and idle_until then
          wakeup = nil -- the request began just before the idle time was over
        end
        if wakeup == "timeout" or wakeup == "shutdown" then
          if state then begun[socket] = nil end
          local kind = outcome == BUFFERING and "body" or outcome == PARTIAL and "header" or "idle"
          return true, connection.give_up(wakeup == "shutdown" and wakeup or kind, waits)
        end
        local deadline
        if waits then
          local begun_elsewhere = first and native.handed_over_until(socket)
          state = state or { deadline = begun_elsewhere or after(times.request_header_timeout) }
          if outcome == BUFFERING then state.deadline = after(body_time(connection.missing())) end
          state.head = connection.suspend()
          begun[socket], idle_until = state, nil
          deadline = state.deadline
        else
          connection.close()
          idle_until = idle_until or after(times.idle_timeout)
          deadline = idle_until
        end
        if park(socket, deadline and deadline - now(), times.stall_timeout) then return true, true end
        wakeup = wait(socket, deadline)
      end
      first = false
    end
  end

  -- Any turn, with a connection object of its own.
  local function complete(socket)
    local connection = free[#free]
    if connection then
      free[#free] = nil
    else
      connection = new_connection(new_steps(), callback, times, poll)
    end
    local state = begun[socket]
    local ok, result = serve(connection, socket, state, connection.turn(socket, state and state.head))
    free[#free + 1] = connection
    if not ok then error(result, 0) end
    return result
  end

  -- The rest of a turn that has begun as usual.
  local function go_on(socket, outcome, result)
    local ok
    ok, result = serve(usual, socket, nil, outcome, result)
    usual.release()
    if not ok then error(result, 0) end
    return result
  end

  return native.client_speaks_first(usual.usual_turn(complete, go_on))
end
