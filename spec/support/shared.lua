--- What runs side by side share: ports, and things of which the machine has only one.
--
-- Both are locks on bytes of a file, which the kernel takes back when their process has ended.

local lfs = require "lfs"
local socket = require "socket"

local shared = {}

-- busted forgets modules between spec files; what concerns the whole run must outlive that.
local registry = debug.getregistry()
registry.moonbridge_spec = registry.moonbridge_spec or { files = {} }
--- What a run knows about itself: table.
shared.run = registry.moonbridge_spec

-- Name → file, open until the run ends: to close one would give up all its locks.
local files = shared.run.files

local function lock_file(name)
  if files[name] then return files[name] end
  local folder = (os.getenv("TMPDIR") or "/tmp"):gsub("/$", "")
  local path = ("%s/moonbridge-spec-%s"):format(folder, name)
  files[name] = assert(io.open(path, "a+"))
  os.execute("chmod 666 " .. path .. " 2>/dev/null") -- for runs of other users
  return files[name]
end

-- Seconds that another run may keep something.
local PATIENCE = 500

-- Ports that the kernel chooses for nobody.
local FIRST = 10000
local function last_port()
  local file = io.open("/proc/sys/net/ipv4/ip_local_port_range")
  local low = file and file:read("n") or 32768
  if file then file:close() end
  return low > FIRST + 1000 and low - 1 or 32767
end

--- A port that no other run is given while this one lasts, and for which `free(port)` is true.
function shared.port(free)
  local file, last = lock_file("ports"), last_port()
  local count = last - FIRST + 1
  if not shared.run.port then
    local random = assert(io.open("/dev/urandom", "rb"))
    shared.run.port = FIRST + ("I4"):unpack(random:read(4)) % count
    random:close()
  end
  for _ = 1, count do
    local port = shared.run.port
    shared.run.port = port < last and port + 1 or FIRST
    if lfs.lock(file, "w", port, 1) and free(port) then return port end
  end
  error("no free port was found")
end

--- Waits until no other run has `name`, and takes it until this run ends or gives it back.
--
--     setup(function() shared.take "/dev/log" end)
--     teardown(function() shared.give_back "/dev/log" end)
function shared.take(name)
  local file = lock_file(name:gsub("/", "-"))
  local deadline = socket.gettime() + PATIENCE
  while not lfs.lock(file, "w") do
    assert(socket.gettime() < deadline, "another run of the specs does not give it back: " .. name)
    socket.sleep(0.05)
  end
end

--- Gives it back.
function shared.give_back(name)
  lfs.unlock(lock_file(name:gsub("/", "-")))
end

return shared
