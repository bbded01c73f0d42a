-- Tables whose keys a client chose: parameters, cookies, flags, header names.
--
-- Lua 5.3 hashes only some bytes of long strings, so a client could send names that all collide,
-- and a table of them would take quadratic time. Names over SHORT bytes are therefore kept in an
-- index of ours, behind the metatable. It must be the same number as in views.rs.

local new_index = ...
local SHORT = 40

local type, next, pairs, rawget, rawset, setmetatable =
  type, next, pairs, rawget, rawset, setmetatable
local lower = string.lower

local maps = {}

local function is_long(key)
  return type(key) == "string" and #key > SHORT
end

-- A map of `short`'s entries and of `values` under `names`; `index` finds the position of a name.
-- `missing(map, key)` makes the value of a key that is not there; `skips(value)` hides entries
-- from `pairs`.
function maps.map(missing, skips, short, names, values, index)
  local meta = {}

  function meta.__index(map, key)
    if index and is_long(key) then
      local position = index(key, false)
      local value = position and values[position]
      if value ~= nil and position then return value end
    end
    if missing and key ~= nil then return missing(map, key) end
  end

  function meta.__newindex(map, key, value)
    if not is_long(key) then return rawset(map, key, value) end
    if not index then index, names, values = new_index(), {}, {} end
    local position = index(key, value ~= nil)
    if position then
      names[position] = key
      values[position] = value
    end
  end

  function meta.__pairs(map)
    local key, position = nil, 0
    local in_short = true
    return function()
      local value
      while in_short do
        key, value = next(map, key)
        if key == nil then
          in_short = false
        elseif not (skips and skips(value)) then
          return key, value
        end
      end
      while names and position < #names do
        position = position + 1
        value = values[position]
        if value ~= nil and not (skips and skips(value)) then return names[position], value end
      end
    end
  end

  return setmetatable(short, meta)
end

local function is_empty(list)
  return type(list) == "table" and #list == 0
end

local function remember_empty(map, key)
  local list = {}
  map[key] = list
  return list
end

-- A map of names to lists: a missing one is an empty list, remembered and hidden from `pairs`.
function maps.lists(short, names, values, index)
  return maps.map(remember_empty, is_empty, short, names, values, index)
end

-- A view of a map of lists: names to first values. Assignments change the lists.
function maps.firsts(lists)
  local meta = {}

  function meta.__index(_, key)
    local list = key ~= nil and lists[key]
    return list and list[1]
  end

  function meta.__newindex(_, key, value)
    lists[key] = value ~= nil and { value } or nil
  end

  function meta.__pairs()
    local iterate = pairs(lists)
    return function()
      local key, list = iterate()
      if key ~= nil then return key, list[1] end
    end
  end

  return setmetatable({}, meta)
end

-- A view of header lines: names in any case to what `fetch(lower_case_name)` makes of them.
function maps.headers(fetch, names)
  local meta = {}

  function meta.__index(view, key)
    if type(key) ~= "string" then return nil end
    local name = lower(key)
    local value = rawget(view, name)
    if value == nil then
      value = fetch(name)
      if value ~= nil then rawset(view, name, value) end
    end
    return value
  end

  function meta.__newindex(view, key, value)
    rawset(view, type(key) == "string" and lower(key) or key, value)
  end

  function meta.__pairs(view)
    local list, position = names(), 0
    return function()
      position = position + 1
      local name = list[position]
      if name then return name, view[name] end
    end
  end

  return setmetatable({}, meta)
end

-- A set of strings in any case: true or false for each.
function maps.flags(short, names, values, index)
  local flags = maps.map(nil, nil, short, names, values, index)
  return setmetatable({}, {
    __index = function(_, key)
      return type(key) == "string" and flags[lower(key)] or false
    end,
    __pairs = function()
      return pairs(flags)
    end,
  })
end

return maps
