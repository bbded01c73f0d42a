-- What wrk prints at its end: one line that benches/support/load.lua reads.
-- luacheck: globals done
done = function(summary, latency)
  local errors = summary.errors
  io.write(("RESULT %d %d %g %g %d %d\n"):format(
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
