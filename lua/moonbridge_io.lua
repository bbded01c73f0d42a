-- The flat name of `moonbridge.io`: the same table, so that either name works.
return require "moonbridge.io"
