-- Redirects: which to follow, and how they change the request (RFC 9110 15.4).

local native = ...

local lower, math_type, pairs, type = string.lower, math.type, pairs, type

local redirect = {}

-- Headers that are not sent to another server, and headers that describe a body that is not sent again.
local private = { authorization = true, cookie = true, ["proxy-authorization"] = true, host = true }
local of_content = {
  ["content-encoding"] = true, ["content-language"] = true, ["content-length"] = true,
  ["content-location"] = true, ["content-type"] = true, ["transfer-encoding"] = true, expect = true,
}

-- A copy of the caller's headers without the named fields.
local function without(headers, names)
  local allowed = {}
  for name, value in pairs(headers or {}) do
    local text = math_type(name) and type(value) == "table" and value[1] or name
    if not (type(text) == "string" and names[lower(text)]) then allowed[name] = value end
  end
  return allowed
end

-- RFC 9110 15.4.2 to 15.4.4: POST becomes GET, and after 303 anything but HEAD does.
local function becomes_get(job, status)
  return status == 303 and job.method ~= "HEAD" or (status == 301 or status == 302) and job.method == "POST"
end

local redirecting = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

--- Whether a response redirects the job (RFC 9110 15.4), and the job can be sent again.
function redirect.applies(job, status, headers)
  local location = headers.location
  if not job.follow or not redirecting[status] or not location or location == "" then return false end
  return not job.had_send_cb or becomes_get(job, status)
end

--- Updates the job to follow the redirect.
-- @return true, or nil and a message
function redirect.follow(job, status, headers)
  if job.redirects <= 0 then return nil, "too many redirects" end
  job.redirects = job.redirects - 1
  local from = job.url
  local url, message = native.join(from, headers.location)
  if not url then return nil, "redirected: " .. message end
  if url.key == from.key then
    url.authorization = url.authorization or from.authorization
  else
    job.headers, job.trace = without(job.headers, private), nil
    if job.tls then job.tls, job.tls_number = native.elsewhere(job.tls) end
  end
  if becomes_get(job, status) then
    job.method, job.body, job.send_cb, job.had_send_cb = "GET", nil, nil, nil
    job.headers = without(job.headers, of_content)
  end
  job.url = url
  return true
end

return redirect
