-- Notes which files are loaded: modules that `require` finds, and what `loadfile` and `dofile` are given.
-- Where a module is not found, the files are noted that would have been it, so that it is noticed when one of
-- them is created.

local note = ...
local insert = table.insert

return function()
  local package, loadfile, dofile = package, loadfile, dofile

  local function note_module(name)
    local found, tried = package.searchpath(name, package.path)
    if not found then
      local library = package.searchpath(name, package.cpath)
      if library then
        found = library
      else
        for path in tried:gmatch("'([^\n]*)'") do note(path) end
      end
    end
    if found then note(found) end
  end

  -- After the searcher for preloaded modules. It finds nothing itself.
  insert(package.searchers, 2, function(name)
    if type(package.path) == "string" and type(package.cpath) == "string" then note_module(name) end
  end)

  _G.loadfile = function(...)
    local name = ...
    if type(name) == "string" then note(name) end
    return loadfile(...)
  end

  _G.dofile = function(...)
    local name = ...
    if type(name) == "string" then note(name) end
    return dofile(...)
  end
end
