-- http.request: connections, redirects, failures.

local http, native, protocol, moonbridge_io, parts = ...
local options, request_head, redirect = parts.options, parts.request_head, parts.redirect
local pool, exchange = parts.pool, parts.exchange

local error, ipairs, pcall, yield = error, ipairs, pcall, coroutine.yield
local native_wait, now = native.wait, native.now

-- How many seconds a wait may take at most; 0 or less: the time is over.
local function allowed(job, seconds)
  local left = job.deadline and job.deadline - now()
  return left and left < seconds and left or seconds
end

-- A function (mode, seconds) that waits on a connection: by itself, or by the function of the caller's.
local function waiter(job, waitfunc, handle, link)
  return function(mode, seconds)
    local limit = allowed(job, seconds or job.stall_timeout)
    -- A function of the caller's is told what to wait for, but not how long.
    if mode == "expect" then
      if waitfunc then return true end
      mode = "r"
    end
    if not waitfunc then
      if limit > 0 and native_wait(link, mode, limit) then return true end
      return nil, "timeout"
    end
    local deadline = now() + limit
    while now() < deadline do
      if native_wait(link, mode, 0) then return true end
      waitfunc(handle, mode == "r" and "r" or "w", moonbridge_io)
    end
    return native_wait(link, mode, 0) or nil, "timeout"
  end
end

-- Brings a connection that is under way to its end: true, or nil and a message.
local function establish(job, waitfunc, handle, link, deadline)
  local left = deadline - now()
  if left <= 0 then return nil, "timeout" end
  local ok, message = waiter(job, waitfunc, handle, link)("w", left)
  if ok then ok, message = native.connected(link) end
  if ok then return true end
  return nil, message
end

-- Connects to the addresses of the server in turn.
-- @return connection {key, handle, link}, or nil and a message
local function connect(job, waitfunc)
  local url = job.url
  local deadline = now() + allowed(job, job.connect_timeout)
  local addresses, message = { url.path }, nil
  if url.host then
    addresses, message = native.addresses(url.host, url.port)
    if not addresses then return nil, message end
  end
  for _, address in ipairs(addresses) do
    local handle, link = (url.path and native.connect_local or native.connect)(address)
    if handle then
      local ok
      ok, message = establish(job, waitfunc, handle, link, deadline)
      if ok then
        return { key = url.key, handle = handle, link = link, since = 0, expires = 0, next = nil }
      end
      native.close(link, false)
    else
      message = link
    end
  end
  return nil, message
end

-- Methods that may be sent again if the server closed a kept connection instead of answering
-- (RFC 9110 9.2.2).
local idempotent = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, PUT = true, DELETE = true }

-- One exchange over a connection, which is kept or closed behind it.
-- @return response; or nil, a message, whose callback aborted, and whether the server said nothing at all
local function converse(connection, job, head, waitfunc)
  local link = connection.link
  local wait = waiter(job, waitfunc, connection.handle, link)
  local ok, response, message, aborted, silent =
    pcall(exchange, link, job, head, wait, redirect.applies)
  if ok and response then
    if response.reusable and job.keep then
      pool.put(connection, job.keep)
    else
      native.close(link, true)
    end
    return response
  end
  native.close(link, false)
  if not ok then error(response, 0) end
  return nil, message, aborted, silent
end

-- Sends the request over a kept connection or a new one.
local function attempt(job, waitfunc)
  local head, message = request_head(job)
  if not head then return nil, message end
  local connection = job.keep and pool.take(job.url.key)
  if connection then
    local can_repeat = idempotent[job.method] and not job.send_cb
    local response, why, aborted, silent = converse(connection, job, head, waitfunc)
    if response or not (silent and can_repeat) then return response, why, aborted end
  end
  connection, message = connect(job, waitfunc)
  if not connection then return nil, message end
  return converse(connection, job, head, waitfunc)
end

-- Follows redirects to the final response.
local function follow(job, waitfunc)
  if job.send_cb then job.had_send_cb = true end
  while true do
    local response, message, aborted = attempt(job, waitfunc)
    if not response then return nil, message, aborted end
    if not response.redirected then return response end
    local ok
    ok, message = redirect.follow(job, response.status, response.headers)
    if not ok then return nil, message end
  end
end

-- The callbacks of a job that failed: the receive callback is told, unless it was the one that aborted.
local function tell(job, message, aborted)
  if job.send_cb then protocol.release(job.send_cb) end
  if not job.receive_cb then return end
  if aborted == "receive" then
    protocol.release(job.receive_cb)
  else
    protocol.fail(job.receive_cb, message)
  end
end

local function perform(job, waitfunc)
  local ok, response, message, aborted = pcall(follow, job, waitfunc)
  if not ok then
    pcall(tell, job, protocol.describe(response), job.receiving and "receive")
    error(response, 0)
  end
  if not response then
    tell(job, message, aborted)
    return nil, message
  end
  if job.receive_cb then
    local done
    done, message = protocol.finish(job.receive_cb)
    if not done then return nil, message end
  end
  return response.body or 1, response.status, response.headers, response.line
end

local function request(waitfunc, first, body)
  local job, message = options.job(first, body)
  if not job then options.throw(message) end
  if not job.url then
    tell(job, message)
    return nil, message
  end
  return perform(job, waitfunc)
end

--- http.request(url [, body]) or http.request{url=, …}
-- @return body (or 1 if it went to a receive callback), status, headers, status line; or nil and a message
function http.request(first, body)
  return request(nil, first, body)
end

--- The same, calling waitfunc(socket, "r" or "w", moonbridge_io) instead of blocking.
function http.request_call(waitfunc, first, body)
  protocol.check(waitfunc, 1, "request_call", "function")
  return request(waitfunc, first, body)
end

--- The same with coroutine.yield as waiting function.
function http.request_yield(first, body)
  return request(yield, first, body)
end

--- Closes the connections that are kept for further requests.
http.close_idle_connections = pool.clear
