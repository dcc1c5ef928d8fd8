"""Programs the stack runs but does not contain: found on PATH, else from Debian's packages, else built with Go."""
