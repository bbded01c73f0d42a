-- moonbridge.wsapi: runs applications for WSAPI 1.6 (Orbit, CGILua, Sailor) as a `connect` function.

local http = require "moonbridge.http"
local status_line = require "moonbridge.status_line"

-- The variables of CGI (RFC 3875 4.1), and the headers as HTTP_…
local function variables(request)
  local socket, path = request.socket, request.path
  local env = {
    GATEWAY_INTERFACE = "CGI/1.1",
    SERVER_SOFTWARE = "Moonbridge",
    SERVER_PROTOCOL = request.version,
    SERVER_NAME = (request.host:gsub(":%d*$", "")),
    SERVER_PORT = tostring(socket.local_tcpport or ""),
    REQUEST_METHOD = request.method,
    REQUEST_URI = request.target,
    SCRIPT_NAME = "",
    PATH_INFO = path and "/" .. http.decode_path(path) or "*",
    QUERY_STRING = (request.query or ""):sub(2),
    REMOTE_ADDR = request.client_ip or "",
    HTTPS = request.scheme == "https" and "on" or nil,
    CONTENT_TYPE = request.headers_csv_string["Content-Type"],
  }
  for name, values in pairs(request.headers) do
    -- Names with "_" could forge others; HTTP_PROXY would be taken for a setting by HTTP clients.
    if not name:find("_", 1, true) and name ~= "proxy" then
      env["HTTP_" .. name:upper():gsub("-", "_")] = table.concat(values, name == "cookie" and "; " or ", ")
    end
  end
  return env
end

-- The body, read when the application asks for it.
local function input(request)
  local body, position
  local function load()
    if not body then body, position = request.body, 1 end
    return body
  end
  local length = tonumber(request.headers_value["Content-Length"] or nil)
  -- The length of a chunked body is only known when it has come.
  if not length then length = request.headers["Transfer-Encoding"][1] and #load() or 0 end
  local object = { length = length }
  function object.read(_, count)
    local all = load()
    if position > #all then return nil end
    local piece = all:sub(position, position + (count or #all) - 1)
    position = position + #piece
    return piece
  end
  return object
end

local function environment(request)
  local env = variables(request)
  env.input = input(request)
  env.CONTENT_LENGTH = env.input.length > 0 and tostring(env.input.length) or ""
  env.error = { write = function(_, text) http.error_log(request, text) end }
  -- What is not set is the empty string for WSAPI applications.
  return setmetatable(env, { __index = function() return "" end })
end

local function respond(request, status, headers, chunks)
  request:send_status(status_line(status))
  for name, values in pairs(headers or {}) do
    -- How the body is framed is this server's business.
    if name:lower() ~= "transfer-encoding" then
      for _, value in ipairs(type(values) == "table" and values or { values }) do
        request:send_header(name, value)
      end
    end
  end
  for chunk in chunks or function() end do request:send_data(chunk) end
  return true
end

-- WSAPI applications raise { 404, message } for what they do not have.
local function failed(request, err)
  if type(err) ~= "table" or err[1] ~= 404 then error(err, 0) end
  request:send_status("404 Not Found")
  request:send_header("Content-Type", "text/plain; charset=UTF-8")
  request:send_data(err[2] or "not found", "\n")
  return true
end

--- A `connect` function for an application: a function, a table with a function `run`, or a module's name.
return function(application, options)
  if type(application) == "string" then application = require(application) end
  if type(application) == "table" then application = application.run end
  if type(application) ~= "function" then
    error("bad argument #1 to 'moonbridge.wsapi' (function, table with 'run' or module name expected)", 2)
  end
  -- From Lua 5.4 on, `require` also returns where the module was found.
  if type(options) == "string" then options = nil end
  -- Keeps the traceback of errors for the log.
  local function trace(err)
    return type(err) == "table" and err or debug.traceback(tostring(err), 2)
  end
  return http.generate_handler(function(request)
    local env = environment(request)
    -- In a function of its own: Lua 5.1's xpcall passes no arguments on.
    local ok, status, headers, chunks = xpcall(function() return application(env) end, trace)
    if not ok then return failed(request, status) end
    return respond(request, status, headers, chunks)
  end, options)
end
