--- Runs busted under Lua 5.5, for which Debian has no packages: lua spec/support/busted55.lua ARGUMENT...
--
-- busted and what it needs in Lua are those of Debian for Lua 5.4; tools/lua55/libraries builds LuaFileSystem
-- and LuaSocket.

local FOLDER = "/usr/share/lua/5.4"

-- The variables of a `for` are constants in Lua 5.5: `for k in …` becomes `for k_ in … do local k = k_` where
-- the compiler complains about k.
local FOR = "^(.-%f[%w]for%s+)([%w_,%s]-)(%s+in%s.-%f[%w]do%f[%W].*)$"
local function repair(source, line, name)
  local lines = {}
  for text in source:gmatch("([^\n]*)\n?") do lines[#lines + 1] = text end
  for number = line, 1, -1 do
    local head, variables, rest = lines[number]:match(FOR)
    local renamed, count = (variables or ""):gsub("%f[%w_]" .. name .. "%f[^%w_]", name .. "_")
    if count > 0 then
      rest = rest:gsub("%f[%w]do%f[%W]", ("do local %s = %s_; "):format(name, name), 1)
      lines[number] = head .. renamed .. rest
      return table.concat(lines, "\n")
    end
  end
end

local function load_repaired(path)
  local file = assert(io.open(path, "rb"))
  local source = file:read("a")
  file:close()
  while source do
    local chunk, message = load(source, "@" .. path)
    if chunk then return chunk end
    local line, name = message:match(":(%d+): attempt to assign to const variable '(.-)'$")
    source = assert(line and repair(source, tonumber(line), name), message)
  end
end

table.insert(package.searchers, 2, function(name)
  local path, message = package.searchpath(name, ("%s/?.lua;%s/?/init.lua"):format(FOLDER, FOLDER))
  if not path then return message end
  return load_repaired(path), path
end)

-- What busted takes of two libraries that are not there.
package.preload.system = function()
  local socket = require "socket"
  return { gettime = socket.gettime, monotime = socket.gettime, sleep = socket.sleep }
end
package.preload.term = function()
  return { isatty = function() return false end }
end

require "busted.runner" { standalone = false }
