-- The request cycle of one connection: the request object, its handler, the end of the response.
--
-- Rust does the work in steps that never block and never call Lua (steps.rs); waiting and the
-- calls of the application's functions are done here, so that they may yield, throw or re-enter.

local native, new_views, new_body, add_streaming, new_ending = ...
local codes = native.codes
local MISUSE, REFUSED, GONE = codes.MISUSE, codes.REFUSED, codes.GONE
local CLOSE, FAILED = codes.CLOSE, codes.FAILED
local CLOSED, KEPT, UNCONCLUDED = codes.CLOSED, codes.KEPT, codes.UNCONCLUDED
local FAULTY = native.faulty

local type, error, tostring = type, error, tostring
local setmetatable, rawget, rawset, xpcall = setmetatable, rawget, rawset, xpcall
local traceback = debug and debug.traceback or tostring


-- What is kept for the current turn, in a table that the fast calls know too: the socket, the request
-- object.
local SOCKET, REQUEST = 1, 2

-- Serves connections one after the other with `callback`, by the given steps.
return function(steps, callback, times, poll)
  local open, conclude = steps.open, steps.conclude
  local stall = times.stall_timeout or nil

  local connection = {}
  local methods = {} -- of request objects
  local lazy = {} -- fields of request objects: functions that make them
  local kept = {}
  local fate -- how the turn ends
  local body -- the reader of the request's body

  -- Keeps the traceback for the log: the error is passed on when the stack is gone.
  local function trace(err)
    native.note_traceback(body.traceback(err) or traceback("", 2))
    return err
  end

  local function wait_for(reads, writes, seconds)
    local set = { [kept[SOCKET]] = true }
    return poll(reads and set or nil, writes and set or nil, seconds)
  end

  -- Waits until the client takes some of the output; false if it does not in time.
  local function await_room()
    return wait_for(body.absorb(), true, stall)
  end

  local index, searched_form -- see views.lua

  body = new_body(steps, {
    request = function() return kept[REQUEST] end,
    searched_form = function() return searched_form() end,
    wait = function(writes, seconds)
      return wait_for(true, writes, seconds)
    end,
    cache = function(key, value)
      rawset(kept[REQUEST], key, value)
    end,
  }, times, methods, lazy)

  steps.methods(methods, await_room)
  add_streaming(steps, body, methods)

  function methods.monologue(this)
    methods.close_after_finish(this)
    steps.set_reader("discard")
    body.forget_callbacks()
  end

  -- Reading the body while the response is sent cannot block any more: nothing is to be deferred.
  function methods.defer_reading() end

  function lazy.socket() return kept[SOCKET] end

  -- What a step made of the client's texts, unless it refused them.
  local function accepted(value, words)
    if type(value) == "number" then body.problem(value, words) end
    return value
  end

  index, searched_form = new_views(steps, function() return kept[REQUEST] end, accepted, lazy)
  setmetatable(methods, { __index = index })
  local meta = { __index = methods, __name = "moonbridge.request" }

  -- The metatable of request objects whose turn is over.
  local function over() error("Response has already been finished", 2) end
  local stale = { __name = "moonbridge.request" }
  function stale.__index(_, key)
    if key == "fresh" or key == "faulty" then return false end
    if key == "finish" or key == "flush" then return function() end end
    return rawget(methods, key) and over or nil
  end

  local ending = new_ending(steps, times, wait_for)

  -- Ends the response when the handler has returned; chooses the connection's fate. That the client
  -- has gone meanwhile is no error of the handler's.
  local function finish_turn(code, text)
    if code == nil then
      fate = "keep"
    elseif code == CLOSE then
      fate = "close"
    elseif not steps.is_open() then
      fate = "gone"
    elseif steps.blameless() == REFUSED then
      fate = "linger"
    elseif code == MISUSE and not steps.faulty() then
      error(text, 0)
    elseif code == MISUSE or code == FAILED then
      fate = "reset"
    elseif body.finish() then
      fate = "send"
    else
      fate = "linger"
    end
  end

  -- What is left to be done when the handler has returned `result`.
  local function finish(result, code, text)
    if code == UNCONCLUDED then
      code, text = conclude(result == true, body.has_reader())
    end
    finish_turn(code, text)
    return result
  end

  -- The handler or what it called has thrown an error. Returns true if it is to be raised.
  local function failed(err)
    steps.disarm()
    if not steps.is_open() then return true end
    local socket = kept[SOCKET]
    local kind, words = steps.blameless()
    if kind then
      -- The client's fault, and if the handler said nothing else, or only missed it, no reason to end
      -- the worker.
      local text = type(err) == "string" and err or ""
      local goes_on = text:find(words, 1, true) ~= nil or text:find(FAULTY, 1, true) ~= nil
      if kind == REFUSED then ending.shut(socket) else socket:reset() end
      if not goes_on then return true end
      steps.close()
    elseif steps.is_finished() then
      -- A callback that got the rest of the body has failed: the answer is complete all the same.
      ending.shut(socket)
      return true
    elseif steps.has_left() or steps.faulty() then
      socket:reset()
      return true
    else
      steps.refuse_error()
      ending.shut(socket)
      return true
    end
  end

  -- Ends the turn in which the handler has returned (`ok`) or thrown `result`; the code says how
  -- far its end has got. Returns KEPT if the connection is ready for its next request, or CLOSED, and
  -- the handler's result; or nothing, and an error that is to be raised.
  local function conclude_turn(this, ok, result, code, text)
    -- The rest is for the worker itself to do.
    if native.leave_child(ok) then return nil, result end
    if ok and code ~= KEPT then
      ok, result = xpcall(finish, trace, result, code, text)
    elseif ok then
      fate = "keep"
    end
    setmetatable(this, stale)
    kept[REQUEST] = nil
    body.reset()
    local how = fate
    if not ok then
      local raises = failed(result)
      fate = nil
      if raises then return nil, result end
      return CLOSED, true
    end
    fate = nil
    if how == "keep" then return KEPT, result end
    if how == "send" and ending.keep(kept[SOCKET]) then
      steps.close()
      return KEPT, result
    end
    if how == "reset" or how == "send" then
      kept[SOCKET]:reset()
    elseif how == "close" then
      if steps.is_open() then kept[SOCKET]:close() end
    elseif how ~= "gone" then
      ending.shut(kept[SOCKET])
    end
    steps.close()
    return CLOSED, result
  end

  local function respond()
    local this = setmetatable({}, meta)
    kept[REQUEST] = this
    local ok, result = xpcall(callback, trace, this)
    return conclude_turn(this, ok, result, UNCONCLUDED)
  end

  -- Goes on when `open` has found no request to be served: IDLE, PARTIAL or BUFFERING if there is
  -- none yet, else CLOSED and the result of the turn.
  local function not_opened(code)
    if code == REFUSED then
      ending.shut(kept[SOCKET])
    elseif code == GONE then
      -- The handler may have closed it behind its response.
      if steps.is_open() then kept[SOCKET]:close() end
    else
      return code
    end
    steps.close()
    return CLOSED, true
  end

  -- Serves the next request of a socket, if there is one. Returns as `conclude_turn` or `not_opened`.
  function connection.turn(this, head)
    kept[SOCKET] = this
    local code = open(this, head)
    if code == nil then return respond() end
    return not_opened(code)
  end

  -- A function that takes turns in C, as far as they go as usual. What does not is left to
  -- `complete(socket)`, which uses another connection object, or, with what the turn has come to so
  -- far, to `go_on(socket, outcome, result)`.
  function connection.usual_turn(complete, go_on)
    return steps.turn {
      complete = complete, callback = callback, trace = trace, metatable = meta, stale = stale,
      kept = kept, idle = times.idle_timeout or nil,
      opened = function(socket, code)
        kept[SOCKET] = socket
        return go_on(socket, not_opened(code))
      end,
      concluded = function(socket, this, ok, result, code, text)
        return go_on(socket, conclude_turn(this, ok, result, code, text))
      end,
    }
  end

  -- Ends a connection whose client has not sent a request in time, or at a shutdown. It is refused
  -- unless it would take that for the answer to its next request.
  function connection.give_up(reason, begun)
    if begun or not steps.was_asked() then steps.refuse_wait(reason) end
    ending.shut(kept[SOCKET])
    steps.close()
    return true
  end

  connection.suspend, connection.close, connection.release = steps.suspend, steps.close, steps.release
  connection.missing = steps.missing
  return connection
end
