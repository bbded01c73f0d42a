-- What the fields of a request cost in the handler, of heads of 1 MiB that are made to be expensive:
-- processor time of the field and one entry of it. Fails if one takes 50 ms, or more than 2.5 times
-- as long as half of it.

local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"

local MIB = 1048576 - 200
local CEILING, DOUBLING = 50, 2.5
local ROUNDS = tonumber(os.getenv "ROUNDS") or 7

local bytes = {} -- those that stand for themselves in a target, a cookie and a list
for byte = 0x21, 0xff do
  local char = string.char(byte)
  if byte ~= 0x7f and not ('"#%&+,;=\\'):find(char, 1, true) then bytes[#bytes + 1] = char end
end

-- As many different words as fit, the shortest first.
local function words(size)
  local list, length = {}, 0
  local layer = { "" }
  while true do
    local longer = {}
    for _, prefix in ipairs(layer) do
      for _, char in ipairs(bytes) do
        local word = prefix .. char
        length = length + #word + 1
        if length > size then return list end
        list[#list + 1], longer[#longer + 1] = word, word
      end
    end
    layer = longer
  end
end

local function different(separator)
  return function(size) return table.concat(words(size - size // 5), separator) end
end

-- The order decides how often memory is not cached.
local function shuffled(before, separator)
  return function(size)
    local list = words(size * 4 // (4 + #before))
    math.randomseed(1)
    for i = #list, 2, -1 do
      local j = math.random(i)
      list[i], list[j] = list[j], list[i]
    end
    return (before .. table.concat(list, separator .. before)):sub(1, size)
  end
end

local function repeated(unit)
  return function(size) return unit:rep(size // #unit) end
end

local function target(request) return "GET /?" .. request .. " HTTP/1.1\r\nHost: a\r\n\r\n" end
local function cookie(text) return "GET / HTTP/1.1\r\nHost: a\r\nCookie: " .. text .. "\r\n\r\n" end
local function list(text) return "GET / HTTP/1.1\r\nHost: a\r\nList: " .. text .. "\r\n\r\n" end
local function lines(text) return "GET / HTTP/1.1\r\nHost: a\r\n" .. text .. "\r\n" end
local function form(text)
  return ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
    .. "Content-Type: application/x-www-form-urlencoded\r\n\r\n"):format(#text) .. text
end

local function params(request) return request.get_params.a end
local function params_list(request) return request.get_params_list.a end
local function cookies(request) return request.cookies.a end
local function csv_table(request) return request.headers_csv_table.list[1] end
local function flags(request) return request.headers_flags.list.a end

local CASES = {
  { "get_params: one name", params, target, repeated "a&" },
  { "get_params: two names", params, target, repeated "a&b&" },
  { "get_params: different names", params, target, different "&" },
  { "get_params: different names, shuffled", params, target, shuffled("", "&") },
  { "get_params: blanks", params, target, repeated "+&" },
  { "get_params: escapes", params, target, repeated "%61&" },
  { "get_params_list: different values", params_list, target, shuffled("a=", "&") },
  { "cookies: one name", cookies, cookie, repeated "a=;" },
  { "cookies: different names, shuffled", cookies, cookie, shuffled("", "=;") },
  { "headers_csv_table: one element", csv_table, list, repeated "a," },
  { "headers_csv_table: different, shuffled", csv_table, list, shuffled("", ",") },
  { "headers_csv_table: commas", csv_table, list, repeated "," },
  { "headers_flags: one element", flags, list, repeated "a," },
  { "headers_flags: different, shuffled", flags, list, shuffled("", ",") },
  { "headers_csv_string: commas", function(request) return request.headers_csv_string.list end, list,
    repeated "," },
  { "headers: lines of 1 KiB", function(request)
    for _, values in pairs(request.headers) do assert(values[1]) end
  end, lines, function(size)
    local all = {}
    for number = 1, size // 1100 do all[number] = number .. ": " .. ("x"):rep(1090) .. "\r\n" end
    return table.concat(all)
  end },
  { "post_params: as many as are taken", function(request) return request.post_params.a end, form,
    function(size)
      local all = {}
      for number = 1, 4095 * size // MIB do all[number] = number .. "=" .. ("%41"):rep(80) end
      return table.concat(all, "&")
    end },
}

local listener = assert(moonbridge_io.tcplisten("127.0.0.1", 0))

-- Milliseconds of processor time that `access` takes in the handler of a request.
local function measure(access, text)
  local client = assert(moonbridge_io.tcpconnect("127.0.0.1", listener.local_tcpport))
  local socket = assert(listener:accept())
  client:write_nb(text)
  local used
  local connect = http.generate_handler(function(request)
    collectgarbage()
    collectgarbage()
    local start = os.clock()
    access(request)
    used = (os.clock() - start) * 1000
    request:send_status("204 No Content")
    return false
  end, {
    poll_function = function(...)
      client:flush_nb()
      return moonbridge_io.poll(...)
    end,
  })
  connect(socket)
  client:reset()
  return used
end

-- The least of several measurements of both texts, taken in turn.
local function best(access, half, whole)
  local single, double = math.huge, math.huge
  for _ = 1, ROUNDS do
    single = math.min(single, measure(access, half))
    double = math.min(double, measure(access, whole))
  end
  return single, double
end

local failed = false
for _, case in ipairs(CASES) do
  local name, access, head, fill = table.unpack(case)
  local half, whole = head(fill(MIB // 2)), head(fill(MIB))
  collectgarbage()
  local single, double = best(access, half, whole)
  -- What takes hardly any time has no factor.
  local bad = double >= CEILING or double > 5 and double / single > DOUBLING
  failed = failed or bad
  print(("  %-44s %8.2f  (%.2f ms a MiB)%s"):format(name, double / single, double, bad and "  FAILED" or ""))
end
os.exit(not failed)
