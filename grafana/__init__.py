"""
Grafana's dashboards and data sources, written as Python.

`make generate` turns them into the files under `generated/` and `provisioning/`; edit the source, never those.
"""
