"""What each alert and each scaling rule must do, and must not do: the promtool tests, before they are written down."""
