from . import analysis as analysis
from . import data as data
from . import editing as editing
from . import evaluation as evaluation
from . import methods as methods
from . import models as models
from . import pages as pages
from . import plots as plots
from . import runs as runs
from . import stages as stages
from .data.sources import load_questions
from .editing.attaching import edited
from .editing.combining import combine
from .editing.generation import generate
from .editing.head_edits import Edit
from .editing.scoring import score
from .errors import WorkbenchError
from .evaluation.evaluate import evaluate
from .evaluation.tables import compare, summary
from .methods.saved import load_edit
from .methods.token_aware import TokenAware
from .models.loading import load_model
from .pages.explorer import explore
from .runs.ablation import ablate
from .stages.aggregation import aggregate
from .stages.capture import capture
from .stages.directions import fit_directions
from .stages.token_graph import GraphSettings, token_graph

__all__ = [
    "Edit",
    "GraphSettings",
    "TokenAware",
    "WorkbenchError",
    "ablate",
    "aggregate",
    "capture",
    "combine",
    "compare",
    "edited",
    "evaluate",
    "explore",
    "fit_directions",
    "generate",
    "load_edit",
    "load_model",
    "load_questions",
    "score",
    "summary",
    "token_graph",
]
