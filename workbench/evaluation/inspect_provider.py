"""Inspect: an edited model as provider of `inspect eval --model workbench/NAME -M edit=FOLDER`.

The edit acts from the last prompt token on, as in `generate`. Messages go through the tokenizer's
chat template; where it has none, their texts stand one below the other, as they are, and the answer
ends where another question begins. Requests that wait at the same time are answered in one batch.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from workbench.editing.generation import generate
from workbench.editing.interventions import Intervention
from workbench.editing.writing import Continuation
from workbench.errors import WorkbenchError
from workbench.methods.saved import load_edit
from workbench.models.conversations import conversation
from workbench.models.identity import tokenizer_of
from workbench.models.loading import load_model
from workbench.models.prompts import Encoded

TOKENS = 512
"""Written at most where the task does not say."""
TOGETHER = 64
"""Requests in a batch at most."""
STOP = ("\nQ:",)
"""What ends an answer of a model without a chat template."""


@modelapi(name="workbench")  # type: ignore[untyped-decorator]
def workbench() -> type[ModelAPI]:
    """The provider, by its name."""
    return EditedModelAPI


@dataclass
class _Request:
    """A prompt that waits for its answer, and how it is to be continued."""

    prompt: Encoded
    settings: dict[str, Any]
    answer: Continuation | None = None


class EditedModelAPI(ModelAPI):  # type: ignore[misc]
    """A model of the workbench under an edit.

    Args:
        model_name: for `load_model`.
        base_url: not used.
        api_key: not used.
        config: Inspect's.
        edit: a saved edit's folder, its name on the hub, or an edit; none by default.
        model_args: of `load_model`, such as `device` and `dtype`.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        edit: str | Intervention | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self.model = load_model(model_name, **model_args)
        self.edit = load_edit(edit, self.model) if isinstance(edit, str) else edit
        self.waiting: list[_Request] = []
        self.lock = anyio.Lock()

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002
        tools: list[ToolInfo],
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer some messages."""
        if tools:
            raise WorkbenchError(f"{len(tools)} tools", "none: the provider writes texts")
        if (config.num_choices or 1) > 1 or config.logprobs:
            raise WorkbenchError("several choices or log-probabilities", "one text a request")
        prompt = self._prompt(input)
        mine = _Request(prompt, self._settings(prompt, config))
        self.waiting.append(mine)
        try:
            async with self.lock:
                if mine.answer is None:
                    await anyio.to_thread.run_sync(self._write, self._together(mine))
        finally:
            self.waiting.remove(mine)
        return self._output(mine)

    def _together(self, mine: _Request) -> list[_Request]:
        """A request and those that wait for the same settings; samples have seeds of their own."""
        if mine.settings["temperature"]:
            return [mine]
        others = [
            one
            for one in self.waiting
            if one is not mine and one.answer is None and one.settings == mine.settings
        ]
        return [mine, *others][:TOGETHER]

    def _prompt(self, messages: list[ChatMessage]) -> Encoded:
        """Messages as tokens."""
        tokenizer = tokenizer_of(self.model)
        if getattr(tokenizer, "chat_template", None):
            told = [{"role": own.role, "content": own.text} for own in messages]
            text = conversation(self.model, told)
            tokens = tuple(tokenizer(text, add_special_tokens=False).input_ids)
        else:
            text = "\n".join(own.text for own in messages)
            tokens = tuple(tokenizer(text).input_ids)
        return Encoded.of_tokens(tokens, len(tokens), text)

    def _settings(self, prompt: Encoded, config: GenerateConfig) -> dict[str, Any]:
        """Inspect's settings as `generate`'s; what it does not say is greedy."""
        room = int(self.model.cfg.n_ctx) - len(prompt.tokens)
        wanted = config.max_tokens or min(TOKENS, room)
        if room < max(1, wanted):
            raise WorkbenchError(
                f"a prompt of {len(prompt.tokens)} tokens and {wanted} to write",
                f"{self.model.cfg.n_ctx} together at most",
            )
        templated = getattr(tokenizer_of(self.model), "chat_template", None)
        stop = config.stop_seqs or (() if templated else STOP)
        greedy, fresh = not config.temperature, secrets.randbelow(1 << 30)
        return {
            "max_new_tokens": wanted,
            "temperature": config.temperature or 0.0,
            "top_p": 1.0 if config.top_p is None else config.top_p,
            # Without a seed samples differ from one another, as epochs ask for.
            "seed": config.seed or 0 if greedy or config.seed is not None else fresh,
            "stop": tuple(stop),
        }

    def _write(self, together: list[_Request]) -> None:
        """Answer requests of equal settings in one batch."""
        prompts = [request.prompt for request in together]
        written = generate(self.model, prompts, edit=self.edit, **together[0].settings)
        for request, answer in zip(together, written, strict=True):
            request.answer = answer

    def _output(self, request: _Request) -> ModelOutput:
        answer = request.answer
        if answer is None:
            raise WorkbenchError("a request without an answer", "one")
        whole = answer.kept == len(answer.tokens) == request.settings["max_new_tokens"]
        read, written = len(answer.prompt_tokens), len(answer.tokens)
        choice = ChatCompletionChoice(
            message=ChatMessageAssistant(content=answer.text, model=self.model_name),
            stop_reason="max_tokens" if whole else "stop",
        )
        usage = ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)
        return ModelOutput(model=self.model_name, choices=[choice], usage=usage)
