--- `fork` and its like for the scripts of specs (luaposix is not there for every version of Lua).
--
--     server.start { globals = { POSIX = posix.path() }, script = [[
--       local posix = package.loadlib(POSIX, "luaopen_posix")()
--       if posix.fork() == 0 then … end
--     ]] }

local process = require "spec.support.process"
local server = require "spec.support.server"

local posix = {}

local built

--- The path of a C module with `fork`, `getpid`, `sleep` and `wait` for the Lua that runs the servers.
function posix.path()
  if built then return built end
  local folder = server.root .. "/build/spec"
  local path = ("%s/posix-%s.so"):format(folder, server.lua_version)
  local command = "mkdir -p %s && cc -shared -fPIC -O1 -I/usr/include/lua%s -Ibuild/lua%s/include "
    .. "-o %s.$$ %s && mv %s.$$ %s"
  command = command:format(
    process.quote(folder), server.lua_version, server.lua_version, process.quote(path),
    process.quote(server.root .. "/spec/support/posix.c"), process.quote(path), process.quote(path))
  local code, output = process.run(command)
  assert(code == 0, output)
  built = path
  return path
end

return posix
