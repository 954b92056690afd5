"""Analysis: what a researcher asks of one model, one head or one answer."""
