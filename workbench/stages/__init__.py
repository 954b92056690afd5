"""The stages of TAE, in the order of the paper, each an inspectable tensor."""
