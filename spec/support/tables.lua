--- What specs do with tables of options.

local tables = {}

--- A new table with the fields of `defaults`, and over them those of `more`, which may be nil.
function tables.with(defaults, more)
  local all = {}
  for name, value in pairs(defaults) do all[name] = value end
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

return tables
