-- examples/application.lua, spoken to by curl, by LuaSocket's HTTP client and over raw sockets.
-- Not under Lua 5.5: there is no LuaSQL for it.

local json = require "dkjson"
local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"
local websocket = require "spec.support.websocket"

local s, database

local function start(options)
  options = options or {}
  database = process.scratch("notes.db")
  options.file = server.root .. "/examples/application.lua"
  options.args = { database }
  s = server.start(options)
end

-- The files of the database's folder, without the database itself.
local function stored()
  local names = {}
  for name in lfs.dir((database:match("^(.*)/"))) do
    local suffix = name:match("^notes%.db%-(%a+%-.*)$")
    if suffix then names[#names + 1] = suffix end
  end
  table.sort(names)
  return names
end

local function api(method, target, value)
  local response = s:request {
    method = method, target = target, body = value and json.encode(value),
    headers = { ["Content-Type"] = "application/json" },
  }
  if response.body == "" then return response.status, nil, response end
  assert.equal("application/json", response.headers["content-type"])
  return response.status, json.decode(response.body), response
end

-- A multipart form: a list of { name, content, file_name }.
local function form(parts)
  local lines = {}
  for _, part in ipairs(parts) do
    lines[#lines + 1] = '--limit\r\nContent-Disposition: form-data; name="' .. part[1] .. '"'
      .. (part[3] and '; filename="' .. part[3] .. '"\r\nContent-Type: text/plain' or "")
      .. "\r\n\r\n" .. part[2] .. "\r\n"
  end
  return table.concat(lines) .. "--limit--\r\n"
end

local function post(parts, headers)
  headers = headers or {}
  headers["Content-Type"] = "multipart/form-data; boundary=limit"
  return s:request { method = "POST", body = form(parts), headers = headers }
end

after_each(server.cleanup)

describe("the page of examples/application.lua", function()
  it("takes a comment and several files, and shows them", function()
    for _, launcher in ipairs { false, true } do
      start { launcher = launcher }
      local one, two = process.scratch("one.bin"), process.scratch("zwei ü.txt")
      local content = ("\0\1\2\r\n--"):rep(500000)
      for path, text in pairs { [one] = content, [two] = "" } do
        local file = assert(io.open(path, "wb"))
        file:write(text)
        file:close()
      end
      local code, output = s:curl(("-L -F comment='5 < 6 & 7' -F files=@%s -F 'files=@\"%s\"' URL/")
        :format(process.quote(one), two))
      assert.equal(0, code, output)
      assert.truthy(output:find('<p class="comment">5 &lt; 6 &amp; 7</p>', 1, true))
      assert.truthy(output:find('<a href="/files/1">one.bin</a> <span class="hint">3.3 MiB</span>', 1, true))
      assert.truthy(output:find('<a href="/files/2">zwei ü.txt</a> <span class="hint">0 bytes<', 1, true))
      local file = s:request("/files/1")
      assert.equal(content, file.body)
      assert.equal('attachment; filename="one.bin"', file.headers["content-disposition"])
      assert.equal("3500000", s:request({ method = "HEAD", target = "/files/1" }).headers["content-length"])
      local part = s:request { target = "/files/1", headers = { Range = "bytes=1-5" } }
      assert.same({ 206, "\1\2\r\n-" }, { part.status, part.body })
      local style = s:request("/style.css")
      assert.same({ 200, "text/css; charset=utf-8", "no-cache" },
        { style.status, style.headers["content-type"], style.headers["cache-control"] })
      assert.equal(304, s:request { target = "/style.css",
        headers = { ["If-None-Match"] = style.headers.etag } }.status)
      assert.equal(404, s:request("/store.lua").status)
      assert.same({ "file-1", "file-2" }, stored())
      assert.equal(0, s:stop())
    end
  end)

  it("escapes what it shows", function()
    start()
    local evil = [[</textarea></p>"'><script>alert(1)</script>]]
    assert.equal(303, post({ { "comment", evil }, { "files", "x", "<b>.txt" } }).status)
    local refused = post { { "comment", evil .. ("x"):rep(3000) } }
    assert.equal(422, refused.status)
    for _, body in ipairs { s:request("/").body, refused.body } do
      assert.truthy(body:find("&lt;/textarea&gt;", 1, true))
      assert.is_nil(body:find("<script>", 1, true))
      assert.is_nil(body:find("<b>", 1, true))
    end
    -- A name cannot add header lines, nor a content type.
    local odd = form({ { "files", "x", "a;b.txt" } }):gsub("text/plain", "text/html; x=\0011")
    s:request { body = odd, headers = { ["Content-Type"] = "multipart/form-data; boundary=limit" } }
    local file = s:request("/files/2")
    assert.equal("application/octet-stream", file.headers["content-type"])
    assert.equal('attachment; filename="a;b.txt"', file.headers["content-disposition"])
  end)

  it("says what was wrong with an upload, keeps the comment, and stores nothing", function()
    start()
    local many = { { "comment", "mine" } }
    for index = 1, 11 do many[index + 1] = { "files", "x", "f" .. index } end
    local large = { { "comment", "mine" }, { "files", "x", "small" },
      { "files", ("x"):rep(10 * 1024 * 1024 + 1), "large.bin" } }
    local expected = {
      { 422, "Write a comment, or choose a file.", { { "comment", " \r\n" }, { "files", "", "" } } },
      { 422, "The comment has characters that are no text.", { { "comment", "mine\0" } } },
      { 422, "The comment has characters that are no text.", { { "comment", "mine\xff" } } },
      { 422, "The comment has 2001 characters; 2000 are possible.", { { "comment", ("ü"):rep(2001) } } },
      { 413, "Choose no more than 10 files.", many },
      { 413, "“large.bin” is too large: a file may have up to 10 MiB.", large },
    }
    for _, case in ipairs(expected) do
      local response = post(case[3])
      assert.equal(case[1], response.status)
      assert.truthy(response.body:find("<p>" .. case[2] .. "</p>", 1, true))
      assert.truthy(response.body:find("<title>Error: ", 1, true))
      if case[1] == 413 then assert.truthy(response.body:find("mine</textarea>", 1, true)) end
    end
    local text = s:request { body = "comment=x", headers = { ["Content-Type"] = "text/plain" } }
    assert.equal(415, text.status)
    assert.equal(403, post({ { "comment", "x" } }, { ["Sec-Fetch-Site"] = "cross-site" }).status)
    assert.same({}, stored())
    assert.same({ notes = {} }, select(2, api("GET", "/api/notes")))
  end)

  it("streams: a large upload does not make the process large", function()
    start()
    assert.equal(413, post({ { "comment", "x" }, { "files", ("x"):rep(50000000), "large" } }).status)
    for _, pid in ipairs(s:workers()) do
      local peak = process.slurp("/proc/" .. pid .. "/status"):match("VmHWM:%s+(%d+)")
      assert.truthy(tonumber(peak) < 24 * 1024, peak .. " KiB")
    end
  end)

  it("leaves nothing behind if the form is broken, or the client goes while it uploads", function()
    start()
    local broken = s:request {
      body = form({ { "files", ("x"):rep(100000), "a" } }):sub(1, -20),
      headers = { ["Content-Type"] = "multipart/form-data; boundary=limit" },
    }
    assert.equal(400, broken.status)
    -- The refusal is out before the handler hears of it.
    assert.truthy(process.wait_until(function() return #stored() == 0 end))
    local c = s:connect()
    c:send("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=limit\r\n"
      .. "Content-Length: 500000\r\n\r\n" .. form({ { "files", ("x"):rep(100000), "a" } }):sub(1, -20))
    assert.truthy(process.wait_until(function() return #stored() == 1 end))
    c:reset()
    assert.truthy(process.wait_until(function() return #stored() == 0 end))
  end)

  it("has an error page for other addresses and methods", function()
    start()
    assert.equal(404, s:request("/none").status)
    assert.equal(404, s:request("/files/99999999999999999999").status)
    local response = s:request { method = "PUT", target = "/", body = "" }
    assert.same({ 405, "GET, HEAD, POST" }, { response.status, response.headers.allow })
    assert.truthy(response.body:find("<h1>Method Not Allowed</h1>", 1, true))
  end)
end)

describe("the API of examples/application.lua", function()
  it("creates, shows, lists and deletes notes", function()
    start()
    local status, note, response = api("POST", "/api/notes", { comment = "it's; \"ü\"\n--?" })
    assert.same({ 201, "/api/notes/1" }, { status, response.headers.location })
    assert.equal("it's; \"ü\"\n--?", note.comment)
    assert.truthy(note.created:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$"))
    assert.same(note, select(2, api("GET", "/api/notes/1")))
    post { { "files", "abc", "a.txt" } }
    local _, all = api("GET", "/api/notes")
    assert.equal(2, #all.notes)
    local file = { id = 1, name = "a.txt", type = "text/plain", size = 3, url = "/files/1" }
    assert.same({ file }, all.notes[2].files)
    assert.equal("abc", s:request(file.url).body)
    assert.equal(2, select(2, api("GET", "/api/notes?after=1")).notes[1].id)
    assert.equal(204, (api("DELETE", "/api/notes/2")))
    assert.equal(404, (api("DELETE", "/api/notes/2")))
    assert.equal(404, (api("GET", "/api/notes/2")))
    assert.same({}, stored())
    assert.truthy(s:request("/api/notes?after=9").body:find('"notes":%[%]'))
  end)

  it("says what it does not take", function()
    start()
    for _, case in ipairs {
      { 400, "{" }, { 400, "" }, { 422, "{}" }, { 422, "[]" }, { 422, '"x"' }, { 422, '{"comment":5}' },
      { 422, '{"comment":" "}' }, { 422, '{"comment":"\\u0000"}' }, { 413, ("x"):rep(20000) },
      { 413, { ("x"):rep(9000), ("x"):rep(9000) } },
    } do
      local response = s:request { method = "POST", target = "/api/notes", body = case[2],
        headers = { ["Content-Type"] = "application/json; charset=utf-8" } }
      assert.equal(case[1], response.status)
      assert.equal("string", type(json.decode(response.body).error))
    end
    assert.equal(415, s:request({ method = "POST", target = "/api/notes", body = "{}" }).status)
    assert.equal(400, (api("GET", "/api/notes?after=x")))
    assert.equal(404, (api("GET", "/api/none")))
    local status, _, response = api("DELETE", "/api/notes")
    assert.same({ 405, "GET, HEAD, POST" }, { status, response.headers.allow })
  end)

  it("serves several processes that write at the same time", function()
    start()
    local clients = {}
    for index = 1, 8 do clients[index] = s:connect() end
    for round = 1, 10 do
      for index, c in ipairs(clients) do
        local body = json.encode { comment = ("%d of %d"):format(round, index) }
        c:send(("POST /api/notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
          .. "Content-Length: %d\r\n\r\n%s"):format(#body, body))
      end
      for _, c in ipairs(clients) do assert.equal(201, c:response().status) end
    end
    assert.equal(80, #select(2, api("GET", "/api/notes")).notes)
  end)
end)

describe("the events of examples/application.lua", function()
  local function listen(target, headers)
    local c = s:connect()
    c:send("GET " .. target .. " HTTP/1.1\r\nHost: x\r\n" .. (headers or "") .. "\r\n")
    local head = c:read_until("\r\n\r\n")
    assert.truthy(head:find("\r\nContent-Type: text/event-stream\r\n", 1, true))
    assert(c:read_until("retry: 1000\n\n"))
    return c
  end

  -- Listens to new notes. Of a note that it does not know, the server cannot say what came after it: it says
  -- so when the stream hears.
  local function listen_to_new()
    local c = listen("/events?after=none")
    assert(c:read_until("event: gap\ndata:\n\n"))
    return c
  end

  local function event(c)
    local id = assert(c:read_until("event: note\n")):match("id: (%d+)\n")
    return tonumber(id), json.decode(assert(c:read_until("\n\n")):match("data: ([^\n]*)"))
  end

  it("come to all who listen, from whichever process", function()
    start()
    local listeners = { listen_to_new(), listen_to_new(), listen_to_new() }
    api("POST", "/api/notes", { comment = "first" })
    post { { "comment", "two\r\nlines" }, { "files", "x", "a.txt" } }
    for _, c in ipairs(listeners) do
      local id, note = event(c)
      assert.same({ 1, "first" }, { id, note.comment })
      id, note = event(c)
      assert.same({ 2, "two\nlines", "a.txt" }, { id, note.comment, note.files[1].name })
    end
    -- Who comes back gets what was missed.
    assert.equal(2, (event(listen("/events", "Last-Event-ID: 1\r\n"))))
    assert.equal(2, (event(listen("/events?after=1"))))
  end)

  it("occupy no worker", function()
    start()
    local listeners = {}
    for index = 1, 200 do listeners[index] = listen_to_new() end
    assert.equal(201, (api("POST", "/api/notes", { comment = "first" })))
    for _, c in ipairs(listeners) do assert.equal(1, (event(c))) end
    assert.truthy(#s:workers() < 16)
  end)

  it("keep no process once the client has gone", function()
    start()
    for index = 1, 80 do
      local c = listen_to_new()
      if index % 2 == 0 then c:reset() else c:close() end
    end
    assert.truthy(#s:workers() < 16)
    assert.is_nil(s:log():find("Error", 1, true), s:log())
  end)

  it("end with the server", function()
    start()
    local c = listen_to_new()
    s:signal("TERM")
    local rest, ending = c:read_all()
    assert.same({ "0\r\n\r\n", "closed" }, { rest:sub(-5), ending })
    assert.equal(0, s:wait())
  end)
end)

describe("the chat of examples/application.lua", function()
  local function ends_with_1008(ws)
    local code = ws:closing()
    return code == 1008
  end

  it("tells all what one says", function()
    start()
    assert.truthy(s:request("/chat").body:find('src="/chat.js"', 1, true))
    local ann, bob = websocket.connect(s, "/chat/socket"), websocket.connect(s, "/chat/socket")
    ann:send "Ann\nHello <b>!"
    for _, ws in ipairs { ann, bob } do
      assert.equal("\nAnn has come", ws:text())
      assert.equal("Ann\nHello <b>!", ws:text())
    end
    ann:close()
    assert.equal("\nAnn has left", bob:text())
    bob:send "no line"
    assert.truthy(ends_with_1008(bob))
    assert.equal(426, s:request("/chat/socket").status)
  end)
end)

describe("the echo of examples/application.lua", function()
  local UPGRADE = "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

  it("sends back what came after the request, and what comes later", function()
    start()
    local c = s:connect()
    c:send(UPGRADE .. "at once")
    assert.equal(101, c:response().status)
    assert.equal("at once", c:read(7))
    c:send("later\0")
    assert.equal("later\0", c:read(6))
    local large = ("0123456789abcdef"):rep(10000)
    c:send(large)
    assert.equal(large, c:read(#large))
    c:send("last")
    c:finish()
    assert.same({ "last", "closed" }, { c:read_all() })
  end)

  it("is not begun for others, and ends with the server", function()
    start()
    local response = s:request("/echo")
    assert.same({ 426, "echo", "Upgrade" },
      { response.status, response.headers.upgrade, response.headers.connection })
    local c = s:connect()
    c:send(UPGRADE)
    assert.equal(101, c:response().status)
    s:signal("TERM")
    assert.same({ "", "closed" }, { c:read_all() })
    assert.equal(0, s:wait())
  end)
end)
