"""A module of autoctr as one file that stands alone: what it imports from autoctr is written into it.

The exported ``predict.py`` must encode raw values exactly as training did; it therefore carries the encoder's own
source, not a second version of it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import sys
from pathlib import Path

PACKAGE = "autoctr"


def bundle(module: str) -> str:
    """Source of ``module`` in which every import from autoctr is replaced by the definitions it names.

    Only those definitions and what they use in turn are carried over, in an order in which each stands before its use.

    Raises:
        ValueError: if two modules define different things of one name.
    """
    root, collected = _Module.read(module), _Collected()
    body = [node for node in root.tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]
    title, body = body[0], body[1:]
    for node in body:
        collected.uses(root, node)
    first = body[0].lineno - 1
    head = "\n\n".join([root.text_of(title), "from __future__ import annotations", collected.imports()])
    return "\n\n\n".join([head, *collected.definitions.values(), "\n".join(root.lines[first:])]) + "\n"


@dataclasses.dataclass(frozen=True)
class _Module:
    """A parsed module: its top-level definitions, and where its imported names come from (module, name or empty)."""

    name: str
    lines: list[str]
    tree: ast.Module
    defined: dict[str, ast.stmt]
    imported: dict[str, tuple[str, str]]

    @classmethod
    def read(cls, name: str) -> _Module:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        text = Path(spec.origin).read_text(encoding="utf-8")
        tree = ast.parse(text)
        defined: dict[str, ast.stmt] = {}
        imported: dict[str, tuple[str, str]] = {}
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined[node.name] = node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined |= {target.id: node for target in targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                imported |= {alias.asname or alias.name.partition(".")[0]: (alias.name, "") for alias in node.names}
        return cls(name, text.splitlines(), tree, defined, imported)

    def text_of(self, node: ast.stmt) -> str:
        decorators = node.decorator_list if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(self.lines[first - 1 : node.end_lineno])


class _Collected:
    """The definitions and the foreign imports that the bundled module needs."""

    def __init__(self) -> None:
        self.definitions: dict[tuple[str, str], str] = {}
        self._modules: dict[str, _Module] = {}
        self._visited: dict[str, str] = {}
        self._plain: set[tuple[str, str]] = set()
        self._from: dict[str, set[str]] = {}

    def uses(self, module: _Module, node: ast.AST) -> None:
        """Collect what ``node`` of ``module`` refers to."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                self._name(module, part.id)

    def imports(self) -> str:
        """The foreign imports: the standard library's, then the others, each sorted."""
        renamed = {name: "" if local in name.split(".") else f" as {local}" for name, local in self._plain}
        lines = [f"import {name}{suffix}" for name, suffix in renamed.items()]
        lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in self._from.items()]
        lines.sort(key=lambda line: (line.startswith("from"), line))
        standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
        return "\n".join([*standard, "", *(line for line in lines if line not in standard)])

    def _name(self, module: _Module, name: str) -> None:
        if name in module.imported:
            source, original = module.imported[name]
            if source.partition(".")[0] == PACKAGE:
                if name != original:
                    raise ValueError(f"{module.name} renames {source}.{original}, which cannot be bundled")
                if source not in self._modules:
                    self._modules[source] = _Module.read(source)
                self._definition(self._modules[source], name)
            elif original:
                self._from.setdefault(source, set()).add(original if name == original else f"{original} as {name}")
            else:
                self._plain.add((source, name))
        elif name in module.defined and module.name in self._modules:
            self._definition(module, name)

    def _definition(self, module: _Module, name: str) -> None:
        if name in module.imported:
            self._name(module, name)
            return
        owner = self._visited.setdefault(name, module.name)
        if owner != module.name:
            raise ValueError(f"{name} is defined in both {owner} and {module.name}; rename one to bundle them")
        node = module.defined[name]
        key = (module.name, str(node.lineno))
        if key in self.definitions:
            return
        self.definitions[key] = ""
        self.uses(module, node)
        del self.definitions[key]
        self.definitions[key] = module.text_of(node)
