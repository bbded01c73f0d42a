-- Idle connections of this process, by the server they lead to.

local native = ...

local ipairs, pairs, remove = ipairs, pairs, table.remove

local pool = {}

-- So many connections are kept for one server, and so many in all.
local PER_SERVER, IN_ALL = 8, 64

local idle = {} -- key → list of connections, the one used last at its end
local count = 0
local owner = native.pid()

-- The connections of the process that forked this one are not ours: both would speak on them.
local function check_owner()
  local pid = native.pid()
  if pid ~= owner then
    idle, count, owner = {}, 0, pid
  end
end

-- Closes a connection that nobody uses; it may have failed long since.
local function close(connection)
  count = count - 1
  native.close(connection.link, true)
end

--- Takes an idle connection to the server, one that is still silent; nil if there is none.
function pool.take(key)
  check_owner()
  local list = idle[key]
  while list do
    local connection = remove(list)
    if #list == 0 then
      idle[key] = nil
      list = nil
    end
    if connection.expires > native.now() and native.silent(connection.link) then
      count = count - 1
      connection.used = true
      return connection
    end
    close(connection)
  end
end

-- Closes the connection that is idle for the longest time.
local function shed()
  local oldest
  for key, list in pairs(idle) do
    if not oldest or list[1].since < idle[oldest][1].since then oldest = key end
  end
  local list = idle[oldest]
  close(remove(list, 1))
  if #list == 0 then idle[oldest] = nil end
end

--- Keeps a connection for further requests, for so many seconds. `take` was called for it in this process.
function pool.put(connection, seconds)
  local list = idle[connection.key]
  if not list then
    list = {}
    idle[connection.key] = list
  end
  local now = native.now()
  connection.since, connection.expires = now, now + seconds
  list[#list + 1] = connection
  count = count + 1
  if #list > PER_SERVER or list[1].expires <= now then close(remove(list, 1)) end
  if count > IN_ALL then shed() end
end

--- Closes all idle connections.
function pool.clear()
  check_owner()
  local all = idle
  idle = {}
  for _, list in pairs(all) do
    for _, connection in ipairs(list) do close(connection) end
  end
end

return pool
