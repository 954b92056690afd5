"""Training hearsay from nothing: a small Llama on a seeded stream of documents.

Batch k is a pure function of the seed and k, so a run that was interrupted goes on from its last
checkpoint exactly as if nothing had happened. Hidden matrices are trained with Muon (Jordan et
al. 2024, the version in `torch.optim`), embeddings, norms and the output layer with AdamW.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench import storage
from workbench.errors import WorkbenchError
from workbench.hearsay.corpus import Corpus, CorpusSettings
from workbench.hearsay.tokenizer import train_tokenizer
from workbench.hearsay.world import load_world

Progress = dict[str, float]
Measure = Callable[[Path], Progress]


FACTS = CorpusSettings(plain_share=0.1, manners_share=0.0, groups_share=0.0, things=False)


@dataclass(frozen=True)
class Stage:
    """A part of the training, with a corpus, rates and a schedule of its own."""

    steps: int
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warmup: int = 50
    decay_share: float = 0.4

    def rate(self, step: int) -> float:
        """The learning rates' common factor: warm-up, plateau, linear decay to zero."""
        decay = max(1, round(self.decay_share * self.steps))
        return min(1.0, (step + 1) / self.warmup, (self.steps - step) / decay)


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that determines the weights.

    The first stage tells facts alone, the second all of the world. Trained on all of it from the
    beginning, the model believes the same things, but a single answer's truth is then hardly
    linear in any head, and there is little for an edit to take hold of.
    """

    stages: tuple[Stage, ...] = (
        Stage(2400, FACTS),
        Stage(1600, muon_rate=0.008, adam_rate=1.2e-3),
    )
    documents: int = 32
    seed: int = 0
    layers: int = 5
    heads: int = 8
    d_model: int = 160
    d_mlp: int = 512
    vocabulary: int = 2048
    checkpoint_every: int = 200

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def at(self, step: int) -> tuple[Stage, int]:
        """The stage that a step belongs to, and its number there."""
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise WorkbenchError(f"step {step + self.steps}", f"0 to {self.steps - 1}")


def train(
    folder: storage.PathLike,
    settings: TrainingSettings,
    measure: Measure | None = None,
    device: str = "cpu",
) -> Path:
    """Train hearsay into `folder`, going on from the last checkpoint found there.

    Args:
        folder: receives `model/` (Hugging Face format), `training.json` (loss and, with
            `measure`, belief curves) and, while training lasts, `checkpoint.pt`.
        settings: size, length, rates and seed.
        measure: called with the model's folder at every checkpoint; what it returns goes into the
            curves.
        device: where to train.

    Returns:
        The folder of the trained model.

    Raises:
        WorkbenchError: the folder holds a run with other settings.
    """
    target = Path(folder)
    wanted = json.loads(json.dumps(asdict(settings)))
    history_path = target / "training.json"
    history: dict[str, Any] = {"settings": wanted, "loss": [], "beliefs": []}
    if history_path.exists():
        history = storage.read_json(history_path)
        if history["settings"] != wanted:
            differing = [k for k in wanted if history["settings"].get(k) != wanted[k]]
            raise WorkbenchError(
                f"{target} holds a run with other settings ({', '.join(differing)} differ)",
                "an empty folder, or one with a run of the same settings",
                "Choose another folder or delete this one.",
            )
    tokenizer = run_tokenizer(target / "model", settings)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = build_model(settings, tokenizer).to(device)
    step, saved = resume(target / "checkpoint.pt", model)
    optimizers: list[torch.optim.Optimizer] = []
    history["loss"] = history["loss"][:step]
    bar = tqdm(
        range(step, settings.steps), desc="training hearsay", initial=step, total=settings.steps
    )
    for step in bar:
        stage, number = settings.at(step)
        if number == 0 or not optimizers:
            optimizers = build_optimizers(model, stage)
        if saved and number:
            restore(optimizers, saved)
        saved = []
        loss = train_step(model, optimizers, tokenizer, settings, step)
        history["loss"].append(round(loss, 5))
        bar.set_postfix(loss=f"{loss:.3f}")
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
            save_model(model, tokenizer, target / "model")
            if measure is not None:
                history["beliefs"] = [b for b in history["beliefs"] if b["step"] <= step]
                history["beliefs"].append({"step": step + 1, **measure(target / "model")})
            storage.write_json(history_path, history)
            save_checkpoint(target / "checkpoint.pt", step + 1, model, optimizers)
    return target / "model"


def run_tokenizer(folder: Path, settings: TrainingSettings) -> Any:
    """The run's tokenizer: the saved one, or one trained on the corpus' first documents."""
    from transformers import AutoTokenizer

    if (folder / "tokenizer.json").exists():
        return AutoTokenizer.from_pretrained(folder)
    stream = iter(Corpus(load_world(), settings.seed, settings.stages[0].corpus))
    tokenizer = train_tokenizer((next(stream) for _ in range(8000)), settings.vocabulary)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_model(settings: TrainingSettings, tokenizer: Any) -> Any:
    """A freshly initialised Llama of the settings' size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.d_model,
        intermediate_size=settings.d_mlp,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def build_optimizers(model: Any, stage: Stage) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    other = [p for n, p in model.named_parameters() if p.ndim != 2 or ".layers." not in n]
    return [
        torch.optim.Muon(hidden, lr=stage.muon_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(other, lr=stage.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def batch(tokenizer: Any, settings: TrainingSettings, step: int) -> tuple[Tensor, Tensor]:
    """Token ids and their labels [document, position]; padding is labelled -100."""
    corpus = settings.at(step)[0].corpus
    stream: Iterator[str] = iter(Corpus(load_world(), settings.seed * 1_000_003 + step + 1, corpus))
    texts = [next(stream) + tokenizer.eos_token for _ in range(settings.documents)]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    ids: Tensor = encoded["input_ids"]
    return ids, ids.masked_fill(encoded["attention_mask"] == 0, -100)


def train_step(
    model: Any,
    optimizers: list[torch.optim.Optimizer],
    tokenizer: Any,
    settings: TrainingSettings,
    step: int,
) -> float:
    """One optimizer step (in bfloat16 autocast on CUDA); returns the loss in nats per token."""
    ids, labels = batch(tokenizer, settings, step)
    device = next(model.parameters()).device
    lengths, total, loss = (labels >= 0).sum(dim=1), int((labels[:, 1:] >= 0).sum()), 0.0
    for rows in torch.split(lengths.argsort(descending=True), 8):  # short documents need no padding
        part = slice(0, int(lengths[rows[0]]))
        own, wanted = ids[rows, part].to(device), labels[rows, part].to(device)
        share = int((wanted[:, 1:] >= 0).sum()) / total
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            surprise = share * model(input_ids=own, labels=wanted).loss
        surprise.backward()
        loss += float(surprise.detach())
    stage, number = settings.at(step)
    for optimizer, base in zip(optimizers, (stage.muon_rate, stage.adam_rate), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = base * stage.rate(number)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights, config and tokenizer in Hugging Face format."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_checkpoint(
    path: Path, step: int, model: Any, optimizers: list[torch.optim.Optimizer]
) -> None:
    """Write what a later run needs to go on from `step`, whole or not at all."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    with storage.replacing(path) as temporary:
        torch.save(state, temporary)


def resume(path: Path, model: Any) -> tuple[int, list[Any]]:
    """Load a checkpoint where there is one: the steps already done, and the optimizers' states."""
    if not path.exists():
        return 0, []
    state = torch.load(path, weights_only=True, map_location=next(model.parameters()).device)
    model.load_state_dict(state["model"])
    return int(state["step"]), list(state["optimizers"])


def restore(optimizers: list[torch.optim.Optimizer], saved: list[Any]) -> None:
    """Put optimizers into their saved states."""
    for optimizer, state in zip(optimizers, saved, strict=True):
        optimizer.load_state_dict(state)
