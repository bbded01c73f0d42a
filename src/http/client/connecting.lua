-- Connections to servers: to their addresses in turn, over a proxy, with TLS.

local native, _, _, _, parts = ...
local waiting, proxy = parts.waiting, parts.proxy

local format, ipairs = string.format, ipairs
local now = native.now
local allowed, wait = waiting.allowed, waiting.wait

local connecting = {}

--- Closes the connection that the job uses.
function connecting.close(job, in_order)
  local connection = job.connection
  if connection then
    job.connection = nil
    native.close(connection.link, in_order)
  end
end

local close = connecting.close

--- Decides how the job's server is reached: `job.proxy`, and `job.key` for kept connections, since only those
-- that were made in the same way can be used.
-- @return true, or nil and a message
function connecting.choose(job)
  local found, message = proxy.of(job.via, job.url)
  if found == nil then return nil, message end
  local key = job.url.key
  if job.url.secure and job.tls then key = format("%s tls %d", key, job.tls_number) end
  if found then key = format("%s via %s %s", key, found.key, found.authorization or "") end
  job.proxy, job.key = found, key
  return true
end

-- Waits until a connection is established: true, or nil and a message.
local function establish(x, deadline)
  local left = deadline - now()
  if left <= 0 then return nil, "timeout" end
  local ok, message, code = wait(x, "w", left)
  if ok then ok, message, code = native.connected(x.link) end
  if ok then return true end
  x.job.code = code
  return nil, message
end

-- Asks a proxy for a connection to the server (RFC 9110 9.3.6): true, or nil and a message.
local function tunnel(x, deadline)
  local url, via = x.job.url, x.job.proxy
  local host = url.host:find(":", 1, true) and "[" .. url.host .. "]" or url.host
  local server = format("%s:%d", host, url.port)
  local credentials = via.authorization and "Proxy-Authorization: " .. via.authorization .. "\r\n" or ""
  local head = format("CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", server, server, credentials)
  local pending, why, code = native.send(x.link, head)
  while pending and pending > 0 do
    local ok, message = wait(x, "w", deadline - now())
    if not ok then return nil, message end
    pending, why, code = native.send(x.link)
  end
  if not pending then
    x.job.code = code
    return nil, why
  end
  while true do
    -- A successful answer has no body, and another one is not read.
    local status, headers, line = native.head(x.link, true)
    if status == false then
      x.job.code = line
      return nil, "proxy: " .. headers
    end
    if status and status >= 300 then return nil, format("the proxy refuses the connection: %s", line) end
    if status and status >= 200 then
      if native.answered(x.link) then return nil, "the proxy has sent more than its answer" end
      return true
    end
    if not status then
      local ok, message = wait(x, "r", deadline - now())
      if not ok then return nil, message end
    end
  end
end

-- Does the handshake of TLS: true, or nil and a message.
local function secure(x, deadline)
  local job = x.job
  local ok, message, code = native.secure(x.link, job.url.host, job.tls)
  while ok do
    local done, awaited
    done, awaited, code = native.handshake(x.link)
    if done then return true end
    if done == false then
      message = awaited
      break
    end
    ok, message = wait(x, awaited, deadline - now())
  end
  job.code = code
  return nil, message
end

--- Connects to the addresses of the server, or of the proxy, in turn.
-- @return connection {key, handle, link, owner}, or nil and a message, whose code is `job.code`
function connecting.connect(job, waitfunc)
  local url = job.url
  local server = job.proxy or url
  local deadline = now() + allowed(job, job.connect_timeout)
  local addresses, message = { server.path }, nil
  if server.host then
    addresses, message, job.code = native.addresses(server.host, server.port)
    if not addresses then return nil, message end
  end
  for _, address in ipairs(addresses) do
    local handle, link, owner = (server.path and native.connect_local or native.connect)(address)
    job.code = nil
    if handle then
      local connection = {
        key = job.key, handle = handle, link = link, owner = owner, next = nil,
      }
      job.connection = connection
      local x = { link = link, handle = handle, job = job, waitfunc = waitfunc }
      local ok
      ok, message = establish(x, deadline)
      if ok and url.secure then
        if job.proxy then ok, message = tunnel(x, deadline) end
        if ok then ok, message = secure(x, deadline) end
        if not ok then
          close(job, false)
          return nil, message
        end
      end
      if ok then return connection end
      close(job, false)
    else
      message, job.code = link, owner
    end
  end
  return nil, message
end

return connecting
