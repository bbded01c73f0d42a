-- What libraries written for Lua 5.1 miss in later versions, as globals: Debian has Orbit and CGILua for 5.1.
-- luacheck: globals unpack loadstring getfenv setfenv module load loadfile package.seeall

if _VERSION == "Lua 5.1" then
  -- Except that CGILua gives `load` and `loadfile` an environment, as Lua 5.2 and LuaJIT know it.
  if not pcall(load, "") then
    local load_51, loadfile_51 = load, loadfile
    local function within(environment, func, message)
      return func and environment and setfenv(func, environment) or func, message
    end
    function load(chunk, name, _, environment)
      if type(chunk) == "function" then return within(environment, load_51(chunk, name)) end
      return within(environment, loadstring(chunk, name))
    end
    function loadfile(path, _, environment) return within(environment, loadfile_51(path)) end
  end
  return
end

unpack = unpack or table.unpack
loadstring = loadstring or load

-- The number of the upvalue _ENV of a function, if it has one.
local function environment_of(func)
  for index = 1, math.huge do
    local name = debug.getupvalue(func, index)
    if name == nil or name == "_ENV" then return name and index end
  end
end

local function to_function(func)
  return type(func) == "number" and debug.getinfo(func + 2, "f").func or func
end

function getfenv(func)
  func = to_function(func or 1)
  local index = environment_of(func)
  return index and select(2, debug.getupvalue(func, index)) or _G
end

function setfenv(func, environment)
  func = to_function(func)
  local index = environment_of(func)
  if index then
    -- An upvalue of its own: that of its chunk belongs to the chunk's other functions, too.
    debug.upvaluejoin(func, index, function() return environment end, 1)
  end
  return func
end

function module(name, ...)
  local made = package.loaded[name] or _G[name] or {}
  package.loaded[name], _G[name] = made, made
  made._M, made._NAME = made, name
  for _, option in ipairs { ... } do option(made) end
  debug.setupvalue(debug.getinfo(2, "f").func, 1, made)
end

function package.seeall(made) setmetatable(made, { __index = _G }) end
