"""Evaluation: what an edit gains and what it costs, as tables with honest intervals."""
