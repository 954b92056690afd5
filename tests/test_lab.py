"""JupyterLab itself: the tour is opened in a browser and run from its first cell to its last."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser import opened_browser

TOUR = Path(__file__).parents[1] / "notebooks" / "00_tour.ipynb"
SECONDS = 200
BOOK = "[...(window.jupyterapp?.shell?.widgets('main') ?? [])].find(one => one.sessionContext)"
READY = f"!!{BOOK}?.sessionContext?.isReady"
KERNEL = f"{BOOK}.sessionContext.session?.kernel?.status"
CELLS = (
    f"{BOOK}.content.widgets"
    + """.map(cell => ({
    code: cell.model.type === 'code', text: cell.model.sharedModel.getSource(),
    ran: cell.model.executionCount,
    outputs: cell.model.type === 'code' ? cell.model.outputs.toJSON() : [],
}))"""
)


@contextmanager
def lab(folder):
    """A JupyterLab of its own on a free port; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(folder / name) for name in ("config", "data", "runtime", "settings")}
    environment = {
        **os.environ, "JUPYTER_CONFIG_DIR": own["config"], "JUPYTER_DATA_DIR": own["data"],
        "JUPYTER_RUNTIME_DIR": own["runtime"], "JUPYTERLAB_WORKSPACES_DIR": own["settings"],
        "JUPYTER_PREFER_ENV_PATH": "1", "TQDM_DISABLE": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", f"--port={port}", "--ip=127.0.0.1",
        "--IdentityProvider.token=", "--ServerApp.password=", "--allow-root",
        "--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--ServerApp.root_dir={folder / 'root'}",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(lambda: _answers(f"{address}/api/status"), "JupyterLab", server)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _wait(holds, what, server=None, seconds=SECONDS):
    until = time.monotonic() + seconds
    while not holds():
        assert server is None or server.poll() is None, f"{what} ended"
        assert time.monotonic() < until, f"no {what} after {seconds} s"
        time.sleep(0.3)


@pytest.mark.skipif(importlib.util.find_spec("jupyterlab") is None, reason="no JupyterLab")
def test_the_tour_runs_in_jupyterlab_and_its_figures_are_drawn(tmp_path):
    (tmp_path / "root").mkdir()
    shutil.copy(TOUR, tmp_path / "root" / "tour.ipynb")
    with lab(tmp_path) as address, opened_browser() as tab:
        tab.look(1400, height=12_000)
        tab.send("Page.navigate", url=f"{address}/lab/tree/tour.ipynb?reset")
        _wait(lambda: tab.run(READY), "open notebook")
        _wait(lambda: tab.run(KERNEL) == "idle", "kernel")
        tab.run(f"window.jupyterapp.shell.activateById({BOOK}.id)")
        tab.run("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        last = "(() => { const all = " + CELLS + ".filter(c => c.code && c.text.trim());"
        last += " return all.every(c => c.ran) || all.some(c => c.outputs.some("
        last += "o => o.output_type === 'error')); })()"
        _wait(lambda: tab.run(last) and tab.run(KERNEL) == "idle", "end of the notebook")
        cells = tab.run(CELLS)
        errors = [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
        assert not errors, errors[0]
        code = [cell for cell in cells if cell["code"] and cell["text"].strip()]
        assert len(code) >= 5
        assert all(cell["ran"] for cell in code)
        kinds = [kind for cell in cells for out in cell["outputs"] for kind in out.get("data", ())]
        figures = kinds.count("application/vnd.plotly.v1+json")
        assert figures >= 2
        drawn = "document.querySelectorAll('.js-plotly-plot .main-svg').length"
        _wait(lambda: tab.run(drawn) >= 1, "drawn figure", seconds=60)
        tab.require_drawn(tab.picture(tmp_path / "tour.png"))
