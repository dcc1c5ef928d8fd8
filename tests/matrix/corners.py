"""Which versions are tried together: the corners of the matrix, and the tests that each of them has to pass."""

from dataclasses import dataclass
from typing import Final

_ABOUT_REQUESTS: Final = (
    "test_background",
    "test_backlog",
    "test_contrib",
    "test_edges",
    "test_engines",
    "test_exposition",
    "test_instrument",
    "test_kept_late",
    "test_lifetime",
    "test_logs",
    "test_one_record",
    "test_ownership",
    "test_routes",
    "test_server_span",
    "test_starlette_alone",
    "test_streaming",
    "test_traces",
)
#: Those of them that need no FastAPI.
_WITHOUT_FASTAPI: Final = ("test_backlog", "test_starlette_alone")
#: Those that start no process: what `make test` asks of a corner.
_SHORT: Final = ("test_edges", "test_one_record", "test_routes", "test_starlette_alone", "test_traces")
#: What the tests themselves need. The versions are free: uv takes what fits the corner.
_TOOLS: Final = (
    "httpx",
    "hypothesis",
    "opentelemetry-exporter-otlp-proto-common",
    "opentelemetry-proto",
    "pytest>=8.3",
    "pytest-asyncio>=1",
    "pytest-randomly",
    "uvicorn",
)
#: contrib's packages, which go with a FastAPI that they know.
_CONTRIB: Final = ("opentelemetry-instrumentation-fastapi", "opentelemetry-instrumentation-httpx")


#: The oldest SDK that `pyproject.toml` allows, and the contrib release that belongs to it.
_OLDEST_SDK: Final = (
    "opentelemetry-api==1.30.0",
    "opentelemetry-sdk==1.30.0",
    "opentelemetry-exporter-otlp-proto-common==1.30.0",
    "opentelemetry-proto==1.30.0",
    "opentelemetry-instrumentation-fastapi==0.51b0",
    "opentelemetry-instrumentation-httpx==0.51b0",
)


@dataclass(frozen=True, kw_only=True)
class Corner:
    """
    One environment.

    Args:
        requirements: What is installed beside obslib's own dependencies and the tools of the tests.
        short: Whether it is part of `make test`.
        lowest: Whether every one of them is the oldest that is allowed, obslib's dependencies too.
    """

    name: str
    requirements: tuple[str, ...]
    tests: tuple[str, ...] = _ABOUT_REQUESTS
    short: bool = False
    lowest: bool = False

    @property
    def short_tests(self) -> tuple[str, ...]:
        """The tests that fit into `make test`."""
        return tuple(name for name in self.tests if name in _SHORT)

    @property
    def tools(self) -> tuple[str, ...]:
        """What the tests need in it."""
        return (*_TOOLS, *(() if self.tests == _WITHOUT_FASTAPI else _CONTRIB))

    @property
    def moves(self) -> bool:
        """Whether what it holds changes with time, so that it has to be made anew now and then."""
        return not any("==" in requirement for requirement in self.requirements)


def _fastapi(version: str, *, short: bool = False) -> Corner:
    return Corner(name=f"fastapi {version}", requirements=(f"fastapi=={version}",), short=short)


def _starlette(version: str, *, short: bool = False) -> Corner:
    requirement = f"starlette=={version}" if version != "newest" else "starlette"
    return Corner(name=f"starlette {version}", requirements=(requirement,), tests=_WITHOUT_FASTAPI, short=short)


CORNERS: Final = (
    _fastapi("0.115.*", short=True),
    _fastapi("0.136.*"),
    _fastapi("0.137.0", short=True),
    _fastapi("0.141.*"),
    _fastapi("0.142.*"),
    Corner(name="fastapi newest", requirements=("fastapi",)),
    _starlette("0.46.*", short=True),
    _starlette("1.6.*"),
    _starlette("newest"),
    # All of the above have the newest SDK that their FastAPI allows; these have the oldest.
    Corner(name="sdk oldest", requirements=("fastapi==0.136.*", *_OLDEST_SDK)),
    Corner(name="oldest of everything", requirements=("fastapi==0.115.*", *_OLDEST_SDK), lowest=True),
    # A version that is none but a pre-release lets uv take pre-releases of this package alone.
    Corner(name="pre-releases", requirements=("fastapi>=0.165.0a0", "starlette>=1.10.0a0")),
)
