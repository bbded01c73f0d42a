-- The readers of public suites, by small files of their formats; and the judgement of what came back.
-- Runs once: readers of files are the same under each version of Lua.

local exchange = require "spec.conformance.exchange"
local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"
local suites = require "spec.conformance.suites"

local function folder_with(path, text)
  local root = process.scratch("suite"):match("^(.*)/")
  local folder = root
  for name in path:gmatch("([^/]+)/") do
    folder = folder .. "/" .. name
    lfs.mkdir(folder)
  end
  local file = assert(io.open(root .. "/" .. path, "wb"))
  file:write(text)
  file:close()
  return root
end

local function read(name, path, text)
  local list = {}
  for _, vector in ipairs((suites[name](folder_with(path, text)))) do
    list[#list + 1] = { vector.name, vector.bytes, vector.expect }
  end
  return list
end

describe("the readers of public suites", function()
  it("read gunicorn's", function()
    assert.same({ { "invalid/1", "GET / HTTP/1.1\r\nA: \255\r\n\r\n", "refuse" } },
      read("gunicorn", "tests/requests/invalid/1.http", "GET / HTTP/1.1\\r\\n\nA: \\xff\\r\\n\n\\r\\n"))
  end)

  it("read llhttp's", function()
    local block = '### A title\n\n<!-- meta={"type": "request"} -->\n```http\nGET / HTTP/1.1\nA: b\n\n\n```\n'
      .. '\n```log\noff=0 %s\n```\n'
    assert.same({ { "uri: A title", "GET / HTTP/1.1\r\nA: b\r\n\r\n", "refuse" } },
      read("llhttp", "test/request/uri.md", "\n" .. block:format("error code=8")))
    local accepted = read("llhttp", "test/request/a.md", "\n" .. block:format("message complete"))
    assert.equal("accept", accepted[1][3])
  end)

  it("read http-desync-guardian's", function()
    local text = "- name: Both\n  uri: /\n  method: GET\n  version: HTTP/1.1\n  headers:\n"
      .. '    - name: Content-Length\n      value: " 2"\n      tier: Bad\n  expected:\n    tier: Severe\n'
    assert.same({ { "a: Both", "GET / HTTP/1.1\r\nContent-Length:  2\r\n\r\nxx", "refuse" } },
      read("http-desync-guardian", "tests/a.yaml", text))
  end)

  it("read those in programs", function()
    assert.same({ { "odd", "G\0T / HTTP/1.0\r\n\r\n", "refuse" } }, read("picohttpparser", "test.c",
      'static void test_request(void)\n{\n    PARSE("G\\0T / HTTP/1.0\\r\\n\\r\\n", 0, -1, "odd");\n}\n'))
    assert.same({ { "test_a", "GET", "incomplete" } }, read("httparse", "src/lib.rs",
      '\n    req! {\n        test_a,\n        b"GET",\n        Ok(Status::Partial),\n        |_r| {}\n'))
    local text = 'var badRequestTests = x{\n\t{"tab", reqBytes(`GET / HTTP/1.1\n` + "\\t" + `A: b`)},\n}\n'
    assert.same({ { "tab", "GET / HTTP/1.1\r\n\tA: b\r\n\r\n", "refuse" } },
      read("go", "net/http/readrequest_test.go", text))
  end)
end)

describe("a vector", function()
  after_each(server.cleanup)

  it("is judged by what comes back, whole and in pieces", function()
    local s = server.start { file = server.root .. "/spec/conformance/app.lua" }
    local good = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    local bad = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"
    local expected = { [good] = { "200 D\r\nPOST /a 3 abc\r\n0\r\n\r\n" } }
    expected[bad] = exchange.send(s.port, { bad })
    assert.truthy(expected[bad][1]:find("^400 "))
    for bytes, responses in pairs(expected) do
      for _, pieces in ipairs(exchange.splits(bytes)) do
        assert.same(responses, exchange.send(s.port, pieces))
      end
      assert.equal(bytes == good, exchange.as_expected(responses, "accept"))
      assert.equal(bytes == bad, exchange.as_expected(responses, "refuse"))
    end
    assert.same({}, exchange.send(s.port, { "GET / HTTP/1.1\r\nHost: x\r\n" }, true))
  end)
end)
