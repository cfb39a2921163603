"""The notebooks of colab/: made from their .py, and run at a toy size without a network."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
COLAB = ROOT / "colab"
NAMES = ("quickstart", "style_and_weights", "train_on_tpu", "your_drawings")
LARGEST_BYTES = 400_000

# What each notebook must have come to: pictures, and words that only its last steps print.
EXPECTED = {
    "quickstart": (2, ("oracle (ceiling)", "True taste of this simulated person")),
    "style_and_weights": (6, ("The largest is missed more than the smallest by",)),
    "train_on_tpu": (0, ("'interrupted': True", "going on from checkpoint", "share_of_roofline",
                         "share of the time of XLA's operations")),
    "your_drawings": (1, ("broken_image", "yesterday", "lost-drawing", "report.html",
                          "user_id,place,illust_id,probability")),
}  # fmt: skip

# The kernel talks to this process in C; what Python opens may stay on this machine only.
CLOSED = """
import socket

def within(address):
    return not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")

def guarded(call):
    def checked(self, address, *rest):
        assert within(address), f"a cell needs a network: {address}"
        return call(self, address, *rest)
    return checked

socket.socket.connect = guarded(socket.socket.connect)
socket.socket.connect_ex = guarded(socket.socket.connect_ex)
"""


def source(name):
    """The notebook as its .py has it."""
    return jupytext.read(COLAB / f"{name}.py")


def notebook(name):
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=4)


def code(made):
    return [cell.source for cell in made.cells if cell.cell_type == "code"]


def outputs(made):
    return [each for cell in made.cells for each in cell.get("outputs", [])]


def printed(made):
    return "".join(each.text for each in outputs(made) if each.output_type == "stream")


def pictures(made):
    return [each for each in outputs(made) if "image/jpeg" in each.get("data", {})]


def test_all_notebooks_are_looked_at():
    for ending in ("py", "ipynb"):
        assert sorted(path.stem for path in COLAB.glob(f"*.{ending}")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_py_says(name):
    made, stored = source(name), notebook(name)
    nbformat.validate(stored)
    assert stored.metadata.kernelspec.name == "python3"
    cells, kept = (
        [(cell.cell_type, cell.source) for cell in each.cells] for each in (made, stored)
    )
    assert kept == cells, "colab/*.py was changed; run `make notebooks`"


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_small_and_without_errors_and_places(name):
    path = COLAB / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST_BYTES
    stored = notebook(name)
    assert all(each.output_type != "error" for each in outputs(stored))
    assert not [each for each in outputs(stored) if each.get("name") == "stderr"]
    said = re.findall(r"(?:/(?:home|Users|root|tmp|work|content|opt|usr)/|site-packages)\S*",
                      printed(stored))  # fmt: skip
    assert not said


def test_the_first_code_cell_installs_and_is_the_same_everywhere():
    (first,) = {code(source(name))[0] for name in NAMES}
    assert '"pip", "install"' in first
    for name in NAMES:
        rest = "\n".join(code(source(name))[1:])
        for word in ("://", "subprocess", "requests", "urllib", "wget", "curl", "google.colab"):
            assert word not in rest, name
        assert not re.search(r"^\s*[%!]", rest, re.M), name  # magics


def install(monkeypatch, folder, repository="", missing="array_record"):
    """Runs the install cell where a package is missing; the commands that it calls."""
    found, called = importlib.util.find_spec, []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    cell = code(source("quickstart"))[0].replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    exec(compile(cell, "install", "exec"), {})
    return called


def test_what_is_installed_already_is_left_alone(monkeypatch, tmp_path, capsys):
    assert install(monkeypatch, tmp_path, missing="") == []
    assert capsys.readouterr().out == "umair_jax is installed.\n"


def test_installing_from_an_address_and_from_a_checkout(monkeypatch, tmp_path):
    clone, pip = install(monkeypatch, tmp_path, "https://example.org/repository.git")
    fetched = str(tmp_path / "repository")
    assert clone == ["git", "clone", "--depth=1", "https://example.org/repository.git", fetched]
    assert pip[:4] == [sys.executable, "-m", "pip", "install"]
    assert pip[-1].startswith(fetched)
    (pip,) = install(monkeypatch, COLAB)
    assert Path.cwd() == ROOT  # where the command line has its data and runs
    assert pip[-1].startswith(str(ROOT))


def test_nothing_to_install_from(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="REPOSITORY: got nothing; expected the address"):
        install(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory, compiled_once):
    """A folder to run in, where a kernel of this interpreter is found: toy sizes, no network."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "closed").mkdir()
    (folder / "closed" / "sitecustomize.py").write_text(CLOSED)
    described = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python",
        "language": "python",
        "env": compiled_once
        | {
            "UMAIR_NOTEBOOK_SMALL": "1",
            "PYTHONPATH": os.pathsep.join([str(folder / "closed"), str(ROOT)]),
            "JAX_NUM_CPU_DEVICES": "1",
        },
    }
    there = folder / "jupyter" / "kernels" / "toy"
    there.mkdir(parents=True)
    (there / "kernel.json").write_text(json.dumps(described))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom(name, kernel):
    made = source(name)
    work = kernel / "work"  # together: a data set is prepared once
    work.mkdir(exist_ok=True)
    resources = {"metadata": {"path": str(work)}}
    NotebookClient(made, timeout=400, kernel_name="toy", resources=resources).execute()
    said = printed(made)
    shown, words = EXPECTED[name]
    assert len(pictures(made)) == shown
    for word in words:
        assert word in said
    errors = [each.text for each in outputs(made) if each.get("name") == "stderr"]
    assert not errors


@pytest.mark.slow
def test_a_cell_that_needs_a_network_would_be_found(kernel):
    made = nbformat.v4.new_notebook()
    line = "import socket; socket.create_connection(('192.0.2.1', 9))"
    made.cells = [nbformat.v4.new_code_cell(line)]
    client = NotebookClient(made, timeout=60, kernel_name="toy", allow_errors=True)
    client.execute()
    (error,) = (each for each in outputs(made) if each.output_type == "error")
    assert "a cell needs a network" in error.evalue
