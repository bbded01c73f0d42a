-- The examples of docs/reference/io.md are programs that run as they stand.

local moonbridge_io = require "moonbridge_io"
local process = require "spec.support.process"

local text = assert(process.slurp("docs/reference/io.md"))

describe("docs/reference/io.md", function()
  local section, count = "the beginning", 0
  -- Headings and blocks in their order.
  local position = 1
  while true do
    local first, last, program = text:find("```lua\n(.-)\n```", position)
    if not first then break end
    for heading in text:sub(position, first):gmatch("\n##+ ([^\n]+)") do section = heading end
    position = last + 1
    count = count + 1
    it("has an example that runs: " .. section, function()
      if _VERSION == "Lua 5.5" and program:find "cqueues" then pending "there is no cqueues for Lua 5.5" end
      local path = process.scratch("example.lua")
      local file = assert(io.open(path, "w"))
      file:write(program, "\n")
      file:close()
      local child = assert(moonbridge_io.exec(arg[-1], path))
      local complaint = child.stderr:read()
      assert.equal("", complaint)
      assert.equal(0, child:wait())
    end)
  end

  it("has an example for each group of functions", function() assert.is_true(count >= 10) end)

  it("names every function and method", function()
    local classes = {
      moonbridge_io, moonbridge_io.handle_pt, moonbridge_io.listener_pt, moonbridge_io.child_pt,
    }
    for _, class in ipairs(classes) do
      for name in pairs(class) do
        if name:sub(1, 2) ~= "__" then
          assert.is_truthy(text:find(name, 1, true), name .. " is not documented")
        end
      end
    end
  end)
end)
