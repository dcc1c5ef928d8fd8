"""The tracer provider: obslib's own, or the one that a user made global, with our processor added."""

# For its hook at a fork, which must run before that of the SDK's providers: they start threads there, and would wait
# for ever for a lock that this one frees.
import concurrent.futures.thread  # noqa: F401
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import AttributeValue

from obslib import names
from obslib.settings import Settings


class Gate(Sampler):
    """Samples as the sampler behind it does, until it is closed: after that nothing is recorded."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.is_open: bool = True

    def reopen(self, sampler: Sampler) -> None:
        """Record again, as another sampler decides."""
        self._sampler = sampler
        self.is_open = True

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide about one span."""
        if not self.is_open:
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return what the sampler behind says of itself."""
        return self._sampler.get_description()


class ObslibTracerProvider(TracerProvider):
    """A stock provider that can be closed, and opened again by a later `instrument()` of the same service."""

    def __init__(self, resource: Resource, gate: Gate, id_generator: IdGenerator | None = None) -> None:
        super().__init__(resource=resource, sampler=gate, id_generator=id_generator, shutdown_on_exit=False)
        self.gate: Final = gate


def resource_attributes(settings: Settings) -> dict[str, str]:
    """Return what describes the process; the fields of `Settings` win over `Settings.resource_attributes`."""
    attributes = {**settings.resource_attributes, names.RESOURCE_SERVICE_NAME: settings.service_name}
    if settings.service_version:
        attributes[names.RESOURCE_SERVICE_VERSION] = settings.service_version
    return attributes


def make_resource(settings: Settings) -> Resource:
    """Return the resource that describes the process."""
    # Not Resource.create: it would read the environment a second time and start resource detectors.
    sdk = {
        names.RESOURCE_SDK_LANGUAGE: "python",
        names.RESOURCE_SDK_NAME: "opentelemetry",
        names.RESOURCE_SDK_VERSION: sdk_version,
    }
    return Resource({**sdk, **resource_attributes(settings)})


def make_sampler(settings: Settings) -> Sampler:
    """Return the sampler that `Settings.traces_sampler` names."""
    root: Sampler
    if settings.traces_sampler.endswith("traceidratio"):
        root = TraceIdRatioBased(settings.traces_sampler_ratio)
    else:
        root = ALWAYS_OFF if settings.traces_sampler.endswith("always_off") else ALWAYS_ON
    return ParentBased(root) if settings.traces_sampler.startswith("parentbased_") else root


def obtain_provider(
    settings: Settings, resource: Resource, processor: SpanProcessor | None
) -> tuple[trace.TracerProvider, bool]:
    """
    Return the provider to use, and whether it should become the global one.

    A global provider that somebody else made is used and never replaced. One of ours that was closed is opened again if
    it describes the same resource.
    """
    existing = trace.get_tracer_provider()
    if settings.global_tracer_provider and isinstance(existing, TracerProvider):
        revivable = isinstance(existing, ObslibTracerProvider)
        if isinstance(existing, ObslibTracerProvider) and not existing.gate.is_open and existing.resource == resource:
            existing.gate.reopen(make_sampler(settings))
        elif revivable:
            return _own_provider(settings, resource, processor), False
        if processor is not None:
            existing.add_span_processor(processor)
        return existing, False
    nobody = isinstance(existing, trace.ProxyTracerProvider)
    if settings.global_tracer_provider and not nobody:
        return existing, False
    return _own_provider(settings, resource, processor), settings.global_tracer_provider and nobody


def remove_processor(provider: TracerProvider, processor: SpanProcessor) -> None:
    """Undo `add_span_processor`, for which the SDK has no call; where it looks different the processor stays."""
    multi = provider._active_span_processor  # noqa: SLF001 -- as said above, here and below
    if not isinstance(multi, SynchronousMultiSpanProcessor):
        return
    with multi._lock:  # noqa: SLF001
        multi._span_processors = tuple(other for other in multi._span_processors if other is not processor)  # noqa: SLF001


def _own_provider(settings: Settings, resource: Resource, processor: SpanProcessor | None) -> ObslibTracerProvider:
    provider = ObslibTracerProvider(resource, Gate(make_sampler(settings)))
    if processor is not None:
        provider.add_span_processor(processor)
    return provider
