-- How filters are called.
--
-- A filter gets each chunk once and then nil once, and answers with strings. Those that ltn12.filter.chain
-- composes follow the longer protocol of LTN12: after a chunk they are asked with "" until they have nothing
-- more to say, at the end with nil until they return nil. Only they are asked so: a filter that was not made
-- for it would answer for ever.

local package_loaded, type = package.loaded, type
local getinfo = debug and debug.getinfo

local filter = {}

local function place(f)
  return type(f) == "function" and getinfo and getinfo(f, "S") or nil
end

--- Whether `f` was made by ltn12.filter.chain: its code stands within the code of that function.
local function composed(f)
  local ltn12 = package_loaded.ltn12
  local maker = type(ltn12) == "table" and type(ltn12.filter) == "table" and place(ltn12.filter.chain)
  local made = maker and place(f)
  return made and made.source == maker.source and made.linedefined > maker.linedefined
    and made.lastlinedefined <= maker.lastlinedefined or false
end

--- Asks a filter once.
-- @param input a chunk, "" for what it still holds of the last one, nil at the end
-- @return string; nil at the end of what it has; or nil and a message
local function ask(f, input)
  local output, message = f(input)
  if type(output) == "string" then return output end
  -- The end of what it has; that and a message: what it got was not complete, say.
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
