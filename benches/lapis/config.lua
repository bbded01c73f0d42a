-- The configuration of `make bench-lapis`; PORT and WORKERS come from the environment.

require "lapis.config" ("bench", {
  server = os.getenv "SERVER",
  port = os.getenv "PORT",
  bind_host = "127.0.0.1",
  code_cache = "on",
  num_workers = os.getenv "WORKERS",
  secret = "a secret for the benchmark",
  logging = { requests = false, queries = false, server = false },
})
