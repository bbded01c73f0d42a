---@meta moonbridge.wsapi

---Runs an application for WSAPI 1.6 (docs/reference/wsapi.md).
---@param application function|table|string a function, a table with a function `run`, or a module's name
---@param options moonbridge_http.options?
---@return fun(socket: moonbridge_io.handle): any connect for `listen`
return function(application, options) end
