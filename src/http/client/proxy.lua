-- Proxies: the one of a request, and those that the environment names, as curl reads it.

local native = ...

local format, gmatch, lower, sub = string.format, string.gmatch, string.lower, string.sub
local getenv = os.getenv

local proxy = {}

-- A variable in lower or upper case; an empty one is none.
local function variable(name)
  local value = getenv(name)
  -- A CGI program gets HTTP_PROXY from a header of its client's.
  if not value and name ~= "http_proxy" then value = getenv(name:upper()) end
  return value ~= "" and value or nil
end

-- Whether a list of hosts and domains, separated by commas or blanks, has the host in it.
local function lists(list, host)
  for name in gmatch(lower(list), "[^,%s]+") do
    if name == "*" then return true end
    local domain = name:gsub("^%.", ""):gsub("^%[(.*)%]$", "%1")
    if host == domain or sub(host, -#domain - 1) == "." .. domain then return true end
  end
  return false
end

-- The proxy that the environment names for a URL; nil if there is none.
local function of_environment(url)
  local except = variable("no_proxy")
  if except and lists(except, url.host) then return nil end
  return variable(url.secure and "https_proxy" or "http_proxy") or variable("all_proxy")
end

--- The proxy for a URL.
-- @param setting option `proxy` of the request
-- @return {host, port, key, authorization}, or false for none; or nil and a message
function proxy.of(setting, url)
  if not setting or not url.host then return false end
  local text = setting
  if setting == true then text = of_environment(url) end
  if not text then return false end
  if not text:find("://", 1, true) then text = "http://" .. text end
  local scheme = lower(text:match("^(.-)://"))
  if scheme ~= "http" then
    return nil, format("proxy: %q is not supported, only http is", scheme)
  end
  local found, message = native.parse(text)
  if found then return found end
  return nil, format("proxy: %s", message)
end

return proxy
