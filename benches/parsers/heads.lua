-- What the fields of a request cost in the handler, of heads of 1 MiB that are made to be expensive:
-- processor time of the field and one entry of it, or of its refusal. Fails if one takes 50 ms, or more
-- than 2.5 times as long as half of it.

local http = require "moonbridge_http"
local moonbridge_io = require "moonbridge_io"

local MIB = 1048576 - 200
local CEILING, DOUBLING = 50, 2.5
local ROUNDS = tonumber(os.getenv "ROUNDS") or 7

local LIMIT = 4096 -- entries that are taken

local function repeated(unit)
  return function(size) return unit:rep(size // #unit) end
end

-- As many entries as are taken of 1 MiB, which they fill: `make(number, width)` followed by `separator`.
local function entries(separator, make)
  return function(size)
    local list, width = {}, MIB // LIMIT - #separator
    for number = 1, LIMIT * size // MIB do
      local text = make(number, width)
      list[number] = text .. ("%41"):rep((width - #text) // 3)
    end
    return table.concat(list, separator)
  end
end

local function short(number) return number .. "=" end
local function long(number, width) return ("%d"):format(number):rep(width - 1):sub(1, width - 1) .. "=" end

-- Names that differ in bytes that Lua 5.3 does not hash, as many alike as are taken.
local function colliding(number, width)
  local len = width - 1
  local step, group, digits = len // 32 + 1, number // 256, number % 256
  local name = {}
  for place = 1, len do name[place] = "x" end
  name[len] = string.char(97 + group % 26)
  name[len - 1], name[len - 1 - step] = string.char(97 + digits // 16), string.char(97 + digits % 16)
  return table.concat(name) .. "="
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
  { "get_params: too many", params, target, repeated "a&" },
  { "get_params: short names", params, target, entries("&", short) },
  { "get_params: long names", params, target, entries("&", long) },
  { "get_params: long names that collide", params, target, entries("&", colliding) },
  { "get_params: escapes", params, target, repeated "%41" },
  { "get_params: separators", params, target, repeated "&" },
  { "get_params_list: one name", params_list, target, entries("&", function() return "a=" end) },
  { "cookies: too many", cookies, cookie, repeated "a=;" },
  { "cookies: long names", cookies, cookie, entries(";", long) },
  { "cookies: long names that collide", cookies, cookie, entries(";", colliding) },
  { "cookies: pieces without a value", cookies, cookie, repeated "a;" },
  { "headers_csv_table: too many", csv_table, list, repeated "a," },
  { "headers_csv_table: long elements", csv_table, list, entries(",", long) },
  { "headers_csv_table: commas", csv_table, list, repeated "," },
  { "headers_flags: too many", flags, list, repeated "a," },
  { "headers_flags: long elements that collide", flags, list, entries(",", colliding) },
  { "headers_csv_string: commas", function(request) return request.headers_csv_string.list end, list,
    repeated "," },
  { "headers: lines of 1 KiB", function(request)
    for _, values in pairs(request.headers) do assert(values[1]) end
  end, lines, function(size)
    local all = {}
    for number = 1, size // 1100 do all[number] = number .. ": " .. ("x"):rep(1090) .. "\r\n" end
    return table.concat(all)
  end },
  { "post_params: short names", function(request) return request.post_params.a end, form,
    entries("&", short) },
  { "post_params: long names that collide", function(request) return request.post_params.a end, form,
    entries("&", colliding) },
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
    local taken = pcall(access, request)
    used = (os.clock() - start) * 1000
    if not taken then return false end
    request:send_status("204 No Content")
    return false
  end, {
    drain_timeout = 0.01,
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
