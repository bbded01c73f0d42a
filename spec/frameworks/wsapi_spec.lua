-- moonbridge.wsapi runs applications for WSAPI.
-- Not under Lua 5.5: it refuses WSAPI's own library, which assigns to a variable of `for`.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"

local SCRIPT = [[
  local moonbridge = require "moonbridge"
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    connect = require "moonbridge.wsapi"(assert((loadstring or load)(APPLICATION, "=application"))()),
  }
  moonbridge.run()
]]

local function start(application)
  return server.start { script = SCRIPT, globals = { APPLICATION = application } }
end

describe("moonbridge.wsapi", function()
  after_each(server.cleanup)

  it("gives an application the variables of CGI, and sends its chunks", function()
    local s = start [[
      return { run = function(env)
        local names = { "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_X_ONE", "HTTP_PROXY",
          "HTTP_X_BAD", "SCRIPT_NAME", "NOTHING", "SERVER_NAME", "REMOTE_ADDR" }
        return 201, { ["Set-Cookie"] = { "a=1", "b=2" } }, coroutine.wrap(function()
          for _, name in ipairs(names) do coroutine.yield(name .. "=" .. env[name] .. "\n") end
        end)
      end }
    ]]
    local response = s:request {
      target = "/a%20b/c?d=e",
      headers = { { "X-One", "1" }, { "Proxy", "evil" }, { "X_Bad", "2" } },
    }
    assert.equal("REQUEST_METHOD=GET\nPATH_INFO=/a b/c\nQUERY_STRING=d=e\nHTTP_X_ONE=1\nHTTP_PROXY=\n"
      .. "HTTP_X_BAD=\nSCRIPT_NAME=\nNOTHING=\nSERVER_NAME=localhost\nREMOTE_ADDR=127.0.0.1\n", response.body)
    assert.equal(201, response.status)
  end)

  it("reads bodies, also chunked ones", function()
    local s = start [[
      return function(env)
        local pieces = {}
        repeat
          local piece = env.input:read(2)
          pieces[#pieces + 1] = piece
        until not piece
        local text = env.input.length .. ":" .. table.concat(pieces, "|")
        return "200", { ["Content-Length"] = #text }, coroutine.wrap(function() coroutine.yield(text) end)
      end
    ]]
    local function post(fields)
      local c = s:connect()
      c:send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" .. fields)
      return (c:read_all():match("\r\n\r\n(.*)"))
    end
    assert.equal("5:he|ll|o", post "Content-Length: 5\r\n\r\nhello")
    assert.equal("5:he|ll|o", post "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
    assert.equal("0:", post "\r\n")
  end)

  it("answers 404 for what an application does not have, and 500 for its errors", function()
    local s = start [[
      return function(env)
        if env.PATH_INFO == "/missing" then error { 404, "no such song" } end
        error "the application is broken"
      end
    ]]
    local missing = s:request("/missing")
    assert.same({ 404, "no such song\n" }, { missing.status, missing.body })
    assert.equal(500, s:request("/").status)
    assert.truthy(s:wait_log("the application is broken"))
  end)

  it("runs the library of WSAPI: its requests, forms, files and responses", function()
    local s = start [[
      -- Debian's package has it for Lua 5.2, in a folder of its own.
      package.path = package.path .. ";/usr/share/lua/5.2/?.lua;/usr/share/lua/5.1/?.lua"
      local request, response = require "wsapi.request", require "wsapi.response"
      return function(env)
        local asked, answer = request.new(env), response.new(200, { ["Content-Type"] = "text/plain" })
        local file = asked.POST.file
        answer:set_cookie("seen", "yes")
        answer:write(asked.GET.a, " ", asked.POST.comment, " ", file and file.name .. ":" .. file.contents)
        return answer:finish()
      end
    ]]
    local _, form = s:curl "-d comment=5+%3C+6 URL/?a=b"
    assert.equal("b 5 < 6 ", form)
    local _, upload = s:curl "-i -F comment=nice -F 'file=data;filename=a.txt' URL/?a=b"
    assert.truthy(upload:find("\r\n\r\nb nice a.txt:data", 1, true))
    assert.truthy(upload:lower():find("set-cookie: seen=yes", 1, true))
  end)

  it("says what it expects", function()
    assert.has_error(function() require "moonbridge.wsapi" (1) end, "bad argument #1 to 'moonbridge.wsapi' "
      .. "(function, table with 'run' or module name expected)")
  end)
end)

-- Debian's packages of these frameworks are for Lua 5.1, and their samples are part of them.
describe("moonbridge.wsapi runs", function()
  -- Old modules beside this version of Lua.
  local PRELUDE = ([[
    package.path = package.path .. ";/usr/share/lua/5.2/?.lua;/usr/share/lua/5.1/?.lua"
    dofile "%s/spec/frameworks/lua51.lua"
    local moonbridge = require "moonbridge"
    local function serve(application)
      moonbridge.listen{
        { proto = "tcp", host = "127.0.0.1", port = PORT },
        connect = require "moonbridge.wsapi"(application),
      }
      moonbridge.run()
    end
  ]]):format(server.root)

  local function sample(path)
    return server.start { script = PRELUDE .. "serve(dofile(SAMPLE) or hello)", globals = { SAMPLE = path } }
  end

  after_each(server.cleanup)

  -- Small images of Debian leave out what packages have in this folder.
  local function sample_it(name, path, body)
    path = "/usr/share/doc/" .. path
    it(name, function()
      if not lfs.attributes(path) then return pending(path .. " is not installed") end
      body(sample(path))
    end)
  end

  sample_it("the sample of WSAPI", "lua-wsapi-doc/samples/hello.lua", function(s)
    assert.equal("<html><body><p>Hello Wsapi!</p><p>PATH_INFO: /a</p><p>SCRIPT_NAME: </p></body></html>",
      s:request("/a").body)
  end)

  sample_it("Orbit's hello", "lua-orbit/hello/hello.lua", function(s)
    local response = s:request "/say/Moon"
    assert.equal("text/html", response.headers["content-type"])
    assert.truthy(response.body:find('<p class="hello">Hello Moon!</p>', 1, true))
    assert.equal(404, s:request("/nothing").status)
  end)

  sample_it("Orbit's songs", "lua-orbit/songs/songs.lua", function(s)
    assert.truthy(s:request("/").body:find("<td>A Day in the Life</td>", 1, true))
  end)

  it("CGILua's scripts and templates: parameters, forms, files and cookies", function()
    local folder = process.scratch "www"
    lfs.mkdir(folder)
    local function write(name, text)
      local file = assert(io.open(folder .. "/" .. name, "w"))
      file:write(text)
      file:close()
    end
    write("page.lp", [=[
<% for number = 1, 3 do %><b><%= number %></b><% end %>
<%= cgilua.QUERY.q or "" %> <%= cgilua.POST.name or "" %>
<% local file = cgilua.POST.file %><%= file and file.filename .. ": " .. file.file:read "*a" or "" %>]=])
    write("script.lua", [[
      local cookies = require "cgilua.cookies"
      cookies.set("seen", "yes")
      cgilua.htmlheader()
      cgilua.put("seen: ", tostring(cookies.get "seen"))
    ]])
    local s = server.start { script = PRELUDE .. [[
      local sapi = require "wsapi.sapi"
      serve(function(env)
        -- The server decodes the path: without this check it could lead out of the folder.
        if env.PATH_INFO:find("..", 1, true) then error { 404, "no such script" } end
        env.DOCUMENT_ROOT, env.SCRIPT_NAME = FOLDER, env.PATH_INFO
        env.PATH_TRANSLATED = FOLDER .. env.PATH_INFO
        return sapi.run(env)
      end)
    ]], globals = { FOLDER = folder } }
    local function curl(arguments) return (select(2, s:curl(arguments))) end
    assert.equal("<b>1</b><b>2</b><b>3</b>\na b \n", curl "'URL/page.lp?q=a+b'")
    assert.equal("<b>1</b><b>2</b><b>3</b>\n joe b\n", curl "-d name=joe+b URL/page.lp")
    assert.equal("<b>1</b><b>2</b><b>3</b>\n joe\na.txt: data",
      curl "-F name=joe -F 'file=data;filename=a.txt' URL/page.lp")
    local reply = curl "-i -b seen=no URL/script.lua"
    assert.truthy(reply:find("Set%-Cookie: seen=yes"))
    assert.truthy(reply:find("seen: no$"))
    assert.equal(404, s:request("/%2e%2e/secret").status)
  end)
end)
