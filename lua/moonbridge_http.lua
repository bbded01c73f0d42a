-- The flat name of `moonbridge.http`: the same table, so that either name works.
return require "moonbridge.http"
