-- Sources and sinks for ltn12 (LuaSocket's pumps and filters).

local handle_pt, moonbridge_io = ...

local error, math_type, tointeger = error, math.type, math.tointeger

-- How much a source delivers at most if nothing else is asked for, in bytes.
local CHUNK = 16384

-- Delivers what is there, waiting for at least one byte; nil at the end of the input.
function handle_pt.source(self, maxlen)
  if maxlen == nil then maxlen = CHUNK end
  maxlen = math_type(maxlen) and tointeger(maxlen)
  if not maxlen or maxlen < 1 then
    error("bad argument #1 to 'source' (positive integer expected)", 2)
  end
  local input_set = { [self] = true }
  return function()
    while true do
      local data, status, errno = handle_pt.read_nb(self, maxlen)
      if data == nil then return nil, status, errno end
      if data ~= "" then return data end
      if status ~= "block" then return nil end
      moonbridge_io.poll(input_set)
    end
  end
end

-- Writes what it gets; the end of the data flushes the handle and leaves it open.
function handle_pt.sink(self)
  return function(chunk)
    local result, message, errno
    if chunk == nil then
      result, message, errno = handle_pt.flush(self)
    else
      result, message, errno = handle_pt.write(self, chunk)
    end
    if result == nil then return nil, message, errno end
    return 1
  end
end
