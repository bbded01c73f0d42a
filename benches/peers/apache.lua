-- The handler for mod_lua.
-- luacheck: globals handle apache2
function handle(request)
  request.content_type = "text/plain"
  request:puts("Hello, " .. (request:parseargs().name or "World") .. "!\n")
  return apache2.OK
end
