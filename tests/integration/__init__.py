"""Real processes: Prometheus, Jaeger, Redis, HAProxy, the shop, payments and the worker, on free ports."""
