#!/bin/sh
# Prometheus names a replica by its address (deploy/compose/prometheus.yml): so do its traces and logs.
set -eu
address="$(hostname -i)"
export OTEL_RESOURCE_ATTRIBUTES="service.instance.id=${address%% *}${OTEL_RESOURCE_ATTRIBUTES:+,$OTEL_RESOURCE_ATTRIBUTES}"
module=demo_service
if [ "${1-}" = autoscaler ]; then
  module=autoscaler
  shift
fi
exec python -m "$module" "$@"
