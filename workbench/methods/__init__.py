"""Methods: each fits an edit on training questions; one file a method, one registry."""

from workbench.methods.act import AdaptiveSteering
from workbench.methods.affine import AffineDescent
from workbench.methods.base import Method
from workbench.methods.caa import ContrastiveAddition
from workbench.methods.cast import ConditionalSteering
from workbench.methods.clas import ContextualLinear
from workbench.methods.controls import (
    CONTROLS,
    evened,
    random_directions,
    resampled,
    strength_sample,
)
from workbench.methods.destein import DeStein
from workbench.methods.dsas import DynamicScaling
from workbench.methods.iti import inference_time
from workbench.methods.lofit import LoFiT
from workbench.methods.lora import LoRA
from workbench.methods.memo import Memo
from workbench.methods.natural import NaturalGradient
from workbench.methods.objectives import Descent
from workbench.methods.prompting import Prompting
from workbench.methods.re_control import ReControl
from workbench.methods.reft import RankOneReFT
from workbench.methods.registry import METHODS
from workbench.methods.saved import load_edit
from workbench.methods.sea import SpectralEditing
from workbench.methods.token_aware import TokenAware
from workbench.methods.truthx import TruthX

__all__ = [
    "CONTROLS",
    "METHODS",
    "AdaptiveSteering",
    "AffineDescent",
    "ConditionalSteering",
    "ContextualLinear",
    "ContrastiveAddition",
    "DeStein",
    "Descent",
    "DynamicScaling",
    "LoFiT",
    "LoRA",
    "Memo",
    "Method",
    "NaturalGradient",
    "Prompting",
    "RankOneReFT",
    "ReControl",
    "SpectralEditing",
    "TokenAware",
    "TruthX",
    "evened",
    "inference_time",
    "load_edit",
    "random_directions",
    "resampled",
    "strength_sample",
]
