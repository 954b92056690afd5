"""Mutation testing: does a test fail where the code is changed? `make mutate`.

A changed module (by cosmic-ray's operators) is put in the place of the real one in a process that
is forked for it, with torch and the rest loaded already, and the tests of its file run there until
one fails, without the run-time checks of annotations, which would catch some more. Nothing is
written but a line a mutant, so that a campaign goes on where it was stopped.

    python -m tests.mutation [--sample N] [--seed S] [--workers W] [MODULE ...]
    python -m tests.mutation --report
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, VERDICTS = ROOT / "tests" / "mutants.jsonl", ROOT / "tests" / "mutants.json"
REPORT = ROOT / "docs" / "mutation.md"
SECONDS = 240.0
"""A mutant whose tests take longer is counted as killed: it hangs."""
KILLED, SURVIVED, HUNG, SAME = "killed", "survived", "hung", "equivalent"

TESTS = {
    "stages.activations": "activations views records",
    "stages.aggregation": "token_graphs activations token_aware",
    "stages.capture": "activations progress models",
    "stages.directions": "directions token_aware extension",
    "stages.filling": "activations uncertainty",
    "stages.keeping": "activations fuzz",
    "stages.logistic_regression": "probes",
    "stages.misalignment": "misalignment activations token_aware",
    "stages.mutual_information": "token_graphs",
    "stages.probes": "probes misalignment",
    "stages.shards": "activations",
    "stages.shortlist_fitting": "shortlists",
    "stages.shortlists": "shortlists",
    "stages.token_graph": "token_graphs activations",
    "stages.uncertainty": "uncertainty shortlists activations",
    "editing.attaching": "editing records lm_eval",
    "editing.combining": "goals",
    "editing.drawn_strengths": "state_edits every_method",
    "editing.edited_layers": "editing scoring state_edits goals",
    "editing.edited_positions": "editing state_edits",
    "editing.generation": "scoring editing",
    "editing.head_edits": "editing token_aware goals",
    "editing.interventions": "state_edits editing token_aware",
    "editing.row_edits": "editing goals state_edits sharing shortlists",
    "editing.sampling": "scoring",
    "editing.scoring": "scoring sharing editing",
    "editing.single_edits": "state_edits editing",
    "editing.state_edits": "state_edits views",
    "editing.strengths": "editing goals",
    "editing.token_scores": "scoring sharing editing",
    "editing.token_trace": "records plots_tokens",
    "editing.trace": "editing records state_edits",
    "editing.traced_nats": "records",
    "editing.writing": "scoring editing sharing",
    "evaluation.fronts": "fronts",
    "evaluation.statistics": "statistics",
    "evaluation.sweeps": "fronts",
    "evaluation.tables": "evaluation metrics",
}
"""The tests of each module, those that say most about it first."""

PRELOADED = ("pandas", "plotly.graph_objects", "pytest", "sklearn.linear_model",
             "transformers.models.auto.modeling_auto", "transformer_lens.model_bridge")  # fmt: skip
LEFT_OUT = ("RemoveDecorator", "VariableReplacer", "VariableInserter", "Replacer_", "NoOp",
            "USub_Invert", "USub_Not", "Operator_Invert_", "UAdd")  # fmt: skip
BINARY = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul",
          "BitAnd_BitOr", "BitOr_BitAnd")  # fmt: skip
COMPARED = ("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt",
            "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is", "In_NotIn", "NotIn_In")  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A change of a module.

    Attributes:
        module: below `workbench`.
        line: where.
        operator: cosmic-ray's name of what was done.
        before, after: the lines that differ.
        source: the whole changed module.
        number: among those whose lines read alike.
    """

    module: str
    line: int
    operator: str
    before: str
    after: str
    source: str
    number: int = 1

    @property
    def name(self) -> str:
        """By which results and verdicts know it: it stays when lines elsewhere move."""
        again = "" if self.number == 1 else f" ({self.number})"
        return f"{self.module}: {self.before} -> {self.after}{again}"


def operators() -> Iterator[tuple[str, Any]]:
    """The operators that are used."""
    from cosmic_ray import plugins

    for name in plugins.operator_names():
        kind = name.partition("/")[2]
        if any(own in kind for own in LEFT_OUT):
            continue
        if kind.startswith("ReplaceBinaryOperator_") and not kind.endswith(BINARY):
            continue
        if kind.startswith("ReplaceComparisonOperator_") and not kind.endswith(COMPARED):
            continue
        operator = plugins.get_operator(name)
        if not operator.arguments():
            yield kind, operator()


def mutants(module: str) -> Iterator[Mutant]:
    """Every change of a module that is no change of an annotation."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    source = place(module).read_text()
    tree = get_ast(source)
    silent = set(unseen(source))
    known = Counter[str]()
    for kind, operator in operators():
        positions = [p for node in ast_nodes(tree) for p in operator.mutation_positions(node)]
        for occurrence, ((line, column), _) in enumerate(positions):
            if (line, column) in silent:
                continue
            other = mutate_code(source, operator, occurrence)
            if other is None or other == source:
                continue
            changed = [
                row for row in difflib.ndiff(source.splitlines(), other.splitlines())
                if row.startswith(("- ", "+ "))
            ]  # fmt: skip
            before, after = (
                " / ".join(row[2:].strip() for row in changed if row[0] == sign) for sign in "-+"
            )
            if before == "*,":  # where keywords begin, which is no product
                continue
            found = Mutant(module, line, kind, before, after, other)
            known[found.name] += 1
            yield replace(found, number=known[found.name])


def unseen(source: str) -> Iterator[tuple[int, int]]:
    """Places that no run sees: annotations, and what is imported for types alone."""
    for node in ast.walk(ast.parse(source)):
        notes = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            notes.append(node)
        for note in notes:
            if not isinstance(note, ast.AST):
                continue
            lines = range(note.lineno, (note.end_lineno or note.lineno) + 1)
            for line in lines:
                first = note.col_offset if line == note.lineno else 0
                last = note.end_col_offset if line == note.end_lineno else 1000
                yield from ((line, column) for column in range(first, last or 1000))


def place(module: str) -> Path:
    """A module's file."""
    return ROOT / "workbench" / f"{module.replace('.', '/')}.py"


class Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads a mutant in the place of its module."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant, self.name = mutant, f"workbench.{mutant.module}"

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The mutant, where its module is asked for."""
        if name != self.name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(place(self.mutant.module)))

    def exec_module(self, module: Any) -> None:
        """Run its source."""
        path = str(place(self.mutant.module))
        module.__file__ = path
        exec(compile(self.mutant.source, path, "exec"), module.__dict__)


def preload() -> None:
    """What every trial needs, but for the workbench."""
    for name in PRELOADED:
        importlib.import_module(name)


def begin(mutant: Mutant | None, names: list[str]) -> int:
    """Fork a process that runs tests, on a mutant or on the code as it is.

    Returns:
        The number of the process, whose exit status is pytest's.
    """
    process = os.fork()
    if process:
        return process
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    if mutant is not None:
        sys.meta_path.insert(0, Instead(mutant))
    import pytest

    files = [str(ROOT / "tests" / f"test_{name}.py") for name in names]
    status = 3
    try:
        status = pytest.main([
            "-x", "-q", "--no-header", "--assert=plain", "-o", "addopts=", "-p", "no:cacheprovider",
            "-p", "no:xdist", "-m", "not slow and not long", *files,
        ])  # fmt: skip
    finally:
        os._exit(int(status))


def campaign(chosen: list[Mutant], workers: int, out: Path) -> None:
    """Try mutants, several at once; a line of the results for each."""
    waiting, running = list(reversed(chosen)), dict[int, tuple[Mutant, float]]()
    total, done = len(chosen), 0
    with out.open("a", encoding="utf-8") as file:
        while waiting or running:
            while waiting and len(running) < workers:
                mutant = waiting.pop()
                process = begin(mutant, TESTS[mutant.module].split())
                running[process] = (mutant, time.monotonic())
            time.sleep(0.05)
            for process, (mutant, since) in list(running.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                taken = time.monotonic() - since
                if not ended and taken < SECONDS:
                    continue
                if not ended:
                    os.killpg(process, signal.SIGKILL)
                    os.waitpid(process, 0)
                code = os.waitstatus_to_exitcode(status) if ended else -1
                result = HUNG if not ended else SURVIVED if code == 0 else KILLED
                done += 1
                told = {"name": mutant.name, "line": mutant.line, "operator": mutant.operator,
                        "result": result, "seconds": round(taken, 1)}  # fmt: skip
                file.write(json.dumps(told, ensure_ascii=False) + "\n")
                file.flush()
                print(f"{done}/{total} {result} {taken:.0f} s  {mutant.name}", flush=True)
                del running[process]


def known(out: Path) -> dict[str, dict[str, Any]]:
    """The last result of every mutant that was tried."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return {told["name"]: told for told in map(json.loads, lines)}


def report(out: Path) -> str:
    """The results of mutants that can still be made, and a verdict on each that survived."""
    results = known(out)
    verdicts = json.loads(VERDICTS.read_text("utf-8")) if VERDICTS.exists() else {}
    rows, survivors, total = [], [], Counter[str]()
    for module in TESTS:
        now = {mutant.name: mutant for mutant in mutants(module)}
        tried = {name: results[name]["result"] for name in now if name in results}
        counts = Counter(tried.values())
        left = [now[name] for name, result in tried.items() if result == SURVIVED]
        same = [mutant for mutant in left if verdicts.get(mutant.name, "").startswith(SAME)]
        counts[SAME] = len(same)
        total += counts
        survivors += left
        if tried:
            rows.append(f"| `{module}` | {len(now)} | {_row(counts)} |")
    told = "\n".join(
        f"- `{mutant.module}`, line {mutant.line}: `{mutant.before}` → `{mutant.after}`. "
        f"{verdicts.get(mutant.name, '**not judged**')}"
        for mutant in survivors
    )
    head = (
        "| module | mutants | tried | killed | hung | survived | of these equivalent | "
        "killed of the rest |"
    )
    return "\n".join([
        "# Mutation testing", "",
        "Does a test fail where the code is changed? `make mutate` changes one thing at a time: "
        "a comparison, a number, an operator, a truth value, a loop, a caught exception. Then the "
        "module's quick tests run. Mutants are a sample drawn by a seed; annotations are left out. "
        "A mutant that survived is either equivalent, which is said, or shows what no quick test "
        "looks for.", "",
        head, "|---|---|---|---|---|---|---|---|", *rows, f"| all | | {_row(total)} |", "",
        "## What survived", "", told, "",
    ])  # fmt: skip


def _row(counts: Counter[str]) -> str:
    tried = counts[KILLED] + counts[HUNG] + counts[SURVIVED]
    caught = counts[KILLED] + counts[HUNG]
    share = f"{caught / max(1, tried - counts[SAME]):.0%}"
    numbers = (tried, counts[KILLED], counts[HUNG], counts[SURVIVED], counts[SAME], share)
    return " | ".join(map(str, numbers))


def main() -> None:
    """Try a sample of mutants, or write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("modules", nargs="*", help=f"some of {', '.join(TESTS)}")
    parser.add_argument("--sample", type=int, help="so many of all mutants; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="those that survived before")
    parser.add_argument("--report", action="store_true", help="write docs/mutation.md")
    given = parser.parse_args()
    if given.report:
        REPORT.write_text(report(RESULTS), encoding="utf-8")
        return
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1")
    every = [mutant for module in given.modules or TESTS for mutant in mutants(module)]
    before = known(RESULTS)
    if given.again:
        chosen = [m for m in every if before.get(m.name, {}).get("result") == SURVIVED]
    else:
        draw = random.Random(given.seed)
        chosen = draw.sample(every, min(given.sample or len(every), len(every)))
        chosen = [mutant for mutant in chosen if mutant.name not in before]
    print(f"{len(chosen)} of {len(every)} mutants to try", flush=True)
    preload()
    names = sorted({name for mutant in chosen for name in TESTS[mutant.module].split()})
    if os.waitstatus_to_exitcode(os.waitpid(begin(None, names), 0)[1]):
        raise SystemExit(f"some of these tests fail without any change: {', '.join(names)}")
    campaign(chosen, given.workers, RESULTS)


if __name__ == "__main__":
    main()
