-- One request and its response over a connection. Both sides may speak at the same time: a server may answer
-- before it has read all, and a client that only sends then waits forever.

local native, protocol, _, _, parts = ...
local redirect, waiting = parts.redirect, parts.waiting

local math_max = math.max
local error, type, concat, format, unpack = error, type, table.concat, string.format, table.unpack
local native_send, native_head, native_body = native.send, native.head, native.body
local native_persistent, now, round_trip = native.persistent, native.now, native.round_trip
local take, give = protocol.take, protocol.give
local allowed, wait = waiting.allowed, waiting.wait
local redirects = redirect.applies

local NO_MEMORY = "not enough memory"

-- What a round trip answers instead of a status; see `answers.rs`.
local UNSENT, REFUSED, WAITING, PARTIAL = 1, 2, 3, 4

-- Interim responses to one request; more are an attack.
local INTERIM_LIMIT = 32
-- How long a server may take to say "100 Continue" before it gets the body all the same (RFC 9110 10.1.1).
local EXPECT_TIMEOUT = 1
-- How many bytes of a redirecting response's body to read to keep the connection, and for how many seconds.
local DISCARD_LIMIT, DISCARD_TIMEOUT = 65536, 1

-- The sending of what the first call could not send. A step returns "done"; "more": something was sent and
-- more is to come; "blocked"; "expecting" a word of the server's; "failed", a message and its code; "aborted"
-- and a message, by the send callback.
local function sender(link, job)
  local left = job.length
  local asked = false
  local given = job.expects and 0 or #(job.body or "") -- of the body, to the system or the queue before it

  -- Sends a chunk, framed; the last one is "".
  local function send_chunk(chunk)
    given = given + #chunk
    if not left then
      if chunk == "" then return native_send(link, "0\r\n\r\n") end
      return native_send(link, format("%x\r\n", #chunk), chunk, "\r\n")
    end
    left = left - #chunk
    return native_send(link, chunk)
  end

  local function next_chunk()
    local chunk, next_cb = take(job.send_cb)
    if chunk == nil then
      job.send_cb = nil
      return nil, next_cb
    end
    job.send_cb = next_cb
    if left and #chunk > left then return nil, "send callback sent more than the announced length" end
    if left and left > 0 and chunk == "" then
      return nil, "send callback sent less than the announced length"
    end
    if chunk == "" then
      protocol.release(next_cb)
      job.send_cb = nil
    end
    return chunk
  end

  local function state(pending, message, code)
    if not pending then return "failed", message, code end
    job.sent = given - pending
    if pending > 0 then return "blocked" end
    return job.send_cb and "more" or "done"
  end

  return function()
    local pending, message, code = native_send(link)
    if pending == 0 and job.expects then
      if not asked then
        asked = true
        return "expecting"
      end
      job.expects = nil
      given = #(job.body or "")
      pending, message, code = native_send(link, job.body)
    end
    if pending ~= 0 or not job.send_cb then return state(pending, message, code) end
    local chunk, why = next_chunk()
    if not chunk then return "aborted", why end
    return state(send_chunk(chunk))
  end
end

-- Sends what goes and waits until there may be input.
-- @return true; or nil, a message, and "send" if the send callback aborted
local function advance(x)
  if not x.step then return wait(x, "r") end
  local state, message, code = x.step()
  if state == "aborted" then return nil, message, "send" end
  if state == "done" then
    x.step = nil
  elseif state == "failed" then
    -- The server may have answered before it closed.
    x.step, x.failure, x.failure_code = nil, message, code
  elseif state == "expecting" then
    wait(x, "expect", EXPECT_TIMEOUT)
    return true
  elseif state == "more" then
    return true
  end
  return wait(x, x.step and "rw" or "r")
end

-- The request is not to be completed: the connection is of no more use.
local function cut(x)
  local job = x.job
  x.step, x.broken = nil, true
  if job.send_cb then
    protocol.release(job.send_cb)
    job.send_cb = nil
  end
end

-- The response is complete, the request is not: the server gets all of it (RFC 9110 7.5), unless it closes
-- the connection.
-- @return true; or nil, a message, and "send" if the send callback aborted
local function complete(x)
  local job, failure, code = x.job, nil, nil
  -- Where all of an announced length was sent, the callback is only to be told so.
  local lacking = x.step and job.sent ~= job.length
  if lacking and not native_persistent(x.link) then failure = "the server closes the connection" end
  while x.step and not failure do
    local state, message, why_code = x.step()
    if state == "done" then
      x.step = nil
    elseif state == "failed" then
      failure, code = message, why_code
    elseif state == "aborted" then
      return nil, message, "send"
    elseif state == "blocked" then
      local ok, why = wait(x, "w")
      if not ok then failure = why end
    end
  end
  if not failure then failure, code = x.failure, x.failure_code end
  if not failure then return true end
  job.code = code
  local size = job.body and #job.body or job.length
  local sent = math_max(job.sent or 0, 0)
  return nil, format("the response came before the request was sent, %d%s bytes of its body: %s", sent,
    size and format(" of %d", size) or "", failure)
end

-- Receiving has failed: the message. If sending had failed before, that is the reason, unless TLS knows
-- another.
local function lost(x, message, code)
  if x.failure and type(code) ~= "string" then message, code = x.failure, x.failure_code end
  x.job.code = code
  return message
end

-- The final head: status, headers, status line; or nil and a message. `tried`: there may be input already.
local function receive_head(x, tried)
  local link, to_head, on_interim = x.link, x.job.method == "HEAD", x.job.on_interim
  local interim = 0
  local status, headers, line
  repeat
    if not tried then
      local ok, message, aborted = advance(x)
      if not ok then return nil, message, aborted end
    end
    tried = false
    repeat
      status, headers, line = native_head(link, to_head)
      if status == false then return nil, lost(x, headers, line) end
      x.spoken = x.spoken or status ~= nil
      if status == 101 then return nil, "the server switches protocols without being asked" end
      local again = status and status < 200
      if again then
        interim = interim + 1
        if interim > INTERIM_LIMIT then return nil, "too many interim responses" end
        if on_interim then on_interim(status, headers, line) end
      end
    until not again
  until status
  return status, headers, line
end

-- Passes the body to `deliver`; true, or nil, a message and whose callback aborted.
local function receive_body(x, deliver)
  local link = x.link
  while true do
    local chunk, message, code = native_body(link)
    if chunk == "" then return true end
    if chunk then
      local ok, why, aborted = deliver(chunk)
      if not ok then return nil, why, aborted end
    elseif chunk == false then
      if message == NO_MEMORY then error(message, 0) end
      x.job.code = code
      return nil, message
    else
      local ok, why, aborted = advance(x)
      if not ok then return nil, why, aborted end
    end
  end
end

-- Collects the body in a list of strings.
local function collector(job)
  local pieces, size = {}, 0
  return function(chunk)
    size = size + #chunk
    if size > job.body_limit then return nil, "response body too big" end
    pieces[#pieces + 1] = chunk
    return true
  end, pieces
end

-- Passes the body to the job's receive callback.
local function receiver(job)
  return function(chunk)
    local current = job.receive_cb
    job.receiving = true
    local next_cb, message = give(current, chunk)
    job.receiving = false
    if not next_cb then return nil, message, "receive" end
    job.receive_cb = next_cb
    return true
  end
end

-- Whether the request is to be sent once more without its expectation (RFC 9110 10.1.1), its body not being
-- used up.
local function refuses_expectation(job, status)
  return status == 417 and job.expected and not job.no_expect and (job.expects or not job.had_send_cb)
end

-- Reads the body of a response that nobody wants, if that is worth the connection. Without it the connection
-- cannot be used again.
local function discard(x)
  local link, size, deadline = x.link, 0, nil
  if x.broken or x.step or not native_persistent(link) then return end
  while size <= DISCARD_LIMIT do
    local chunk = native_body(link)
    if chunk == "" or chunk == false then return end
    if chunk then
      size = size + #chunk
    else
      deadline = deadline or now() + DISCARD_TIMEOUT
      if not wait(x, "r", deadline - now()) then return end
    end
  end
end

-- What has come of a request that a round trip was made for; `status` and so on are its results.
-- @return as begin
local function go_on(x, status, headers, line, body, reusable)
  if not status then return nil, lost(x, headers, line) end
  if status >= 100 then return status, headers, line, body, reusable end
  if status == UNSENT then
    x.step = sender(x.link, x.job)
  elseif status == REFUSED then
    -- The server may have answered before it closed.
    x.failure, x.failure_code = headers, line
  elseif status == WAITING and not x.waitfunc then
    return nil, "timeout"
  end
  return receive_head(x, status == PARTIAL or status == REFUSED)
end

-- Sends the request as far as that goes with one call, and takes the response if it comes with one packet:
-- the way of most requests.
-- @return status, headers, status line, body (nil if it is not all there), whether the connection can be used
--   again (nil if that is not known yet); or nil, a message, and "send" if the send callback aborted
local function begin(x, head)
  local job, link, trip = x.job, x.link, x.trip
  if trip then return go_on(x, unpack(trip, 1, 5)) end
  if job.send_cb or job.expects then
    local pending, message, code = native_send(link, head, not job.expects and job.body or nil)
    if pending then x.step = sender(link, job) else x.failure, x.failure_code = message, code end
    return receive_head(x, not pending)
  end
  local limit = x.waitfunc and 0 or allowed(job, job.stall_timeout)
  return go_on(x, round_trip(link, head, job.body, limit, job.method == "HEAD"))
end

-- Passes the body, or what has come of it already, to its reader.
-- @return true, or nil, a message and whose callback aborted
local function deliver_body(x, whole)
  local job = x.job
  if job.on_head then
    local chosen = job.on_head(x.status, x.headers, x.line)
    if chosen and not protocol.callable(chosen) then
      return nil, format("head function returned a %s, expected a receive callback or nothing", type(chosen))
    end
    job.receive_cb = chosen or job.receive_cb
  end
  if job.receive_cb then
    if whole == "" then return true end
    local deliver = receiver(job)
    if whole then return deliver(whole) end
    return receive_body(x, deliver)
  end
  if whole and #whole <= job.body_limit then
    x.body = whole
    return true
  end
  local deliver, pieces = collector(job)
  if whole then return deliver(whole) end
  local ok, message, aborted = receive_body(x, deliver)
  x.body = #pieces == 1 and pieces[1] or concat(pieces)
  return ok, message, aborted
end

--- Sends the job's request and receives the response, which becomes fields of x: `status`, `headers`, `line`,
-- `body`; `redirected`: it is to be followed; `reusable`: so is the connection.
-- `refused_expectation`: the request is to be sent once more without its expectation.
-- @param x {link, handle, job, waitfunc, trip}; `trip`: the results of a round trip, if there was one already
-- @param head the request head
-- @return true; or nil, a message (whose code is `job.code`), "send" or "receive" if that callback aborted,
--   and whether the server broke the connection without a word
return function(x, head)
  local status, headers, line, whole, reusable = begin(x, head)
  if not status then
    local spoken = x.spoken or headers == "timeout" or line ~= nil or native.answered(x.link)
    return nil, headers, line, not spoken
  end
  x.status, x.headers, x.line = status, headers, line
  if refuses_expectation(x.job, status) then
    x.step, x.refused_expectation = nil, true
    return true
  end
  -- What a server refuses need not be sent to the end, nor what it has answered without asking for it.
  if x.step and (status >= 300 or x.job.expects and not native_persistent(x.link)) then cut(x) end
  if redirects(x.job, status, headers) then
    x.redirected = true
    if not whole then discard(x) end
  else
    local ok, message, aborted = deliver_body(x, whole)
    if not ok then return nil, message, aborted end
  end
  if status < 300 and (x.step or x.failure) then
    local ok, message, aborted = complete(x)
    if not ok then return nil, message, aborted end
  end
  if reusable == nil then reusable = not x.broken and not x.failure and native.reusable(x.link) end
  x.reusable = reusable
  return true
end
