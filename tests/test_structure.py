"""The house: imports point from the scripts to models/ to dataset/, in no circle, and no file or function is long."""

import ast

from conftest import ROOT

LINES = 450  # of a file
FUNCTION_LINES = 60
LONG_FUNCTIONS = {"dream.deepdream"}  # the documented interface: half of it is its docstring
SCRIPTS = ("calc_cm", "convert", "dream", "dream_video", "train_dream")
FILES = [*ROOT.glob("*.py"), *ROOT.glob("models/**/*.py"), *ROOT.glob("dataset/*.py")]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imports(name, everywhere=True):
    """{(module of this project, what is taken from it)} that a module imports; `everywhere`: in functions, too."""
    path = MODULES[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add((inner, None) if inner in MODULES else (source, alias.name))
    return {(module, what) for module, what in found if module in MODULES}


def test_arrows_point_one_way():
    """dataset/ imports nothing of models/, models/ nothing of a script; scripts only `from dream import deepdream`."""
    wrong = []
    for name in MODULES:
        floor = name.partition(".")[0]
        allowed = {"dataset": ("dataset",), "models": ("dataset", "models")}.get(floor, ("dataset", "models"))
        for module, what in imports(name):
            deepdream = floor in SCRIPTS and (module, what) == ("dream", "deepdream")
            if module.partition(".")[0] not in allowed and not deepdream:
                wrong.append(f"{name} imports {what or 'all'} of {module}")
    assert sorted(wrong) == []


def test_no_import_cycle():
    graph = {name: {module for module, _ in imports(name, everywhere=False)} - {name} for name in MODULES}
    while leaves := [name for name, needs in graph.items() if not needs]:
        graph = {name: needs - set(leaves) for name, needs in graph.items() if name not in leaves}
    assert graph == {}, "these import each other in a circle, or import what does"


def test_no_file_is_long():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > LINES} == {}


def test_no_function_is_long():
    long = {}
    for name in MODULES:
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= FUNCTION_LINES:
                long[f"{name}.{node.name}"] = node.end_lineno - node.lineno + 1
    assert {name: length for name, length in long.items() if name not in LONG_FUNCTIONS} == {}
