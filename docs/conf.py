"""Sphinx: ``make docs`` builds the site into docs/_build; a warning is an error."""

from importlib.metadata import version as installed

project = "upi"
author = "the upi authors"
release = version = installed("upi-xai")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"upi {release}"
html_show_sourcelink = False
html_show_copyright = False
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "special-members": "__call__"}
