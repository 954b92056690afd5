"""Pages: the report, the explorer and the demo, each whole."""
