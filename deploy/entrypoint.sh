#!/bin/sh
# Prometheus names a replica by its address (deploy/compose/prometheus.yml): so do its traces and logs.
set -eu
address="$(hostname -i)"
export OTEL_RESOURCE_ATTRIBUTES="service.instance.id=${address%% *}${OTEL_RESOURCE_ATTRIBUTES:+,$OTEL_RESOURCE_ATTRIBUTES}"
module=demo_service
case "${1-}" in
  autoscaler) module=autoscaler && shift ;;
  notifications) module=stack.inbox && shift ;;
esac
exec python -m "$module" "$@"
