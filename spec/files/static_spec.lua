-- http.static and request:send_file: which file a request is for, and what it gets of it
-- (RFC 9110 13 and 14).

local process = require "spec.support.process"
local server = require "spec.support.server"
local socket = require "socket"

local MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"

-- A folder "public" with files, and a file beside it that nobody may see. Returns its path.
local function folder()
  local root = process.scratch("files")
  process.run(([[
    mkdir -p %s && cd %s && mkdir -p public/sub public/empty public/.well-known public/.git && cd public &&
    printf 0123456789 > ten.txt && printf '<h1>home</h1>' > index.html && printf sub > sub/index.html &&
    printf secret > ../secret.txt && printf hidden > .env && printf config > .git/config &&
    printf challenge > .well-known/token && printf 'body { }' > style.css && : > nothing.txt &&
    printf 'ä' > 'grün und blau.txt' && printf percent > '100%%25.txt' && printf colon > 'a:b.txt' &&
    printf gzipped > style.css.gz && printf brotli > style.css.br &&
    printf x > picture.png && printf y > picture.png.gz &&
    mkfifo pipe && ln -s ../secret.txt out.txt && ln -s ten.txt in.txt && ln -s loop loop && ln -s sub link &&
    printf closed > closed.txt && chmod 0 closed.txt && head -c 300000 /dev/zero | tr '\0' a > large.txt &&
    touch -d '1994-11-06 08:49:37 UTC' ten.txt in.txt large.txt
  ]]):format(root, root))
  return root
end

local SERVER = [[
  local moonbridge, http = require "moonbridge", require "moonbridge_http"
  local function options(text) return assert(load("return {" .. text .. "}"))() end
  local static = http.static(ROOT .. "/public", options(STATIC or ""))
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    connect = http.generate_handler(function(request)
      local path = request.path
      if path == "send" then
        local more = request.get_params.options and options(request.get_params.options)
        local ok, message, errno = request:send_file(request.get_params.file, more)
        if not ok then io.stderr:write("failed: ", message, " ", errno, "\n") end
        return true
      elseif path == "handle" then
        local file = assert(io.open(ROOT .. "/public/ten.txt"))
        file:seek("set", 3)
        request:send_file(file)
        file:close()
        return true
      elseif path == "cookie" then
        request:set_cookie{ name = "a", value = "b" }
        request:send_file(ROOT .. "/public/ten.txt")
        return true
      elseif path and path:find("^mounted/") then
        return static(request, path:sub(9))
      end
      return static(request)
    end),
  }
  moonbridge.run()
]]

local root

local function start(static, command)
  return server.start { script = SERVER, globals = { ROOT = root, STATIC = static or "" }, command = command }
end

local function get(s, target, headers, method)
  return s:request { target = target, headers = headers, method = method }
end

describe("http.static", function()
  before_each(function() root = folder() end)
  after_each(server.cleanup)

  it("sends files with their type, size and validators", function()
    local s = start()
    local r = get(s, "/ten.txt")
    assert.equal(200, r.status)
    assert.equal("0123456789", r.body)
    assert.equal("text/plain; charset=utf-8", r.headers["content-type"])
    assert.equal("10", r.headers["content-length"])
    assert.equal("bytes", r.headers["accept-ranges"])
    assert.equal(MODIFIED, r.headers["last-modified"])
    assert.truthy(r.headers.etag:find('^"[%x.-]+"$'))
    local head = get(s, "/ten.txt", nil, "HEAD")
    assert.same({ 200, "", "10", r.headers.etag },
      { head.status, head.body, head.headers["content-length"], head.headers.etag })
    assert.equal(("a"):rep(300000), get(s, "/large.txt").body)
    local nothing = get(s, "/nothing.txt")
    assert.same({ 200, "", "0" }, { nothing.status, nothing.body, nothing.headers["content-length"] })
  end)

  it("decodes a path once, and finds the index of a folder", function()
    local s = start()
    assert.equal("<h1>home</h1>", get(s, "/").body)
    assert.equal("sub", get(s, "/sub/").body)
    assert.equal("sub", get(s, "/link/").body)
    assert.equal("ä", get(s, "/gr%C3%BCn%20und%20blau.txt").body)
    assert.equal("percent", get(s, "/100%2525.txt").body)
    assert.equal("colon", get(s, "/a:b.txt").body)
    assert.equal("0123456789", get(s, "/in.txt?query").body)
    assert.equal("0123456789", get(s, "/mounted/ten.txt").body)
    assert.equal("challenge", get(s, "/.well-known/token").body)
  end)

  it("redirects to the folder's slash, wherever the folder is mounted", function()
    local s = start()
    for target, location in pairs {
      ["/sub"] = "./sub/", ["/sub?a=b"] = "./sub/?a=b", ["/mounted/sub"] = "./sub/", ["//sub"] = "./sub/",
    } do
      local r = get(s, target)
      assert.same({ 301, location }, { r.status, r.headers.location })
    end
    local _, body = s:curl("-sL " .. s.url .. "/mounted/sub")
    assert.equal("sub", body)
  end)

  it("sends nothing from outside, nothing hidden, and nothing that is no file", function()
    local s = start("listing = true")
    for _, target in ipairs {
      "/../secret.txt", "/sub/../../secret.txt", "/%2e%2e/secret.txt", "/%2e%2e%2fsecret.txt",
      "/..%5csecret.txt",
      "/sub/%2e%2e/ten.txt", "/out.txt", "/loop", "/.env", "/.git/config", "/.git/", "/%2egit/config",
      "/pipe",
      "/ten.txt/", "/ten.txt/x", "/missing", "/missing/", "/ten.txt%00", "/sub%2findex.html",
      "/" .. ("x"):rep(300), "/" .. ("y/"):rep(3000),
    } do
      local r = get(s, target)
      assert.same({ target, 404, "404 Not Found\n" }, { target, r.status, r.body })
    end
    assert.equal(200, get(s, "/ten.txt").status)
  end)

  it("shows more where that is wanted", function()
    local s = start('hidden = true, links = "anywhere", index = false, listing = true')
    assert.equal("hidden", get(s, "/.env").body)
    assert.equal("secret", get(s, "/out.txt").body)
    local r = get(s, "/")
    assert.equal("text/html; charset=utf-8", r.headers["content-type"])
    assert.truthy(r.body:find('<a href="./gr%%c3%%bcn%%20und%%20blau.txt">grün und blau.txt</a>', 1, false))
    assert.truthy(r.body:find('<a href="./sub/">sub/</a>', 1, true))
    assert.falsy(r.body:find("pipe", 1, true))
    s = start 'links = "none"'
    assert.equal(404, get(s, "/in.txt").status)
    assert.equal(404, get(s, "/link/").status)
  end)

  it("has other methods than GET and HEAD refused, and what is missing answered by a fallback", function()
    local s = start [[fallback = function(request, path)
      request:send("200 OK", "text/plain", "fallback for " .. tostring(path))
      return true
    end]]
    local r = get(s, "/ten.txt", nil, "POST")
    assert.same({ 405, "GET, HEAD" }, { r.status, r.headers.allow })
    assert.equal("fallback for missing", get(s, "/missing").body)
    assert.equal("0123456789", get(s, "/ten.txt").body)
  end)

  it("sends what was compressed before to who accepts it", function()
    local s = start()
    for accepts, expected in pairs {
      ["gzip, deflate, br"] = { "brotli", "br" }, ["gzip"] = { "gzipped", "gzip" },
      ["br;q=0, gzip;q=0.5"] = { "gzipped", "gzip" },
      ["identity"] = { "body { }" }, ["zstd"] = { "body { }" },
      ["gzip;q=0.2, *;q=0, identity;q=1"] = { "body { }" },
    } do
      local r = get(s, "/style.css", { ["Accept-Encoding"] = accepts })
      assert.same(expected, { r.body, r.headers["content-encoding"] })
      assert.equal("Accept-Encoding", r.headers.vary)
      assert.equal("text/css; charset=utf-8", r.headers["content-type"])
    end
    local tags = {}
    for _, accepts in ipairs { "identity", "gzip", "br" } do
      tags[get(s, "/style.css", { ["Accept-Encoding"] = accepts }).headers.etag] = true
    end
    local count = 0
    for _ in pairs(tags) do count = count + 1 end
    assert.equal(3, count)
    local picture = get(s, "/picture.png", { ["Accept-Encoding"] = "gzip" })
    assert.same({ "x" }, { picture.body, picture.headers["content-encoding"], picture.headers.vary })
    s = start "precompressed = false"
    local r = get(s, "/style.css", { ["Accept-Encoding"] = "gzip" })
    assert.same({ "body { }" }, { r.body, r.headers["content-encoding"], r.headers.vary })
  end)

  it("serves the folder that has replaced another from the next request on", function()
    local s = start()
    assert.equal("0123456789", get(s, "/ten.txt").body)
    process.run(("mv %s/public %s/old"):format(root, root))
    assert.equal(404, get(s, "/ten.txt").status)
    process.run(("mkdir %s/public && printf new > %s/public/ten.txt"):format(root, root))
    assert.equal("new", get(s, "/ten.txt").body)
    process.run(("rm -r %s/public && ln -s old %s/public"):format(root, root))
    assert.equal("0123456789", get(s, "/ten.txt").body)
  end)

  it("says how long a file may be kept, of what type it is, and more", function()
    local s = start [[cache_control = function(path) return path == "ten.txt" and "max-age=60" or nil end,
      content_types = { txt = "text/x-plain" }, headers = { ["X-Frame-Options"] = "DENY" }]]
    local r = get(s, "/ten.txt")
    assert.same({ "max-age=60", "text/x-plain", "DENY" },
      { r.headers["cache-control"], r.headers["content-type"], r.headers["x-frame-options"] })
    assert.is_nil(get(s, "/style.css").headers["cache-control"])
    local unchanged = get(s, "/ten.txt", { ["If-None-Match"] = r.headers.etag })
    assert.same({ 304, "max-age=60", r.headers.etag },
      { unchanged.status, unchanged.headers["cache-control"], unchanged.headers.etag })
  end)

  it("accepts a line or nil from a function that says how long, and asks it about paths alone", function()
    local s = start [[cache_control = function(path)
      return path:find "ten" and "a\r\nSet-Cookie: b=c" or nil
    end]]
    assert.equal(500, get(s, "/ten.txt").status)
    assert.truthy(s:wait_log('Option "cache_control" of static must return a value of the header'), s:log())
    assert.equal(200, get(s, "/style.css").status)
    assert.equal(405, s:request({ method = "OPTIONS", target = "*" }).status)
  end)

  it("follows conditions in the order of RFC 9110 13.2.2", function()
    local s = start()
    local tag = get(s, "/ten.txt").headers.etag
    local before, after = "Sat, 05 Nov 1994 08:49:37 GMT", "Mon, 07 Nov 1994 08:49:37 GMT"
    for _, case in ipairs {
      { { ["If-None-Match"] = tag }, 304 },
      { { ["If-None-Match"] = "W/" .. tag }, 304 },
      { { ["If-None-Match"] = "*" }, 304 },
      { { ["If-None-Match"] = '"other"' }, 200 },
      { { ["If-None-Match"] = '"other", ' .. tag }, 304 },
      { { ["If-Modified-Since"] = MODIFIED }, 304 },
      { { ["If-Modified-Since"] = after }, 304 },
      { { ["If-Modified-Since"] = before }, 200 },
      { { ["If-Modified-Since"] = "nonsense" }, 200 },
      { { ["If-None-Match"] = '"other"', ["If-Modified-Since"] = MODIFIED }, 200 },
      { { ["If-Match"] = tag }, 200 },
      { { ["If-Match"] = "*" }, 200 },
      { { ["If-Match"] = '"other"' }, 412 },
      { { ["If-Match"] = "W/" .. tag }, 412 },
      { { ["If-Unmodified-Since"] = MODIFIED }, 200 },
      { { ["If-Unmodified-Since"] = before }, 412 },
      { { ["If-Match"] = tag, ["If-Unmodified-Since"] = before }, 200 },
      { { ["If-Match"] = '"other"', ["If-None-Match"] = tag }, 412 },
      { { ["If-Match"] = tag, ["If-None-Match"] = tag }, 304 },
      { { ["If-None-Match"] = tag, Range = "bytes=0-1" }, 304 },
      { { ["If-Match"] = '"other"', Range = "bytes=0-1" }, 412 },
    } do
      for _, method in ipairs { "GET", "HEAD" } do
        local r = get(s, "/ten.txt", case[1], method)
        assert.same({ case[1], case[2] }, { case[1], r.status })
        assert.equal(case[2] == 200 and method == "GET" and "0123456789" or "", r.body)
      end
    end
  end)

  it("sends parts of a file", function()
    local s = start()
    local tag = get(s, "/ten.txt").headers.etag
    for _, case in ipairs {
      { "bytes=0-3", 206, "0123", "bytes 0-3/10" },
      { "bytes=4-", 206, "456789", "bytes 4-9/10" },
      { "bytes=-3", 206, "789", "bytes 7-9/10" },
      { "bytes=-30", 206, "0123456789", "bytes 0-9/10" },
      { "bytes=9-99", 206, "9", "bytes 9-9/10" },
      { "bytes=0-0", 206, "0", "bytes 0-0/10" },
      { "bytes=20-,2-3", 206, "23", "bytes 2-3/10" },
      { "bytes=10-", 416, "", "bytes */10" },
      { "bytes=99999999999999999999-", 416, "", "bytes */10" },
      { "bytes=-0", 416, "", "bytes */10" },
      { "bytes=5-2", 200, "0123456789" },
      { "bytes=a-b", 200, "0123456789" },
      { "lines=0-1", 200, "0123456789" },
      { "bytes=" .. ("0-,"):rep(1000), 200, "0123456789" },
      { "bytes=0-3", 206, "0123", "bytes 0-3/10", tag },
      { "bytes=0-3", 206, "0123", "bytes 0-3/10", MODIFIED },
      { "bytes=0-3", 200, "0123456789", nil, '"other"' },
      { "bytes=0-3", 200, "0123456789", nil, "Mon, 07 Nov 1994 08:49:37 GMT" },
      { "bytes=99-", 200, "0123456789", nil, '"other"' },
    } do
      local r = get(s, "/ten.txt", { Range = case[1], ["If-Range"] = case[5] })
      assert.same({ case[1], case[2], case[3], case[4] },
        { case[1], r.status, r.body, r.headers["content-range"] })
      assert.equal(tostring(#case[3]), r.headers["content-length"])
    end
    assert.equal(200, get(s, "/ten.txt", { Range = "bytes=0-3" }, "HEAD").status)
    local large = get(s, "/large.txt", { Range = "bytes=100-299998" })
    assert.same({ 206, 299899 }, { large.status, #large.body })
  end)

  it("sends several parts in one body", function()
    local s = start()
    local r = get(s, "/ten.txt", { Range = "bytes=0-1, -2" })
    assert.equal(206, r.status)
    local boundary = r.headers["content-type"]:match "^multipart/byteranges; boundary=(%w+)$"
    local border = "\r\n--" .. boundary
    local part = border .. "\r\nContent-Type: text/plain; charset=utf-8\r\n" ..
      "Content-Range: bytes %s/10\r\n\r\n%s"
    assert.equal(part:format("0-1", "01") .. part:format("8-9", "89") .. border .. "--\r\n", r.body)
    assert.is_nil(r.headers["content-range"])
  end)

  it("resumes downloads of curl and wget", function()
    local s = start()
    local url = "http://127.0.0.1:" .. s.port .. "/large.txt"
    for _, command in ipairs { "curl -sS -C - -o %s '%s'", "wget -q -c -O %s '%s'" } do
      local file = process.scratch("download")
      process.run("head -c 123456 /dev/zero | tr '\\0' a > " .. file)
      process.run(command:format(file, url))
      assert.equal(("a"):rep(300000), process.slurp(file))
    end
  end)

  it("says what is wrong with options", function()
    local http = require "moonbridge_http"
    for text, call in pairs {
      ["static expects the path of a folder, got a nil"] = function() http.static() end,
      ["cannot be served: No such file"] = function() http.static "/missing" end,
      ["cannot be served: Not a directory"] = function() http.static "/etc/passwd" end,
      ['Unknown option "indx" of static; did you mean "index"'] =
        function() http.static("/tmp", { indx = 1 }) end,
      ['Option "links" of static must be "inside", "none" or "anywhere"'] =
        function() http.static("/tmp", { links = "x" }) end,
      ['Option "headers" of static must be a table of names and valid values of header fields'] =
        function() http.static("/tmp", { headers = { ["X-A"] = "b\r\nX-C: d" } }) end,
      ["without those that the file has itself"] =
        function() http.static("/tmp", { headers = { ["Content-Type"] = "text/x" } }) end,
      ["expected a request, got a table"] = function() http.static "/tmp" {} end,
    } do
      local ok, message = pcall(call)
      assert.falsy(ok)
      assert.truthy(tostring(message):find(text, 1, true), message)
    end
  end)
end)

describe("send_file", function()
  before_each(function() root = folder() end)
  after_each(server.cleanup)

  local function send(s, file, options, headers)
    local escaped = (options or ""):gsub("[^%w]", function(c) return ("%%%02x"):format(c:byte()) end)
    return get(s, "/send?file=" .. file .. (options and "&options=" .. escaped or ""), headers)
  end

  it("sends a file of the application, or an open one from where it is", function()
    local s = start()
    assert.equal("0123456789", send(s, root .. "/public/ten.txt").body)
    assert.equal("34", send(s, root .. "/public/ten.txt", nil, { Range = "bytes=3-4" }).body)
    assert.equal("3456789", get(s, "/handle").body)
    assert.equal("56", get(s, "/handle", { Range = "bytes=2-3" }).body)
    -- It has another content than the whole file, and so another tag.
    local tag, whole = get(s, "/handle").headers.etag, get(s, "/ten.txt").headers.etag
    assert.not_equal(whole, tag)
    assert.same({ 304, 200 }, { get(s, "/handle", { ["If-None-Match"] = tag }).status,
      get(s, "/handle", { ["If-None-Match"] = whole }).status })
    local cookie = get(s, "/cookie")
    assert.same({ "0123456789", "a=b" }, { cookie.body, (cookie.headers["set-cookie"]:match "^[^;]*") })
  end)

  it("gives it a name, a type, and another status", function()
    local s = start()
    local file = root .. "/public/ten.txt"
    local r = send(s, file,
      'attachment = "Übersicht.txt", content_type = "text/x", cache_control = "no-store"')
    assert.equal("attachment; filename=\"_bersicht.txt\"; filename*=UTF-8''%C3%9Cbersicht.txt",
      r.headers["content-disposition"])
    assert.same({ "text/x", "no-store" }, { r.headers["content-type"], r.headers["cache-control"] })
    r = send(s, file, "attachment = true")
    assert.equal('attachment; filename="ten.txt"', r.headers["content-disposition"])
    r = send(s, file, 'status = "404 Not Found"', { Range = "bytes=0-1", ["If-None-Match"] = "*" })
    assert.same({ 404, "0123456789" }, { r.status, r.body })
    assert.is_nil(r.headers.etag)
  end)

  it("answers a file that is missing, no file, outside of its folder, or not to be read", function()
    local s = start()
    local cut = root .. "/public/ten.txt%00.txt"
    for _, file in ipairs { "/missing", root, root .. "/public/pipe", "/dev/zero", cut } do
      local r = send(s, file)
      assert.same({ file, 404, "404 Not Found\n" }, { file, r.status, r.body })
    end
    assert.truthy(s:wait_log "failed: No such file or directory 2")
    local within = ('folder = "%s/public"'):format(root)
    assert.equal("0123456789", send(s, "ten.txt", within).body)
    assert.equal("hidden", send(s, ".env", within).body)
    assert.equal("percent", send(s, "100%2525.txt", within).body)
    for _, file in ipairs { "..%2fsecret.txt", "sub%2f..%2f..%2fsecret.txt", "out.txt", "sub", "missing" } do
      assert.same({ file, 404 }, { file, send(s, file, within).status })
    end
  end)

  it("leaves no descriptor behind, however many folders there are", function()
    process.run(("cd %s && for i in $(seq 150); do mkdir f$i && echo $i > f$i/name; done"):format(root))
    local s = start()
    for index = 1, 150 do
      assert.equal(index .. "\n", send(s, "name", ('folder = "%s/f%d"'):format(root, index)).body)
    end
    for _, pid in ipairs(s:workers()) do
      local _, list = process.run("ls /proc/" .. pid .. "/fd")
      assert.truthy(select(2, list:gsub("\n", "")) < 50, list)
    end
  end)

  it("may not be read", function()
    -- Even the superuser, without its capabilities.
    local bare = { "setpriv", "--inh-caps", "-all", "--bounding-set", "-all", server.interpreter }
    local s = start("", process.run("setpriv --bounding-set -all true") == 0 and bare or nil)
    local r = send(s, root .. "/public/closed.txt")
    assert.same({ 403, "403 Forbidden\n" }, { r.status, r.body })
    assert.truthy(s:wait_log "failed: Permission denied 13")
    assert.equal(403, get(s, "/closed.txt").status)
  end)

  it("says what is wrong with its arguments", function()
    local s = start()
    assert.equal(500, send(s, "x", "attachmnt = true").status)
    assert.truthy(s:wait_log 'Unknown option "attachmnt" of send_file; did you mean "attachment"?')
    assert.equal(500, get(s, "/send").status)
    assert.truthy(s:wait_log "send_file expects a path or an open file, got a nil")
  end)
end)

-- The clients need time to be served, not more than that.
describe("a large file", function()
  before_each(function() root = folder() end)
  after_each(server.cleanup)

  it("occupies no worker while a client takes it slowly, and arrives complete", function()
    process.run(("head -c %d /dev/urandom > %s/public/big.bin"):format(16 * 1024 * 1024, root))
    local content = process.slurp(root .. "/public/big.bin")
    local s = server.start {
      script = SERVER:gsub("connect = ", "min_fork = 1, max_fork = 1, connect = ", 1),
      globals = { ROOT = root, STATIC = "" },
    }
    local clients = {}
    for index = 1, 20 do
      clients[index] = s:connect { receive_buffer = 4096 }
      clients[index]:send "GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n"
    end
    for _ = 1, 50 do assert.equal(200, get(s, "/ten.txt").status) end
    socket.sleep(0.1)
    assert.truthy(content == clients[7]:response().body)
    assert.truthy(content == clients[20]:response().body)
    -- The connection goes on.
    assert.equal("0123456789", clients[7]:request("/ten.txt").body)
    -- Pipelined requests wait for the file before them.
    clients[3]:send "GET /ten.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    assert.truthy(content == clients[3]:response().body)
    assert.equal("0123456789", clients[3]:response().body)
  end)

  it("of a GiB occupies neither worker nor memory, however many take it slowly", function()
    process.run("truncate -s 1G " .. root .. "/public/gib.bin")
    local s = server.start {
      script = SERVER:gsub("connect = ", "min_fork = 1, max_fork = 1, connect = ", 1),
      globals = { ROOT = root, STATIC = "" },
    }
    local function memory()
      local sum = 0
      for _, pid in ipairs(s:workers()) do
        sum = sum + tonumber(process.slurp("/proc/" .. pid .. "/status"):match "RssAnon:%s*(%d+)")
      end
      return sum
    end
    assert.equal(200, get(s, "/ten.txt").status)
    local before, clients = memory(), {}
    for index = 1, 200 do
      clients[index] = s:connect { receive_buffer = 4096 }
      clients[index]:send "GET /gib.bin HTTP/1.1\r\nHost: x\r\n\r\n"
    end
    local nothing = ("\0"):rep(1000)
    for _, c in ipairs(clients) do assert(c:read_until "\r\n\r\n") end
    for _ = 1, 10 do
      for _, c in ipairs(clients) do assert.equal(nothing, c:read(1000)) end
      assert.equal(200, get(s, "/ten.txt").status)
    end
    assert.truthy(memory() - before < 10000, (memory() - before) .. " kB more")
  end)

  it("that becomes shorter while it is sent ends in a reset, never in other bytes", function()
    process.run(("head -c %d /dev/zero > %s/public/shrinks.bin"):format(32 * 1024 * 1024, root))
    local s = start()
    local c = s:connect { receive_buffer = 4096 }
    c:send "GET /shrinks.bin HTTP/1.1\r\nHost: x\r\n\r\n"
    assert(c:read(1000))
    process.run(("truncate -s 1000000 %s/public/shrinks.bin"):format(root))
    local _, why = c:read(32 * 1024 * 1024)
    assert.equal("reset", why)
  end)
end)
