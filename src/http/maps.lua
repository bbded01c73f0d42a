-- Tables whose keys a client chose: parameters, cookies, flags, header names.

local native = ...
local bulk_find, bulk_groups, bulk_slice = native.bulk_find, native.bulk_groups, native.bulk_slice

local type, next, rawget, rawset = type, next, rawget, rawset
local getmetatable, setmetatable = getmetatable, setmetatable
local lower, tointeger = string.lower, math.tointeger

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

-- How many entries of a large store or list are fetched at a time.
local BATCH = 256

-- A sequence of more texts than are put into a table before they are asked for (bulk.rs): it behaves
-- as one, and becomes one when it is changed or given to `pairs`.
local function bulk_list(texts, ends)
  local count, known = #ends // 4, {}
  local meta = {}

  function meta.__index(_, key)
    local place = type(key) == "number" and tointeger(key)
    if not place or place < 1 or place > count then return nil end
    if not known[place] then
      local first = place - (place - 1) % BATCH
      local slice = bulk_slice(texts, ends, first, BATCH)
      for i = 1, #slice do known[first + i - 1] = slice[i] end
    end
    return known[place]
  end

  function meta.__len() return count end

  local function fill(list)
    setmetatable(list, nil)
    local all = bulk_slice(texts, ends, 1, count)
    for i = 1, count do list[i] = all[i] end
  end

  function meta.__newindex(list, key, value)
    fill(list)
    list[key] = value
  end

  function meta.__pairs(list)
    fill(list)
    return next, list, nil
  end

  return setmetatable({}, meta)
end

-- The list that a step has returned: a sequence, or the strings of a large one.
function maps.list(values, ends)
  if ends then return bulk_list(values, ends) end
  return values
end

-- A store of more names than are put into a table (bulk.rs). What was found or assigned is in the
-- table: it goes before. A name that was taken away has an empty sequence.
local function bulk_store(texts, order, ends)
  local meta = {}

  function meta.__index(store, key)
    if type(key) ~= "string" then return nil end
    local value = maps.list(bulk_find(key, texts, order, ends))
    if value ~= nil then rawset(store, key, value) end
    return value
  end

  -- All names with their values, as `next` returns them; then those that were added.
  function meta.entries(store)
    local place, batch, position, added = 0, {}, 1, nil
    return function()
      while batch do
        local key = batch[position]
        if key then
          local value = rawget(store, key)
          if value == nil then value = batch[position + 1] end
          position = position + 2
          return key, value
        end
        batch, place = bulk_groups(place, BATCH, texts, order, ends)
        position = 1
        if not batch[1] then batch = nil end
      end
      local value
      repeat
        added, value = next(store, added)
      until added == nil or type(added) ~= "string" or bulk_find(added, texts, order, ends) == nil
      return added, value
    end
  end

  return setmetatable({}, meta)
end

-- The store of what a step has returned: a table of values, or the strings of a large one.
function maps.store(values, order, ends)
  if order then return bulk_store(values, order, ends) end
  return values
end

-- The function, state and first key of a generic `for` over the names that have values.
-- `pick(store, key, value)` is what it gets of a value.
local function each(store, pick)
  local meta = getmetatable(store)
  local entries = meta and meta.entries(store) or next
  return function(_, key)
    local value
    repeat
      key, value = entries(store, key)
    until key == nil or type(value) ~= "table" or #value > 0
    return key, pick(store, key, value)
  end, store, nil
end

local function assign(view, key, value)
  local store = rawget(view, STORE)
  if value == nil and getmetatable(store) then value = {} end
  rawset(store, key, value)
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
  return each(rawget(view, STORE), function(store, key, value)
    local list = list_of(store, key, value)
    if key ~= nil and rawget(store, key) == nil then rawset(store, key, list) end
    return list
  end)
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
