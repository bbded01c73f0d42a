-- The flat name of `moonbridge.callback`: the same table, so that either name works.
return require "moonbridge.callback"
