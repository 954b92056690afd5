"""Generation under an edit that follows every token, without the workbench.

transformers runs this file where a folder that holds it is loaded with `trust_remote_code=True`;
`edit.json` and `edit.safetensors` beside the weights say what is edited. At every edited head
z ← z + α·σ·s·θ with s = 1 + β·p̂ + (1 − β)·u (Wang et al., EMNLP 2025, eqs. 8 and 9), from the
last token of the prompt on. Prompts of several lengths are padded on the left.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GenerationMixin
from transformers.utils.hub import cached_file

LEAST = -1e4  # a log-probability whose p log p is 0 in float32
INSIDE_LOG = 1e-9


def generate(*args: Any, model: Any, **kwargs: Any) -> Any:
    """What `model.generate` would return, under the edit."""
    given = [kwargs.get(name) for name in ("inputs", "input_ids", "inputs_embeds")]
    prompts = next(own for own in (*args[:1], *given) if own is not None)
    with ExitStack() as stack:
        for handle in TokenEdit(model, prompts.shape[1]).attached():
            stack.callback(handle.remove)
        return GenerationMixin.generate(model, *args, **kwargs)


class TokenEdit:
    """The edit of the folder that a model was loaded from, for one call of `generate`."""

    def __init__(self, model: Any, length: int) -> None:
        place, revision = model.config._name_or_path, getattr(model.config, "_commit_hash", None)
        found = [
            cached_file(place, f"edit.{end}", revision=revision) for end in ("json", "safetensors")
        ]
        self.model = model
        self.told = json.loads(Path(str(found[0])).read_text(encoding="utf-8"))
        self.tensors = load_file(str(found[1]))
        self.start = length - 1
        self.where = torch.zeros(0, dtype=torch.bool)
        self.doubt: dict[str, torch.Tensor] = {}

    def attached(self) -> Iterator[Any]:
        """Hooks: on the model, on every edited layer's input, and on its output projection."""
        yield self.model.register_forward_pre_hook(self.read_positions, with_kwargs=True)
        for layer, own in self.told["layers"].items():
            module = self.model.get_submodule
            if self.told["uncertainty"]:
                block = module(own["block"])
                yield block.register_forward_pre_hook(self.measuring(layer), with_kwargs=True)
            output = module(own["output"])
            yield output.register_forward_pre_hook(self.changing(layer, own["rows"], own["heads"]))

    def read_positions(self, _module: Any, args: Any, kwargs: Any) -> None:
        """Before every pass: which of its positions are edited."""
        tokens = kwargs.get("input_ids", args[0] if args else None)
        length = (tokens if tokens is not None else kwargs["inputs_embeds"]).shape[1]
        given = (kwargs.get(name) for name in ("cache", "past_key_values"))  # as transformers says
        cache = next((one for one in given if one is not None), None)
        past = int(cache.get_seq_length()) if cache is not None else 0
        behind = torch.arange(past, past + length) - self.start - self.told["first"]
        self.where = (behind >= 0) & (behind % self.told["every"] == 0)

    def measuring(self, layer: str) -> Callable[..., None]:
        """Reads u off the residual stream that enters a layer."""

        def hook(_module: Any, args: Any, kwargs: Any) -> None:
            state = args[0] if args else kwargs["hidden_states"]
            self.doubt[layer] = self.uncertainty(state[:, self.where.to(state.device)], layer)

        return hook

    def uncertainty(self, state: torch.Tensor, layer: str) -> torch.Tensor:
        """u in [0, 1] of some positions."""
        told = self.told["uncertainty"]
        head = self.model.get_submodule(told["head"])
        normed = told["kind"] == "logit_lens"
        hidden = self.model.get_submodule(told["norm"])(state) if normed and told["norm"] else state
        words = self.tensors.get(f"words.{layer}")
        if words is None:
            logits = head(hidden).float()
        else:
            words = words.to(hidden.device).long()
            bias = None if head.bias is None else head.bias[words]
            logits = torch.nn.functional.linear(hidden, head.weight[words], bias).float()
        if normed:
            logits = logits * told["scale"]
            if told["cap"]:
                logits = told["cap"] * torch.tanh(logits / told["cap"])
            nats = logits.log_softmax(dim=-1)
            entropy = -(nats.exp() * nats.clamp(min=LEAST)).sum(dim=-1)
        else:
            centred = (logits - logits.mean(dim=-1, keepdim=True)) * told["amplification"]
            share = centred.softmax(dim=-1)
            entropy = -(share * (share + INSIDE_LOG).log()).sum(dim=-1)
        bounded: torch.Tensor = entropy / math.log(told["vocabulary"])
        return bounded.clamp(0.0, 1.0) if normed else bounded

    def changing(self, layer: str, rows: list[int], heads: list[int]) -> Callable[..., Any]:
        """Moves the edited heads of what enters a layer's output projection."""

        def hook(_module: Any, args: Any) -> Any:
            z = args[0]
            where = self.where.to(z.device)
            if not where.any():
                return None
            apart = z.unflatten(-1, (self.told["heads"], -1))
            own = {name: self.tensors[name][rows].to(z.device) for name in self.told["tensors"]}
            before = apart[:, where][:, :, heads].float()
            strength = torch.ones(before.shape[:-1], device=z.device, dtype=torch.float32)
            risk = None
            if "coefficient" in own:
                risk = ((before * own["coefficient"]).sum(dim=-1) + own["intercept"]).sigmoid()
                strength = strength + self.told["of_risk"] * risk
            if layer in self.doubt:
                strength = (
                    strength + self.told["of_doubt"] * self.doubt[layer].to(z.device)[..., None]
                )
            step = self.told["alpha"] * own["spread"] * strength
            if "threshold" in own:
                step = step * (risk >= own["threshold"])
            moved = apart.clone()
            whole = moved[:, where].float()
            for column, head in enumerate(heads):
                whole[:, :, head] += step[..., column, None] * own["direction"][column]
            moved[:, where] = whole.to(z.dtype)
            return (moved.flatten(start_dim=2), *args[1:])

        return hook
