-- The body of a request: the ways to read it, and the callbacks that get it.
--
-- `state` is the kind of reader: nil (none yet), "stream" (a callback gets chunks), "form", "whole"
-- (request.body), "claimed" (streaming.lua), "done", "failed" (a callback has raised an error). Every
-- pump may be entered again from a callback it calls.

local native, maps = ...
local codes = native.codes
local OUTPUT, INPUT, END = codes.OUTPUT, codes.INPUT, codes.END

local type, error, pcall, xpcall, find = type, error, pcall, xpcall, string.find
local min, rawequal, setmetatable = math.min, rawequal, setmetatable
local traceback = debug and debug.traceback or tostring

local now = native.now

-- The longest time that can be waited for, in seconds.
local LONGEST = 1e8

local TOO_LATE = "Cannot setup request body streamer at this stage anymore"

-- Adds methods and fields of the body to those of the request; returns what request.lua needs.
return function(steps, env, times, methods, lazy)
  local body = {}
  local stall = times.stall_timeout or nil
  local body_timeout, minimum_rate = times.request_body_timeout, times.request_body_minimum_rate
  local waited = 0 -- how many seconds the handler has waited for the body
  local state
  local streamer -- callback for the whole body
  local exact, patterns -- name → callback; list of { pattern, callback }
  local current, metadata -- callback of the field that is streamed; its metadata until the first call
  local calls = 0 -- how deep in callbacks this is
  -- Request object → what its form held: stores of maps.lua.
  local form_values = setmetatable({}, { __mode = "k" })
  local form_metadata = setmetatable({}, { __mode = "k" })
  local failure, failure_trace -- the error of a callback, and where it was raised

  function body.reset()
    waited = 0
    if not (state or streamer or exact or patterns or failure) then return end
    state, streamer, exact, patterns, current, metadata = nil, nil, nil, nil, nil, nil
    calls, failure, failure_trace = 0, nil, nil
  end

  -- Keeps where an error was raised that is going to be passed on.
  function body.note_failure(err, trace) failure, failure_trace = err, trace end

  -- The traceback of an error that a callback has raised, if `err` is that one.
  function body.traceback(err)
    return rawequal(err, failure) and failure_trace or nil
  end

  local function trace(err)
    if state ~= "failed" then failure_trace = traceback("", 2) end
    return err
  end

  -- Calls a callback. Its first error is its last: the rest of the body is discarded, and further
  -- reads get the same error.
  local function call(callback, ...)
    local request = env.request()
    calls = calls + 1
    local ok, err = xpcall(callback, trace, ...)
    env.check_turn(request)
    calls = calls - 1
    if not ok and state ~= "failed" then
      state, failure = "failed", err
      streamer, exact, patterns, current, metadata = nil, nil, nil, nil, nil
      steps.discard_body()
    end
    if state == "failed" then error(failure, 0) end
    return err
  end

  -- Raises what a step of reading has reported.
  local function problem(code, text)
    error(steps.blame(code, text), 0)
  end

  -- How long the client may keep the handler waiting from now on, in seconds: it has
  -- `request_body_timeout` for the whole body, and more as it sends.
  local function time_left()
    if not (body_timeout and minimum_rate) then return stall end
    local left = body_timeout + steps.received() / minimum_rate - waited
    return min(stall or LONGEST, left)
  end

  -- Waits for more of the body; before, sends everything that the client may wait for. Returns what a step
  -- reported if the body will not come.
  function body.await()
    local code, text = steps.prepare_wait()
    if code and code ~= OUTPUT then return code, text end
    local seconds, begun = time_left(), now()
    if seconds and seconds <= 0 or not env.wait(true, code == OUTPUT, seconds) then
      return steps.refuse_stall()
    end
    waited = waited + now() - begun
  end

  local function wait()
    local code, text = body.await()
    if code then problem(code, text) end
  end

  local function find_stream(name)
    local callback = exact and exact[name]
    if callback or not patterns then return callback end
    for i = 1, #patterns do
      if find(name, patterns[i][1]) then return patterns[i][2] end
    end
  end

  -- Passes on what is there of a streamed body; true when it has ended.
  local function pump_stream()
    while true do
      local chunk, text = steps.next_chunk()
      if type(chunk) == "string" then
        call(streamer, chunk)
      elseif chunk == END then
        if state ~= "done" then
          state = "done"
          call(streamer, nil)
        end
        return true
      elseif chunk == INPUT then
        return false
      else
        problem(chunk, text)
      end
    end
  end

  -- Passes on and keeps what is there of a form; true when it has ended.
  local function pump_form()
    while true do
      local event, first, file_name, content_type = steps.form_step()
      if event == "chunk" then
        local data = metadata
        metadata = nil
        if data then call(current, first, data, data) else call(current, first) end
      elseif event == "begin" then
        local callback = call(find_stream, first)
        if callback then
          steps.form_stream()
          current = callback
          metadata = { field_name = first, file_name = file_name, content_type = content_type }
        end
      elseif event == "end" then
        local data, callback = metadata, current
        metadata, current = nil, nil
        if data then call(callback, "", data, data) end
        call(callback)
      elseif event == END then
        if state ~= "done" then
          state = "done"
          local values, words = steps.form_values()
          if type(values) == "number" then problem(values, words) end
          form_values[env.request()] = values
        end
        return true
      elseif event == INPUT then
        return false
      else
        problem(event, first)
      end
    end
  end

  -- Passes on what is there of the body to its reader; false if more is to come.
  local function pump()
    if state == "stream" then return pump_stream() end
    if state == "form" then return pump_form() end
    if state == "failed" then error(failure, 0) end
    return true
  end

  local function read_to_end()
    while not pump() do wait() end
  end

  local function set_reader(name)
    steps.set_reader(name)
    state = name
  end

  -- Notices a body that was read at once, in C.
  local function notice_taken()
    state = state or steps.taken()
  end

  -- Chooses the reader when reading is to begin. Without callbacks only forms are read.
  local function start()
    notice_taken()
    if state then return end
    if streamer then return set_reader("stream") end
    local kind = steps.form_kind()
    if kind == "form" or kind == "other" and (exact or patterns) then
      local code, text = steps.form_open((exact or patterns) and true or false)
      if code then problem(code, text) end
      state = "form"
    end
  end

  -- Receives what is there without waiting; whether more may come. Called while output is blocked.
  function body.absorb()
    if calls == 0 then
      start()
      if state == "stream" or state == "form" then return not pump() end
    end
    -- No callback may be called now: the bytes are kept for the next reader.
    local code, text = steps.absorb()
    if code == INPUT then return true end
    if code then problem(code, text) end
    return false
  end

  -- Whether callbacks are to get the rest of the body when the handler has returned.
  function body.has_reader()
    if state then return state == "stream" or state == "form" end
    return streamer ~= nil or (exact or patterns) ~= nil and steps.form_kind() ~= "none"
  end

  -- Callbacks that nobody has begun to serve get nothing.
  function body.forget_callbacks()
    if not state then streamer, exact, patterns = nil, nil, nil end
  end

  -- Reads the rest for these callbacks when the response is complete, as it stands before the next request.
  function body.read_rest()
    start()
    read_to_end()
  end

  local function check_setup(callback)
    notice_taken()
    steps.touch_body()
    if state or steps.has_status() then error(TOO_LATE, 3) end
    if type(callback) ~= "function" then
      error("bad argument to stream handler registration (function expected)", 3)
    end
  end

  -- The body is read by other steps than those here (streaming.lua).
  function body.claim()
    notice_taken()
    steps.touch_body()
    if state or streamer or exact or patterns or steps.has_status() then error(TOO_LATE, 3) end
    set_reader("stream")
    state = "claimed"
  end
  body.problem, body.check_turn = problem, env.check_turn

  function methods.consume_input()
    steps.touch_body()
    start()
    read_to_end()
  end
  methods.process_request_body = methods.consume_input

  function methods.stream_request_body(this, callback)
    steps.check_self(this, "stream_request_body")
    if callback == nil then
      -- The older meaning: the body is read and thrown away.
      notice_taken()
      if not state then
        set_reader("stream")
        streamer = function() end
      end
      return read_to_end()
    end
    check_setup(callback)
    if exact or patterns then error(TOO_LATE, 2) end
    streamer = callback
  end
  methods.set_request_body_streamer = methods.stream_request_body

  function methods.stream_request_body_now(this, callback)
    steps.check_self(this, "stream_request_body_now")
    check_setup(callback)
    if streamer or exact or patterns then error(TOO_LATE, 2) end
    set_reader("stream")
    streamer = function(chunk)
      if chunk ~= nil then return callback(chunk) end
    end
    read_to_end()
  end

  function methods.stream_post_param(this, name, callback)
    steps.check_self(this, "stream_post_param")
    check_setup(callback)
    if streamer then error(TOO_LATE, 2) end
    if type(name) ~= "string" then error("bad argument #1 to 'stream_post_param' (string expected)", 2) end
    exact = exact or {}
    exact[name] = callback
  end

  function methods.stream_post_params(this, pattern, callback)
    steps.check_self(this, "stream_post_params")
    check_setup(callback)
    if streamer then error(TOO_LATE, 2) end
    if type(pattern) ~= "string" then
      error("bad argument #1 to 'stream_post_params' (string expected)", 2)
    end
    -- A malformed pattern is the caller's mistake, not the client's.
    local valid, words = pcall(find, "", pattern)
    if not valid then error("bad argument #1 to 'stream_post_params' (" .. words .. ")", 2) end
    patterns = patterns or {}
    patterns[#patterns + 1] = { pattern, callback }
  end

  function lazy.body()
    notice_taken()
    if state == "failed" then error(failure, 0) end
    if state or streamer or exact or patterns then
      error("Request body has already been read or set up otherwise", 3)
    end
    set_reader("whole")
    while true do
      local whole, text = steps.whole()
      if type(whole) == "string" then
        env.cache("body", whole)
        return whole
      end
      if whole == INPUT then wait() else problem(whole, text) end
    end
  end

  -- The form's values, read by callbacks and what waits.
  local function read_form()
    if state == "failed" then error(failure, 0) end
    if streamer or state == "whole" or state == "stream" or state == "claimed" then
      error("POST parameters are not available: the request body is read otherwise", 5)
    end
    steps.touch_body()
    if steps.form_kind() == "none" and not state then return {} end
    if not state then
      local trouble, words = steps.form_open((exact or patterns) and true or false)
      if trouble then problem(trouble, words) end
      state = "form"
    end
    read_to_end()
    return form_values[env.request()] or {}
  end

  -- The form's values. Those of a form that is there are read at once.
  local function form()
    local request = env.request()
    local values = form_values[request] or env.searched_form()
    if not values and not (state or streamer or exact or patterns) then
      local words
      values, words = steps.form_at_once()
      if type(values) == "number" then problem(values, words) end
      if not values then notice_taken() end
    end
    values = values or read_form()
    form_values[request] = values
    return values
  end

  -- Its metadata, if it is a multipart form.
  local function metadata_of(request)
    local about = form_metadata[request] or steps.form_metadata()
    form_metadata[request] = about
    return about
  end

  local function field(key, view, has_metadata)
    lazy[key] = function()
      local values = form()
      if has_metadata then values = metadata_of(env.request()) end
      if values == nil then return nil end
      local made = view(values)
      env.cache(key, made)
      return made
    end
  end
  field("post_params_list", maps.lists)
  field("post_params", maps.firsts)
  field("post_metadata_list", maps.lists, true)
  field("post_metadata", maps.firsts, true)

  return body
end
