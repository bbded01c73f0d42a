--- Specs that need root: skipped elsewhere.

local lfs = require "lfs"
local process = require "spec.support.process"

local root = {}

local _, me = process.run("id -u")

--- Whether this is root.
root.is_root = tonumber(me) == 0

--- busted's `it` for specs that need root. It is defined in spec files alone, and so given here.
function root.it(it, pending)
  return function(name, body)
    it(name, root.is_root and body or function() pending("only root may change its user") end)
  end
end

--- Makes a folder for scratch files where any user may look.
function root.open_folder()
  local path = process.scratch("folder")
  assert(lfs.mkdir(path))
  repeat
    assert(process.run("chmod 755 " .. process.quote(path)) == 0)
    path = path:match("^(.+)/[^/]+$")
  until path == "/tmp" or not path
end

return root
