-- Tables whose keys a client chose: parameters, cookies, flags, header names.

local native = ...
local type, next, pairs, getmetatable = type, next, pairs, getmetatable
local rawget, rawset, setmetatable = rawget, rawset, setmetatable
local lower = string.lower

local maps = {}

-- Views keep under this key what they are made of. A store has the values of each name: a string if there
-- is one value, else a sequence; what is assigned to one view of a store is seen by its others. Views of
-- few short pairs have their text instead (or nothing, if it is empty), until they need a store.
local SOURCE = native.view_source

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

local lists_meta = {}

-- A missing list is an empty one; it is remembered, and skipped by `pairs`. What is no string is no name.
function lists_meta.__index(view, key)
  if key == nil then return nil end
  local store = rawget(view, SOURCE)
  local list = list_of(store, key, store[key])
  if list == nil and type(key) == "string" then
    list = {}
    store[key] = list
  end
  return list
end

function lists_meta.__newindex(view, key, value)
  rawget(view, SOURCE)[key] = value
end

function lists_meta.__pairs(view)
  return each(rawget(view, SOURCE), list_of)
end

-- The view of a store that maps names to sequences of all values.
function maps.lists(store)
  return setmetatable({ [SOURCE] = store }, lists_meta)
end

local function first_of(_, _, value)
  if type(value) == "table" then return value[1] end
  return value
end

-- The metatable of views with these metamethods whose entries are found by the function that `search(memory)`
-- makes: its twin finds what a view remembers, see recent.rs.
local function remembering(meta, search)
  local twin, remembered = {}, {}
  meta.__index = search { false, meta, twin, remembered }
  for event, method in pairs(meta) do twin[event] = method end
  twin.__index = setmetatable(remembered, { __index = meta.__index })
  return meta
end

-- The metatable of views that map names to first values. `parse` makes a store of a text that is searched by
-- what `search` makes. Returned with it: the store of a view; and the metatables of views that have a store,
-- and of those that are empty until something is assigned, which need no function.
local function firsts_meta(search, parse)
  local stored = { __index = native.search_store }

  local function store_of(view)
    local source = rawget(view, SOURCE)
    if type(source) == "table" then return source end
    source = parse(source or "")
    rawset(view, SOURCE, source)
    setmetatable(view, stored)
    return source
  end

  function stored.__newindex(view, key, value)
    if value ~= nil and type(value) ~= "string" then value = { value } end
    store_of(view)[key] = value
  end

  function stored.__pairs(view) return each(store_of(view), first_of) end

  local searched = { __newindex = stored.__newindex, __pairs = stored.__pairs }
  local empty = { __newindex = stored.__newindex, __pairs = stored.__pairs }
  return remembering(searched, search), store_of, stored, empty
end

local _
maps.params_meta, maps.params_store, maps.stored_params, maps.empty_params =
  firsts_meta(native.search_params, native.parse_query)
maps.cookies_meta, _, maps.stored_cookies, maps.empty_cookies =
  firsts_meta(native.search_cookies, native.parse_cookies)

-- The view of a store of cookies.
function maps.cookies(store)
  return setmetatable({ [SOURCE] = store }, maps.stored_cookies)
end

-- The view of a store that maps names to first values.
function maps.firsts(store)
  return setmetatable({ [SOURCE] = store }, maps.stored_params)
end

-- The metatable of sets of strings in any case: true or false for each.
maps.flags_meta = remembering({
  __pairs = function(view)
    return each(native.parse_flags(rawget(view, SOURCE) or ""), function(_, key) return key and true end)
  end,
}, native.search_flags)

-- The same of the names of a store in lower case.
function maps.flags(store)
  return setmetatable({}, {
    __index = function(_, key)
      if type(key) ~= "string" then return nil end
      return store[lower(key)] ~= nil
    end,
    __pairs = function()
      return each(store, function(_, key) return key and true end)
    end,
  })
end

-- The metatable of a view of header lines: names in any case to what a function finds that `search` makes.
-- `names(view)` are those that the client has sent.
function maps.headers_meta(search, names)
  local index
  local function pairs_of(view)
    local list, position = names(view), 0
    return function()
      position = position + 1
      local name = list[position]
      if name then return name, view[name] end
    end
  end

  -- From the first assignment on, what was assigned is looked up first.
  local assigned = { __pairs = pairs_of }

  function assigned.__index(view, key)
    if type(key) ~= "string" then return nil end
    local name = lower(key)
    local value = rawget(view, name)
    if value == nil then value = index(view, name) end
    return value
  end

  function assigned.__newindex(view, key, value)
    rawset(view, type(key) == "string" and lower(key) or key, value)
  end

  local meta = remembering({
    __newindex = function(view, key, value)
      setmetatable(view, assigned)
      view[key] = value
    end,
    __pairs = pairs_of,
  }, search)
  index = meta.__index
  return meta
end

-- Lua 5.1 and LuaJIT know no `__pairs`: `pairs` finds nothing of a view there but what it is made of.
maps.pairs_asks_views = pairs(setmetatable({}, { __pairs = function() return true end })) == true

-- What a handler gets of a view: the view itself if `pairs` works with it, else a table with all that it
-- has, and after that the view. Other values are as they are.
function maps.shown(value)
  local meta = not maps.pairs_asks_views and type(value) == "table" and getmetatable(value)
  if not meta or not meta.__pairs then return value end
  local all = {}
  for name, entry in meta.__pairs(value) do all[name] = maps.shown(entry) end
  return setmetatable(all, {
    __index = function(_, key) return maps.shown(value[key]) end,
    __newindex = function(_, key, entry)
      value[key] = entry
      rawset(all, key, entry)
    end,
  })
end

return maps
