-- The programs of docs/coming-from.md run as they stand, and answer as the page shows.

local page = require "spec.support.page"
local server = require "spec.support.server"

describe("docs/coming-from.md", function()
  after_each(server.cleanup)

  for _, session in ipairs(page.sessions "docs/coming-from.md") do
    it("line " .. session.line .. ": the commands print what is shown", function() session.run(assert) end)
  end
end)
