-- Methods of requests for common responses: send, redirect, set_cookie, signed_cookie.

local native, http = ...

local error, format, ipairs, pairs, type = error, string.format, ipairs, pairs, type
local byte, find, gsub, match, sub = string.byte, string.find, string.gsub, string.match, string.sub
local concat, tostring, floor = table.concat, tostring, math.floor

local function misuse(level, ...) error(format(...), level + 1) end

local function hex(text)
  return (gsub(text, ".", function(char) return format("%02x", byte(char)) end))
end

local SECRET = "a string of at least 16 bytes, or a list of such strings"

-- Secrets as a list: the first one signs, all of them verify. Nil if the value is not SECRET.
local function secrets(value)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" or #value == 0 then return nil end
  for _, secret in ipairs(value) do
    if type(secret) ~= "string" or #secret < 16 then return nil end
  end
  return value
end

local function signature(secret, name, value)
  return hex(http.hmac_sha256(secret, name .. "=" .. value))
end

local function is_boolean(value) return type(value) == "boolean" end

local function matches(pattern)
  return function(value) return type(value) == "string" and find(value, pattern) end
end

-- What each field of a cookie may be.
local checks = {
  name = { "a token", matches "^[%w!#$%%&'*+.^_`|~-]+$" },
  value = { "a string or a number",
    function(value) return type(value) == "string" or type(value) == "number" end },
  max_age = { "a number of seconds",
    function(value) return type(value) == "number" and value >= 0 and value <= 1e15 end },
  path = { 'a path that begins with "/", of ASCII characters', matches "^/[ -:<-~]*$" },
  domain = { "a host name", matches "^[%w.-]+$" },
  secure = { "a boolean", is_boolean },
  http_only = { "a boolean", is_boolean },
  same_site = { '"Strict", "Lax" or "None"',
    function(value) return value == "Strict" or value == "Lax" or value == "None" end },
  secret = { SECRET, secrets },
}

local function check_cookie(cookie)
  if type(cookie) ~= "table" then misuse(3, "set_cookie expects a table, got a %s", type(cookie)) end
  for key, value in pairs(cookie) do
    local check = checks[key]
    if not check then misuse(3, "Unknown field %q of a cookie", tostring(key)) end
    if not check[2](value) then misuse(3, "Field %q of a cookie must be %s", key, check[1]) end
  end
  for _, key in ipairs { "name", "value" } do
    if cookie[key] == nil then misuse(3, "Field %q of a cookie is missing", key) end
  end
  -- Browsers silently drop such cookies (RFC 6265bis 4.1.3 and 5.7).
  local name = cookie.name:lower()
  local is_of_host = cookie.secure and cookie.path == "/" and not cookie.domain
  if sub(name, 1, 7) == "__host-" and not is_of_host then
    misuse(3, 'Cookie %q must have secure = true, path = "/" and no domain', cookie.name)
  end
  if not cookie.secure and (sub(name, 1, 9) == "__secure-" or cookie.same_site == "None") then
    misuse(3, "Cookie %q must have secure = true", cookie.name)
  end
end

-- Name and value of a cookie that browsers keep, in bytes (RFC 6265bis 5.7).
local LONGEST = 4096

-- The value of Set-Cookie (RFC 6265 4.1.1). What a cookie cannot hold is encoded: request.cookies decodes it.
local function cookie_line(cookie)
  local value = tostring(cookie.value)
  if cookie.secret ~= nil then
    value = value .. "." .. signature(secrets(cookie.secret)[1], cookie.name, value)
  end
  value = gsub(value, "[^!#$&'()*+./0-9:<=>?@A-Z%[%]^_`a-z{|}~-]", function(char)
    return format("%%%02X", byte(char))
  end)
  if #cookie.name + #value > LONGEST then
    misuse(3, "Cookie %q is too long: name and encoded value have %d bytes, browsers keep %d", cookie.name,
      #cookie.name + #value, LONGEST)
  end
  local parts = { cookie.name .. "=" .. value }
  local function add(...) parts[#parts + 1] = format(...) end
  if cookie.max_age then add("Max-Age=%d", floor(cookie.max_age)) end
  if cookie.domain then add("Domain=%s", cookie.domain) end
  if cookie.path then add("Path=%s", cookie.path) end
  if cookie.secure then add("Secure") end
  if cookie.http_only then add("HttpOnly") end
  if cookie.same_site then add("SameSite=%s", cookie.same_site) end
  return concat(parts, "; ")
end

local REDIRECTS = {
  [301] = "301 Moved Permanently", [302] = "302 Found", [303] = "303 See Other",
  [307] = "307 Temporary Redirect", [308] = "308 Permanent Redirect",
}

-- Finds a field in a table of headers, whatever its case.
local function find_header(headers, wanted)
  for name, value in pairs(headers) do
    if name:lower() == wanted then return value end
  end
end

-- What send adds itself, or leaves to the server.
local OWN = { ["content-length"] = true, ["transfer-encoding"] = true }

-- Misuse is found before the status is sent. Returns the validators.
local function check_headers(headers, content_type)
  if type(headers) ~= "table" then
    misuse(3, "send expects a table of headers, got a %s", type(headers))
  end
  for name, value in pairs(headers) do
    if type(name) ~= "string" or type(value) ~= "string" and type(value) ~= "number" then
      misuse(3, "send expects headers as strings, got %s = %s", tostring(name), type(value))
    end
    local key = name:lower()
    if OWN[key] or key == "content-type" and content_type ~= nil then
      misuse(3, "send has its own %s: leave it out of the headers", name)
    end
    local fault = native.header_fault(name, tostring(value))
    if fault then misuse(3, "%s: %s", fault, name) end
  end
  local tag, modified = find_header(headers, "etag"), find_header(headers, "last-modified")
  if tag ~= nil and not (type(tag) == "string" and native.is_tag(tag)) then
    misuse(3, 'ETag must be in double quotes, as in "\\"v1\\""')
  end
  if type(modified) == "number" then modified = native.date(modified) end
  if modified ~= nil and not (type(modified) == "string" and native.is_date(modified)) then
    misuse(3, "Last-Modified must be a date of HTTP, or a number of seconds since 1970")
  end
  return tag, modified
end

-- Adds the methods.
return function(steps, methods)
  local send_header, send_data = methods.send_header, methods.send_data

  function methods.set_cookie(this, cookie)
    steps.check_self(this, "set_cookie")
    check_cookie(cookie)
    steps.early_header("Set-Cookie", cookie_line(cookie))
  end

  function methods.signed_cookie(this, name, secret)
    steps.check_self(this, "signed_cookie")
    local list = secrets(secret) or misuse(2, "signed_cookie expects a secret: %s", SECRET)
    if type(name) ~= "string" then misuse(2, "signed_cookie expects a name, got a %s", type(name)) end
    local cookie = this.cookies[name]
    if not cookie then return nil end
    local value, told = match(cookie, "^(.*)%.(%x+)$")
    if not value then return nil end
    local is_right = false
    for _, each in ipairs(list) do
      if http.equal(signature(each, name, value), told) then is_right = true end
    end
    return is_right and value or nil
  end

  function methods.redirect(this, location, status)
    steps.check_self(this, "redirect")
    if type(location) ~= "string" or location == "" or find(location, "[^!-~]") then
      misuse(2, "redirect expects a URI, without spaces, control and non-ASCII characters")
    end
    if type(status) ~= "string" then status = REDIRECTS[status or 303] end
    if not status or not match(status, "^30[12378]") then
      misuse(2, "redirect expects one of the statuses 301, 302, 303, 307 and 308")
    end
    this:send_status(status)
    send_header(this, "Location", location)
    send_header(this, "Content-Length", 0)
    send_data(this)
  end

  function methods.send(this, status, content_type, content, headers)
    steps.check_self(this, "send")
    local text = content == nil and "" or content
    if type(text) == "number" then text = tostring(text) end
    if type(text) ~= "string" then misuse(2, "send expects a string as body, got a %s", type(content)) end
    if content_type ~= nil and type(content_type) ~= "string" then
      misuse(2, "send expects a string as type, got a %s", type(content_type))
    end
    if content_type and find(content_type, "%c") then misuse(2, "send expects a media type as type") end
    if find(tostring(status), "^1") then misuse(2, "send expects a final status, not %s", status) end
    local tag, modified
    if headers ~= nil then tag, modified = check_headers(headers, content_type) end
    local method, is_body_sent = this.method, true
    if (tag or modified) and find(tostring(status), "^200") and (method == "GET" or method == "HEAD") then
      local given = this.headers_csv_string
      local code = native.precondition(tag, modified, given["If-Match"], given["If-None-Match"],
        given["If-Unmodified-Since"], given["If-Modified-Since"])
      if code == 412 then
        this:send_status "412 Precondition Failed"
        send_header(this, "Content-Length", 0)
        return send_data(this)
      end
      if code then status, is_body_sent = "304 Not Modified", false end
    end
    this:send_status(status)
    if headers then
      for name, value in pairs(headers) do
        if name:lower() == "last-modified" then value = modified end
        send_header(this, name, value)
      end
    end
    if not is_body_sent or find(tostring(status), "^20[45]") or find(tostring(status), "^304") then
      return send_data(this)
    end
    if content_type ~= nil then send_header(this, "Content-Type", content_type) end
    send_header(this, "Content-Length", #text)
    send_data(this, text)
  end
end
