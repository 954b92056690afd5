"""Export: an edit as something that needs no workbench: weights, a control vector, or a script."""
