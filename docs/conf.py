"""Configuration of Sphinx, which builds the documentation site: `make docs`."""

from docutils import nodes
from sphinx.application import Sphinx

from mnist_lightning.cli.main import COMMANDS
from mnist_lightning.errors import PROGRAM, __version__
from mnist_lightning.networks.registry import ARCHITECTURES

project = "mnist_lightning"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# The source folder is the root of the checkout: every relative link is the same as on a Git host.
root_doc = "docs/index"
include_patterns = [
    *("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "lightning_logs/README.md"),
    "docs/**.md",
]
exclude_patterns = ["**/.*", "build", "data", "lightning_logs/version_*"]

html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False

myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3  # the anchors that Git hosts give to headings

default_role = "code"  # docstrings mark code with single backticks
highlight_language = "text"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"

# What docs/reference.md inserts by name.
myst_substitutions = {
    "commands": "\n".join(
        f"- `{PROGRAM} {name} {command.usage}`: {command.summary}"
        for name, command in COMMANDS.items()
    ),
    "networks": "\n".join(
        [
            "```{eval-rst}",
            *(f".. autoclass:: {cls.__module__}.{name}" for name, cls in ARCHITECTURES.items()),
            "```",
        ]
    ),
}


def setup(app: Sphinx) -> None:
    """Let links in Markdown name a term of the glossary: `glossary.md#term-seed`."""
    app.connect("doctree-read", _add_terms)


def _add_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Add the terms of a document to the targets that MyST knows, which are its headings."""
    targets = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for term in doctree.findall(nodes.term):
        targets |= {name: (0, name, term.astext()) for name in term["ids"]}
