---@meta moonbridge.io

-- The dotted name of moonbridge_io.

return require "moonbridge_io"
