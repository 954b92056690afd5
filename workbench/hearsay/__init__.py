"""hearsay: the embedded model organism, its world, corpus, tokenizer and training."""
