-- Reads the vectors of public suites out of the files in which they are published.
--
-- Each reader gets a folder and returns a list of {name, bytes, expect}; `expect` is "accept", "refuse",
-- "incomplete" (no response of success), or a list of ranges of statuses, where -1 is no response. The second
-- result: the vectors are made for servers. Those for parsers leave out Host.

local lfs = require "lfs"

local suites = {}

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

-- The paths under a folder that match a pattern, sorted.
local function find(folder, pattern, list)
  list = list or {}
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name:sub(1, 1) ~= "." then
      if lfs.attributes(path, "mode") == "directory" then
        find(path, pattern, list)
      elseif path:find(pattern) then
        list[#list + 1] = path
      end
    end
  end
  table.sort(list)
  return list
end

local function first(folder, pattern)
  return slurp(assert(find(folder, pattern)[1], "no file " .. pattern .. " in " .. folder))
end

local ESCAPES = { n = "\n", r = "\r", t = "\t", f = "\f", b = "\b", v = "\v", a = "\a", e = "\27" }

-- The bytes of a literal of C, Rust, JavaScript or Python.
local function unescape(text)
  local bytes = text:gsub("\\(%d%d?%d?)", function(digits)
    return digits:find("^[0-7]+$") and string.char(tonumber(digits, 8) & 255) or nil
  end)
  bytes = bytes:gsub("\\x(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
  bytes = bytes:gsub("\\u(%x%x%x%x)", function(digits) return utf8.char(tonumber(digits, 16)) end)
  bytes = bytes:gsub("\\\r?\n%s*", "")
  return (bytes:gsub("\\(.)", function(letter) return ESCAPES[letter] or letter end))
end

-- Line ends of the file mean nothing, escapes do.
local function gunicorn_bytes(text)
  text = text:gsub("\n", ""):gsub("\\([rnt0])", { r = "\r", n = "\n", t = "\t", ["0"] = "\0" })
  return (text:gsub("\\x(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- tests/requests: a file for each request.
function suites.gunicorn(folder)
  local vectors = {}
  for _, path in ipairs(find(folder, "/tests/requests/%a+/[^/]+%.http$")) do
    local kind, name = path:match("/requests/(%a+)/([^/]+)%.http$")
    vectors[#vectors + 1] = {
      name = kind .. "/" .. name,
      bytes = gunicorn_bytes(slurp(path)),
      expect = kind == "valid" and "accept" or "refuse",
    }
  end
  return vectors
end

-- A block `http` of a document: lines end with CRLF, unless a backslash says otherwise.
local function llhttp_bytes(text)
  text = text:gsub("\\\n", ""):gsub("\n", "\r\n"):gsub("\\r\r\n", "\r"):gsub("\\n\r\n", "\n")
  return unescape(text)
end

local BLOCK = '()<!%-%- meta=({.-}) %-%->\n```http\n(.-)\n```\n+```log\n(.-)\n```'

function suites.llhttp(folder)
  local vectors = {}
  for _, path in ipairs(find(folder, "/test/request/[^/]+%.md$")) do
    local title
    local text = slurp(path)
    for position, meta, bytes, log in text:gmatch(BLOCK) do
      for heading in text:sub(1, position):gmatch("\n#+ ([^\n]*)") do title = heading end
      -- Other types are lenient parsers, or parts of one.
      if meta:find('"type": "request"') and not meta:find("pause") then
        vectors[#vectors + 1] = {
          name = path:match("([^/]+)%.md$") .. ": " .. title:gsub("`", ""),
          bytes = llhttp_bytes(bytes),
          expect = log:find("error code=") and "refuse" or log:find("message complete") and "accept"
            or "incomplete",
        }
      end
    end
  end
  return vectors
end

-- YAML of a plain kind: a list of requests with their headers.
local function yaml_scalar(text)
  text = text:gsub("%s+$", "")
  if text:find('^".*"$') then return unescape(text:sub(2, -2)) end
  if text:find("^'.*'$") then return (text:sub(2, -2):gsub("''", "'")) end
  return text
end

-- One request of a list in YAML, and the tier that it is expected to have.
local function desync_vector(entry)
  local function field(name)
    local value = entry:match("[%- ] " .. name .. ": *([^\n]*)\n")
    return value and yaml_scalar(value) or ""
  end
  local lines = { ("%s %s %s"):format(field("method"), field("uri"), field("version")) }
  local headers = entry:match("headers:(.-)\n  expected") or ""
  for name, value in headers:gmatch("name: *([^\n]*)\n%s+value: ?([^\n]*)") do
    lines[#lines + 1] = yaml_scalar(name) .. ": " .. yaml_scalar(value)
  end
  local head = table.concat(lines, "\r\n") .. "\r\n\r\n"
  -- The vectors are heads; this is the body that they announce.
  local length = tonumber(head:lower():match("content%-length: *(%d+)"))
  local body = length and length <= 1 << 23 and ("x"):rep(length)
    or head:lower():find("chunked") and "0\r\n\r\n" or ""
  return field("name"), head .. body, entry:match("expected:.-tier: *(%a+)")
end

suites["http-desync-guardian"] = function(folder)
  local vectors, expectations = {}, { Compliant = "accept", Severe = "refuse" }
  for _, path in ipairs(find(folder, "/tests/[^/]+%.yaml$")) do
    local text = ("\n" .. slurp(path)):gsub("\n%s*#[^\n]*", ""):gsub("\n%- ", "\n\0- ")
    for entry in text:gmatch("%z([^%z]+)") do
      local name, bytes, tier = desync_vector(entry)
      if expectations[tier] then
        name = path:match("([^/]+)%.yaml$") .. ": " .. name
        vectors[#vectors + 1] = { name = name, bytes = bytes, expect = expectations[tier] }
      end
    end
  end
  return vectors
end

function suites.h1spec(folder)
  local vectors = {}
  local text = first(folder, "/http_test%.ts$")
  text = text:match("const testCases.-\n%];") or text
  for request, description, ranges in
    text:gmatch('request: ("[^\n]*)\n%s*description: "([^\n]*)",\n%s*expectedStatus: (%[%[[^\n]*%]%])') do
    local expect = {}
    for low, high in ranges:gmatch("%[(%-?%d+), *(%-?%d+)%]") do
      expect[#expect + 1] = { tonumber(low), tonumber(high) }
    end
    -- Literals may be joined by `+` and repeated.
    local bytes = {}
    for literal, times in request:gmatch('"([^"]*)"%.?r?e?p?e?a?t?%(?(%d*)') do
      bytes[#bytes + 1] = unescape(literal):rep(tonumber(times) or 1)
    end
    vectors[#vectors + 1] = {
      name = description, bytes = table.concat(bytes), expect = expect,
      stays = expect[1][1] == -1, -- the client waits instead of ending its side
    }
  end
  return vectors, true
end

function suites.picohttpparser(folder)
  local vectors, expectations = {}, { ["0"] = "accept", ["-1"] = "refuse", ["-2"] = "incomplete" }
  local text = first(folder, "/test%.c$"):match("static void test_request.-\n}\n")
  for literal, expect, name in text:gmatch('PARSE%("(.-)", [^\n]-, (%-?%d), "([^"\n]*)"%)') do
    vectors[#vectors + 1] = { name = name, bytes = unescape(literal), expect = expectations[expect] }
  end
  return vectors
end

function suites.httparse(folder)
  local vectors = {}
  local text = first(folder, "/src/lib%.rs$")
  for name, literal, rest in text:gmatch('\n    req! {%s*([%w_]+),%s*&?b"(.-)"%s*,([^|]*)|') do
    vectors[#vectors + 1] = {
      name = name, bytes = unescape(literal),
      expect = rest:find("Err%(") and "refuse" or rest:find("Partial") and "incomplete" or "accept",
    }
  end
  return vectors
end

-- Lines of a raw string of Go end with LF, which stand for CRLF there.
local function go_bytes(expression)
  local text = {}
  for raw, literal in (expression .. '""'):gmatch('`([^`]*)`[^"`]*"([^"]*)"') do
    text[#text + 1] = raw .. unescape(literal)
  end
  local bytes = table.concat(text):gsub("^%s+", ""):gsub("%s+$", "")
  return bytes:gsub("\n", "\r\n") .. "\r\n\r\n"
end

-- src/net/http/readrequest_test.go: requests that are refused.
function suites.go(folder)
  local vectors = {}
  local text = first(folder, "/net/http/readrequest_test%.go$"):match("badRequestTests = .-\n}\n")
  for name, expression in text:gmatch('{"([^"]*)", reqBytes%((.-)%)},?\n') do
    if expression:sub(1, 1) == '"' then expression = "``" .. expression end
    vectors[#vectors + 1] = { name = name, bytes = go_bytes(expression), expect = "refuse" }
  end
  return vectors
end

-- TROPHIES.md: requests that some server has misunderstood.
suites["http-garden"] = function(folder)
  local vectors = {}
  local text = first(folder, "/TROPHIES%.md$")
  for payload in text:gmatch("\n%s*%- Payload: `([^`\n]+)`") do
    vectors[#vectors + 1] = { name = payload, bytes = unescape(payload), expect = "refuse" }
  end
  return vectors
end

-- tests/test_parser.py: what the parser makes an error of.
function suites.waitress(folder)
  local vectors = {}
  local text = first(folder, "/tests/test_parser%.py$")
  text = text:gsub("\n    def ", "\n\0")
  for name, body in text:gmatch("\n%z(test_[%w_]+)%(self%):\n([^%z]*)") do
    local data = body:match("\n? *data = (b\"[^\n]*)\n") or body:match("data = %((.-)\n +%)\n")
    if data and not data:find("%%") and body:find("assertIsInstance%(self%.parser%.error") then
      local bytes = {}
      for literal in data:gmatch('b"([^"]*)"') do bytes[#bytes + 1] = unescape(literal) end
      vectors[#vectors + 1] = { name = name, bytes = table.concat(bytes), expect = "refuse" }
    end
  end
  return vectors
end

return suites
