-- library/moonbridge_io.lua annotates what the module has, and nothing else.

local moonbridge_io = require "moonbridge_io"

describe("the annotations of moonbridge_io", function()
  local text, annotated = "", {}

  setup(function()
    local file = assert(io.open("library/moonbridge_io.lua"))
    text = file:read("a")
    file:close()
    for class, name in text:gmatch("\nfunction ([%w_]+)[.:]([%w_]+)") do
      annotated[class .. ":" .. name] = true
    end
    for class, fields in text:gmatch("%-%-%-@class ([%w_.]+)\n(.-)\nlocal ") do
      for name in fields:gmatch("@field ([%w_]+)") do
        annotated[class:match("[%w_]+$") .. ":" .. name] = true
      end
    end
  end)

  it("are a valid chunk", function() assert(load(text)) end)

  it("name every function and method, and no other", function()
    local classes = {
      moonbridge_io = moonbridge_io, handle = moonbridge_io.handle_pt,
      listener = moonbridge_io.listener_pt, child = moonbridge_io.child_pt,
    }
    for class, members in pairs(classes) do
      for name in pairs(members) do
        if name:sub(1, 2) ~= "__" then
          assert.is_true(annotated[class .. ":" .. name], class .. ":" .. name .. " is not annotated")
        end
      end
    end
    for class, name in text:gmatch("\nfunction ([%w_]+)[.:]([%w_]+)") do
      assert.is_truthy(classes[class][name], class .. ":" .. name .. " does not exist")
    end
  end)
end)
