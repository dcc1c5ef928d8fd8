"""The autoscaler's HTTP side: Alertmanager wakes it, people ask it why and overrule it, Prometheus scrapes it."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import httpx
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import obslib
from autoscaler.actuators import Actuator
from autoscaler.actuators.docker_compose import ComposeActuator
from autoscaler.actuators.docker_engine import Engine
from autoscaler.actuators.docker_swarm import SwarmActuator
from autoscaler.actuators.dry_run import DryRun
from autoscaler.actuators.processes import ProcessActuator
from autoscaler.config import DOCKER, DRY_RUN, Config
from autoscaler.decide import Override
from autoscaler.journal import Journal
from autoscaler.limits import Limits
from autoscaler.metrics import Metrics, Rejection
from autoscaler.prometheus_api import LONGEST_OVERRIDE_SECONDS, PrometheusApi
from autoscaler.scaler import Scaler
from autoscaler.wakes import Path, Wake
from autoscaler.webhook import FIRING, Notification
from prometheus.durations import Clock
from prometheus.policy import Service

log = obslib.get_logger(__name__)

_LONGEST_WEBHOOK_BYTES: Final = 1024 * 1024
_LONGEST_ORDER_BYTES: Final = 4096


class NewOverride(BaseModel):
    """A person's order: so many replicas, or none named to leave everything as it is, for a while."""

    model_config = ConfigDict(extra="forbid")

    replicas: Annotated[int | None, Field(strict=True)] = None
    seconds: Annotated[float, Field(ge=1, le=LONGEST_OVERRIDE_SECONDS, allow_inf_nan=False)]
    why: Annotated[str, Field(max_length=200)] = ""


def create_app(config: Config, *, settings: obslib.Settings | None = None) -> FastAPI:
    """
    Return the autoscaler.

    Args:
        config: what the operator set.
        settings: obslib's; from the environment if not given.

    """
    app = FastAPI(title="autoscaler", docs_url=None, redoc_url=None, lifespan=_lifespan)
    obs = obslib.instrument(
        app, settings or obslib.Settings.from_env(service_name="autoscaler", excluded_paths=("/healthz", "/readyz"))
    )
    services = {service.name: service for service in config.policy.scaling()}
    http = httpx.AsyncClient(trust_env=False)
    prometheus = PrometheusApi(config.prometheus_url, http)
    actuator = _actuator(config, services, prometheus)
    metrics = Metrics(obs, list(services), owns_replicas=actuator.owns_replicas)
    journal = Journal()
    clock = Clock(config.time_scale)
    tracer = obs.tracer_provider.get_tracer("autoscaler")
    scalers: dict[str, Scaler] = {}
    for service in services.values():
        assert service.scaling is not None
        limits = Limits.of(service.scaling, config.policy.server, clock)
        scalers[service.name] = Scaler(service, limits, prometheus, actuator, journal, metrics, tracer)
    app.state.obs, app.state.http, app.state.actuator, app.state.scalers = obs, http, actuator, scalers
    tick = config.tick_seconds
    app.state.tick_seconds = float(clock(config.policy.server.scrape_interval).seconds) if tick is None else tick
    _webhook(app, config.webhook_token, scalers, metrics)
    _questions(app, scalers, journal)
    _overrides(app, config.operator_token, scalers)
    return app


def _actuator(config: Config, services: dict[str, Service], prometheus: PrometheusApi) -> Actuator:
    if config.actuator == DRY_RUN:
        return DryRun(services, prometheus)
    if config.actuator == DOCKER:
        engine = Engine(config.docker_socket)
        return ComposeActuator(engine, config.compose_project) if config.compose_project else SwarmActuator(engine)
    return ProcessActuator(config.supervisor_socket)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(scaler.run(), name=name) for name, scaler in app.state.scalers.items()]
    tasks.append(asyncio.create_task(_tick(app.state.scalers, app.state.tick_seconds), name="tick"))
    tasks += [
        asyncio.create_task(scaler.keep_counting(), name=f"count {name}") for name, scaler in app.state.scalers.items()
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await app.state.actuator.close()
        await app.state.http.aclose()


async def _tick(scalers: Mapping[str, Scaler], seconds: float) -> None:
    while True:
        for scaler in scalers.values():
            scaler.wake(Wake(path=Path.TICK, received_seconds=time.monotonic()))
        if not seconds:
            # One look at the start, for the metrics' sake; alerts do the rest.
            return
        await asyncio.sleep(seconds)


def _webhook(app: FastAPI, token: str, scalers: Mapping[str, Scaler], metrics: Metrics) -> None:
    @app.post("/alerts", status_code=202)
    async def alerts(request: Request) -> Response:
        """Take a notification. It wakes those it is about; what to do about them is read from Prometheus."""
        received = time.monotonic()
        if not _is_authorized(request, token):
            metrics.rejected(Rejection.UNAUTHENTICATED)
            log.warning("webhook_rejected", reason=Rejection.UNAUTHENTICATED)
            raise _unauthorized()
        body = await _bounded(request, _LONGEST_WEBHOOK_BYTES)
        if body is None:
            metrics.rejected(Rejection.TOO_LARGE)
            log.warning("webhook_rejected", reason=Rejection.TOO_LARGE)
            raise HTTPException(413, f"At most {_LONGEST_WEBHOOK_BYTES} bytes are taken.")
        try:
            notification = Notification.model_validate_json(body)
        except ValidationError as error:
            mistake = _first_mistake(error)
            metrics.rejected(Rejection.MALFORMED)
            log.warning("webhook_rejected", reason=Rejection.MALFORMED, detail=mistake)
            raise HTTPException(422, f"This is no notification of Alertmanager: {mistake}.") from None
        woken: set[str] = set()
        for alert in notification.alerts:
            if alert.status != FIRING:
                # That an alert is over says nothing about how many replicas are needed.
                continue
            service = alert.labels.get("service", "")
            scaler = scalers.get(service)
            if scaler is None:
                metrics.rejected(Rejection.UNKNOWN_SERVICE)
                log.warning("alert_rejected", reason=Rejection.UNKNOWN_SERVICE, alert_service=service[:100])
                continue
            woken.add(service)
            scaler.wake(
                Wake(
                    path=Path.ALERT,
                    received_seconds=received,
                    alert=alert.fingerprint,
                    alert_group=notification.group_key,
                    request=trace.get_current_span().get_span_context(),
                )
            )
        obslib.bind(woken_services=sorted(woken))
        return JSONResponse({"woken": sorted(woken)}, 202)


def _questions(app: FastAPI, scalers: Mapping[str, Scaler], journal: Journal) -> None:
    @app.get("/v1/decisions")
    async def decisions(
        service: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 20
    ) -> list[dict[str, Any]]:  # Any: JSON
        """List the last decisions with what they were made from, newest first."""
        if service is not None:
            _known(scalers, service)
        return [entry.to_json() for entry in journal.last(limit, service)]

    @app.get("/v1/services")
    async def services() -> list[dict[str, Any]]:  # Any: JSON
        """List what scales, between which bounds, and what it has."""
        return [_describe(scaler) for scaler in scalers.values()]

    @app.get("/healthz")
    @app.get("/readyz")
    async def healthz() -> dict[str, str]:
        """Say that the process is alive; it needs nobody else to be able to hold."""
        return {"status": "ready"}


def _overrides(app: FastAPI, token: str, scalers: Mapping[str, Scaler]) -> None:
    async def operator(request: Request) -> None:
        if not _is_authorized(request, token):
            log.warning("override_rejected", reason=Rejection.UNAUTHENTICATED)
            raise _unauthorized()

    @app.put("/v1/services/{service}/override", dependencies=[Depends(operator)])
    async def override(service: str, request: Request) -> dict[str, Any]:  # Any: JSON
        """Pin a service to a number of replicas, or pause it, until the order expires."""
        scaler = _known(scalers, service)
        # Read here, for FastAPI reads a body that it parses before anybody has asked for the token, however long it is.
        body = await _bounded(request, _LONGEST_ORDER_BYTES)
        if body is None:
            raise HTTPException(413, f"At most {_LONGEST_ORDER_BYTES} bytes are taken.")
        try:
            new = NewOverride.model_validate_json(body)
        except ValidationError as error:
            raise HTTPException(422, f"This is no order: {_first_mistake(error)}.") from None
        least, most = scaler.limits.min_replicas, scaler.limits.max_replicas
        if new.replicas is not None and not least <= new.replicas <= most:
            raise HTTPException(422, f"{service} can have {least} to {most} replicas, not {new.replicas}.")
        scaler.order(Override(replicas=new.replicas, until_seconds=time.time() + new.seconds, why=new.why))
        log.warning("override_set", scaled_service=service, replicas=new.replicas, seconds=new.seconds, why=new.why)
        scaler.wake(Wake(path=Path.OPERATOR, received_seconds=time.monotonic()))
        return _describe(scaler)

    @app.delete("/v1/services/{service}/override", status_code=204, dependencies=[Depends(operator)])
    async def withdraw(service: str) -> None:
        """Withdraw the order: the signals decide again."""
        scaler = _known(scalers, service)
        scaler.order(None)
        log.warning("override_withdrawn", scaled_service=service)
        scaler.wake(Wake(path=Path.OPERATOR, received_seconds=time.monotonic()))


def _describe(scaler: Scaler) -> dict[str, Any]:  # Any: JSON
    override = scaler.override
    return {
        "service": scaler.service.name,
        "min_replicas": scaler.limits.min_replicas,
        "max_replicas": scaler.limits.max_replicas,
        "running": scaler.replicas.running if scaler.replicas else None,
        "target": scaler.replicas.target if scaler.replicas else None,
        "override": {
            "replicas": override.replicas,
            "seconds_left": round(max(0.0, override.until_seconds - time.time()), 1),
            "why": override.why,
        }
        if override
        else None,
    }


def _known(scalers: Mapping[str, Scaler], service: str) -> Scaler:
    if service not in scalers:
        raise HTTPException(404, f"Only {', '.join(sorted(scalers))} scale.")
    return scalers[service]


def _is_authorized(request: Request, token: str) -> bool:
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    # Headers are latin-1, the token is ASCII.
    return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), token.encode())


def _unauthorized() -> HTTPException:
    return HTTPException(401, "Show the token: Authorization: Bearer ….", headers={"WWW-Authenticate": "Bearer"})


async def _bounded(request: Request, most_bytes: int) -> bytes | None:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            return None
    return bytes(body)


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'/'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
