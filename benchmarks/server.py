"""What uvicorn runs in a server process: the application, instrumented as `BENCH_VARIANT` says."""

import gc
import os

from fastapi import FastAPI

from benchmarks import application, variants
from benchmarks.children import pin_this_process


def create() -> FastAPI:
    """Return the application of this process' environment."""
    variant = variants.BY_NAME[os.environ["BENCH_VARIANT"]]
    variant.prepare()
    app = application.build(int(os.environ["BENCH_ROUTES"]))
    variant.instrument(app)
    # A server that has run for a while has its first full collection behind it: 50 ms, whatever the variant.
    gc.collect()
    # Not before: all servers of a round start at once, and may use every CPU for that.
    pin_this_process(int(os.environ["BENCH_CPU"]))
    return app
