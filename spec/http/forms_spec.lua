-- Forms and request bodies end to end: post_params, post_metadata, the streaming callbacks.

local client = require "spec.support.client"
local process = require "spec.support.process"
local server = require "spec.support.server"

-- The server answers with what its function `handle(request)` writes by `note`. Texts are quoted
-- by %q, so that answers are compared byte by byte.
local SERVER = [[
  local moonbridge = require "moonbridge"
  local http = require "moonbridge_http"
  local notes
  function note(...)
    local words = {}
    for i = 1, select("#", ...) do
      local word = select(i, ...)
      words[i] = type(word) == "string" and ("%q"):format(word):gsub("\\\n", "\\n") or tostring(word)
    end
    notes[#notes + 1] = table.concat(words, " ")
  end
  function sorted(list)
    local keys = {}
    for key in pairs(list) do keys[#keys + 1] = key end
    table.sort(keys)
    return ipairs(keys)
  end
  local handle = assert(load(HANDLER, "=handler"))
  moonbridge.listen{
    { proto = "tcp", host = "127.0.0.1", port = PORT },
    pre_fork = 1, min_fork = 1, max_fork = 1,
    connect = http.generate_handler({
      maximum_input_chunk_size = CHUNK, request_body_size_limit = LIMIT,
      request_field_count_limit = load("return " .. FIELDS)(),
    }, function(request)
      notes = {}
      handle(request)
      request:send_status("200 OK")
      request:send_data(table.concat(notes, "\n"))
      return true
    end),
  }
  moonbridge.run()
]]

local function start(handler, options)
  options = options or {}
  return server.start {
    script = SERVER,
    globals = {
      HANDLER = "local request = ...\n" .. handler,
      CHUNK = options.chunk or 16384, LIMIT = options.limit or 64 * 1024 * 1024,
      FIELDS = tostring(options.fields),
    },
  }
end

local URLENCODED = "application/x-www-form-urlencoded"
local MULTIPART = "multipart/form-data; boundary=XX"

-- One part; `about` are further parameters and lines of its head.
local function part(name, data, about)
  return ('--XX\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'):format(name, about or "", data)
end
local FILE = '; filename="%s"\r\nContent-Type: %s'

local function multipart(...)
  return table.concat { ... } .. "--XX--\r\n"
end

local function post(connection, content_type, body)
  return connection:request { headers = { ["Content-Type"] = content_type }, body = body }
end

local function lines(...)
  return table.concat({ ... }, "\n")
end

local PARAMS = [[
  for _, name in sorted(request.post_params_list) do
    note(name, request.post_params[name], table.unpack(request.post_params_list[name]))
  end
  local metadata = request.post_metadata_list
  for _, name in sorted(metadata or {}) do
    for _, entry in ipairs(metadata[name]) do
      note(name, entry.file_name, entry.content_type, request.post_metadata[name] == entry)
    end
  end
  note(request.post_metadata == nil, request.post_params.missing, #request.post_params_list.missing)
]]

describe("request.post_params and request.post_metadata", function()
  after_each(server.cleanup)

  it("are the same, however large the form is, request after request of a connection", function()
    local s = start [[
      local params = request.post_params
      note(params.a, params["b[]"], params.c, params.z, params == request.post_params)
      params.c = "changed"
      note(request.post_params_list.c[1], #request.post_params_list.a, request.post_metadata == nil)
      note(pcall(function() return request.body end))
      note(pcall(request.stream_post_param, request, "a", print))
    ]]
    local EXPECTED = '^"1 &" "2" "" nil true\n"changed" 2 %s\nfalse .-already been read.-\nfalse [^\n]+$'
    local connection = s:connect()
    for _, more in ipairs { "", ("&m=n"):rep(20), "&m=" .. ("n"):rep(5000), "&m=" .. ("n"):rep(70000), "" } do
      local found = post(connection, URLENCODED, "a=1+%26&%62[]=%32&a=3&c" .. more).body
      assert.match(EXPECTED:format "true", found)
      found = post(connection, MULTIPART, multipart(part("a", "1 &"), part("b[]", "2"), part("a", "3"),
        part("c", ""), part("m", more))).body
      assert.match(EXPECTED:format "false", found)
    end
  end)

  it("leave an empty body to a handler that asks for it", function()
    local s = start [[
      note(request.post_params.a, #request.post_params_list.a, request.body)
    ]]
    for _, content_type in ipairs { URLENCODED, MULTIPART } do
      assert.equal('nil 0 ""', post(s:connect(), content_type, "").body)
    end
  end)

  it("hold the fields of urlencoded forms: the first value, and all as a list", function()
    local c = start(PARAMS):connect()
    local answer = post(c, URLENCODED, "a=1&b=x+y%26&a=2=3&&c")
    assert.equal(lines('"a" "1" "1" "2=3"', '"b" "x y&" "x y&"', '"c" "" ""', "true nil 0"), answer.body)
  end)

  it("hold the fields of multipart forms, with file names and content types", function()
    local c = start(PARAMS):connect()
    local answer = post(c, MULTIPART, multipart(
      part("text", "one"),
      part("file", "\0\r\n--X", FILE:format("a%22b.bin", "application/octet-stream")),
      part("file", "", FILE:format("", "text/plain"))))
    assert.equal(lines(
      '"file" "\\0\\13\\n--X" "\\0\\13\\n--X" ""', '"text" "one" "one"',
      '"file" "a\\"b.bin" "application/octet-stream" true', '"file" "" "text/plain" false',
      '"text" nil nil true', "false nil 0"), answer.body)
  end)

  it("are the same whatever pieces the request arrives in", function()
    local s = start(PARAMS)
    local form = multipart(part("text", "one\r\n-"), part("f", "\r\n--XY", FILE:format("n", "a/b")))
    local forms = { [URLENCODED] = "a=1&b=x+y%26&a=2%3d3&&%63", [MULTIPART] = form }
    for content_type, body in pairs(forms) do
      local headers = { ["Content-Type"] = content_type }
      local whole = s:connect():request { headers = headers, body = body }
      assert.equal(200, whole.status)
      local chunks = {}
      for byte in body:gmatch(".") do chunks[#chunks + 1] = byte end
      for _, coded in ipairs { body, chunks } do
        for _, size in ipairs { 1, 5, 64 } do
          local c = s:connect()
          c:dribble(client.format { headers = headers, body = coded }, size)
          assert.equal(whole.body, c:response().body)
          c:close()
        end
      end
    end
  end)

  it("are empty without a body or a Content-Type", function()
    local s = start(PARAMS)
    assert.equal("true nil 0", s:connect():request("/").body)
    assert.equal("true nil 0", s:connect():request { method = "POST", body = "a=1" }.body)
  end)

  it("refuse a body of another type (415), and only if they are asked for", function()
    local s = start(PARAMS)
    assert.equal(415, post(s:connect(), "application/json", "{}").status)
    server.cleanup()
    s = start [[note(request.body)]]
    assert.equal('"{}"', post(s:connect(), "application/json", "{}").body)
  end)
end)

-- The head of a part as some client sends it.
local function raw_part(disposition, data, more)
  local format = "--XX\r\nContent-Disposition: form-data; %s\r\n%s\r\n%s\r\n"
  return format:format(disposition, more or "", data or "")
end

describe("multipart forms of clients in the field", function()
  local s
  setup(function()
    s = start(PARAMS)
  end)
  teardown(server.cleanup)

  it("may say that a part is not encoded", function()
    local encoding = "Content-Transfer-Encoding: %s\r\n"
    for _, name in ipairs { "binary", "8bit", "7bit", "BINARY" } do
      local form = raw_part('name="a"', "1", encoding:format(name))
        .. raw_part('name="f"; filename="n"', "2", encoding:format(name) .. "Content-Type: a/b\r\n")
      local answer = post(s:connect(), MULTIPART, multipart(form))
      local expected = {
        '"a" "1" "1"', '"f" "2" "2"', '"a" nil nil true', '"f" "n" "a/b" true', "false nil 0" }
      assert.equal(lines(table.unpack(expected)), answer.body)
    end
    for _, name in ipairs { "base64", "quoted-printable" } do
      local form = multipart(raw_part('name="a"', "1", encoding:format(name)))
      assert.equal(400, post(s:connect(), MULTIPART, form).status)
    end
  end)

  it("have file names as user agents and older clients write them", function()
    for sent, name in pairs {
      [ [["end\"]] ] = [[end\]], [ [["a\\b\"]] ] = [[a\\b\]], [ [["\"]] ] = [[\]],
      [ [["a%22b%0D%0A"]] ] = 'a"b\r\n',
      [ [["a\"b.txt"]] ] = 'a"b.txt', [ "my file.txt" ] = "my file.txt", [ [["../../x"]] ] = "../../x",
      [ [["x"; filename*=UTF-8''y]] ] = "x", [ [["a;b.txt"]] ] = "a;b.txt",
    } do
      local answer = post(s:connect(), MULTIPART, multipart(raw_part('name="f"; filename=' .. sent, "1")))
      assert.equal(200, answer.status, sent)
      local quoted = ("%q"):format(name):gsub("\\\n", "\\n")
      assert.equal(lines('"f" "1" "1"', ('"f" %s nil true'):format(quoted), "false nil 0"), answer.body)
    end
    local answer = post(s:connect(), MULTIPART, multipart(raw_part([[name="a\"; filename=my file]], "1")))
    assert.equal(lines([["a\\" "1" "1"]], [["a\\" "my file" nil true]], "false nil 0"), answer.body)
  end)

  it("come from curl with any file name", function()
    local path = process.scratch("upload")
    assert.equal(0, (process.run("printf hi > " .. process.quote(path))))
    for _, name in ipairs { "end\\", 'a"b.txt', 'a"b; c.txt', [[C:\a\b]], "x; y=z", "../up" } do
      -- curl reads quoted pairs in its own argument, and sends the name as browsers do.
      local argument = ('f=@%s;filename="%s";type=a/b'):format(path, (name:gsub('[\\"]', "\\%0")))
      local _, answer = process.run(("curl -sS -F %s %s"):format(process.quote(argument), s.url))
      assert.equal(("%q"):format(name), answer:match('\n"f" ("[^\n]*") "a/b" true\n'))
    end
  end)

  it("are refused if they could be read in two ways", function()
    for _, disposition in ipairs { [[name="f"; filename="a"b"]], [[name="f"; filename="a\"; x"]],
      [[name="f"; filename="a\"; filename="b"]], [[name="f"; filename=a"b]] } do
      local form = multipart(raw_part(disposition, "1"))
      assert.equal(400, post(s:connect(), MULTIPART, form).status, disposition)
    end
    for _, start_of_body in ipairs { "\n", "preamble\n", "\r", " " } do
      local answer = post(s:connect(), MULTIPART, start_of_body .. multipart(part("a", "1"), part("b", "2")))
      assert.equal(400, answer.status)
    end
  end)
end)

describe("request_field_count_limit", function()
  after_each(server.cleanup)

  local function status(s, content_type, fields)
    local body = content_type == URLENCODED and ("a=1&"):rep(fields) or multipart(part("a", "1"):rep(fields))
    return post(s:connect(), content_type, body).status
  end

  it("is the most fields that a form may have", function()
    for limit, fields in pairs { [3] = 3, ["false"] = 10000, [0] = 0 } do
      local s = start([[note(#request.post_params_list.a)]], { fields = limit })
      for _, content_type in ipairs { URLENCODED, MULTIPART } do
        assert.equal(200, status(s, content_type, fields))
        if limit ~= "false" then assert.equal(413, status(s, content_type, fields + 1)) end
      end
      server.cleanup()
    end
  end)

  it("counts fields that are streamed or dropped, too", function()
    local s = start([[
      request:stream_post_param("f", function() end)
      request:consume_input()
    ]], { fields = 2 })
    local nameless = "--XX\r\n\r\n\r\n"
    assert.equal(200, post(s:connect(), MULTIPART, multipart(part("f", ""), nameless)).status)
    assert.equal(413, post(s:connect(), MULTIPART, multipart(part("f", ""), nameless, part("f", ""))).status)
  end)

  it("is 4096 by default", function()
    local s = start([[note(#request.post_params_list.a)]])
    for _, content_type in ipairs { URLENCODED, MULTIPART } do
      assert.same({ 200, 413 }, { status(s, content_type, 4096), status(s, content_type, 4097) })
    end
  end)
end)

describe("malformed and oversized forms", function()
  after_each(server.cleanup)

  it("are refused, and the worker serves on", function()
    local s = start(PARAMS)
    local worker = s:workers()[1]
    local many = part("a", ""):rep(5000)
    for status, bodies in pairs {
      [400] = {
        "", "x", "--XX\r\n", part("a", "1"), "--XXX\r\n\r\n\r\n--XX--", "--XX\r\na : b\r\n\r\n\r\n--XX--",
        multipart(part("a", "1", "\r\nContent-Transfer-Encoding: base64")),
        multipart(part('a"; name="b', "1")), multipart(part("a", "1", "; x")),
      },
      [413] = {
        multipart(many), multipart(part("a", "1", "\r\nX: " .. ("x"):rep(20000))),
        multipart(part("a", "1", ("\r\nX: y"):rep(100))),
      },
    } do
      for _, body in ipairs(bodies) do
        if body ~= "" then
          local answer = post(s:connect(), MULTIPART, body)
          assert.equal(status, answer.status, body:sub(1, 200))
        end
      end
    end
    assert.equal(400, post(s:connect(), "multipart/form-data", "--XX--").status)
    assert.equal(413, post(s:connect(), URLENCODED, ("a&"):rep(5000)).status)
    assert.equal(413, post(s:connect(), URLENCODED, ("a"):rep(70000)).status)
    assert.equal("true nil 0", s:connect():request("/").body)
    assert.same({ worker }, s:workers())
  end)

  it("cannot be made slow by names that collide in Lua's hash", function()
    local s = start([[note(next(request.post_params))]])
    local fields = {}
    for number = 1, 4000 do
      -- Lua 5.3 hashes every second byte of a string of this length.
      local digits = ("%06x"):format(number):gsub(".", "%0x")
      fields[number] = ("x"):rep(22) .. digits
    end
    assert.equal(400, post(s:connect(), URLENCODED, table.concat(fields, "&")).status)
  end)
end)

-- Notes each call of a streaming callback: number of arguments, length of the chunk, metadata.
local CALLS = [[
  local function callback(...)
    local chunk, metadata, third = ...
    local about = metadata and metadata == third and
      ("%s %s %s"):format(metadata.field_name, metadata.file_name, metadata.content_type)
    note(select("#", ...), chunk and #chunk, about)
  end
]]

describe("request:stream_post_param", function()
  after_each(server.cleanup)

  it("calls with a first chunk and metadata, then chunks, then nothing", function()
    local s = start(CALLS .. [[
      request:stream_post_param("f", callback)
      request:consume_input()
      note(request.post_params.f, request.post_params.other)
    ]], { chunk = 10 })
    local form = multipart(part("other", "1"), part("f", ("x"):rep(25), FILE:format("n", "a/b")))
    assert.equal(lines('3 10 "f n a/b"', "1 10 nil", "1 5 nil", "0 nil nil", 'nil "1"'),
      post(s:connect(), MULTIPART, form).body)
    assert.equal(lines('3 10 "f nil nil"', "1 5 nil", "0 nil nil", 'nil "1"'),
      post(s:connect(), URLENCODED, "other=1&f=aaaaaaa%20aaaaaaa").body)
  end)

  it("calls for an empty field with an empty chunk, then with nothing", function()
    local s = start(CALLS .. [[request:stream_post_param("f", callback) request:consume_input()]])
    assert.equal(lines('3 0 "f  a/b"', "0 nil nil"),
      post(s:connect(), MULTIPART, multipart(part("f", "", FILE:format("", "a/b")))).body)
    assert.equal(lines('3 0 "f nil nil"', "0 nil nil"), post(s:connect(), URLENCODED, "f").body)
  end)

  it("calls for each field of the name; an exact name goes before a pattern", function()
    local s = start([[
      local function noting(word)
        return function(chunk) note(word, chunk) end
      end
      request:stream_post_params("^f", noting "pattern")
      request:stream_post_param("f1", noting "exact")
      request:consume_input()
      note(request.post_params.g)
    ]])
    assert.equal(lines('"exact" "1"', '"exact" nil', '"pattern" "2"', '"pattern" nil', '"exact" "3"',
      '"exact" nil', '"4"'), post(s:connect(), URLENCODED, "f1=1&f2=2&f1=3&g=4").body)
  end)

  it("gives chunks that do not depend on how the bytes arrive", function()
    local s = start(CALLS .. [[
      request:stream_post_param("f", callback)
      request:consume_input()
    ]], { chunk = 100 })
    local form = multipart(part("f", ("\r\n--X\r\n"):rep(50), FILE:format("n", "a/b")))
    local headers = { ["Content-Type"] = MULTIPART }
    local whole = s:connect():request { headers = headers, body = form }
    assert.equal(lines('3 100 "f n a/b"', "1 100 nil", "1 100 nil", "1 50 nil", "0 nil nil"), whole.body)
    for _, size in ipairs { 1, 7, 150 } do
      local c = s:connect()
      c:dribble(client.format { headers = headers, body = form }, size)
      assert.equal(whole.body, c:response().body)
      c:close()
    end
  end)

  it("holds uploads of any size in flat memory", function()
    local size = 256 * 1024 * 1024
    local path = process.scratch("big")
    assert.equal(0, (process.run(("truncate -s %d %s"):format(size, path))))
    local s = start([[
      local length = 0
      request:stream_post_param("f", function(chunk) length = length + #(chunk or "") end)
      request:consume_input()
      local status = assert(io.open("/proc/self/status"))
      note(length, tonumber(status:read("a"):match("VmHWM:%s*(%d+) kB")) < 16 * 1024)
      status:close()
    ]], { limit = 2 * size })
    local code, answer = process.run(("curl -sS --max-time 600 -F f=@%s %s"):format(path, s.url))
    assert.equal(0, code, answer)
    assert.equal(size .. " true", answer)
  end)
end)
