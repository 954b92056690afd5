"""lm-evaluation-harness: its tasks on an edited model, its numbers as the workbench's tables."""
