-- library/moonbridge.lua annotates what the module has, and nothing else.

local moonbridge = require "moonbridge"
local server = require "spec.support.server"

describe("the annotations of moonbridge", function()
  local text

  setup(function()
    local file = assert(io.open("library/moonbridge.lua"))
    text = file:read("a")
    file:close()
  end)

  after_each(server.cleanup)

  it("are a valid chunk", function() assert(load(text)) end)

  it("name every member of the module, and no other", function()
    local annotated = { _VERSION = "string", io = "table", http = "table" }
    for name in text:gmatch("\nfunction moonbridge%.([%w_]+)") do annotated[name] = "function" end
    local members = {}
    for name, value in pairs(moonbridge) do members[name] = type(value) end
    assert.same(members, annotated)
  end)

  it("name the figures of status()", function()
    local _, names = server.run_script [[
      local moonbridge = require "moonbridge"
      moonbridge.listen { { proto = "interval", delay = 1 }, connect = print }
      for name in pairs(moonbridge.status()[1]) do print(name) end
      os.exit()
    ]]
    local fields = text:match("%-%-%-@class %(exact%) moonbridge%.status\n(.-)\n\n")
    for name in names:gmatch("[%a_]+") do
      local kind = name == "listeners" and " moonbridge.listener_status[]" or " integer"
      assert.truthy(fields:find("@field " .. name .. kind, 1, true), name)
      fields = fields:gsub("@field " .. name .. " ", "")
    end
    assert.falsy(fields:find("@field"))
  end)
end)
