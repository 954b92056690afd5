"""Models: what runs — loading, prompts, positions, forward passes and the hooks beneath them."""
