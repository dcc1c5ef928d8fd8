"""What all tests of the library share."""

import os

from hypothesis import settings

# Packages of contrib read it once a process, whichever test comes first.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")

# How long an example takes is the machine's affair.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
