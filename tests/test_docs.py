"""Every block of Python in README and pages runs, on hearsay; every link leads somewhere."""

import re
from pathlib import Path

import pytest

import workbench as wb

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = ("meta-llama", "arc_easy", "HuggingFaceTB", 'load_model("smollm2")', "push_to_hub")
"""What needs the hub, or weights that are not here; a block with one of these is not run."""
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def begun():
    """What the pages take for granted: the first lines of the README's block."""
    model = wb.load_model("hearsay", device="cpu")
    questions = wb.load_questions("hearsay").sample(24)
    fold = questions.folds(2, seed=0)[0]
    acts = wb.capture(model, fold.train, progress=False)
    return {
        "wb": wb, "model": model, "questions": questions, "fold": fold, "acts": acts,
        "graph": wb.token_graph(acts[0], layer=3),
        "directions": wb.fit_directions(wb.aggregate(acts), fold.train),
        "edit": wb.TokenAware(heads=4, alpha=2).fit(model, fold.train, progress=False),
    }  # fmt: skip


def blocks(page):
    return [own for own in BLOCK.findall(page.read_text()) if not any(s in own for s in ELSEWHERE)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem
)
def test_blocks_of_python_run(page, begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = begun["questions"]  # as many as show that it runs
    monkeypatch.setattr(wb, "load_questions", lambda *_: few)
    for name, count in (("load_contrast", 24), ("load_prompts", 4)):
        load = getattr(wb.data, name)
        monkeypatch.setattr(
            wb.data, name, lambda source, load=load, count=count: load(source).choose(range(count))
        )
    names = dict(begun)
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    links = [own for own in LINK.findall(page.read_text()) if not own.startswith("http")]
    gone = [own for own in links if not (page.parent / own).exists()]
    assert gone == []


def test_every_page_of_the_site_is_in_its_contents():
    """`make docs` takes one that is not for an error, and is run seldom."""
    index = ROOT / "docs" / "index.md"
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", index.read_text(), re.MULTILINE | re.DOTALL)
    entries = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    named = [re.sub(r".*<(.*)>$", r"\1", line) for line in entries]
    listed = {(index.parent / f"{name}.md").resolve() for name in named}
    made = {ROOT / "figures" / name for name in ("demo", "real")}
    figures = [page for page in (ROOT / "figures").rglob("*.md") if not made & {*page.parents}]
    pages = [*(ROOT / "docs").glob("*.md"), *figures]
    assert [page for page in sorted(pages) if page not in {*listed, index}] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_pages_of_the_site_lead_to_pages_of_the_site(page):
    """The README is none of them; what is no page there (a script, a figure) is copied along."""
    links = LINK.findall(page.read_text())
    assert [own for own in links if (page.parent / own).resolve() == ROOT / "README.md"] == []
