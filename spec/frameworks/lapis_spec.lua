-- moonbridge.lapis runs applications for Lapis.
--
-- No package registry that the project uses has Lapis, so these specs run with a test double of its calling
-- convention (Lapis 1.18). lapis_itself_spec.lua runs an application with Lapis where it is installed.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- The double: routes are paths, actions get { req, res, options } and may return options. It reads and writes
-- the same fields of `req` and `res`, and calls handle_error, as Lapis does.
local DOUBLE = [[
  package.preload["lapis.logging"] = function()
    local logging = {}
    function logging.set_print(print) logging.print = print end
    return logging
  end
  package.preload["lapis.util"] = function()
    return { build_url = function(parts) return parts.scheme .. "://" .. parts.host .. parts.path end }
  end
  package.preload["lapis.environment"] = function()
    return { push = function(name) environment = name end }
  end
  package.preload["lapis.config"] = function()
    return { get = function() return assert(configuration[environment], environment) end }
  end
  package.preload["lapis"] = function()
    return { load_app = function(app) return type(app) == "string" and require(app) or app end }
  end
  local function new_app(routes)
    local app = {}
    function app.handle_error(r, err)
      r.res.status = 500
      r.res.content = "error page: " .. tostring(err)
    end
    function app:dispatch(req, res)
      local r = { req = req, res = res, options = {} }
      local ok = xpcall(function()
        local action = routes[req.parsed_url.path] or error("Failed to find route: " .. req.request_uri)
        r.params = setmetatable(req.params_get, { __index = req.params_post })
        r.options = action(r) or {}
        require "lapis.logging".print("\27[32m" .. req.method .. "\27[0m", req.request_uri)
      end, function(err) self.handle_error(r, err, "\nstack traceback of the action") end)
      return ok, r
    end
    return app
  end
]]

local SCRIPT = DOUBLE .. [[
  local moonbridge = require "moonbridge"
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    min_fork = 1, max_fork = 1,
    connect = require "moonbridge.lapis"(new_app(assert(load(ROUTES, "=routes"))())),
  }
  moonbridge.run()
]]

local function start(routes)
  return server.start { script = SCRIPT, globals = { ROUTES = routes } }
end

describe("moonbridge.lapis, with a double of Lapis,", function()
  after_each(server.cleanup)

  it("gives an application what it reads of a request", function()
    local s = start [[
      return { ["/a%20b/c"] = function(self)
        local req, lines = self.req, {}
        local function add(...) lines[#lines + 1] = table.concat({ ... }, " ") end
        add(req.method, req.cmd_mth, req.request_uri, req.cmd_url)
        add(req.relpath, req.built_url)
        add(req.scheme, req.port, req.remote_addr, req.server_addr, req.srv)
        add(req.parsed_url.host, req.parsed_url.port, req.parsed_url.query)
        add(req.headers["X-One"], req.headers.x_one, req.headers["x-two"][2], req.referer)
        add(tostring(req.params_get.flag), req.params_get.last, "[" .. req.params_get.empty .. "]")
        add(tostring(req.nothing), tostring(req.read_body_as_string(req)))
        self.res.content = table.concat(lines, "\n")
      end }
    ]]
    local response = s:request {
      target = "/a%20b/c?flag&last=1&last=2&empty=",
      host = "Example.org:81",
      headers = { { "X-One", "1" }, { "X-Two", "2" }, { "X-Two", "3" }, { "Referer", "/from" } },
    }
    assert.equal(([[
GET GET /a%20b/c?flag&last=1&last=2&empty= /a%20b/c?flag&last=1&last=2&empty=
/a%20b/c http://example.org/a%20b/c
http PORT 127.0.0.1 127.0.0.1 127.0.0.1
example.org 81 flag&last=1&last=2&empty=
1 1 3 /from
true 2 []
nil ]]):gsub("PORT", s.port), response.body)
  end)

  it("sends status, headers and content, with one header for each way to write its name", function()
    local s = start [[
      return {
        ["/"] = function(self)
          self.res.status = 404
          self.res.headers["content-type"] = "text/plain"
          self.res.headers["Content-Length"] = 1000
          self.res:add_header("Set-Cookie", "a=1")
          self.res:add_header("set-cookie", "b=2")
          self.res:add_header("SET_COOKIE", "c=3")
          self.res.content = self.res.headers["Content-Type"]
        end,
        ["/moved"] = function(self) self.res.status = 302 self.res:add_header("Location", "/") end,
        ["/empty"] = function(self) self.res.status = 204 self.res.content = "a layout" end,
        ["/odd"] = function(self) self.res.status = 299 end,
        ["/text"] = function(self) self.res.status = "201 Made" end,
        ["/wrong"] = function(self) self.res.status = "fine" end,
        ["/split"] = function(self) self.res.headers.Location = "/\r\nSet-Cookie: evil=1" end,
      }
    ]]
    local response = s:request "/"
    assert.same({ 404, "Not Found", "text/plain", "text/plain", "10", "a=1, b=2, c=3" }, {
      response.status, response.reason, response.body, response.headers["content-type"],
      response.headers["content-length"], response.headers["set-cookie"],
    })
    local moved = s:request "/moved"
    assert.same({ 302, "/", "0" }, { moved.status, moved.headers.location, moved.headers["content-length"] })
    assert.same({ 204, "" }, { s:request("/empty").status, s:request("/empty").body })
    assert.same({ 299, "" }, { s:request("/odd").status, s:request("/odd").reason })
    assert.same({ 201, "Made" }, { s:request("/text").status, s:request("/text").reason })
    assert.equal(500, s:request("/wrong").status)
    local split = s:request "/split"
    assert.same({ 500 }, { split.status, split.headers["set-cookie"] })
    assert.same({ 404, "" }, { s:request{ method = "HEAD" }.status, s:request{ method = "HEAD" }.body })
  end)

  it("reads forms, files and other bodies", function()
    local s = start [[
      return { ["/"] = function(self)
        local post = self.req.params_post
        local lines = {}
        for name, value in pairs(post) do
          if type(value) == "table" then
            value = table.concat({ value.name, value.filename, value["content-type"], value.content }, "|")
          end
          lines[#lines + 1] = name .. "=" .. tostring(value)
        end
        table.sort(lines)
        lines[#lines + 1] = "body: " .. tostring(self.req:read_body_as_string())
        self.res.content = table.concat(lines, "\n")
      end }
    ]]
    local function post(arguments)
      local _, output = s:curl(arguments .. " URL/")
      return output
    end
    assert.equal("a=2\nb=5 < 6\nc=true\nbody: a=1&a=2&b=5+%3C+6&c", post "-d 'a=1&a=2&b=5+%3C+6&c'")
    assert.equal("comment=last\nfile=file|a.txt|text/plain|data\nbody: nil",
      post "-F comment=first -F comment=last -F 'file=data;filename=a.txt;type=text/plain'")
    assert.equal('body: {"a":1}', post "-H 'Content-Type: application/json' -d '{\"a\":1}'")
    assert.equal('body: ', post "-X POST")
  end)

  it("refuses forms that no application could read", function()
    local s = start [[
      return { ["/"] = function(self) self.res.content = "read " .. tostring(self.req.params_post) end }
    ]]
    local function post(kind, body)
      return s:request { method = "POST", headers = { ["Content-Type"] = kind }, body = body }
    end
    local many = ("a=1&"):rep(5000)
    assert.equal(413, post("application/x-www-form-urlencoded", many).status)
    assert.equal(400, post("multipart/form-data; boundary=x", "no part").status)
    assert.equal(200, post("application/x-www-form-urlencoded", "a=1").status)
    -- The worker has lived through all of it.
    assert.falsy(s:log():find "returned with exit code 1")
  end)

  it("logs the errors of actions beside their error page, and keeps the worker", function()
    local s = start [[ return { ["/"] = function() error("the action is broken", 0) end } ]]
    local worker = s:workers()[1]
    local response = s:request "/"
    assert.same({ 500, "error page: the action is broken" }, { response.status, response.body })
    assert.truthy(s:wait_log("GET / %[%x+%]: the action is broken\n"))
    assert.truthy(s:wait_log("stack traceback of the action\n"))
    assert.same({ worker }, s:workers())
  end)

  it("shows no escape sequences in the log", function()
    local s = start [[ return { ["/"] = function() end } ]]
    s:request "/"
    assert.truthy(s:wait_log("%] GET\t/\n"))
  end)

  it("lets an action stream with skip_render, and breaks off what fails in the middle", function()
    local s = start [[
      local function begin(self, text)
        local request = self.req.moonbridge
        request:send_status("200 OK")
        request:send_data(text)
        request:flush()
        return request
      end
      return {
        ["/"] = function(self)
          begin(self, "one "):send_data("two")
          return { skip_render = true }
        end,
        ["/id"] = function(self) return { skip_render = #self.req.moonbridge.id > 0 } end,
        ["/own"] = function(self)
          self.res.content = "own " .. #self.req.moonbridge.id
          return { skip_render = true }
        end,
        ["/late"] = function(self)
          begin(self, "one")
          error("too late", 0)
        end,
      }
    ]]
    assert.equal("one two", s:request("/").body)
    assert.same({ 200, "" }, { s:request("/id").status, s:request("/id").body })
    assert.equal("own 32", s:request("/own").body)
    local reply, ending = s:raw "GET /late HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.truthy(reply:find("one", 1, true))
    assert.equal("reset", ending)
    assert.truthy(s:wait_log("GET /late %[%x+%]: too late\n"))
  end)

  it("does not redirect to a host that the client has put into the path", function()
    local s = start [[ return { ["/evil.org"] = function(self) self.res.content = self.req.relpath end } ]]
    assert.equal("/evil.org", s:request("//evil.org").body)
  end)

  it("says what it expects", function()
    assert.has_error(function() require "moonbridge.lapis" (1) end,
      "bad argument #1 to 'moonbridge.lapis' (application or module name expected)")
  end)
end)

describe("lapis server, with a double of Lapis,", function()
  after_each(server.cleanup)

  -- Runs the action with a configuration, a table as text, and the application in the file app.lua.
  local function serve(configuration, folder, options)
    options = options or {}
    options.script = DOUBLE .. [[
      function _G.new_app(routes) return new_app(routes) end
      configuration = { testing = assert(load("local PORT = ... return " .. CONFIGURATION))(PORT) }
      require "lapis.cmd.moonbridge.actions".server({}, { environment = "testing" })
    ]]
    options.globals = { CONFIGURATION = configuration }
    options.env = { LUA_PATH = ("%s/?.lua;%s/lua/?.lua;;"):format(folder, server.root) }
    return server.start(options)
  end

  local function application(folder, text)
    local file = assert(io.open(folder .. "/app.lua", "w"))
    file:write('return new_app { ["/"] = function(self) self.res.content = "' .. text .. '" end }')
    file:close()
  end

  local function folder_with(text)
    local folder = process.scratch("app")
    lfs.mkdir(folder)
    application(folder, text)
    return folder
  end

  it("takes ports and workers from the configuration", function()
    local s = serve([[{
      port = tostring(PORT), bind_host = "127.0.0.1", num_workers = "3", code_cache = "on",
    }]], folder_with "hello")
    assert.equal("hello", s:request("/").body)
    assert.truthy(process.wait_until(function() return #s:workers() == 3 end))
    assert.truthy(s:log():find('interface "127.0.0.1", port ' .. s.port, 1, true))
  end)

  it("takes options of the server from the configuration", function()
    local s = serve([[{
      port = PORT, code_cache = "on",
      moonbridge = { http = { static_headers = "X-One: 1" }, pool = { min_fork = 1, max_fork = 1 },
        run = { access_log = "/dev/stderr" } },
    }]], folder_with "hello")
    assert.equal("1", s:request("/").headers["x-one"])
    assert.truthy(s:wait_log '"target":"/"')
  end)

  it("finds new code at each request without the cache, and after SIGHUP with it", function()
    local folder = folder_with "old"
    local s = serve("{ port = PORT }", folder)
    assert.equal("old", s:request("/").body)
    application(folder, "new")
    assert.equal("new", s:request("/").body)
    s:stop()
    s = serve("{ port = PORT, code_cache = true }", folder)
    assert.equal("new", s:request("/").body)
    application(folder, "newer")
    assert.equal("new", s:request("/").body)
    s:signal "HUP"
    assert.truthy(s:wait_log "Reload complete")
    assert.equal("newer", s:request("/").body)
  end)

  it("says what is wrong with a configuration", function()
    local s = serve('{ port = PORT, num_workers = "many" }', folder_with "hello", { ready = false })
    assert.equal(1, s:wait())
    assert.truthy(s:log():find('num_workers must be a whole number from 1 on, or "auto", not many', 1, true))
  end)
end)
