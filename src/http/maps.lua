-- Tables whose keys a client chose: parameters, cookies, flags, header names.

local type, next, pairs, rawget, rawset, setmetatable =
  type, next, pairs, rawget, rawset, setmetatable
local lower = string.lower

local maps = {}

local lists_meta = {}

function lists_meta.__index(lists, key)
  if key == nil then return nil end
  local list = {}
  lists[key] = list
  return list
end

local function next_list(lists, key)
  local list
  repeat
    key, list = next(lists, key)
  until key == nil or type(list) ~= "table" or #list > 0
  return key, list
end

function lists_meta.__pairs(lists)
  return next_list, lists, nil
end

-- Makes a table of lists one where a missing list is an empty one: remembered, and skipped by
-- `pairs`.
function maps.lists(lists)
  return setmetatable(lists, lists_meta)
end

-- The key under which a view of first values has its lists.
local LISTS = setmetatable({}, { __name = "lists" })

local firsts_meta = {}

function firsts_meta.__index(view, key)
  local list = key ~= nil and rawget(view, LISTS)[key]
  return list and list[1]
end

function firsts_meta.__newindex(view, key, value)
  rawget(view, LISTS)[key] = value ~= nil and { value } or nil
end

local function next_first(lists, key)
  local list
  key, list = next_list(lists, key)
  if key ~= nil then return key, list[1] end
end

function firsts_meta.__pairs(view)
  return next_first, rawget(view, LISTS), nil
end

-- A view of a table of lists: names to first values. Assignments change the lists.
function maps.firsts(lists)
  return setmetatable({ [LISTS] = lists }, firsts_meta)
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

-- A set of strings in any case, given in lower case: true or false for each.
function maps.flags(flags)
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
