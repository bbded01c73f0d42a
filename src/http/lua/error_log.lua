-- http.error_log: lines of the log that name a request.

local native = ...

local error, format, type, tostring = error, string.format, type, tostring

-- The key under which a request has the function that writes its lines.
local KEY = {}
native.error_log = KEY

local function misuse(position, expected, value)
  error(format("bad argument #%d to 'error_log' (%s expected, got %s)", position, expected, type(value)), 3)
end

--- http.error_log(request, text)
return function(request, text)
  local tell = type(request) == "table" and request[KEY]
  if not tell then misuse(1, "request", request) end
  if type(text) ~= "string" and type(text) ~= "number" then misuse(2, "string", text) end
  -- A tail call: the error of a request that is over has the caller's position.
  return tell(tostring(text))
end
