"""Views: what plots of a model's inside show, computed."""
