-- `moonbridge --dev`: new code is loaded when a file of the application changes.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

local APP = [[
  local http = require "moonbridge_http"
  local answer = require "answer"
  listen{ { proto = "tcp", host = "127.0.0.1", port = PORT }, min_fork = 2, max_fork = 4,
    connect = http.generate_handler(answer) }
]]

local ANSWER = [[
return function(request)
  local text = "VERSION " .. (request.path == "lazy" and require "lazy" or "")
  if request.path == "page" then
    local file = assert(io.open("views/page"))
    text = file:read "a"
    file:close()
  end
  request:send_status("200 OK")
  request:send_data(text)
  return true
end
]]

-- The folder of an application that answers with "one".
local function application()
  local folder = process.scratch("app")
  assert(lfs.mkdir(folder))
  local app = { folder = folder }
  function app.write(name, text)
    local file = assert(io.open(folder .. "/" .. name, "w"))
    assert(file:write(text))
    assert(file:close())
  end
  -- As editors do that cannot damage a file.
  function app.replace(name, text)
    app.write(name .. ".new", text)
    assert(os.rename(folder .. "/" .. name .. ".new", folder .. "/" .. name))
  end
  function app.answer(version) return (ANSWER:gsub("VERSION", version)) end
  function app.start(options, port)
    port = port or server.free_port()
    app.write("app.lua", ("PORT = %d "):format(port) .. APP)
    return server.start {
      file = "app.lua", launcher = options or { "--dev" }, cwd = folder, port = port,
      env = { LUA_PATH = ("./?.lua;%s/lua/?.lua;;"):format(server.root) },
    }
  end
  app.write("answer.lua", app.answer "one")
  return app
end

local function body(s, path) return s:request(path or "/").body end

local function wait_for_body(s, text, path)
  local found
  local ok = process.wait_until(function()
    found = body(s, path)
    return found == text
  end)
  assert.truthy(ok, tostring(found) .. "\n" .. s:log())
end

describe("moonbridge --dev", function()
  after_each(server.cleanup)

  it("loads the script and its modules anew when they change, however that is done", function()
    local app = application()
    local s = app.start()
    assert.equal("one ", body(s))
    app.write("answer.lua", app.answer "two")
    wait_for_body(s, "two ")
    app.replace("answer.lua", app.answer "three")
    wait_for_body(s, "three ")
    app.write("real.lua", app.answer "four")
    os.remove(app.folder .. "/answer.lua")
    assert(lfs.link("real.lua", app.folder .. "/answer.lua", true))
    wait_for_body(s, "four ")
    app.write("real.lua", app.answer "five")
    wait_for_body(s, "five ")
    app.write("app.lua", ("PORT = %d "):format(s.port) .. APP:gsub("answer%)", "function(request) "
      .. "request:send_status('200 OK') request:send_data('script') return true end)"))
    wait_for_body(s, "script")
    assert.truthy(s:log():find("Changed: " .. app.folder .. "/app.lua\n", 1, true), s:log())
  end)

  it("also when a worker has loaded them, and when they were missing", function()
    local app = application()
    local s = app.start()
    assert.equal(500, s:request("/lazy").status)
    app.write("lazy.lua", "return 'lazy'")
    wait_for_body(s, "one lazy", "/lazy")
    app.write("lazy.lua", "return 'lazier'")
    wait_for_body(s, "one lazier", "/lazy")
  end)

  it("when a file in one of the given folders changes, which may be created later", function()
    local app = application()
    local s = app.start { "--dev", "--watch", "views", "--watch=more" }
    assert(lfs.mkdir(app.folder .. "/views"))
    local function changed(name)
      assert.truthy(s:wait_log("Changed: " .. app.folder .. "/" .. name), s:log())
      assert.truthy(s:wait_log("Reload complete[^\n]*\n$"), s:log())
    end
    app.write("views/page", "first")
    changed "views/page\n"
    assert.equal("first", body(s, "/page"))
    assert(lfs.mkdir(app.folder .. "/more"))
    app.write("more/page", "first")
    changed "more/page\n"
  end)

  it("under load, without a request that fails", function()
    local app = application()
    local s = app.start()
    local kept, seen = s:connect(), {}
    for round = 1, 5 do
      app.replace("answer.lua", app.answer("round" .. round))
      local text = ("round%d "):format(round)
      local ok = process.wait_until(function()
        local response = kept:request "/"
        assert.equal(200, response.status)
        assert.equal(200, s:request("/").status)
        seen[response.body] = true
        return response.body == text
      end)
      assert.truthy(ok, s:log())
    end
    assert.truthy(seen["round5 "])
  end)

  it("goes on with the old code if the new one cannot be prepared, and takes the next one", function()
    local app = application()
    local s = app.start()
    app.write("app.lua", ("PORT = %d "):format(s.port)
      .. APP:gsub("connect =", "prepare = function() error('unprepared') end, connect ="))
    assert.truthy(s:wait_log("Reload failed"), s:log())
    assert.equal("one ", body(s))
    app.write("answer.lua", app.answer "two")
    app.write("app.lua", ("PORT = %d "):format(s.port) .. APP)
    wait_for_body(s, "two ")
  end)
end)

describe("moonbridge without --dev", function()
  after_each(server.cleanup)

  it("watches nothing, and refuses folders to watch", function()
    local app = application()
    local s = app.start {}
    app.write("answer.lua", app.answer "two")
    assert.equal("one ", body(s))
    local inotify = 0
    for _, pid in ipairs { s.pid, table.unpack(s:children()) } do
      for entry in lfs.dir(("/proc/%d/fd"):format(pid)) do
        local target = lfs.symlinkattributes(("/proc/%d/fd/%s"):format(pid, entry), "target") or ""
        if target:find("inotify", 1, true) then inotify = inotify + 1 end
      end
    end
    assert.equal(0, inotify)
    s:stop()
    local code, _, log = server.run_script {
      file = server.root .. "/bin/moonbridge", args = { "--watch", "views", app.folder .. "/app.lua" },
    }
    assert.equal(1, code)
    assert.truthy(log:find("option --watch needs --dev", 1, true), log)
  end)
end)
