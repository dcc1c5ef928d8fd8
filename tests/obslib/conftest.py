"""What all tests of the library share."""

import os

# Packages of contrib read it once a process, whichever test comes first.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
