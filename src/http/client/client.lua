-- http.request: attempts, redirects, failures.

local native, protocol, _, _, parts, http = ...
local options, request_head, redirect = parts.options, parts.request_head, parts.redirect
local pool, connecting, exchange = parts.pool, parts.connecting, parts.exchange

local error, pcall, yield = error, pcall, coroutine.yield
local close, connect = connecting.close, connecting.connect
local ask, put, take = pool.ask, pool.put, pool.take
local parsed, KEEPALIVE, TIMEOUT = options.parsed, options.KEEPALIVE, options.TIMEOUT

parts.connect, parts.close, parts.native = connect, close, native

-- Methods that may be sent again if the server closed a kept connection instead of answering
-- (RFC 9110 9.2.2).
local idempotent = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, PUT = true, DELETE = true }

-- One exchange over a connection, which is kept or closed after it.
-- @return response; or nil, a message, whose callback aborted, and whether the server said nothing at all
local function converse(connection, job, head, waitfunc, trip)
  job.connection, job.code = connection, nil
  local x = {
    link = connection.link, handle = connection.handle, job = job, waitfunc = waitfunc, trip = trip,
    status = nil, headers = nil, line = nil, body = nil, reusable = nil,
  }
  if job.lenient then native.lenient(connection.link, true) end
  local ok, message, aborted, silent = exchange(x, head)
  -- The connection may be kept for others.
  if job.lenient then native.lenient(connection.link, false) end
  if not ok then
    close(job, false)
    return nil, message, aborted, silent
  end
  if x.reusable and job.keep then
    job.connection = nil
    put(connection, job.keep)
  else
    close(job, true)
  end
  return x
end

-- Sends the request over a kept connection or a new one.
local function attempt(job, waitfunc)
  local known, message = connecting.choose(job)
  if not known then return nil, message end
  local head
  head, message = request_head(job)
  if not head then return nil, message end
  local connection, trip = job.connection, job.trip
  job.trip = nil
  if not connection and job.keep then connection = take(job.key) end
  if connection then
    local can_repeat = idempotent[job.method] and not job.send_cb
    local response, why, aborted, silent = converse(connection, job, head, waitfunc, trip)
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
    if response.refused_expectation then
      job.no_expect = true
    elseif not response.redirected then
      return response
    else
      local ok
      ok, message = redirect.follow(job, response.status, response.headers)
      if not ok then return nil, message end
    end
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
    close(job, false)
    pcall(tell, job, protocol.describe(response), job.receiving and "receive")
    error(response, 0)
  end
  if not response then
    tell(job, message, aborted)
    return nil, message, job.code
  end
  if job.receive_cb then
    local done
    done, message = protocol.finish(job.receive_cb)
    if not done then return nil, message end
  end
  return response.body or 1, response.status, response.headers, response.line
end

local function request(waitfunc, first, body, connection, trip)
  local job, message = options.job(first, body)
  if not job then options.throw(message) end
  if not job.url then
    tell(job, message)
    return nil, message
  end
  job.connection, job.trip = connection, trip
  return perform(job, waitfunc)
end

-- The most frequent and simplest request: a URL that was asked for before, over a kept connection, and the
-- response comes with one packet. It needs no job; all else goes on with `request`.
local function get(text, url)
  local status, headers, line, body, reusable, connection = ask(url, TIMEOUT, KEEPALIVE)
  if connection then
    return request(nil, text, nil, connection, { status, headers, line, body, reusable })
  end
  if not status then return request(nil, text) end
  return body, status, headers, line
end

--- http.request(url [, body]) or http.request{url=, …}
-- @return body (or 1 if it went to a receive callback), status, headers, status line; or nil, a message, and
--   an errno, or a word if TLS has failed
function http.request(first, body)
  local url = body == nil and parsed[first]
  if url and url.plain_head then return get(first, url) end
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
