"""The whole stack on one machine, without containers: `python -m stack`.

It finds or installs Prometheus, Jaeger, HAProxy and Redis (`stack.components`), starts them together with the demo
service (`stack.supervisor`) and answers `status`, `scale`, `spike`, `trace`, `logs` and `stop` from another terminal.
"""
