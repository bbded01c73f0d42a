-- What Lua 5.1, Lua 5.2 and LuaJIT lack of what the library's chunks use, and the loop that calls functions
-- for C functions which could not go on afterwards.

local close = ...

local _G, math, package, table = _G, math, package, table
local pcall, select, setmetatable, tostring = pcall, select, setmetatable, tostring
local type, xpcall = type, xpcall
local create, resume, status, yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local unpack = table.unpack or _G.unpack

-- A library with further entries.
local function extended(library, entries)
  return setmetatable(entries, { __index = library })
end

local function tointeger(value)
  return type(value) == "number" and value % 1 == 0 and value or nil
end

local function searchpath(name, path)
  local tried = ""
  local file_name = name:gsub("%.", "/")
  for template in path:gmatch("[^;]+") do
    local file = template:gsub("%?", (file_name:gsub("%%", "%%%%")))
    local found = io.open(file)
    if found then
      found:close()
      return file
    end
    tried = tried .. "\n\tno file '" .. file .. "'"
  end
  return nil, tried
end

-- xpcall(f, handler, ...): Lua 5.1 passes no arguments on.
local function call_traced(f, handler, ...)
  local count = select("#", ...)
  if count == 0 then return xpcall(f, handler) end
  local arguments = { ... }
  return xpcall(function() return f(unpack(arguments, 1, count)) end, handler)
end

local accepts_arguments = select(2, xpcall(function(value) return value end, tostring, true))

-- pcall and xpcall that can be yielded from, as in later versions: in Lua 5.1, a coroutine of its own runs
-- the function. The message handler sees the stack of the caller.
local protected_call, traced_call = pcall, xpcall
if not accepts_arguments then
  function protected_call(f, ...)
    local thread = create(function(...) return f(...) end)
    local function settle(...)
      if status(thread) == "suspended" then return settle(resume(thread, yield(select(2, ...)))) end
      return ...
    end
    return settle(resume(thread, ...))
  end

  function traced_call(f, handler, ...)
    local function settle(succeeded, ...)
      if succeeded then return true, ... end
      return false, handler(...)
    end
    return settle(protected_call(f, ...))
  end
end

local globals = extended(_G, {
  table = extended(table, { unpack = unpack }),
  math = extended(math, {
    tointeger = tointeger,
    type = function(value)
      return type(value) == "number" and (tointeger(value) and "integer" or "float") or nil
    end,
  }),
  package = setmetatable({}, { __index = function(_, key)
    if key == "searchers" then return package.searchers or package.loaders end
    if key == "searchpath" then return package.searchpath or searchpath end
    return package[key]
  end }),
  os = extended(os, { exit = function(code, closes)
    if closes then close(code) end
    os.exit(code)
  end }),
  xpcall = accepts_arguments and xpcall or call_traced,
})

-- What the C function leaves to the loop: the constants are those in compat.rs.
local CALL, CAUGHT, TRACED, YIELD = 1, 2, 3, 4
-- How many results go to a C function that goes on.
local RESULTS = 3

-- The function made of the C functions `first(...)` and `further(token, frame, results, succeeded, ...)`,
-- which return `marker`, what to do, a token and a frame if they are to go on.
local function resumable(first, further, marker)
  local settle

  local function perform(action, token, frame, f, ...)
    if action == CALL then
      return settle(further(token, frame, RESULTS, true, f(...)))
    elseif action == CAUGHT then
      return settle(further(token, frame, RESULTS, protected_call(f, ...)))
    elseif action == TRACED then
      -- The first result is the message handler.
      local function traced(succeeded, ...)
        return settle(further(token, frame, RESULTS + 1, succeeded, f, ...))
      end
      return traced(traced_call((...), f, select(2, ...)))
    elseif action == YIELD then
      return settle(further(token, frame, RESULTS, true, yield(f, ...)))
    end
  end

  function settle(...)
    if (...) == marker then return perform(select(2, ...)) end
    return ...
  end

  return function(...) return settle(first(...)) end
end

return { globals = globals, resumable = resumable }
