"""Sphinx settings of the book; `tools.book` lays out its source. Nothing is fetched, here or when it is read."""

import os
from pathlib import Path

from tools import book

project, author, copyright = "ReasonRank, reproducible", "the authors in CITATION.cff", "Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
exclude_patterns = ["**/.ipynb_checkpoints"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_render_markdown_format = "myst"
nb_mime_priority_overrides = [
    ("html", "text/html", 0),
    ("html", "text/markdown", 1),
    ("html", "image/png", 2),
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = [
    str(Path(__file__).parent / "_static"),
    str(book.mathjax(Path(os.environ["BOOK_SOURCE"]))),
]
html_css_files, html_js_files = ["book.css"], ["book.js"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_last_updated_fmt = None
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": "",
    "use_download_button": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "footer_content_items": [],
}
mathjax_path = "MathJax/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full"
myst_update_mathjax = False  # its settings are for MathJax 3
formulas = {"processClass": "tex2jax_process|math"}
fonts = {
    "availableFonts": [],
    "preferredFont": None,
    "imageFont": None,
    "webFont": "STIX-Web",
}  # those of the package
mathjax2_config = {"messageStyle": "none", "showMathMenu": False, "tex2jax": formulas, "HTML-CSS": fonts}


def setup(app):
    """Names of the library become links to its pages."""
    app.connect("html-page-context", book.link_names)
