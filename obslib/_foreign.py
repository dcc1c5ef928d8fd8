"""What `/metrics` serves beside obslib's own: registries of prometheus_client."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard

from prometheus_client import CollectorRegistry, GCCollector, Metric, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.exposition import generate_latest as generate_latest_openmetrics
from prometheus_client.samples import Exemplar, Sample

from obslib import names
from obslib._saved_values import read_number, to_json

#: Collectors that count what happens in this process. Others may count what a database says, which is nobody's to add.
_OF_THIS_PROCESS: Final = (MetricWrapperBase, ProcessCollector, GCCollector)
_CUMULATIVE: Final = frozenset({"counter", "histogram", "summary"})

SampleKey = tuple[str, frozenset[tuple[str, str]]]


class ForeignMetrics:
    """
    Collects registries, and goes on from what a predecessor of this process has counted.

    Args:
        on_error: Told which exception a collector raised; it is then left out.
    """

    def __init__(self, registries: Sequence[CollectorRegistry], on_error: Callable[[BaseException], None]) -> None:
        self._registries = registries
        self._on_error = on_error
        self._carried: dict[str, Metric] = {}

    def carry(self, families: Iterable[Metric]) -> None:
        """Add these to what is collected from now on, as far as they only go up."""
        self._carried = {family.name: cumulative(family) for family in families if family.type in _CUMULATIVE}

    def collect(self, taken: Collection[str]) -> list[Metric]:
        """Return all families but those of these names, each once."""
        seen = set(taken)
        families: list[Metric] = []
        for registry in self._registries:
            try:
                collected = list(registry.collect())
            except Exception as error:  # noqa: BLE001 -- a collector may raise anything; the others still count
                self._on_error(error)
                continue
            for family in collected:
                if family.name not in seen:
                    seen.add(family.name)
                    families.append(self._with_carried(family))
        missing = [family for name, family in self._carried.items() if name not in seen]
        return [*families, *missing]

    def save(self) -> list[Metric]:
        """Return what a successor can go on from, and what can be shown in the place of this process."""
        families: list[Metric] = []
        for registry in self._registries:
            # The only way to tell whose a family is; a registry of another kind has none that can be carried.
            collectors: Iterable[Any] = getattr(registry, "_collector_to_names", ())
            for collector in tuple(collectors):
                if isinstance(collector, _OF_THIS_PROCESS):
                    try:
                        families += map(self._with_carried, collector.collect())
                    except Exception as error:  # noqa: BLE001 -- a gauge's function may raise anything, as above
                        self._on_error(error)
        saved = {family.name for family in families}
        return [*families, *(family for name, family in self._carried.items() if name not in saved)]

    def _with_carried(self, family: Metric) -> Metric:
        carried = self._carried.get(family.name)
        if carried is None or carried.type != family.type:
            return family
        if (buckets := _buckets(family)) and buckets != _buckets(carried):
            return family  # the code has changed, and the sums would be no histogram
        left = {_key(sample): sample for sample in carried.samples}
        total = Metric(family.name, family.documentation, family.type, family.unit)
        for sample in family.samples:
            before = left.pop(_key(sample), None)
            total.samples.append(sample if before is None else _sum(sample, before))
        total.samples += left.values()
        return total


def cumulative(family: Metric) -> Metric:
    """Return the part of a family that outlives its process."""
    part = Metric(family.name, family.documentation, family.type, family.unit)
    if family.type in _CUMULATIVE:
        is_quantile = family.type == "summary"
        part.samples = [sample for sample in family.samples if not (is_quantile and "quantile" in sample.labels)]
    return part


def render(families: Iterable[Metric], worker: str, *, openmetrics: bool) -> bytes:
    """Write families down, each sample with the label `worker`."""
    generate = generate_latest_openmetrics if openmetrics else generate_latest
    return generate(Families([_with_worker(family, worker) for family in families]))


def to_saved(family: Metric) -> dict[str, Any]:
    """Return a family as orjson can write it."""
    return {
        "name": family.name,
        "documentation": family.documentation,
        "type": family.type,
        "unit": family.unit,
        "samples": [
            (sample.name, sample.labels, to_json(sample.value), _exemplar_to_json(sample.exemplar))
            for sample in family.samples
            if not _is_created(family, sample)
        ],
    }


def from_saved(saved: Mapping[str, Any]) -> Metric:
    """
    Read what `to_saved` returned.

    Raises:
        ValueError: It is no family.
    """
    try:
        texts = saved["name"], saved["documentation"], saved["type"], saved["unit"]
        if not all(isinstance(text, str) for text in texts) or not _is_name(texts[0]):
            raise ValueError(f"{texts!r} describe no family.")
        family = Metric(*texts)
        for name, labels, value, exemplar in saved["samples"]:
            if not _is_name(name) or not name.startswith(family.name) or not _is_labels(labels):
                raise ValueError(f"{name!r} with {labels!r} is no sample.")
            family.add_sample(name, labels, read_number(value), exemplar=exemplar and _exemplar_from_json(*exemplar))
    except (LookupError, TypeError) as error:
        raise ValueError(f"This is no family: {error!r}.") from error
    return family


class Families(CollectorRegistry):
    """Families that were collected already, in the shape prometheus_client writes down."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _with_worker(family: Metric, worker: str) -> Metric:
    copy = Metric(family.name, family.documentation, family.type)
    copy.samples = [
        sample._replace(labels={**sample.labels, names.LABEL_WORKER: worker})
        for sample in family.samples
        if not _is_created(family, sample)
    ]
    return copy


def _is_created(family: Metric, sample: Sample) -> bool:
    """Whether it says when the series began, which obslib leaves out everywhere."""
    return sample.name.endswith("_created") and family.type in _CUMULATIVE


def _key(sample: Sample) -> SampleKey:
    return sample.name, frozenset(sample.labels.items())


def _sum(sample: Sample, before: Sample) -> Sample:
    return sample._replace(value=sample.value + before.value, exemplar=sample.exemplar or before.exemplar)


def _buckets(family: Metric) -> set[str]:
    return {sample.labels["le"] for sample in family.samples if "le" in sample.labels}


def _is_labels(labels: object) -> TypeGuard[dict[str, str]]:
    return isinstance(labels, dict) and all(_is_name(name) and isinstance(value, str) for name, value in labels.items())


def _is_name(name: object) -> TypeGuard[str]:
    """Whether it can stand in a line without ending it; prometheus_client allows what is not ASCII."""
    return isinstance(name, str) and name.isprintable() and '"' not in name


def _exemplar_to_json(exemplar: Exemplar | None) -> tuple[Any, ...] | None:
    if exemplar is None:
        return None
    return exemplar.labels, exemplar.value, None if exemplar.timestamp is None else float(exemplar.timestamp)


def _exemplar_from_json(labels: object, value: object, unix_seconds: object) -> Exemplar:
    if not _is_labels(labels):
        raise ValueError(f"{labels!r} are no labels of an exemplar.")
    return Exemplar(labels, read_number(value), None if unix_seconds is None else read_number(unix_seconds))
