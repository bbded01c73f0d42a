-- http.parse_query(query): the parameters of a query string or urlencoded text, as
-- request.get_params and request.get_params_list hold them. A leading "?" is skipped.

local native, maps = ...
local error, type, tostring = error, type, tostring

return function(query)
  if type(query) ~= "string" and type(query) ~= "number" then
    error("bad argument #1 to 'parse_query' (string expected)", 2)
  end
  local text = tostring(query):gsub("^%?", "")
  local store, problem = native.parse_query(text)
  if not store then error(problem, 2) end
  return maps.shown(maps.firsts(store)), maps.shown(maps.lists(store))
end
