---@meta moonbridge.lapis

---Options of `http.generate_handler`, and one more.
---@class moonbridge.lapis.options: moonbridge_http.options
---@field code_cache boolean|"on"|"off"|"app_only"|nil false: loads the application for each request (true)

---Runs an application for Lapis (docs/reference/lapis.md).
---@param application table|string|nil a class, an instance or a module's name; by default the configuration's
---@param options moonbridge.lapis.options?
---@return fun(socket: moonbridge_io.handle): any connect for `listen`
return function(application, options) end
