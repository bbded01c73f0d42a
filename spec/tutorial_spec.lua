-- docs/tutorial.md: typing its files and commands shows what the page shows.
-- Takes long: the page has many steps.
-- Runs once: the page is about Lua 5.4.

local page = require "spec.support.page"
local process = require "spec.support.process"
local server = require "spec.support.server"

local quote = process.quote

-- Files and commands use these ports, and the spec free ones.
local APPLICATION, NGINX = "8080", "80"

local NGINX_CONF = [[
  daemon off; worker_processes 1; pid FOLDER/pid; error_log FOLDER/error.log;
  events { worker_connections 64; }
  http {
    access_log off;
    client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/f; uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s;
    include FOLDER/guestbook.conf;
  }
]]

describe("docs/tutorial.md", function()
  after_each(server.cleanup)

  local folder, ports, application

  -- The indented command lines of the page that begin with this word.
  local function indented(word)
    local list = {}
    for line in process.slurp(server.root .. "/docs/tutorial.md"):gmatch("\n    (" .. word .. " [^\n]+)") do
      list[#list + 1] = line
    end
    assert(#list > 0)
    return list
  end

  -- With the ports of this run in place of those of the page.
  local function here(text)
    local function replaced(before, port) return before .. (ports[port] or port) end
    return (text:gsub("(127%.0%.0%.1:)(%d+)", replaced):gsub("(port = )(%d+)", replaced)
      :gsub("(or )(8080)", replaced):gsub("(listen )(80);", "listen 127.0.0.1:" .. ports[NGINX] .. ";"))
  end

  -- Runs a command as a user does, in the application's folder.
  local function run(command)
    return process.run(("cd %s && %s && cd %s; unset PORT DATA; %s"):format(
      quote(server.root), table.concat(indented "export", " && "), quote(folder), command))
  end

  local function restart()
    if application then assert.equal(0, application:stop()) end
    application = server.start {
      file = folder .. "/app.lua", launcher = { "--dev" }, cwd = folder, port = tonumber(ports[APPLICATION]),
      env = { DATA = false },
    }
  end

  local function start_nginx()
    process.write(folder .. "/conf", (NGINX_CONF:gsub("FOLDER", folder)))
    local nginx = process.start({ "/usr/sbin/nginx", "-p", folder, "-e", folder .. "/error.log", "-c",
      folder .. "/conf" })
    assert(process.wait_until(function() return server.listening(tonumber(ports[NGINX])) end), nginx:log())
    return nginx
  end

  it("leads to an application, step by step", function()
    folder = process.scratch("guestbook")
    local parent = folder:match "^(.*)/guestbook$"
    assert(os.execute(("cd %s && %s"):format(quote(parent), table.concat(indented "mkdir", " && "))))
    ports = { [APPLICATION] = tostring(server.free_port()), [NGINX] = tostring(server.free_port()) }
    application = nil
    local nginx, checked
    for _, step in ipairs(page.steps "docs/tutorial.md") do
      for name, text in pairs(step.files) do process.write(folder .. "/" .. name, here(text)) end
      if step.files["app.lua"] and not checked then
        -- The program that the page begins with, found as the page says; `lua` may be another version.
        checked = true
        local code, output = run "moonbridge --check app.lua"
        assert.equal(0, code, output)
      end
      if step.files["app.lua"] then restart() end
      if step.files["guestbook.conf"] then nginx = start_nginx() end
      for _, pair in ipairs(step.commands) do
        local code, output = run(here(pair[1]))
        assert.same({ pair[1], pair[2] }, { pair[1], output }, "line " .. step.line)
        assert.truthy(code == 0 or pair[1]:find("--max-time", 1, true), pair[1])
      end
    end
    assert.truthy(nginx, "the page ends with nginx")
    nginx:signal "TERM"
    assert.equal(0, nginx:wait())
  end)
end)
