"""Write the API's pages from the docstrings to site/.

    python docs/pages.py

A page for each public module. What a module takes from a private file to show it, `from jaxmlp._order import Rows as
Rows`, is on that module's own page.
"""

import ast
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
    """Give a module that shows names of others an `__all__`: pdoc reads no other sign, and follows no `__getattr__`."""
    source = ast.parse(inspect.getsource(module))
    taken = {
        alias.name
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    taken |= set(getattr(module, "__all__", ()))
    for name in taken:
        setattr(module, name, getattr(module, name))  # enters what is imported late
    values = [target for node in source.body if isinstance(node, ast.Assign) for target in node.targets]
    values += [node.target for node in source.body if isinstance(node, ast.AnnAssign)]
    constants = {value.id for value in values if isinstance(value, ast.Name) and not value.id.startswith("_")}
    own = constants | {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    shown = {name: getattr(module, name) for name in taken | own if not inspect.ismodule(getattr(module, name))}
    for value in shown.values():
        for name in getattr(value, "_fields", ()):
            getattr(value, name).__doc__ = ""  # "Alias for field number 0"
        if hasattr(value, "_fields"):
            value.__new__.__doc__ = ""
    if taken:
        inside = pkgutil.iter_modules(getattr(module, "__path__", ()))
        rooms = [room.name for room in inside if not room.name.startswith("_")]
        verbs_first = sorted(shown, key=lambda name: (inspect.isclass(shown[name]), name.lower()))
        vars(module)["__all__"] = [*verbs_first, *rooms]


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)  # of types that exist for type checkers alone
    pages = public_modules()
    for page in pages:
        name_contents(page)
    pdoc.render.configure(docformat="google", footer_text=f"jaxmlp {jaxmlp.__version__}")
    pdoc.pdoc(*(page.__name__ for page in pages), r"!jaxmlp\.(.*\.)?_", output_directory=SITE)
    print(f"{len(pages)} pages in {SITE.name}/, beginning with {SITE.name}/jaxmlp.html")
