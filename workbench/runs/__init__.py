"""Runs: experiments described in a file, carried out piece by piece, resumable at any moment."""
