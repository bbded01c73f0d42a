-- Idle connections of this process, by server.

local native = ...

local next, expired, idle_since = next, native.expired, native.idle_since
local keep, round_trip, usable = native.keep, native.round_trip, native.usable

local pool = {}

-- The maximum number of idle connections per server, and in total.
local PER_SERVER, IN_ALL = 8, 64

-- What a round trip returns if the idle connection cannot be used; see `answers.rs`.
local STALE = 5

local idle = {} -- key → the connection used last; the others hang on its field `next`
local count = 0

-- Closes an idle connection; it may have failed earlier.
local function close(connection)
  count = count - 1
  native.close(connection.link, true)
end

-- Closes the connection and those linked to it.
local function close_all(connection)
  while connection do
    close(connection)
    connection = connection.next
  end
end

--- Takes an idle connection to the server, one that can be used; nil if there is none.
function pool.take(key)
  local connection = idle[key]
  while connection do
    idle[key] = connection.next
    if usable(connection.link) then
      count = count - 1
      return connection
    end
    close(connection)
    connection = idle[key]
  end
end

-- Closes linked connections that are too many or expired; the list is sorted by age.
local function prune(connection)
  local length = 1
  while connection.next do
    if length == PER_SERVER or expired(connection.next.link) then
      close_all(connection.next)
      connection.next = nil
      return
    end
    connection, length = connection.next, length + 1
  end
end

-- Closes the connection that has been idle longest.
local function shed()
  local oldest, before
  for _, connection in next, idle do
    local previous
    while connection.next do previous, connection = connection, connection.next end
    if not oldest or idle_since(connection.link) < idle_since(oldest.link) then
      oldest, before = connection, previous
    end
  end
  if before then before.next = nil else idle[oldest.key] = nil end
  close(oldest)
end

--- Keeps a connection for further requests, for `seconds`.
function pool.put(connection, seconds)
  local key = connection.key
  keep(connection.link, seconds)
  local older = idle[key]
  connection.next = older
  idle[key] = connection
  count = count + 1
  if older then prune(connection) end
  if count > IN_ALL then shed() end
end

--- Requests a URL over the connection used last, which becomes idle again: the fast path of most requests.
-- In all other cases the caller takes over: the connection is then no longer idle.
-- @param url with its `plain_head`
-- @param limit how many seconds to wait
-- @param seconds how long to keep the connection
-- @return nil if there is no connection that can be used; or the results of the round trip, and the
--   connection if they are not a whole response which is not to be followed
function pool.ask(url, limit, seconds)
  local key = url.key
  local connection = idle[key]
  if not connection then return nil end
  -- A finalizer may ask the same server meanwhile.
  idle[key] = connection.next
  local status, headers, line, body, reusable =
    round_trip(connection.link, url.plain_head, nil, limit, false, seconds)
  if reusable and (status < 300 or status >= 400) then
    local older = idle[key]
    connection.next = older
    idle[key] = connection
    if older then prune(connection) end
    return status, headers, line, body, reusable
  end
  count = count - 1
  if status == STALE then
    native.close(connection.link, true)
    return nil
  end
  return status, headers, line, body, reusable, connection
end

--- Closes all idle connections.
function pool.clear()
  local all = idle
  idle = {}
  for _, connection in next, all do close_all(connection) end
end

return pool
