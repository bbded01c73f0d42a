---@meta moonbridge.http

-- The dotted name of moonbridge_http.

return require "moonbridge_http"
