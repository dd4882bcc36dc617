"""Write the API's pages from the docstrings to site/.

    python docs/pages.py

A page for each public module; names that a package takes from its private files are shown on the package's own page.
"""

import inspect
import pkgutil
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pdoc

import jaxmlp

SITE = Path(__file__).parent.parent / "site"


def public_modules() -> list[ModuleType]:
    """Return the modules without an underscore anywhere in their names."""
    found = pkgutil.walk_packages(jaxmlp.__path__, "jaxmlp.")
    names = [module.name for module in found if "._" not in module.name]
    return [jaxmlp, *(import_module(name) for name in names)]


def name_contents(module: ModuleType) -> None:
    """Give a package an `__all__` of what it shows: pdoc reads no other sign, and follows no `__getattr__`."""
    if not hasattr(module, "__path__"):
        return
    for name in getattr(module, "__all__", ()):
        setattr(module, name, getattr(module, name))  # enters what is imported late
    submodules = [m.name for m in pkgutil.iter_modules(module.__path__) if not m.name.startswith("_")]
    shown = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "").startswith("jaxmlp")
    }
    vars(module)["__all__"] = [
        *sorted(shown, key=lambda name: (inspect.isclass(shown[name]), name.lower())),
        *submodules,
    ]
    for value in shown.values():
        for name in getattr(value, "_fields", ()):
            getattr(value, name).__doc__ = ""  # "Alias for field number 0"
        if hasattr(value, "_fields"):
            value.__new__.__doc__ = ""


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)  # of types that exist for type checkers alone
    pages = public_modules()
    for page in pages:
        name_contents(page)
    pdoc.render.configure(docformat="google", footer_text=f"jaxmlp {jaxmlp.__version__}")
    pdoc.pdoc(*(page.__name__ for page in pages), r"!jaxmlp\.(.*\.)?_", output_directory=SITE)
    print(f"{len(pages)} pages in {SITE.name}/, beginning with {SITE.name}/jaxmlp.html")
