-- Makes wrk print what it counted as one line of JSON, in seconds.
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_seconds": %.6f, "errors": %d, "p50_seconds": %.6f, "p99_seconds": %.6f, "p999_seconds": %.6f, "max_seconds": %.6f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency:percentile(99.9) / 1e6, latency.max / 1e6))
end
