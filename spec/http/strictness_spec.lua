-- Which requests are served and which refused: RFC 9112, and no room for request smuggling.
-- The fixtures are the bytes on the wire; the names of the invalid ones begin with the status.

local lfs = require "lfs"
local process = require "spec.support.process"
local server = require "spec.support.server"
local app = require "spec.http.app"

local function fixtures(kind)
  local folder = "spec/http/requests/" .. kind
  local names = {}
  for name in lfs.dir(folder) do
    if name:find("%.http$") then names[#names + 1] = name end
  end
  table.sort(names)
  assert(#names > 0)
  local index = 0
  return function()
    index = index + 1
    local name = names[index]
    if name then return name:gsub("%.http$", ""), assert(process.slurp(folder .. "/" .. name)) end
  end
end

local ROUTES = [[
  function routes.body(request)
    return reply(request, #request.body)
  end
  function routes.default(request)
    return reply(request, request.method, " ", #request.body)
  end
]]

local NEXT = "GET /pid HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n"

describe("requests as RFC 9112 has them", function()
  local s, pid
  setup(function()
    s = app.start(ROUTES)
    pid = s:request("/pid").body
  end)
  teardown(server.cleanup)

  for name, bytes in fixtures "valid" do
    it("are served, and so is the next one on the connection: " .. name, function()
      local connection = s:connect()
      connection:send(bytes .. NEXT)
      assert.equal(200, connection:response().status)
      assert.equal(pid, connection:response().body)
      local _, ending = connection:read_all()
      assert.equal("closed", ending)
    end)

    it("are served when every byte comes alone: " .. name, function()
      if #bytes > 400 then return end
      local connection = s:connect()
      connection:dribble(bytes, 1)
      assert.equal(200, connection:response().status)
      connection:close()
    end)
  end

  local function refused(kind)
    for name, bytes in fixtures(kind) do
      it("are refused otherwise, completely and before the FIN: " .. name, function()
        local connection = s:connect()
        connection:send(bytes .. NEXT)
        local response = connection:response()
        assert.equal(name:match("^%d+"), tostring(response.status))
        assert.equal("close", response.headers.connection)
        assert.equal("text/plain", response.headers["content-type"])
        local title = response.status .. " " .. response.reason
        assert.equal(title .. "\n", response.body:sub(1, #title + 1))
        local rest, ending = connection:read_all()
        assert.equal("", rest)
        assert.equal("closed", ending)
        assert.equal(pid, s:request("/pid").body)
      end)
    end
  end
  refused "invalid"
  refused "invalid-bodies"
end)
