"""How `make site` makes pages: the notebooks as they are stored, and the API from docstrings, without PyTorch."""

import inspect
import json
import re
import shutil
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Union

from myst_nb.core.render import NbElementRenderer
from sphinx.ext.autodoc.mock import _MockObject

HERE = Path(__file__).parent
ROOT = HERE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True

project = html_title = PROJECT["name"]
release = PROJECT["version"]
html_show_copyright = False
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["README.md", "templates"]
templates_path = ["templates"]

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_sourcelink_suffix = ""  # the page of a notebook offers the notebook
pygments_dark_style = "github-dark"
mathjax_path = "mathjax/tex-svg-full.js"  # npm: mathjax@3, whole in one file: needs no network

nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autosummary_generate = True
autosummary_context = {"folders": [f"edm_lesson.{path.parent.name}" for path in ROOT.glob("edm_lesson/*/__init__.py")]}
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["torch", "torchvision", "numpy", "matplotlib", "PIL", "safetensors", "tqdm", "ipywidgets"]
autodoc_mock_imports += ["omegaconf", "yaml", "filelock", "papermill", "nbclient", "typer"]


def gather():
    """Lay the README, the notebooks and the data's description beside this file as they lie in the repository."""
    for folder in ("api", "notebooks", "data"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    for folder, wanted in {".": "README.md", "notebooks": "*.*", "data": "*.md", "data/pictures": "*.*"}.items():
        (HERE / folder).mkdir(exist_ok=True)
        for path in (ROOT / folder).glob(wanted):
            content = path.read_bytes()
            if path.suffix == ".md":
                content = re.sub(r"\]\(([^)#:]+)\)", partial(point, path.parent), content.decode()).encode()
            elif path.suffix == ".ipynb":
                content = json.dumps(to_show(json.loads(content))).encode()
            (HERE / folder / path.name).write_bytes(content)


def point(folder, link):
    """What pages can't show, such as a folder of the package, is linked where the repository is."""
    path = (folder / link[1]).resolve()
    if path.suffix in (".md", ".ipynb", ".png") or not path.is_relative_to(ROOT):
        return link[0]
    return f"]({PROJECT['urls']['Repository']}/blob/v{PROJECT['version']}/{path.relative_to(ROOT).as_posix()})"


def to_show(notebook):
    """Leave out what JupyterLab hides, and of outputs all but pictures and text: a page would run it.

    Of sliders, their words stay.
    """
    notebook["metadata"].pop("widgets", None)
    notebook["cells"] = [
        cell for cell in notebook["cells"] if not cell["metadata"].get("jupyter", {}).get("source_hidden")
    ]
    for output in [output for cell in notebook["cells"] for output in cell.get("outputs", []) if "data" in output]:
        output["data"] = {kind: output["data"][kind] for kind in ("image/png", "text/plain") if kind in output["data"]}
    return notebook


def as_text(app, what, name, obj, options, lines):
    """Docstrings are plain text: `code` in single backticks, sections underlined, lists of `name : what it is`."""
    parts = re.split(r"`+([^`]+)`+", "\n".join(lines))
    parts[::2] = [re.sub(r"([*|\\])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``\\ " for part in parts[1::2]]
    text = re.sub(r"(?m)^( *)(\w+)\n *-{3,}$", r"\1.. rubric:: \2\n", "".join(parts))
    item = r"(?m)^( *)((?:\\\*)*\w+(?:, (?:\\\*)*\w+)*) : "
    lines[:] = re.sub(item, r"\1``\2``\n\1    ", text).split("\n")


def shorten(app, what, name, obj, options, signature, result):
    """Write `Tensor` for `torch.Tensor`, and nothing of what a stand-in would take."""
    signature = "" if signature == "(*args: Any, **kwargs: Any)" else signature
    return tuple(text and text.replace("torch.Tensor", "Tensor") for text in (signature, result))


def describe_pictures(render_image):
    """Give pictures the words that notebooks store beside them; MyST-NB reads their sizes only."""

    def render(self, data):
        nodes = render_image(self, data)
        for node in nodes:
            node["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
        return nodes

    return render


def make_stand_ins_patient():
    """Stand-ins for torch and others also let `Tensor | None`, decorators and what is computed on import pass.

    Classes made from them take what their `__init__` takes.
    """
    del _MockObject.__new__
    _MockObject.__or__ = _MockObject.__ror__ = lambda self, other: Union[self, other]  # noqa: UP007
    _MockObject.__call__ = lambda self, *args, **settings: args[0] if args and inspect.isfunction(args[0]) else self
    _MockObject.__instancecheck__ = lambda self, value: False
    for operation in ("add", "mul", "sub", "truediv", "pow", "neg"):
        for name in (f"__{operation}__", f"__r{operation}__"):
            setattr(_MockObject, name, lambda self, *other: self)


def setup(app):
    """Called by Sphinx."""
    gather()
    app.connect("autodoc-process-docstring", as_text)
    app.connect("autodoc-process-signature", shorten)
    NbElementRenderer.render_image = describe_pictures(NbElementRenderer.render_image)
    make_stand_ins_patient()
