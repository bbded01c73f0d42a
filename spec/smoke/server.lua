-- The server of the smoke set; its arguments are the port, and a file that is read when it starts.

local moonbridge = require "moonbridge"
local http = require "moonbridge_http"
local io_library = require "moonbridge_io"

local pages = {}

local file = assert(io.open(arg[2]))
local setting = file:read("*a")
file:close()

function pages.error() error("as intended") end

function pages.memory()
  local parts = {}
  for i = 1, 1000 do parts[i] = ("x"):rep(1000000 + i) end
  return #parts
end

function pages.metrics(request) request:send_data(moonbridge.metrics()) end

function pages.stream(request)
  for _ = 1, 10000 do request:send_data("0123456789") end
end

function pages.setting(request) request:send_data(setting) end

function pages.fields(request)
  local parts = {}
  local function add(name, value) parts[#parts + 1] = name .. value end
  for _, view in ipairs { "get_params", "headers_csv_string", "cookies" } do
    local names = {}
    for name in pairs(request[view]) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      if name:find("^[abc]$") or name == "x-test" then add(name .. "=", request[view][name]) end
    end
  end
  for name, values in pairs(request.get_params_list) do
    if name == "b" then add("b:", table.concat(values, ",")) end
  end
  add("none:", #request.get_params_list.none)
  local flags, names = request.headers_flags["X-Flags"], {}
  for flag in pairs(flags) do names[#names + 1] = flag end
  table.sort(names)
  assert(flags.ONE and not flags.three and request.headers["X-TEST"][1] == "yes")
  add("flags:", table.concat(names, ","))
  request:send_data(table.concat(parts, " "))
end

function pages.busy()
  moonbridge.timeout(0.2)
  local number = 0
  while true do number = number + 1 end
end

function pages.coroutine()
  moonbridge.timeout(0.2)
  coroutine.wrap(pages.busy)()
end

function pages.slow(request)
  io_library.poll({}, {}, 1)
  request:send_data("slow")
end

-- Lua 5.1 and LuaJIT only finalize userdata.
local function finalized(finalizer)
  local newproxy = rawget(_G, "newproxy")
  if not newproxy then return setmetatable({}, { __gc = finalizer }) end
  local object = newproxy(true)
  getmetatable(object).__gc = finalizer
  return object
end

local sentinel
local certificate = dofile "spec/smoke/certificate.lua"

moonbridge.listen {
  { proto = "tcp", host = "127.0.0.1", port = tonumber(arg[1]) },
  {
    proto = "tls", host = "127.0.0.1", port = tonumber(arg[3]),
    certificate = certificate.certificate, key = certificate.key,
  },
  memory_limit = 50 * 1024 * 1024,
  max_fork = 4,
  prepare = function()
    sentinel = finalized(function() io.stderr:write("the state was closed\n") end)
  end,
  finish = function()
    assert(sentinel)
    io.stderr:write("finish was called\n")
  end,
  connect = http.generate_handler(function(request)
    request:send_status("200 OK")
    request:send_header("Content-Type", "text/plain")
    local page = pages[request.path]
    if page then
      page(request)
    else
      request:send_data(request.method, " ", request.post_params.name or request.get_params.name or "")
    end
    return true
  end),
}
moonbridge.run { hangup = "reload", slow_request = 0.3 }
