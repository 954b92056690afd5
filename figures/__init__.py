"""The gallery: one script a figure, drawn by `make figures` into `figures/out/`."""
