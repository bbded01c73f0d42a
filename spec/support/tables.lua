--- What specs do with tables of options.

local tables = {}

--- A new table with the fields of all tables given, any of which may be nil. A later one overrides others.
function tables.with(...)
  local all = {}
  for index = 1, select("#", ...) do
    for name, value in pairs((select(index, ...)) or {}) do all[name] = value end
  end
  return all
end

return tables
