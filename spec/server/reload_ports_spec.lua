-- A reload of a server that has given up root, and what a new script says of ports that stay open.
-- Any version: nothing of it depends on Lua's.

local lfs = require "lfs"
local process = require "spec.support.process"
local root = require "spec.support.root"
local server = require "spec.support.server"

local root_it = root.it(it, pending)

-- What the file SOURCE says, and a listener that reloads the server and tells what came of that.
local APP = [[
local moonbridge = require "moonbridge"
listeners, options = "", { hangup = "reload" }
function greet(socket)
  socket:write(io.popen("id -un"):read("l"))
  return true
end
assert(loadfile(SOURCE))()
moonbridge.listen{
  { proto = "tcp", host = "127.0.0.1", port = PORT },
  connect = function(socket)
    socket:write(tostring(moonbridge.reload()))
    return true
  end,
}
moonbridge.run(options)
]]

describe("a reload", function()
  after_each(server.cleanup)

  local source

  local function write(text) process.write(source, text) end

  local function start(text)
    source = process.scratch("source")
    write(text)
    return server.start { script = APP, globals = { SOURCE = source } }
  end

  -- Reloads with another script; returns what `reload` has returned.
  local function reload(s, text)
    write(text)
    return (s:raw(""))
  end

  local function owner(pid)
    return process.slurp(("/proc/%d/status"):format(pid)):match("\nUid:%s*(%d+)")
  end

  local function greets(listener, extra)
    return ('require("moonbridge").listen{ %s, connect = greet, %s }'):format(listener, extra or "")
  end

  -- What a server at that port or path says to a client that sends nothing.
  local function answer(port, path)
    local client = require "spec.support.client"
    return (client.connect(port, nil, path and { path = path }):read_all())
  end

  -- The backlog of a port.
  local function backlog(port)
    local _, output = process.run(("ss -Hltn 'sport = :%d'"):format(port))
    return tonumber(output:match("^LISTEN%s+%d+%s+(%d+)"))
  end

  root_it("goes on as the user of run, with the ports that only root may open", function()
    root.open_folder()
    local port = 1023
    while server.listening(port) do port = port - 1 end
    local function tcp(number) return ('{ proto = "tcp", host = "127.0.0.1", port = %d }'):format(number) end
    local user = 'options.user, options.group = "nobody", "daemon"\n'
    local s = start(user .. greets(tcp(port)))
    for _ = 1, 2 do
      assert.equal("true", reload(s, user .. greets(tcp(port))))
      assert.equal("nobody", answer(port))
    end
    for _, pid in ipairs(s:descendants()) do
      -- A process of the old generation may be gone by now.
      local there, user_id = pcall(owner, pid)
      assert.truthy(not there or user_id == "65534")
    end
    -- What it has given up is gone.
    local wrong = {
      ["Permission denied (tcp 127.0.0.1 port 1)"] = user .. greets(tcp(1)),
      ['Could not become user "daemon": Operation not permitted'] = 'options.user = "daemon"',
    }
    for message, text in pairs(wrong) do
      assert.equal("nil", reload(s, text))
      assert.truthy(s:log():find(message, 1, true), s:log())
    end
    assert.equal("nobody", answer(port))
    assert.equal(0, s:stop())
  end)

  root_it("gives the workers of a pool another user", function()
    root.open_folder()
    local path = process.scratch("socket")
    local listener = ('{ proto = "local", path = %q }'):format(path)
    local s = start(greets(listener, 'user = "nobody"'))
    assert.equal("nobody", answer(nil, path))
    assert.equal("true", reload(s, greets(listener, 'user = "daemon"')))
    assert.equal("daemon", answer(nil, path))
    assert.equal("true", reload(s, greets(listener, 'user = "root"')))
    assert.equal("root", answer(nil, path))
  end)

  it("keeps an abstract name, and gives it up", function()
    local name = "@moonbridge reload " .. server.free_port()
    local function connects()
      local _, output = server.run_script(([[
        local socket = require("moonbridge_io").localconnect(%q)
        print(socket and socket:read())
      ]]):format(name))
      return (output:gsub("%s.*", ""))
    end
    local listener = ('{ proto = "local", path = %q }'):format(name)
    local _, user = process.run("id -un")
    user = user:match("%S+")
    -- The script may change its working directory: a name is no path.
    local s = start(greets(listener) .. ' require("lfs").chdir("/")')
    assert.equal(user, connects())
    for _ = 1, 2 do
      assert.equal("true", reload(s, greets(listener)))
      assert.equal(user, connects())
    end
    assert.equal("true", reload(s, ""))
    assert.truthy(process.wait_until(function() return connects() == "nil" end))
  end)

  it("applies mode, owner and backlog to sockets that stay open", function()
    local path, port = process.scratch("socket"), server.free_port()
    local function pool(fields, more)
      local both = '{ proto = "local", path = %q %s }, { proto = "tcp", host = "127.0.0.1", port = %d %s }'
      return greets(both:format(path, fields, port, more))
    end
    local s = start(pool(', mode = "0600"', ""))
    -- `reload` may answer a moment before.
    local function becomes(permissions, number)
      assert.truthy(process.wait_until(function()
        return lfs.attributes(path, "permissions") == permissions and backlog(port) == number
      end), s:log())
    end
    assert.equal("true", reload(s, pool(', mode = "0666"', ", backlog = 7")))
    becomes("rw-rw-rw-", 7)
    -- Not before the new script serves.
    assert.equal("nil", reload(s, pool(', mode = "0600"', ", backlog = 9") .. ' error("wrong")'))
    becomes("rw-rw-rw-", 7)
    assert.equal("true", reload(s, pool("", "")))
    becomes("rw-rw-rw-", 1024)
    if root.is_root then
      assert.equal("true", reload(s, pool(', owner = "nobody", group = "daemon"', "")))
      assert.truthy(process.wait_until(function()
        return lfs.attributes(path, "uid") == 65534 and lfs.attributes(path, "gid") == 1
      end), s:log())
    end
  end)

  root_it("tells if the server may no longer change the owner of a socket", function()
    root.open_folder()
    local path = process.scratch("socket")
    local function pool(name)
      local listener = ('{ proto = "local", path = %q, owner = %q }'):format(path, name)
      return 'options.user = "nobody" ' .. greets(listener)
    end
    local s = start(pool("nobody"))
    assert.equal("true", reload(s, pool("nobody")))
    assert.falsy(s:log():find("Could not change", 1, true), s:log())
    assert.equal("true", reload(s, pool("daemon")))
    local message = "the open socket to what the script says: Operation not permitted (local " .. path
    assert.truthy(process.wait_until(function() return s:log():find(message, 1, true) end), s:log())
    assert.equal("nobody", answer(nil, path))
  end)

  it("changes who speaks first", function()
    local port = server.free_port()
    local function pool(deferred)
      local listener = '{ proto = "tcp", host = "127.0.0.1", port = %d, deferred = %s }'
      return greets(listener:format(port, deferred))
    end
    local s = start(pool(true))
    -- Where the kernel holds silent connections, none is established.
    local function is_held()
      local connection = assert(require("spec.support.client").connect(port))
      local _, output = process.run(("ss -Htan 'sport = :%d'"):format(port))
      connection:close()
      return output:find("SYN-RECV", 1, true) ~= nil
    end
    assert.truthy(is_held())
    assert.equal("true", reload(s, pool(false)))
    assert.truthy(process.wait_until(function() return not is_held() end))
    -- A new script that fails does not change it.
    assert.equal("nil", reload(s, pool(true) .. ' error("wrong")'))
    assert.falsy(is_held())
  end)
end)
