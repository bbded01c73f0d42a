--- Clusters of PostgreSQL for specs: each has a folder of its own, with its socket in it. Its user is `spec`,
--- who needs no password.

local process = require "spec.support.process"

local Cluster = {}
Cluster.__index = Cluster

local postgres = {}

-- What runs the programs: PostgreSQL refuses to be run by root.
local AS_POSTGRES = [[
  if [ "$(id -u)" = 0 ]; then run='setpriv --reuid=postgres --regid=postgres --clear-groups'; fi
  cd /
]]

--- A cluster that does not run yet.
function postgres.cluster()
  local folder = process.scratch "cluster"
  local _, programs = process.run "ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1"
  local self = setmetatable({ folder = folder, programs = programs:match "%S+" }, Cluster)
  -- The path of a socket may not be long.
  local code, output = process.run(AS_POSTGRES .. ([[
    mkdir %s && chmod 700 %s && if [ "$run" ]; then
      chmod a+x "$(dirname %s)" "$(dirname "$(dirname %s)")" && chown postgres: %s
    fi &&
    $run %s/initdb --pgdata=%s/data --auth=trust --username=spec --locale=C --encoding=UTF8 --no-sync
  ]]):format(folder, folder, folder, folder, folder, self.programs, folder))
  assert(code == 0, output)
  return self
end

--- Puts a file into its folder, which nobody but the server can read, as it asks for of its key; the path.
function Cluster:put(name, text)
  local path = self.folder .. "/" .. name
  process.write(path, text)
  local command = ("chmod 600 %s && chown --reference=%s %s"):format(path, self.folder, path)
  local code, output = process.run(command)
  assert(code == 0, output)
  return path
end

--- Starts the server: a process.
-- @param settings table or nil: name → value; without `listen_addresses` it listens on its socket alone
function Cluster:start(settings)
  local all = { listen_addresses = "", fsync = "off", dynamic_shared_memory_type = "mmap" }
  for name, value in pairs(settings or {}) do all[name] = value end
  local words = {}
  for name, value in pairs(all) do words[#words + 1] = process.quote(("--%s=%s"):format(name, value)) end
  return process.start { "sh", "-c", AS_POSTGRES .. ("exec $run %s/postgres -D %s/data -k %s "):format(
    self.programs, self.folder, self.folder) .. table.concat(words, " ") }
end

--- Whether it answers.
function Cluster:is_ready()
  return process.run(("%s/pg_isready -q -h %s -U spec -d postgres"):format(self.programs, self.folder)) == 0
end

--- What a query returns, as text.
function Cluster:query(text)
  local _, output = process.run(("%s/psql -h %s -U spec -d postgres -At -c %s"):format(self.programs,
    self.folder, process.quote(text)))
  return output
end

return postgres
