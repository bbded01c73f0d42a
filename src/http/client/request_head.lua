-- The head of a request: the caller's fields, validated, and the client's own.

local native = ...

local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type
local math_type, tointeger, tonumber = math.type, math.tointeger, tonumber
local concat, remove = table.concat, table.remove
local find, format, lower = string.find, string.format, string.lower

local USER_AGENT = "moonbridge/" .. native.version
local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"
local CONTROL = "[^\t%C]" -- but for tabs

-- Fields that the client handles itself. Each function updates the job or returns an error message.
local known = {}

known["host"] = function(job)
  if job.has_host then return "header Host is given twice" end
  job.has_host = true
end
known["user-agent"] = function(job) job.has_agent = true end
known["authorization"] = function(job) job.has_authorization = true end

-- What the caller sends is not sent by `trace` as well.
for _, name in ipairs { "x-request-id", "traceparent", "tracestate" } do
  known[name] = function(job) job.has_trace[name] = true end
end

known["connection"] = function(job, value)
  value = lower(value)
  if value == "close" then
    job.keep = false
  elseif value ~= "keep-alive" then
    return "header Connection is the client's own, except for 'close' and 'keep-alive'"
  end
  return nil, true
end

known["content-length"] = function(job, value)
  local length = find(value, "^%d+$") and tointeger(tonumber(value))
  if not length then return "invalid header value of Content-Length" end
  if job.send_cb then
    job.length = length
  elseif length ~= #(job.body or "") then
    return "header Content-Length differs from the length of the body"
  end
  return nil, true
end

known["transfer-encoding"] = function(job, value)
  if lower(value) ~= "chunked" or not job.send_cb then
    return "header Transfer-Encoding can only be 'chunked', with a send callback"
  end
  job.chunked = true
  return nil, true
end

known["expect"] = function(job, value)
  if job.no_expect then return nil, true end
  job.expects = lower(value) == "100-continue" and (job.body or job.send_cb) ~= nil
  job.expected = job.expects
end

-- Adds the line of one field; returns an error message if it is invalid.
local function add(job, lines, name, value)
  if type(name) ~= "string" or not find(name, TOKEN) then
    return format("invalid header name %q", tostring(name))
  end
  -- A length that was computed may be a float: 3.0 is sent as 3.
  if math_type(value) then value = tostring(tointeger(value) or value) end
  if type(value) ~= "string" or find(value, CONTROL) then return "invalid header value of " .. name end
  local rule = known[lower(name)]
  if rule then
    local wrong, left_out = rule(job, value)
    if wrong or left_out then return wrong end
  end
  lines[#lines + 1] = name .. ": " .. value
end

-- Adds the caller's fields: name → value or list of values, or list of {name, value}.
local function add_all(job, lines)
  for name, value in pairs(job.headers) do
    local wrong
    if type(value) ~= "table" then
      wrong = add(job, lines, name, value)
    elseif math_type(name) then
      wrong = add(job, lines, value[1], value[2])
    else
      for _, each in ipairs(value) do wrong = wrong or add(job, lines, name, each) end
    end
    if wrong then return wrong end
  end
  if job.length and job.chunked then
    return "headers Content-Length and Transfer-Encoding exclude each other"
  end
end

-- Adds the fields that name the request for which this one is sent.
local function add_trace(job, lines)
  local has, is_traced = job.has_trace, job.has_trace.traceparent
  for _, field in ipairs(job.trace) do
    local name, value = field[1], field[2]
    -- A state belongs to its traceparent.
    if value and not has[lower(name)] and not (is_traced and name == "tracestate") then
      local wrong = add(job, lines, name, value)
      if wrong then return wrong end
    end
  end
end

-- Methods that RFC 9110 9.3 defines with content: they send a length even without a body.
local with_content = { POST = true, PUT = true, PATCH = true }

-- Adds the lines for framing and connection persistence.
local function add_own(job, lines, url)
  if not job.has_agent then lines[#lines + 1] = "User-Agent: " .. USER_AGENT end
  if url.authorization and not job.has_authorization then
    lines[#lines + 1] = "Authorization: " .. url.authorization
  end
  if job.length then
    lines[#lines + 1] = format("Content-Length: %d", job.length)
  elseif job.send_cb then
    lines[#lines + 1] = "Transfer-Encoding: chunked"
  elseif job.body or with_content[job.method] then
    lines[#lines + 1] = format("Content-Length: %d", #(job.body or ""))
  end
  if not job.keep then lines[#lines + 1] = "Connection: close" end
end

--- The head of the job's request.
-- @return the bytes, or nil and a message
return function(job)
  local url, method = job.url, job.method
  local plain = method == "GET" and not job.headers and not job.body and not job.send_cb and job.keep
    and not job.trace and not job.proxy
  if plain and url.plain_head then return url.plain_head end
  if not find(method, TOKEN) or method == "CONNECT" then
    return nil, format("invalid method %q", method)
  end
  job.has_host, job.has_agent, job.has_authorization = nil, nil, nil
  job.length, job.chunked, job.expects = nil, nil, nil
  job.has_trace = {}
  local lines = { "", "" }
  local wrong = job.headers and add_all(job, lines)
  wrong = wrong or job.trace and add_trace(job, lines)
  if wrong then return nil, wrong end
  add_own(job, lines, url)
  -- To a proxy a request names its server in full (RFC 9112 3.2.2); through a tunnel it goes to the server.
  local forwarded = job.proxy and not url.secure
  lines[1] = method .. " " .. (forwarded and "http://" .. url.authority or "") .. url.target .. " HTTP/1.1"
  if forwarded and job.proxy.authorization then
    lines[#lines + 1] = "Proxy-Authorization: " .. job.proxy.authorization
  end
  lines[2] = "Host: " .. url.authority
  if job.has_host then remove(lines, 2) end
  local head = concat(lines, "\r\n") .. "\r\n\r\n"
  if plain then url.plain_head = head end
  return head
end
