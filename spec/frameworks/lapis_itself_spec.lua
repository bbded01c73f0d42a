-- moonbridge.lapis runs an application with Lapis itself, if LAPIS_PATH tells where it and the Lua modules
-- that it needs are (as LUA_PATH would): LAPIS_PATH='/opt/lapis/?.lua;/opt/lapis/?/init.lua' make test SPEC=…

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

describe("Lapis itself", function()
  local paths = os.getenv "LAPIS_PATH"
  local function lapis_it(name, body)
    it(name, paths and body or function() pending "LAPIS_PATH is not set" end)
  end

  local APPLICATION = [[
    local lapis, csrf = require "lapis", require "lapis.csrf"
    local helpers = require "lapis.application"
    local app = lapis.Application()
    app:enable "etlua"
    app:before_filter(function(self) self.res.headers["x-frame-options"] = "DENY" end)
    app:get("hello", "/hello/:name", function(self)
      local url = self:build_url(self:url_for("hello", { name = "x" }))
      return { json = { name = self.params.name, q = self.params.q, url = url } }
    end)
    app:get("/html", function(self) return self:html(function() h1 "Hi & hello" end) end)
    app:get("/view", function(self)
      self.name = "<Moon>"
      return { render = "page" }
    end)
    app:get("/count", function(self)
      self.session.count = (self.session.count or 0) + 1
      self.cookies.theme = "dark; really"
      return { layout = false, ("%d %s"):format(self.session.count, self.cookies.theme) }
    end)
    app:match("/form", helpers.respond_to {
      GET = function(self) return { layout = false, csrf.generate_token(self) } end,
      POST = helpers.capture_errors(function(self)
        csrf.assert_token(self)
        return { layout = false, self.params.a.b }
      end, function(self) return { status = 400, layout = false, self.errors[1] } end),
    })
    app:post("/upload", function(self)
      local file = self.params.file
      return { layout = false, table.concat({ file.filename, #file.content, self.params.comment }, " ") }
    end)
    app:post("/json", helpers.json_params(function(self)
      return { json = { sum = self.params.a + self.params.b } }
    end))
    app:get("/error", function() error "the action is broken" end)
    app:get("/redirect", function() return { redirect_to = "/html" } end)
    app:get("/stream", function(self)
      local request = self.req.moonbridge
      request:send_status "200 OK"
      for number = 1, 3 do
        request:send_data(number, "\n")
        request:flush()
      end
      return { skip_render = true }
    end)
    return app
  ]]

  local s
  setup(function()
    if not paths then return end
    local folder = process.scratch "app"
    lfs.mkdir(folder)
    lfs.mkdir(folder .. "/views")
    local function write(name, text)
      local file = assert(io.open(folder .. "/" .. name, "w"))
      file:write(text)
      file:close()
    end
    write("app.lua", APPLICATION)
    write("views/page.etlua", "<p><%= name %></p>")
    write("config.lua", [[
      require "lapis.config" ("development", {
        server = "moonbridge", port = os.getenv "PORT", bind_host = "127.0.0.1", code_cache = "on",
        secret = "a secret for the specs",
      })
    ]])
    s = server.start {
      script = [[ require "lapis.cmd.actions".execute { "server", [0] = "lapis" } ]],
      cwd = folder,
      env = {
        LUA_PATH = ("%s/?.lua;%s/lua/?.lua;%s;;"):format(folder, server.root, paths),
        LAPIS_ENVIRONMENT = "development",
      },
    }
  end)
  teardown(server.cleanup)

  lapis_it("routes, renders HTML, JSON and templates, and redirects", function()
    local json = s:request { target = "/hello/moon?q=a+b", host = "example.org:81" }
    assert.equal("application/json", json.headers["content-type"])
    assert.equal("DENY", json.headers["x-frame-options"])
    local url = [["url":"http:\/\/example.org:81\/hello\/x"]]
    for _, part in ipairs { '"name":"moon"', '"q":"a b"', url } do
      assert.truthy(json.body:find(part, 1, true), json.body)
    end
    assert.truthy(s:request("/html").body:find("<h1>Hi &amp; hello</h1>", 1, true))
    assert.truthy(s:request("/view").body:find("<p>&lt;Moon&gt;</p>", 1, true))
    assert.equal("http://localhost/html", s:request("/redirect").headers.location)
  end)

  lapis_it("keeps signed sessions and cookies, and believes no others", function()
    local jar = process.quote(process.scratch "jar")
    for count = 1, 3 do
      local _, output = s:curl("-b " .. jar .. " -c " .. jar .. " URL/count")
      assert.equal(count .. " dark; really", output)
    end
    local _, forged = s:curl "-b 'lapis_session=eyJjb3VudCI6M30%3d%0a%2d%2dforged' URL/count"
    assert.equal("1 dark; really", forged)
  end)

  lapis_it("reads forms with tokens, files and JSON", function()
    local jar = process.quote(process.scratch "jar")
    local _, token = s:curl("-c " .. jar .. " URL/form")
    local _, output = s:curl(("-b %s --data-urlencode csrf_token=%s -d 'a[b]=c' URL/form"):format(
      jar, process.quote(token)))
    assert.equal("c", output)
    local _, status = s:curl "-o /dev/null -w '%{http_code}' -d 'a[b]=c' URL/form"
    assert.equal("400", status)
    _, output = s:curl "-F comment=nice -F 'file=data;filename=a.txt' URL/upload"
    assert.equal("a.txt 4 nice", output)
    _, output = s:curl "-H 'Content-Type: application/json' -d '{\"a\":1,\"b\":2}' URL/json"
    assert.truthy(output:find '"sum":3')
  end)

  lapis_it("shows its error page, streams, and logs", function()
    local response = s:request "/error"
    assert.equal(500, response.status)
    assert.truthy(response.body:find("the action is broken", 1, true))
    assert.truthy(s:wait_log "GET /error %[%x+%]: [^\n]*the action is broken")
    assert.equal("1\n2\n3\n", s:request("/stream").body)
    assert.truthy(s:wait_log "%[200%] GET /stream")
  end)
end)
