"""The documentation site: `make docs`. The source folder is the repository, so that links hold."""

project = "workbench"
author = "the workbench contributors"
root_doc = "docs/index"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = [
    "docs/*.md", "docs/*.rst", "notebooks/*.ipynb", "CONTRIBUTING.md",
    "figures/**/*.md", "workbench/hearsay/model/README.md", "benchmarks/RESULTS.md",
]  # fmt: skip
exclude_patterns = ["docs/_build", "**/.ipynb_checkpoints"]

html_theme = "pydata_sphinx_theme"
html_title = "workbench"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "navbar_center": []}
html_sidebars = {"**": ["globaltoc.html"]}
html_show_sourcelink = False

myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
