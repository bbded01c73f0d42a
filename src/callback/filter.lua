-- How filters are called.
--
-- A filter is called once with each chunk and once with nil, and returns strings. Filters composed by
-- ltn12.filter.chain follow the longer protocol of LTN12: after a chunk they are called with "" until they
-- have no more output, at the end with nil until they return nil. Other filters are not called repeatedly,
-- since one that does not expect it might never end.

local package_loaded, type = package.loaded, type
local getinfo = debug and debug.getinfo

local filter = {}

local function place(f)
  return type(f) == "function" and getinfo and getinfo(f, "S") or nil
end

--- Whether `f` was made by ltn12.filter.chain: its code is part of the code of that function.
local function composed(f)
  local ltn12 = package_loaded.ltn12
  local maker = type(ltn12) == "table" and type(ltn12.filter) == "table" and place(ltn12.filter.chain)
  local made = maker and place(f)
  return made and made.source == maker.source and made.linedefined > maker.linedefined
    and made.lastlinedefined <= maker.lastlinedefined or false
end

--- Calls a filter once.
-- @param input a chunk, "" for what it still holds of the last one, nil at the end
-- @return string; nil at the end of what it has; or nil and a message
local function ask(f, input)
  local output, message = f(input)
  if type(output) == "string" then return output end
  -- The end of its output; or that and a message, for example because its input was incomplete.
  if output == nil and input == nil then return nil, type(message) == "string" and message or nil end
  if output == nil then return nil, message or "filter returned nil before the end" end
  return nil, ("filter returned a %s, expected a string"):format(type(output))
end

--- The filter as a function `(input) → piece, more, message`: `input` as for ask; with `more`, the same
-- question ("" after a chunk, nil at the end) is to be asked again; piece may be empty; nil and a message
-- if the filter fails.
function filter.adapt(f)
  local long = composed(f)
  return function(input)
    local output, message = ask(f, input)
    if message then return nil, false, message end
    if not long then return output or "", false end
    if input == nil then return output or "", output ~= nil end
    return output, output ~= ""
  end
end

return filter
