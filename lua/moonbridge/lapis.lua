-- moonbridge.lapis: runs applications for Lapis as a `connect` function.

local http = require "moonbridge.http"
local status_line = require "moonbridge.status_line"

-- The key of the request of moonbridge.http in the tables that are made of it.
local REQUEST = {}

local SLASH = ("/"):byte()
local FORM = "application/x-www-form-urlencoded"
local FIELD_COUNT_LIMIT = 4096 -- as request_field_count_limit by default

-- Lapis has `true` for parameters without a value; get_params and parse_query make "" of them.
local function mark_flags(params, query)
  for segment in query:gmatch("[^&]+") do
    if not segment:find("=", 1, true) then
      local name = http.decode_uri(segment)
      if params[name] == "" then params[name] = true end
    end
  end
end

-- The last value of each parameter, as Lapis wants it.
local function last_values(lists, query)
  local params, has_empty = {}, false
  for name, values in pairs(lists) do
    local value = values[#values]
    params[name] = value
    has_empty = has_empty or value == ""
  end
  if has_empty then mark_flags(params, query) end
  return params
end

-- A form of the type that browsers use by default. Its text stays readable as the body.
local function urlencoded(req, request)
  local body = request.body
  local _, separators = body:gsub("&", "")
  if separators >= FIELD_COUNT_LIMIT then
    request:send("413 Content Too Large", "text/plain", "Too many fields in form\n")
    req.is_refused = true
    error("Too many fields in form", 0)
  end
  local _, lists = http.parse_query(body)
  return last_values(lists, body)
end

-- Files are tables, other fields strings. Which part is a file depends on whether it has a type of its own.
local function multipart(request)
  local params, values, metadata = {}, request.post_params_list, request.post_metadata_list
  for name, list in pairs(values) do
    local count = #list
    local about = metadata[name] and metadata[name][count]
    params[name] = list[count]
    if about and about.content_type then
      params[name] = {
        name = name,
        filename = about.file_name,
        ["content-type"] = about.content_type,
        content = list[count],
      }
    end
  end
  return params
end

-- Header fields by their names in any case, and with `_` for `-`; those of several lines are lists.
local headers_of = {}

function headers_of.__index(headers, name)
  if type(name) ~= "string" then return nil end
  local request = rawget(headers, REQUEST)
  local value = request.headers_value[name:gsub("_", "-")]
  if value ~= false then return value end
  local list = {}
  for index, line in ipairs(request.headers[name:gsub("_", "-")]) do list[index] = line end
  return list
end

function headers_of.__pairs(headers)
  local all = {}
  for name in pairs(rawget(headers, REQUEST).headers) do all[name] = headers[name] end
  return next, all
end

-- The fields of a request that Lapis and its applications read, computed when they are.
local fields = {}

function fields.headers(_, request)
  local headers = setmetatable({ [REQUEST] = request }, headers_of)
  -- Lua 5.1 and LuaJIT do not know __pairs: a table with all fields, and other ways to write their names.
  if _VERSION == "Lua 5.1" then
    local _, all = headers_of.__pairs(headers)
    headers = setmetatable(all, { __index = headers })
  end
  return headers
end

function fields.method(_, request) return request.method end
function fields.request_uri(_, request) return request.target end
function fields.remote_addr(_, request) return request.client_ip or "unix:" end
function fields.scheme(_, request) return request.scheme end
function fields.server_addr(_, request) return request.socket.local_ip end

function fields.port(_, request)
  return tostring(request.socket.local_tcpport or "")
end

function fields.parsed_url(_, request)
  local host, port = request.host:lower(), nil
  if host:find(":", 1, true) then
    host = host:gsub(":(%d+)$", function(digits)
      port = digits
      return ""
    end)
  end
  local path, query = request.path, request.query or ""
  -- With several slashes, Lapis would redirect to a host of the client's choice.
  if path and path:byte() == SLASH then path = path:gsub("^/+", "") end
  return {
    scheme = request.scheme,
    host = host ~= "" and host or request.socket.local_ip,
    port = port,
    path = path and "/" .. path or "*",
    query = query ~= "" and query:sub(2) or nil,
  }
end

function fields.params_get(_, request)
  local query = request.query
  if not query or query == "" then return {} end
  return last_values(request.get_params_list, query:sub(2))
end

function fields.params_post(req, request)
  local kind = request.headers_value["Content-Type"]
  if not kind then return {} end
  kind = kind:lower()
  if kind:find("multipart/form-data", 1, true) then
    req.is_form_read = true
    return multipart(request)
  end
  return kind:find(FORM, 1, true) and urlencoded(req, request) or {}
end

-- Nil once a multipart form was made of the body.
function fields.read_body_as_string(_, request)
  return function(req) return not req.is_form_read and request.body or nil end
end

-- Older names.
function fields.cmd_mth(req) return req.method end
function fields.cmd_url(req) return req.request_uri end
function fields.srv(req) return req.server_addr end
function fields.relpath(req) return req.parsed_url.path end
function fields.referer(req) return req.headers.referer or "" end
function fields.built_url(req) return require("lapis.util").build_url(req.parsed_url) end

--- For actions that answer themselves: the request of moonbridge.http.
function fields.moonbridge(_, request) return request end

local req_meta = {}

function req_meta.__index(req, key)
  local make = fields[key]
  if not make then return nil end
  local value = make(req, rawget(req, REQUEST))
  rawset(req, key, value)
  return value
end

-- Names that most responses have, as they are.
local COMMON = {}
for name in ("Content-Type Content-Length Location Set-Cookie"):gmatch "%S+" do COMMON[name] = name end

local function canonical(name)
  return COMMON[name]
    or type(name) == "string" and name:gsub("_", "-"):lower():gsub("%f[%a]%a", string.upper) or name
end

-- Headers of the response: one entry for each name, however it is written.
local headers_meta = {
  __index = function(headers, name) return rawget(headers, canonical(name)) end,
  __newindex = function(headers, name, value) rawset(headers, canonical(name), value) end,
}

local function add_header(res, name, value)
  local old = res.headers[name]
  if old == nil then
    res.headers[name] = value
  elseif type(old) == "table" then
    old[#old + 1] = value
  else
    res.headers[name] = { old, value }
  end
end

-- Statuses without a body, which a layout may have rendered all the same.
local EMPTY = { ["204"] = true, ["205"] = true, ["304"] = true }

-- With a `failure` the response is an error page. It is too late if the action has begun to send: the error
-- then breaks off its response. `skips`: the action may have sent its response itself.
local function respond(request, res, failure, skips)
  local status = status_line(res.status or 200)
  local is_in_time, message = pcall(request.send_status, request, status)
  if not is_in_time then
    if skips and not failure then return end
    error(failure and failure.message .. failure.trace or message, 0)
  end
  local content = res.content
  for name, values in pairs(res.headers) do
    -- How the body is framed is this server's business.
    if name ~= "Transfer-Encoding" and not (content and name == "Content-Length") then
      if type(values) == "table" then
        for _, value in ipairs(values) do request:send_header(name, value) end
      else
        request:send_header(name, values)
      end
    end
  end
  if EMPTY[status:sub(1, 3)] then return end
  if content then
    request:send_header("Content-Length", #content)
    request:send_data(content)
  elseif request.method ~= "HEAD" and res.headers["Content-Length"] == nil then
    request:send_header("Content-Length", 0)
  end
end

-- Errors of actions, by the request objects of Lapis, which only shows them in its error page.
local failures = setmetatable({}, { __mode = "k" })

local function note_failures(app)
  local handle_error = app.handle_error
  function app.handle_error(r, err, trace)
    failures[r.req] = { message = tostring(err), trace = trace or "" }
    return handle_error(r, err, trace)
  end
end

local function answer(app, request)
  local req = setmetatable({ [REQUEST] = request }, req_meta)
  local res = { req = req, headers = setmetatable({}, headers_meta), add_header = add_header }
  local _, r = app:dispatch(req, res)
  local failure = failures[req]
  -- The client is gone, or its body was refused: an error of the action is the consequence.
  if request.faulty or req.is_refused then return end
  respond(request, res, failure, r and r.options.skip_render)
  if failure then
    http.error_log(request, failure.message)
    io.stderr:write(failure.trace, "\n")
  end
end

-- The log shows escape sequences for colors as they are.
local function print_plainly(...)
  io.stderr:write((table.concat({ ... }, "\t"):gsub("\27%[[%d;]*m", "")), "\n")
end

local function load(application)
  require("lapis.logging").set_print(print_plainly)
  local app = require("lapis").load_app(application)
  note_failures(app)
  return app
end

--- A `connect` function for an application: a module's name, a class or an instance; by default the module
-- that the configuration names, or "app".
return function(application, options)
  local kind = type(application)
  if kind ~= "nil" and kind ~= "string" and kind ~= "table" then
    error("bad argument #1 to 'moonbridge.lapis' (application or module name expected)", 2)
  end
  -- From Lua 5.4 on, `require` also returns where the module was found.
  if type(options) == "string" then options = nil end
  local is_cached, http_options = true, {}
  for name, value in pairs(options or {}) do
    if name == "code_cache" then
      is_cached = value and value ~= "off" and value ~= "app_only"
    else
      http_options[name] = value
    end
  end
  local app = is_cached and load(application)
  return http.generate_handler(function(request)
    answer(app or load(application), request)
    -- Without the cache, a worker answers one request, so that the next one finds the code as it is then.
    return is_cached
  end, http_options)
end
