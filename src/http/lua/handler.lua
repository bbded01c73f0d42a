-- generate_handler: turns a function that answers requests into a `connect` function.
--
-- One call serves one request. Between requests, and while a request's head is incomplete, the
-- socket is parked, so that no process is occupied. Outside a worker, the call itself waits
-- for further requests and returns when the connection ends.

local native, io, new_connect = ...

local type, error, pcall, remove = type, error, pcall, table.remove

local function check(callback, options)
  if type(callback) ~= "function" then
    error("bad argument to 'generate_handler' (function expected)", 3)
  end
  if options ~= nil and type(options) ~= "table" then
    error("bad argument to 'generate_handler' (table of options expected)", 3)
  end
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
  if type(poll) ~= "function" then error('Option "poll_function" is expected to be a function', 2) end

  -- A `connect` function serves one call at a time. Calls within its calls, and calls of other coroutines,
  -- are served by further ones.
  local free, another = {}, nil

  local function new()
    return new_connect(new_steps(), callback, times, poll, another)
  end

  local function freed(connect, ok, result)
    free[#free + 1] = connect
    if not ok then error(result, 0) end
    return result
  end

  function another(socket)
    local connect = remove(free) or new()
    return freed(connect, pcall(connect, socket))
  end

  return native.client_speaks_first(new())
end
