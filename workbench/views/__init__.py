"""Views: what a figure shows, computed from tensors into small records."""
