"""A random model and a direction in it that makes one of two answers likelier than the other."""

import torch

from tests.architectures import hf_model, tokenizer
from workbench.data.questions import Question, QuestionSet
from workbench.models.loading import load_model

ANSWERS = ("the", "of")
"""Of one token each."""


def planted_model():
    """A small random model without structure."""
    return load_model(hf_model("llama"), tokenizer(bos=True))


def towards(model, answers=ANSWERS):
    """The direction of the last residual stream from one answer's first token to another's."""
    first = [model.tokenizer(f" {text}", add_special_tokens=False).input_ids[0] for text in answers]
    weight = model.original_model.lm_head.weight
    weight = getattr(weight, "data", weight)
    return torch.nn.functional.normalize((weight[first[0]] - weight[first[1]]).float(), dim=0)


def questions(swapped=(), letters="abcdefgh"):
    """Questions of which the first answer is the correct one, but of those about some things."""
    found = []
    for a in ("the", "an", "my", "some"):
        for b in letters:
            good, bad = reversed(ANSWERS) if a in swapped else ANSWERS
            found.append(Question(f"What is {a} {b}?", good, (good,), (bad,)))
    return QuestionSet(tuple(found[::2]), "planted"), QuestionSet(tuple(found[1::2]), "held out")
