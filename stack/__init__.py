"""The whole stack on one machine, without containers: `python -m stack`.

It finds or installs Prometheus, Alertmanager, Jaeger, HAProxy and Redis (`stack.components`), starts them together with
the demo service and the autoscaler (`stack.supervisor`) and answers `status`, `scale`, `spike`, `notifications`,
`trace`, `logs` and `stop` from another terminal.
"""
