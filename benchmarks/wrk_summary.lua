-- Makes wrk tell when it begins, and print what it counted as one line of JSON: latencies in microseconds.
setup = function(thread)
  io.write("begins\n")
  io.flush()
end

done = function(summary, latency, requests)
  local errors = summary.errors
  local cells = {}
  for index = 1, #latency do
    local microseconds, count = latency(index)
    cells[index] = string.format('"%d": %d', microseconds, count)
  end
  io.write(string.format(
    '{"requests": %d, "duration_seconds": %.6f, "errors": %d, "latencies": {%s}}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    table.concat(cells, ", ")))
end
