-- The fields of a request that show its parameters, cookies and headers. C functions (views.rs) make the
-- views and search them; what goes beyond that is here: many or long values, lists, `pairs`.

local maps = ...

local ipairs, rawset, setmetatable = ipairs, rawset, setmetatable

-- The views of parameters among those that C functions make.
local PARAMS, POST_PARAMS, EMPTY_PARAMS, EMPTY_COOKIES = 1, 8, 9, 10

-- See request.lua.
local REQUEST = 2

local function as_it_is(value) return value end

-- The views of headers in their order, and what makes their entries of what the step of the same name
-- returns.
local HEADERS = {
  { "headers", as_it_is },
  { "headers_csv_table", as_it_is },
  { "headers_csv_string", as_it_is },
  { "headers_value", as_it_is },
  { "headers_flags", maps.flags },
}

-- All fields that are views.
local VIEWS = {
  get_params = true, get_params_list = true, cookies = true, post_params = true, post_params_list = true,
  post_metadata = true, post_metadata_list = true,
}
for _, entry in ipairs(HEADERS) do VIEWS[entry[1]] = true end

-- Returns the `__index` of request objects, and a function that returns the store of a form's parameters if
-- they are searched in the body. `lazy` has functions that make the other fields, and gets some; `turn` has
-- the current request object at REQUEST; `accepted(value, words)` is what a step made of the client's texts,
-- unless it refused them.
return function(steps, turn, accepted, lazy)
  local views = {} -- the current ones, by their numbers
  local metatables = { maps.params_meta, maps.cookies_meta }

  for _, entry in ipairs(HEADERS) do
    local key, wrap = entry[1], entry[2]
    local step, number = steps[key], #metatables + 1
    local function complete(name) return wrap(accepted(step(name))) end
    local function names(view)
      return steps.has_view(number) and views[number] == view and accepted(steps.header_names()) or {}
    end
    local function search(memory)
      return steps.header_view(key, complete, views, maps.flags_meta, memory)
    end
    metatables[number] = maps.headers_meta(search, names)
  end

  metatables[POST_PARAMS] = maps.params_meta
  -- Those of views of an empty text.
  metatables[EMPTY_PARAMS], metatables[EMPTY_COOKIES] = maps.empty_params, maps.empty_cookies

  local function keep(key, value)
    rawset(turn[REQUEST], key, value)
    return value
  end

  -- Request object → store of its parameters, unless that belongs to a view made in C.
  local stores = setmetatable({}, { __mode = "k" })

  local function params_store()
    if steps.has_view(PARAMS) then return maps.params_store(views[PARAMS]) end
    local this = turn[REQUEST]
    local store = stores[this] or accepted(steps.get_params())
    stores[this] = store
    return store
  end

  function lazy.get_params() return keep("get_params", maps.firsts(params_store())) end
  function lazy.get_params_list() return keep("get_params_list", maps.lists(params_store())) end
  function lazy.cookies() return keep("cookies", maps.cookies(accepted(steps.cookies()))) end

  local index = steps.fields(function(_, key)
    local make = lazy[key]
    if make then return make() end
  end, views, turn, metatables)

  -- The same where `pairs` does not ask views. Other fields by a tail call: their errors count levels.
  local function shown_index(this, key)
    if not VIEWS[key] then return index(this, key) end
    return keep(key, maps.shown(index(this, key)))
  end

  return maps.pairs_asks_views and index or shown_index, function()
    return steps.has_view(POST_PARAMS) and maps.params_store(views[POST_PARAMS]) or nil
  end
end
