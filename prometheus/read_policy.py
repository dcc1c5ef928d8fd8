"""Reads `policy.yml`; every mistake is named with its line and the way out."""

import re
from fractions import Fraction
from pathlib import Path
from string import Template
from typing import Any, Final

from obslib import names
from prometheus.durations import Duration, decimal
from prometheus.errors import PolicyError
from prometheus.links import PLACEHOLDERS
from prometheus.located import Located, Reader, nearest
from prometheus.policy import Backlog, Edge, Kubernetes, Links, Objectives, Policy, Scaling, Server, Service
from prometheus.windows import LARGEST_FACTOR, LONGEST

_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9_.-]+")
# Of Kubernetes: a label of a domain name, and how long HPA's policies and windows may be at most.
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_HPA_PERIOD: Final = Duration.parse("30m")
_LONGEST_HPA_WINDOW: Final = Duration.parse("1h")
_LONGEST_SCRAPE_INTERVAL: Final = Duration.parse("15s")
#: A window with fewer can tell nothing.
_LEAST_SCRAPES: Final = 4
_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def read(path: Path) -> Policy:
    """
    The policy in a file.

    Raises:
        PolicyError: it cannot be used.

    """
    return parse(path.read_text(), str(path))


def parse(text: str, path: str = "policy.yml") -> Policy:
    """
    The policy in a text.

    Args:
        path: what the errors call the file.

    Raises:
        PolicyError: it cannot be used.

    """
    reader = _PolicyReader()
    policy = reader.policy(text)
    if reader.problems or policy is None:
        raise PolicyError(path, reader.problems)
    return policy


class _PolicyReader(Reader):
    """Knows what each key means. After a problem it goes on with a value that causes no further ones."""

    def policy(self, text: str) -> Policy | None:
        root = self.root(text)
        if root is None:
            return None
        fields = self.fields(root, required=("prometheus", "links", "services"), optional=("kubernetes",))
        server = self._server(fields["prometheus"]) if "prometheus" in fields else None
        links = self._links(fields["links"]) if "links" in fields else None
        places = dict(self.entries(fields["services"])) if "services" in fields else {}
        services = {name: self._service(name, at, tuple(places), server) for name, at in places.items()}
        kubernetes = self._kubernetes(fields["kubernetes"], places) if "kubernetes" in fields else None
        if server is None or links is None:
            return None
        return Policy(server=server, links=links, kubernetes=kubernetes, services=services)

    def _kubernetes(self, at: Located, services: dict[str, Located]) -> Kubernetes:
        fields = self.fields(at, required=("prometheus_address",))
        address = self.text(fields["prometheus_address"]) if "prometheus_address" in fields else ""
        if address and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", address):
            self.complain(fields["prometheus_address"], f"{address!r} is no address; write http://host:9090.")
        for name, place in services.items():
            service = dict(self.entries(place))
            if "scaling" in service:
                self._scalable(name, place, dict(self.entries(service["scaling"])))
        return Kubernetes(prometheus_address=address)

    def _scalable(self, name: str, at: Located, scaling: dict[str, Located]) -> None:
        """What Kubernetes would refuse of a service that scales."""
        if not _OBJECT_NAME.fullmatch(name):
            self.complain(at, "Kubernetes names have a-z, 0-9 and `-` only, 63 at most; rename the service.")
        longest = {
            "scale_out_after": _LONGEST_HPA_WINDOW,
            "scale_in_after": _LONGEST_HPA_WINDOW,
            "scale_out_cooldown": _LONGEST_HPA_PERIOD,
            "scale_in_cooldown": _LONGEST_HPA_PERIOD,
        }
        for key, most in longest.items():
            if key in scaling and self._duration(scaling[key]) > most:
                self.complain(scaling[key], f"Kubernetes takes {most} at most; shorten it.")

    def _server(self, at: Located) -> Server | None:
        keys = ("retention", "scrape_interval", "scrape_timeout", "sample_limit")
        fields = self.fields(at, required=keys)
        if set(fields) != set(keys):
            return None
        server = Server(
            retention=self._duration(fields["retention"]),
            scrape_interval=self._duration(fields["scrape_interval"]),
            scrape_timeout=self._duration(fields["scrape_timeout"]),
            sample_limit=self._count(fields["sample_limit"]),
        )
        if server.scrape_timeout > server.scrape_interval:
            self.complain(fields["scrape_timeout"], "longer than scrape_interval, which Prometheus refuses.")
        if server.scrape_interval > _LONGEST_SCRAPE_INTERVAL:
            self.complain(
                fields["scrape_interval"],
                f"{server.scrape_interval} is too long: alerts look at the last 30s, where there must be two scrapes. "
                f"Scrape every {_LONGEST_SCRAPE_INTERVAL} or more often.",
            )
        return server

    def _links(self, at: Located) -> Links | None:
        keys = ("runbooks", "dashboards", "traces", "logs")
        fields = self.fields(at, required=keys)
        for place in fields.values():
            template = Template(self.text(place))
            if not template.is_valid():
                self.complain(place, "a $ that begins no ${name}; write $$ for the character itself.")
                continue
            for name in template.get_identifiers():
                if name not in PLACEHOLDERS:
                    self.complain(place, f"unknown placeholder ${{{name}}}. {nearest(name, PLACEHOLDERS)}")
        return Links(**{key: self.text(fields[key]) for key in keys}) if set(fields) == set(keys) else None

    def _service(self, name: str, at: Located, known: tuple[str, ...], server: Server | None) -> Service:
        if not _LABEL_VALUE.fullmatch(name):
            self.complain(at, "a service's name has letters, digits, `_`, `.` and `-` only.")
        fields = self.fields(at, optional=("namespace", "slo", "edge", "scaling"))
        edge = self._edge(fields["edge"]) if "edge" in fields else None
        return Service(
            name=name,
            namespace=self._label_value(fields["namespace"]) if "namespace" in fields else "",
            objectives=self._objectives(fields["slo"], server, edge) if "slo" in fields else None,
            edge=edge,
            scaling=self._scaling(fields["scaling"], name, known, server) if "scaling" in fields else None,
        )

    def _objectives(self, at: Located, server: Server | None, edge: Edge | None) -> Objectives:
        fields = self.fields(at, required=("period",), optional=("availability", "latency", "edge"))
        if not set(fields) & {"availability", "latency", "edge"}:
            self.complain(at, "nothing is promised; add `availability`, `latency` or `edge`, or leave `slo` out.")
        period = self._period(fields["period"], server) if "period" in fields else Duration(1)
        latency, bound = self._latency(fields["latency"]) if "latency" in fields else (None, None)
        if "edge" in fields and edge is None:
            self.complain(fields["edge"], "the service has no `edge:` to measure it at; say which haproxy_frontend.")
        return Objectives(
            period=period,
            availability=self._objective(fields["availability"]) if "availability" in fields else None,
            latency=latency,
            latency_bound=bound,
            edge=self._objective(fields["edge"]) if "edge" in fields else None,
        )

    def _period(self, at: Located, server: Server | None) -> Duration:
        period = self._duration(at)
        if server and period >= server.retention:
            self.complain(
                at,
                f"{period} is not shorter than Prometheus' retention, {server.retention}: what is left of the budget "
                "would be wrong. Shorten the period, or lengthen the retention here and on Prometheus' command line.",
            )
        if period <= Duration.parse(LONGEST):
            self.complain(at, f"{period} is not longer than the longest burn window, {LONGEST}; 7d is the usual least.")
        return period

    def _objective(self, at: Located) -> Fraction:
        objective = self._share(at)
        budget = 1 - objective
        if LARGEST_FACTOR * budget >= 1:
            least = decimal((1 - 1 / LARGEST_FACTOR) * 100)
            self.complain(
                at,
                f"no outage could burn this budget {decimal(LARGEST_FACTOR)} times too fast: "
                f"{decimal(LARGEST_FACTOR)} x {decimal(budget)} is not below 1. Promise more than {least[:5]}%.",
            )
        return objective

    def _latency(self, at: Located) -> tuple[Fraction | None, Duration | None]:
        fields = self.fields(at, required=("objective", "within"))
        if set(fields) != {"objective", "within"}:
            return None, None
        bound = self._duration(fields["within"])
        buckets = [Duration(round(seconds * 1000)) for seconds in names.DURATION_BUCKETS_SECONDS]
        if bound not in buckets:
            close = min(buckets, key=lambda bucket: abs(bucket.milliseconds - bound.milliseconds))
            self.complain(
                fields["within"],
                f"{bound} is no bucket of {names.HTTP_SERVER_REQUEST_DURATION}, so nobody counts it. The nearest is "
                f"{close}; there are {', '.join(map(str, buckets))}.",
            )
        return self._objective(fields["objective"]), bound

    def _edge(self, at: Located) -> Edge:
        fields = self.fields(at, required=("haproxy_frontend",), optional=("haproxy_backend", "probed"))
        return Edge(
            frontend=self._label_value(fields["haproxy_frontend"]) if "haproxy_frontend" in fields else "",
            backend=self._label_value(fields["haproxy_backend"]) if "haproxy_backend" in fields else "",
            probed=self._truth(fields["probed"]) if "probed" in fields else False,
        )

    def _scaling(self, at: Located, service: str, known: tuple[str, ...], server: Server | None) -> Scaling:
        signals = ("in_flight_per_replica", "cpu", "backlog")
        times = ("cpu_hold", "scale_out_after", "scale_in_after", "scale_out_cooldown", "scale_in_cooldown")
        steps = ("scale_out_step", "scale_in_step")
        fields = self.fields(at, required=("min_replicas", "max_replicas"), optional=(*signals, *times, *steps))
        least = self._count(fields["min_replicas"]) if "min_replicas" in fields else 1
        most = self._count(fields["max_replicas"]) if "max_replicas" in fields else least
        if least > most:
            self.complain(fields["min_replicas"], f"{least} is more than max_replicas, {most}; exchange them.")
        if not set(fields) & set(signals):
            self.complain(at, f"nothing asks for replicas; add one of {', '.join(f'`{name}`' for name in signals)}.")
        in_flight = fields.get("in_flight_per_replica")
        given: dict[str, Any] = {  # Any: each is of its field's type
            **{name: self._duration(fields[name]) for name in times if name in fields},
            **{name: self._count(fields[name]) for name in steps if name in fields},
        }
        for window in ("cpu_hold", "scale_in_after"):
            if server and window in fields:
                self._window(fields[window], server.scrape_interval)
        return Scaling(
            min_replicas=least,
            max_replicas=most,
            in_flight_per_replica=self._number(in_flight) if in_flight else None,
            cpu=self._share(fields["cpu"]) if "cpu" in fields else None,
            backlog=self._backlog(fields["backlog"], service, known) if "backlog" in fields else None,
            **given,
        )

    def _window(self, at: Located, scrape_interval: Duration) -> None:
        least = Duration(_LEAST_SCRAPES * scrape_interval.milliseconds)
        if self._duration(at) < least:
            self.complain(at, f"too short to tell anything, with a scrape every {scrape_interval}; {least} or more.")

    def _backlog(self, at: Located, service: str, known: tuple[str, ...]) -> Backlog:
        fields = self.fields(at, required=("metric", "jobs_per_replica"), optional=("reported_by",))
        metric = self.text(fields["metric"]) if "metric" in fields else ""
        if metric and not _METRIC.fullmatch(metric):
            self.complain(fields["metric"], f"{metric!r} is no metric's name; write it without labels.")
        reporter = self.text(fields["reported_by"]) if "reported_by" in fields else service
        if reporter not in known:
            self.complain(fields["reported_by"], f"unknown service {reporter!r}. {nearest(reporter, known)}")
        per_replica = fields.get("jobs_per_replica")
        return Backlog(
            metric=metric,
            reported_by=reporter,
            jobs_per_replica=self._number(per_replica) if per_replica else Fraction(1),
        )

    def _duration(self, at: Located) -> Duration:
        try:
            return Duration.parse(self.text(at))
        except ValueError as error:
            self.complain(at, f"{error}.")
            return Duration.parse("5m")

    def _share(self, at: Located) -> Fraction:
        """A share between 0 and 1, both excluded: `99.9%` or `0.999`."""
        text = self.text(at)
        number = _fraction(text.removesuffix("%"))
        share = number / 100 if number is not None and text.endswith("%") else number
        if share is None or not 0 < share < 1:
            self.complain(at, f"{text!r} is no share between 0 and 1; write 99.9% or 0.999.")
            return Fraction("0.99")
        return share

    def _number(self, at: Located) -> Fraction:
        number = _fraction(self.text(at))
        if number is None or number <= 0:
            self.complain(at, f"{self.text(at)!r} is no number above zero.")
            return Fraction(1)
        return number

    def _count(self, at: Located) -> int:
        text = self.text(at)
        if not re.fullmatch(r"[1-9]\d*", text):
            self.complain(at, f"{text!r} is no whole number from 1 on.")
            return 1
        return int(text)

    def _truth(self, at: Located) -> bool:
        text = self.text(at)
        if text not in {"true", "false"}:
            self.complain(at, f"{text!r} is neither true nor false.")
        return text == "true"

    def _label_value(self, at: Located) -> str:
        text = self.text(at)
        if not _LABEL_VALUE.fullmatch(text):
            self.complain(at, f"{text!r} has characters other than letters, digits, `_`, `.` and `-`.")
        return text


def _fraction(text: str) -> Fraction | None:
    return Fraction(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None
