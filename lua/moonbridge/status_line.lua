-- The status line of a framework's status, which may be a number without a reason phrase.

local LINES = {}
for line in ([[
  200 OK|201 Created|202 Accepted|204 No Content|206 Partial Content|301 Moved Permanently|302 Found
  303 See Other|304 Not Modified|307 Temporary Redirect|308 Permanent Redirect|400 Bad Request
  401 Unauthorized|403 Forbidden|404 Not Found|405 Method Not Allowed|409 Conflict|410 Gone
  413 Content Too Large
  422 Unprocessable Content|429 Too Many Requests|500 Internal Server Error|503 Service Unavailable
]]):gmatch("%d[^|\n]*") do
  LINES[tonumber(line:sub(1, 3))] = line
end

--- `status` is a number, or text that begins with three digits and may already have a reason phrase.
-- Reason phrases are optional (RFC 9112 4), so numbers that are not in the list are sent without one.
-- Anything else stays as it is: send_status says what is wrong with it.
return function(status)
  local line = LINES[status]
  if line then return line end
  local code = tostring(status):match("^(%d%d%d)%.?0?$")
  return code and (LINES[tonumber(code)] or code .. " ") or status
end
