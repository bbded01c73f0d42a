-- Tables whose keys a client chose: parameters, cookies, flags, header names.

local type, next, rawget, rawset, setmetatable = type, next, rawget, rawset, setmetatable
local lower = string.lower

local maps = {}

-- A store has the values of each name: a string if there is one value, else a sequence. Its two
-- views, of all values and of first values, keep it under this key; what is assigned to one view
-- is seen by the other.
local STORE = setmetatable({}, { __name = "store" })

local function list_of(store, key, value)
  if type(value) == "table" or value == nil then return value end
  local list = { value }
  store[key] = list
  return list
end

-- The function, state and first key of a generic `for` over the names that have values.
-- `pick(store, key, value)` is what it gets of a value.
local function each(store, pick)
  return function(_, key)
    local value
    repeat
      key, value = next(store, key)
    until key == nil or type(value) ~= "table" or #value > 0
    return key, pick(store, key, value)
  end, store, nil
end

local function assign(view, key, value)
  rawget(view, STORE)[key] = value
end

local lists_meta = {}

-- A missing list is an empty one; it is remembered, and skipped by `pairs`.
function lists_meta.__index(view, key)
  if key == nil then return nil end
  local store = rawget(view, STORE)
  local list = list_of(store, key, store[key])
  if list == nil then
    list = {}
    store[key] = list
  end
  return list
end

lists_meta.__newindex = assign

function lists_meta.__pairs(view)
  return each(rawget(view, STORE), list_of)
end

local firsts_meta = {}

local function first_of(value)
  if type(value) == "table" then return value[1] end
  return value
end

function firsts_meta.__index(view, key)
  return first_of(rawget(view, STORE)[key])
end

function firsts_meta.__newindex(view, key, value)
  if value ~= nil and type(value) ~= "string" then value = { value } end
  assign(view, key, value)
end

function firsts_meta.__pairs(view)
  return each(rawget(view, STORE), function(_, _, value)
    return first_of(value)
  end)
end

-- The view of a store that maps names to sequences of all values.
function maps.lists(store)
  return setmetatable({ [STORE] = store }, lists_meta)
end

-- The view of a store that maps names to first values.
function maps.firsts(store)
  return setmetatable({ [STORE] = store }, firsts_meta)
end

-- The metatable of views of first values that have no store yet. They get one by `fill(view)` when
-- they are assigned to.
function maps.unfilled(fill)
  local meta = {}

  function meta.__newindex(view, key, value)
    rawset(view, STORE, fill(view))
    setmetatable(view, firsts_meta)
    view[key] = value
  end

  return meta
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

-- A set of strings in any case, the names of a store in lower case: true or false for each.
function maps.flags(store)
  return setmetatable({}, {
    __index = function(_, key)
      return type(key) == "string" and store[lower(key)] ~= nil
    end,
    __pairs = function()
      return each(store, function(_, key) return key and true end)
    end,
  })
end

return maps
