-- The examples of docs/reference/http.md are servers that run as they stand, and the commands after
-- them print what is shown.

local page = require "spec.support.page"
local process = require "spec.support.process"
local server = require "spec.support.server"

local text = assert(process.slurp("docs/reference/http.md"))

describe("docs/reference/http.md", function()
  after_each(server.cleanup)

  for _, session in ipairs(page.sessions "docs/reference/http.md") do
    it("line " .. session.line .. ": the commands print what is shown", function() session.run(assert) end)
  end

  it("names every function for handlers", function()
    local http = require "moonbridge_http"
    for _, name in ipairs { "generate_handler", "encode_html", "encode_uri", "decode_uri", "encode_path",
      "decode_path", "parse_query" } do
      assert.is_function(http[name])
      assert.is_truthy(text:find(name, 1, true), name .. " is not documented")
    end
  end)
end)
