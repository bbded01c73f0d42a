-- Loads the compiled module that fits this interpreter; returns a function that opens what is in it by name.
--
-- In each folder of package.cpath it looks for moonbridge_VERSION_LIBRARY.so (one for each version of
-- Lua and each C library in a binary rock) and for moonbridge.so. All names are opened from one file, since
-- they share state.

local loadlib, open = package.loadlib, io.open

local VERSIONS = "Lua 5.1 to 5.5 and LuaJIT"

local jit = rawget(_G, "jit")
local running = jit and "LuaJIT" or _VERSION
local version = jit and "jit" or _VERSION:gsub("%D", "")

-- Which C library the interpreter uses: "gnu" or "musl".
local function c_library()
  local maps = open("/proc/self/maps")
  local text = maps and maps:read("*a") or ""
  if maps then maps:close() end
  return (text:find("/ld%-musl") or text:find("musl/libc%.so")) and "musl" or "gnu"
end

-- The first file there is, in the order of package.cpath; else nil and the files that were looked for.
local function find()
  local names = { "moonbridge_" .. version .. "_" .. c_library(), "moonbridge" }
  local tried = {}
  for template in package.cpath:gmatch("[^;]+") do
    for _, name in ipairs(names) do
      local path = template:gsub("%?", name)
      local file = open(path, "rb")
      if file then
        file:close()
        return path
      end
      tried[#tried + 1] = path
    end
  end
  return nil, table.concat(tried, ", ")
end

-- Which version of Lua a module was built for, as a text in it says.
local function built_for(path)
  local file = open(path, "rb")
  local text = file and file:read("*a") or ""
  if file then file:close() end
  return text:match("this module was built for (Lua[%w%. ]-),")
end

local HINT = (": Moonbridge has modules for %s, and `tools/build release %s` builds this one")
  :format(VERSIONS, jit and "jit" or _VERSION:match("[%d.]+"))

local path, tried = find()
if not path then
  error(("moonbridge: no compiled module for %s was found%s (looked for %s)"):format(running, HINT, tried), 0)
end

--- Opens the module of that name; throws one sentence if the file cannot be loaded.
return function(name)
  local opens, message = loadlib(path, "luaopen_" .. name:gsub("%.", "_"))
  if opens then return opens(name, path) end
  local made_for = built_for(path)
  if made_for and made_for ~= running then
    error(("moonbridge: %s was built for %s, but this is %s%s"):format(path, made_for, running, HINT), 0)
  end
  error(("moonbridge: %s cannot be loaded: %s"):format(path, message), 0)
end
