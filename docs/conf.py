"""How Sphinx builds the documentation."""

from importlib.metadata import version as installed_version

project = "poolkit"
author = "The poolkit authors"
project_copyright = "2026, the poolkit authors"
version = release = installed_version("poolkit")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "explanation/performance-table.md"]
default_role = "py:obj"

html_theme = "furo"
html_title = "poolkit"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
