-- Idle connections of this process, by the server they lead to.

local native = ...

local next, expired, keep, usable = next, native.expired, native.keep, native.usable

local pool = {}

-- So many connections are kept for one server, and so many in all.
local PER_SERVER, IN_ALL = 8, 64

local idle = {} -- key → the connection used last; the others hang on its field `next`
local count = 0
local uses = 0 -- how often a connection was kept

-- Closes a connection that nobody uses; it may have failed long since.
local function close(connection)
  count = count - 1
  native.close(connection.link, true)
end

-- Closes the connection and those that hang on it.
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

-- Closes what hangs on the connection and is too much or too old: behind it are older ones.
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

-- Closes the connection that is idle for the longest time.
local function shed()
  local oldest, before
  for _, connection in next, idle do
    local previous
    while connection.next do previous, connection = connection, connection.next end
    if not oldest or connection.since < oldest.since then oldest, before = connection, previous end
  end
  if before then before.next = nil else idle[oldest.key] = nil end
  close(oldest)
end

--- Keeps a connection for further requests, for so many seconds.
function pool.put(connection, seconds)
  local key = connection.key
  uses = uses + 1
  connection.since = uses
  keep(connection.link, seconds)
  local older = idle[key]
  connection.next = older
  idle[key] = connection
  count = count + 1
  if older then prune(connection) end
  if count > IN_ALL then shed() end
end

--- Closes all idle connections.
function pool.clear()
  local all = idle
  idle = {}
  for _, connection in next, all do close_all(connection) end
end

return pool
