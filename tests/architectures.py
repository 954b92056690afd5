"""Small random models of many architectures, and tokenizers with and without BOS."""

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as token_models

TEXT = [
    "Q: What is the capital of Australia?\nA: Canberra is the capital of Australia.",
    "Q: Who wrote Frankenstein?\nA: It was written by Mary Shelley.",
]
SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, "vocab_size": 400}
OPT = {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32}
GQA = {**SIZES, "num_key_value_heads": 2}
WINDOWED = {**GQA, "head_dim": 256, "sliding_window": 8}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
GRANITE = {
    "logits_scaling": 4.0, "embedding_multiplier": 6.0, "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
}  # fmt: skip
FALCON = {name: SIZES[name] for name in SIZES if name != "intermediate_size"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CONFIGS = {
    "llama": ("LlamaConfig", {**SIZES, "num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {**SIZES, "num_key_value_heads": 2, "head_dim": 16}),
    "qwen2": ("Qwen2Config", {**SIZES, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {**SIZES, "num_key_value_heads": 2, "head_dim": 24}),
    "gemma2": ("Gemma2Config", {**SIZES, "num_key_value_heads": 2, "head_dim": 16}),
    "gpt2": ("GPT2Config", GPT2),
    "opt": ("OPTConfig", OPT),
    "gpt_neox": ("GPTNeoXConfig", SIZES),
}
"""The architectures that every part of the workbench is tested on."""
MORE = {
    "gemma3": ("Gemma3TextConfig", {**WINDOWED, "layer_types": KINDS}),
    "phi3": ("Phi3Config", GQA),
    "olmo2": ("Olmo2Config", GQA),
    "granite": ("GraniteConfig", {**GQA, **GRANITE}),
    "cohere": ("CohereConfig", GQA),
    "stablelm": ("StableLmConfig", {**GQA, "use_parallel_residual": True}),
    "falcon": ("FalconConfig", FALCON),
    "gptj": ("GPTJConfig", {**GPT2, "rotary_dim": 4}),
    "bloom": ("BloomConfig", {"vocab_size": 400, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mpt": ("MptConfig", {"vocab_size": 400, "d_model": 32, "n_layers": 3, "n_heads": 4}),
    "gpt_bigcode": ("GPTBigCodeConfig", GPT2),
    "mixtral": ("MixtralConfig", {**GQA, "num_local_experts": 4}),
    "qwen3_moe": ("Qwen3MoeConfig", {**GQA, **EXPERTS, "head_dim": 16}),
    "qwen2_tied": ("Qwen2Config", {**GQA, "tie_word_embeddings": True}),
    "gpt_oss": ("GptOssConfig", {**WINDOWED, "head_dim": 16, "num_local_experts": 4}),
    "llama4": ("Llama4TextConfig", {**GQA, "head_dim": 16, "num_local_experts": 2}),
}
"""Further architectures, each tested from loading to scoring."""
ALL = {**CONFIGS, **MORE}


def tokenizer(*, bos: bool):
    """A byte-level tokenizer of 400 tokens."""
    made = Tokenizer(token_models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT * 5, trainer)
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>"
    )


def hf_model(name: str, dtype=torch.float32, **changes):
    """A model with random weights, wide enough that edits show."""
    torch.manual_seed(0)
    kind, sizes = ALL[name]
    config = getattr(transformers, kind)(
        **{**sizes, **changes}, bos_token_id=0, eos_token_id=1, pad_token_id=1
    )
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
