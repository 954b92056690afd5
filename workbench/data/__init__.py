"""Questions in: one file per source."""
