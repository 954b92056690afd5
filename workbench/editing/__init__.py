"""Editing: what changes a model's activations, and answers written and scored under an edit."""
