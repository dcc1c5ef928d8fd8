"""
What Prometheus and Alertmanager are told about our services.

`policy.yml` says what each service promises and how far it may scale; `python -m prometheus.generate` derives the
rules, their tests and the Kubernetes object from it and from `obslib.names`. No part of the wheel.
"""
