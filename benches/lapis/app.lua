-- The application of `make bench-lapis`, the same for each server.

local lapis = require "lapis"
local respond_to = require("lapis.application").respond_to

local app = lapis.Application()

app:get("/", function() return { layout = false, content_type = "text/plain", "Hello, World!\n" } end)

app:get("/greet/:name", function(self)
  return { json = { greeting = "Hello, " .. self.params.name .. "!", page = tonumber(self.params.page) } }
end)

app:get("/list", function(self)
  self.session.seen = (tonumber(self.session.seen) or 0) + 1
  return self:html(function()
    h1 "Numbers" -- luacheck: ignore
    ul(function() -- luacheck: ignore
      for number = 1, 20 do li("number <" .. number .. ">") end -- luacheck: ignore
    end)
  end)
end)

app:match("/comment", respond_to {
  POST = function(self) return { layout = false, self.params.author .. ": " .. self.params.text } end,
})

return app
