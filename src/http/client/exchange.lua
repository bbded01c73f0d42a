-- One request and its response over a connection. Both sides may speak at the same time: a server may answer
-- before it has read all, and who only sends then waits for ever.

local native, protocol = ...

local concat, format = table.concat, string.format
local native_send, native_head, native_body = native.send, native.head, native.body
local native_whole = native.whole
local take, give = protocol.take, protocol.give

-- Interim responses to one request; more are an attack.
local INTERIM_LIMIT = 32
-- How long a server may take to say "100 Continue" before it gets the body all the same (RFC 9110 10.1.1).
local EXPECT_TIMEOUT = 1
-- So much of the body of a redirecting response is read in order to keep the connection.
local DISCARD_LIMIT = 65536

-- The sending of what the first call could not send. A step returns "done"; "more": something was sent and
-- more is to come; "blocked"; "expecting" a word of the server's; "failed" and a message; "aborted" and a
-- message, by the send callback.
local function sender(link, job)
  local left = job.length
  local asked = false

  -- Sends a chunk, framed; the last one is "".
  local function send_chunk(chunk)
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

  local function state(pending, message)
    if not pending then return "failed", message end
    if pending > 0 then return "blocked" end
    return job.send_cb and "more" or "done"
  end

  return function()
    local pending, message = native_send(link)
    if pending == 0 and job.expects then
      if not asked then
        asked = true
        return "expecting"
      end
      job.expects = nil
      pending, message = native_send(link, job.body)
    end
    if pending ~= 0 or not job.send_cb then return state(pending, message) end
    local chunk, why = next_chunk()
    if not chunk then return "aborted", why end
    return state(send_chunk(chunk))
  end
end

-- Sends what goes and waits until there may be input.
-- @return true; or nil, a message, and "send" if the send callback aborted
local function advance(x)
  if not x.step then return x.wait("r") end
  local state, message = x.step()
  if state == "aborted" then return nil, message, "send" end
  if state == "done" then
    x.step = nil
  elseif state == "failed" then
    -- The server may have answered before it closed.
    x.step, x.failure = nil, message
  elseif state == "expecting" then
    x.wait("expect", EXPECT_TIMEOUT)
    return true
  elseif state == "more" then
    return true
  end
  return x.wait(x.step and "rw" or "r")
end

-- The request is not to be completed: the connection is of no more use.
local function cut(x, job)
  x.step, x.broken = nil, true
  if job.send_cb then
    protocol.release(job.send_cb)
    job.send_cb = nil
  end
end

-- The final head: status, headers, status line; or nil and a message. `tried`: there may be input already.
local function receive_head(x, link, job, tried)
  local interim = 0
  local status, headers, line
  repeat
    if not tried then
      local ok, message, aborted = advance(x)
      if not ok then return nil, message, aborted end
    end
    tried = false
    repeat
      status, headers, line = native_head(link, job.method == "HEAD")
      if status == false then return nil, x.failure or headers end
      if status == 101 then return nil, "the server switches protocols without being asked" end
      local again = status and status < 200
      if again then
        interim = interim + 1
        if interim > INTERIM_LIMIT then return nil, "too many interim responses" end
      end
    until not again
  until status
  return status, headers, line
end

-- Passes the body to `deliver`; true, or nil, a message and whose callback aborted.
local function receive_body(x, link, deliver)
  while true do
    local chunk, message = native_body(link)
    if chunk == "" then return true end
    if chunk then
      local ok, why, aborted = deliver(chunk)
      if not ok then return nil, why, aborted end
    elseif chunk == false then
      return nil, message
    else
      local ok, why, aborted = advance(x)
      if not ok then return nil, why, aborted end
    end
  end
end

-- Collects the body in a list of strings.
local function collector(job)
  local parts, size = {}, 0
  return function(chunk)
    size = size + #chunk
    if size > job.body_limit then return nil, "response body too big" end
    parts[#parts + 1] = chunk
    return true
  end, parts
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

-- Reads the body of a response that nobody wants, if that is worth the connection.
local function discard(x, link)
  local size = 0
  local done = receive_body(x, link, function(chunk)
    size = size + #chunk
    return size <= DISCARD_LIMIT
  end)
  if not done then x.broken = true end
end

-- Sends the request as far as that goes with one call, and takes the response if it comes with one packet:
-- the way of most requests.
-- @return status, headers, status line, body, whether the connection can be used again; or nil; or false and
--   a message
local function at_once(x, link, job, head)
  local pending, message = native_send(link, head, not job.expects and job.body or nil)
  if not pending then
    -- The server may have answered before it closed.
    x.failure = message
    return nil
  end
  if pending > 0 or job.send_cb or job.expects then
    x.step = sender(link, job)
    return nil
  end
  local ok, why = x.wait("r")
  if not ok then return false, why end
  x.tried = true
  return native_whole(link, job.method == "HEAD")
end

-- Passes the body, or what has come of it already, to whoever wants it.
-- @return true, or nil, a message and whose callback aborted
local function deliver_body(x, link, job, response, whole)
  if job.on_head then
    job.receive_cb = job.on_head(response.status, response.headers, response.line) or job.receive_cb
  end
  if job.receive_cb then
    if whole == "" then return true end
    local deliver = receiver(job)
    if whole then return deliver(whole) end
    return receive_body(x, link, deliver)
  end
  if whole and #whole <= job.body_limit then
    response.body = whole
    return true
  end
  local deliver, parts = collector(job)
  if whole then return deliver(whole) end
  local ok, message, aborted = receive_body(x, link, deliver)
  response.body = #parts == 1 and parts[1] or concat(parts)
  return ok, message, aborted
end

--- Sends the job's request and receives the response.
-- @param link the connection's
-- @param head the request head
-- @param wait function (mode, seconds) → true, or nil and a message
-- @param redirects function (job, status, headers) → whether the response is to be followed
-- @return {status, headers, line, body, redirected, reusable}; or nil, a message, "send" or "receive" if
--   that callback aborted, and whether the server broke the connection without a word
return function(link, job, head, wait, redirects)
  local x = { wait = wait, tried = false, step = nil, failure = nil }
  local status, headers, line, whole, reusable = at_once(x, link, job, head)
  if status == nil then status, headers, line = receive_head(x, link, job, x.tried) end
  if not status then
    return nil, headers, line, headers ~= "timeout" and not line and not native.answered(link)
  end
  -- What a server refuses need not be sent to the end.
  if x.step and status >= 300 then cut(x, job) end
  local response = { status = status, headers = headers, line = line, body = nil, reusable = nil }
  if redirects(job, status, headers) then
    response.redirected = true
    if not whole then discard(x, link) end
  else
    local ok, message, aborted = deliver_body(x, link, job, response, whole)
    if not ok then return nil, message, aborted end
  end
  if x.step then cut(x, job) end
  if reusable == nil then reusable = not x.broken and not x.failure and native.reusable(link) end
  response.reusable = reusable
  return response
end
