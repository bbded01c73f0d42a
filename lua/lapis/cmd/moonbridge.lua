-- The server "moonbridge" of Lapis's configuration, for its command line.

return { type = "moonbridge" }
