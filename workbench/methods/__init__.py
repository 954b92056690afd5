"""Editing methods: each fits an `Edit` on training questions."""
