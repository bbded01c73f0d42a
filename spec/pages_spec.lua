-- The programs of these pages run as they stand, and answer as the page shows.
-- Not under Lua 5.5: there is no LuaSQL for it.

local page = require "spec.support.page"
local server = require "spec.support.server"

for _, path in ipairs { "docs/coming-from.md", "docs/faq.md" } do
  describe(path, function()
    after_each(server.cleanup)

    for _, session in ipairs(page.sessions(path)) do
      it("line " .. session.line .. ": the commands print what is shown", function() session.run(assert) end)
    end
  end)
end
