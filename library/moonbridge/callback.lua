---@meta moonbridge.callback

-- The dotted name of moonbridge_callback.

return require "moonbridge_callback"
