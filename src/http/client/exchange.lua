-- One request and its response over a connection. Both sides may speak at the same time: a server may answer
-- before it has read all, and who only sends then waits for ever.

local native, protocol = ...

local concat, format = table.concat, string.format
local native_send, native_head, native_body = native.send, native.head, native.body
local take, give = protocol.take, protocol.give

-- Interim responses to one request; more are an attack.
local INTERIM_LIMIT = 32
-- How long a server may take to say "100 Continue" before it gets the body all the same (RFC 9110 10.1.1).
local EXPECT_TIMEOUT = 1
-- So much of the body of a redirecting response is read in order to keep the connection.
local DISCARD_LIMIT = 65536

-- A step of sending: "done"; "more": something was sent and more is to come; "blocked"; "expecting" a word of
-- the server's; "failed" and a message; "aborted" and a message, by the send callback.
local function sender(link, job, head)
  local started, left = false, job.length
  local body = job.body
  if job.expects then body = nil end

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
    return chunk
  end

  return function()
    local pending, message
    if not started then
      started = true
      pending, message = native_send(link, head, body)
    elseif job.expects then
      job.expects = nil
      pending, message = native_send(link, job.body)
    else
      pending, message = native_send(link)
    end
    if not pending then return "failed", message end
    if pending > 0 then return "blocked" end
    if job.expects then return "expecting" end
    if not job.send_cb then return "done" end
    local chunk, why = next_chunk()
    if not chunk then return "aborted", why end
    if chunk == "" then
      protocol.release(job.send_cb)
      job.send_cb = nil
    end
    pending, message = send_chunk(chunk)
    if not pending then return "failed", message end
    if pending > 0 then return "blocked" end
    return job.send_cb and "more" or "done"
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

-- The final head: status, headers, status line; or nil and a message.
local function receive_head(x, link, job)
  local interim = 0
  local status, headers, line
  repeat
    local ok, message, aborted = advance(x)
    if not ok then return nil, message, aborted end
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

--- Sends the job's request and receives the response.
-- @param link the connection's
-- @param head the request head
-- @param wait function (mode, seconds) → true, or nil and a message
-- @param redirects function (job, status, headers) → whether the response is to be followed
-- @return {status, headers, line, body, redirected, reusable}; or nil, a message, "send" or "receive" if
--   that callback aborted, and whether the server broke the connection without a word
return function(link, job, head, wait, redirects)
  local x = { wait = wait, step = sender(link, job, head) }
  local status, headers, line = receive_head(x, link, job)
  if not status then
    return nil, headers, line, headers ~= "timeout" and not line and not native.answered(link)
  end
  -- What a server refuses need not be sent to the end.
  if x.step and status >= 300 then cut(x, job) end
  local response = { status = status, headers = headers, line = line }
  response.redirected = redirects(job, status, headers)
  if job.on_head and not response.redirected then
    job.receive_cb = job.on_head(status, headers, line) or job.receive_cb
  end
  if response.redirected then
    discard(x, link)
  elseif job.receive_cb then
    local ok, message, aborted = receive_body(x, link, receiver(job))
    if not ok then return nil, message, aborted end
  else
    local deliver, parts = collector(job)
    local ok, message, aborted = receive_body(x, link, deliver)
    if not ok then return nil, message, aborted end
    response.body = #parts == 1 and parts[1] or concat(parts)
  end
  if x.step then cut(x, job) end
  response.reusable = not x.broken and not x.failure and native.reusable(link)
  return response
end
