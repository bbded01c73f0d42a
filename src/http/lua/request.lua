-- The request objects of a `connect` function: what a handler can ask of a request.

local native, new_views, new_body, add_streaming, add_replies, new_server, files = ...

local ipairs, type, error, tostring = ipairs, type, error, tostring
local getmetatable, setmetatable, rawget, rawset = getmetatable, setmetatable, rawget, rawset
local traceback = debug and debug.traceback or tostring

-- The table of the current turn, which turn.rs fills: the socket and the request object.
local SOCKET, REQUEST = 1, 2

-- A function that serves connections one after the other with `callback`, by the given steps. While it does,
-- `another(socket)` serves another one.
return function(steps, callback, times, poll, another)
  local stall = times.stall_timeout or nil
  local methods = {} -- of request objects
  local lazy = {} -- fields of request objects: functions that make them
  local turn = {}
  local body -- the reader of the request's body
  local index, searched_form -- see views.lua

  -- Keeps the traceback for the log: the error is passed on when the stack is gone.
  local function trace(err)
    native.note_traceback(body.traceback(err) or traceback("", 2))
    return err
  end

  -- Waits until the connection is ready, which is the result.
  local function wait(socket, reads, writes, seconds)
    local set = { [socket] = true }
    return poll(reads and set or nil, writes and set or nil, seconds)
  end

  -- The same for its next request. The third result tells whether a shutdown has ended the wait.
  local function await_request(socket, seconds)
    return poll({ [socket] = true }, nil, seconds, true)
  end

  local meta -- the metatable of a request object during its turn

  -- For whatever calls functions of the application, which may yield: raises an error if the turn of
  -- `request` is over. A coroutine that its handler has left behind must not act on the next request.
  local function check_turn(request)
    if getmetatable(request) ~= meta then error("Response has already been finished", 0) end
  end

  -- Waits for the client within the turn.
  local function wait_for_client(reads, writes, seconds)
    local request = turn[REQUEST]
    local ready = wait(turn[SOCKET], reads, writes, seconds)
    check_turn(request)
    return ready
  end

  -- Waits until the client takes some of the output; false if it does not in time.
  local function await_room()
    return wait_for_client(body.absorb(), true, stall)
  end

  -- Raises an error in a method `name` that was called with a dot.
  function steps.check_self(this, name)
    if type(this) == "table" then return end
    local text = "calling '%s' on bad self (request expected, got %s): call it with a colon"
    error(text:format(name, type(this)), 3)
  end

  body = new_body(steps, {
    wait = wait_for_client,
    check_turn = check_turn,
    request = function() return turn[REQUEST] end,
    searched_form = function() return searched_form() end,
    cache = function(key, value)
      rawset(turn[REQUEST], key, value)
    end,
  }, times, methods, lazy)

  steps.methods(methods, await_room)
  add_streaming(steps, body, methods)
  add_replies(steps, methods)
  files.add(steps, methods)

  function methods.monologue(this)
    methods.close_after_finish(this)
    steps.set_reader("discard")
    body.forget_callbacks()
  end

  methods.hold = steps.hold

  function methods.log_field(this, name, value)
    steps.check_self(this, "log_field")
    native.log_field(name, value)
  end

  -- Reading the body while the response is sent cannot block any more: nothing is to be deferred.
  function methods.defer_reading() end

  function lazy.socket() return turn[SOCKET] end

  -- What names the request, and where it comes from: kept, since it costs a search of the headers.
  for _, key in ipairs { "client_ip", "scheme", "host", "id", "traceparent", "tracestate" } do
    lazy[key] = function()
      local value = steps[key]()
      rawset(turn[REQUEST], key, value)
      return value
    end
  end

  -- For error_log.lua.
  methods[native.error_log] = steps.error_log

  -- What a step made of the client's texts, unless it refused them.
  local function accepted(value, words)
    if type(value) == "number" then body.problem(value, words) end
    return value
  end

  index, searched_form = new_views(steps, turn, accepted, lazy)
  setmetatable(methods, { __index = index })
  meta = { __index = methods, __name = "moonbridge.request", is_handled = true }
  meta.note_failure, meta.finish_later = body.note_failure, steps.finish_later

  -- The metatable of request objects whose turn is over.
  local function over() error("Response has already been finished", 2) end
  local stale = { __name = "moonbridge.request" }
  function stale.__index(_, key)
    if key == "fresh" or key == "faulty" then return false end
    if key == "finish" or key == "flush" then return function() end end
    return rawget(methods, key) and over or nil
  end

  return steps.connect(callback, trace, turn, meta, stale, another, wait, await_request,
    body.has_reader, body.read_rest, body.reset, new_server(times, poll))
end
