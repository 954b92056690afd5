"""The documentation site: `make docs`. The source folder is the repository, so that links hold."""

import re
from pathlib import Path

project = "workbench"
author = "the workbench contributors"
root_doc = "docs/index"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = [
    "docs/*.md", "docs/*.rst", "notebooks/*.ipynb", "CONTRIBUTING.md",
    "figures/**/*.md", "workbench/hearsay/model/README.md", "benchmarks/RESULTS.md",
]  # fmt: skip
exclude_patterns = ["docs/_build", "figures/demo", "figures/real", "**/.ipynb_checkpoints"]

html_theme = "pydata_sphinx_theme"
html_title = "workbench"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "navbar_center": []}
html_sidebars = {"**": ["globaltoc.html"]}
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_ipywidgets_js = {}  # scripts of widgets come from elsewhere; without them their text is shown

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

ELSEWHERE = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']https?://[^>]*>""")
MATHJAX = re.compile(r"""<script src="https://[^"]*mathjax[^"]*"></script>""")


def keep_to_itself(app, error):
    """No page of the site loads anything from elsewhere: plotly's figures bring a MathJax along."""
    if error is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        before = page.read_text(encoding="utf-8")
        text = MATHJAX.sub("", before)
        if text != before:
            page.write_text(text, encoding="utf-8")
        left = [tag for tag in ELSEWHERE.findall(text) if 'rel="canonical"' not in tag]
        if left:
            raise RuntimeError(f"{page} loads {left[0][:120]}")


def setup(app):
    """Told by Sphinx when it begins."""
    app.connect("build-finished", keep_to_itself)
