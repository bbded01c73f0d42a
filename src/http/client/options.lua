-- Validates the arguments of a request and turns them into a job.
--
-- A wrong type is the caller's mistake and throws. An invalid URL, header or method may come from user input,
-- so it returns nil and a message.

local native, protocol, callback = ...

local error, format, getmetatable, math_type = error, string.format, getmetatable, math.type
local next, pairs = next, pairs
local sort, tointeger, tostring, type = table.sort, math.tointeger, tostring, type

local options = {}

--- Default timeout for connecting, and for each wait, in seconds.
options.TIMEOUT = 60
--- Default maximum number of redirects.
options.REDIRECTS = 5
--- Default lifetime of an idle connection, in seconds.
options.KEEPALIVE = 30
--- Default maximum size of a body that is returned as a string.
options.BODY_LIMIT = 1073741824

--- A cache of parsed URLs by text.
options.parsed = {}

local parsed, parsed_count = options.parsed, 0

local function parse_url(text)
  if parsed[text] then return parsed[text] end
  local url, message = native.parse(text)
  if not url then return nil, message end
  if parsed_count >= 256 then
    for known in next, parsed do parsed[known] = nil end
    parsed_count = 0
  end
  parsed[text], parsed_count = url, parsed_count + 1
  return url
end

-- A number with an integer value, not below `least`; it may be a float.
local function is_integer(value, least)
  local integer = math_type(value) and tointeger(value)
  return integer and integer >= least
end

-- A positive number of seconds.
local function is_time(value)
  return math_type(value) and value > 0 and value < 1e9
end

local function callable_or_nil(value)
  return value == nil or protocol.callable(value)
end

local checks = {
  url = { "a string", function(value) return type(value) == "string" end },
  method = { "a string", function(value) return type(value) == "string" end },
  headers = { "a table", function(value) return type(value) == "table" end },
  body = { "a string or a send callback",
    function(value) return type(value) == "string" or protocol.callable(value) end },
  source = { "an ltn12 source", callable_or_nil },
  receive = { "a receive callback", callable_or_nil },
  sink = { "an ltn12 sink", callable_or_nil },
  head = { "a function", callable_or_nil },
  interim = { "a function", callable_or_nil },
  timeout = { "a positive number of seconds, or a table {connect=, stall=, total=} of such",
    function(value)
      if type(value) ~= "table" then return is_time(value) end
      for name, seconds in pairs(value) do
        local known = name == "connect" or name == "stall" or name == "total"
        if not known or not is_time(seconds) then return false end
      end
      return true
    end },
  redirect = { "a boolean or a number of redirects",
    function(value) return type(value) == "boolean" or is_integer(value, 0) end },
  keepalive = { "a boolean or a number of seconds",
    function(value) return type(value) == "boolean" or value == 0 or is_time(value) end },
  trace = { "a request that is being handled",
    function(value)
      local meta = type(value) == "table" and getmetatable(value)
      return type(meta) == "table" and meta.__name == "moonbridge.request" and meta.is_handled
    end },
  tls = { "a table", function(value) return type(value) == "table" end },
  proxy = { "the URL of a proxy, true for that of the environment, or false",
    function(value) return type(value) == "string" or type(value) == "boolean" end },
  lenient = { "a boolean", function(value) return type(value) == "boolean" end },
  body_limit = { "a positive integer",
    function(value) return is_integer(value, 1) end },
}

local function unknown(name)
  local names = {}
  for known in next, checks do names[#names + 1] = known end
  sort(names)
  local similar = native.nearest(name, names)
  return format("unknown option '%s'%s", name, similar and format("; did you mean '%s'?", similar) or "")
end

-- An error message for invalid options; nil if they are valid.
local function misuse(given)
  for name, value in next, given do
    local check = checks[name]
    if not check then return unknown(tostring(name)) end
    if not check[2](value) then
      return format("option '%s' is expected to be %s, got %s", name, check[1], type(value))
    end
  end
  if given.url == nil then return "option 'url' is missing" end
  if given.body ~= nil and given.source ~= nil then
    return "options 'body' and 'source' exclude each other"
  end
  if given.receive ~= nil and given.sink ~= nil then
    return "options 'receive' and 'sink' exclude each other"
  end
end

local FORM = { ["Content-Type"] = "application/x-www-form-urlencoded" }

-- The short form: a URL and a body to post.
local function from_url(url, body)
  return { url = url, body = body, headers = type(body) == "string" and FORM or nil }
end

-- A number, true for the default, or false for `none`.
local function choice(value, default, none)
  if value == nil or value == true then return default end
  return value or none
end

-- What names a request across services, as fields for another one.
local function trace(request)
  return {
    { "X-Request-Id", request.id },
    { "traceparent", native.passed_on(request.traceparent) },
    { "tracestate", request.tracestate },
  }
end

-- The job for valid options.
local function from_options(given, url)
  local content = given.body
  if given.source then content = callback.from_source(given.source) end
  local text = type(content) == "string" and content or nil
  local timeout = given.timeout
  local tls, tls_number
  if given.tls then tls, tls_number = native.tls(given.tls) end
  local times = type(timeout) == "table" and timeout or { connect = timeout, stall = timeout }
  return {
    url = url,
    method = given.method or content ~= nil and "POST" or "GET",
    headers = given.headers,
    body = text,
    send_cb = text == nil and content or nil,
    receive_cb = given.receive or given.sink and callback.from_sink(given.sink) or nil,
    on_head = given.head,
    on_interim = given.interim,
    redirects = choice(given.redirect, options.REDIRECTS, 0),
    follow = given.redirect ~= false and given.redirect ~= 0,
    keep = given.keepalive ~= 0 and choice(given.keepalive, options.KEEPALIVE, false),
    body_limit = given.body_limit or options.BODY_LIMIT,
    lenient = given.lenient,
    tls = tls,
    tls_number = tls_number,
    via = given.proxy,
    trace = given.trace and trace(given.trace),
    connect_timeout = times.connect or options.TIMEOUT,
    stall_timeout = times.stall or options.TIMEOUT,
    deadline = times.total and native.now() + times.total,
  }
end

-- The job for a URL without options.
local function from_defaults(url)
  return {
    url = url, method = "GET", redirects = options.REDIRECTS, follow = true, keep = options.KEEPALIVE,
    body_limit = options.BODY_LIMIT, connect_timeout = options.TIMEOUT, stall_timeout = options.TIMEOUT,
  }
end

--- The job for the arguments of a request.
-- @return job; or nil and a message if it is to be thrown; or job and a message if the URL is invalid
function options.job(first, body)
  local given = first
  if type(first) == "string" then
    if body == nil then
      local url, message = parse_url(first)
      return from_defaults(url), message
    end
    given = from_url(first, body)
  elseif type(first) ~= "table" then
    local text = "bad argument #1 to 'request' (URL or table of options expected, got %s)"
    return nil, format(text, type(first))
  end
  local wrong = misuse(given)
  if wrong then return nil, "bad argument to 'request' (" .. wrong .. ")" end
  local url, message = parse_url(given.url)
  return from_options(given, url), message
end

--- Throws an error with the position of the caller of a public function.
function options.throw(message)
  error(message, 3)
end

return options
