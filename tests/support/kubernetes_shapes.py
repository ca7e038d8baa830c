"""What of a Kubernetes manifest does not fit the API: unknown names, values of another kind, gaps.

The API's shape is that of the classes which the packages `kserve` and `lightkube-models` generate from it. They lie
beside the environment, and are read rather than imported: importing would bring their clients.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = Path(sys.prefix) / "kserve"
KSERVE = PACKAGES / "kserve/models"
KUBERNETES = PACKAGES / "lightkube/models"
# list[V1Container], dict(str, str)
NESTED = re.compile(r"(list|dict)[(\[](?:str, )?(.+)[)\]]")
REQUIRED = re.compile(r"Invalid value for `(\w+)`, must not be `None`")
PLAIN: Mapping[str, type] = {"str": str, "int": int, "bool": bool}
# Kinds of Kubernetes that are no class: a number or name, a quantity such as 1Gi.
LOOSE = {"dict": "object", "util_intstr.IntOrString": "object", "resource.Quantity": "str"}


def are_here() -> bool:
    """Whether both packages lie beside the environment."""
    return KSERVE.is_dir() and KUBERNETES.is_dir()


@dataclass(frozen=True)
class Shape:
    """The fields of one kind of object: the kind of each, and which must be there."""

    fields: Mapping[str, str]
    required: frozenset[str]


def problems(value: Any, kind: str, place: str = "") -> Iterator[str]:
    """Say of each part of a value where it is and what is wrong with it; nothing if it fits its kind."""
    nested = NESTED.fullmatch(kind)
    if nested is not None:
        yield from _nested(value, nested[1], nested[2], place)
    elif kind in PLAIN:
        if type(value) is not PLAIN[kind]:
            yield f"{place}: {value!r} is no {kind}"
    elif kind != "object":
        yield from _fields(value, kind, place)


def _nested(value: Any, outer: str, inner: str, place: str) -> Iterator[str]:
    if type(value).__name__ != outer:
        yield f"{place}: {value!r} is no {outer}"
        return
    for key, item in enumerate(value) if outer == "list" else value.items():
        yield from problems(item, inner, f"{place}[{key}]")


def _fields(value: Any, kind: str, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: {value!r} is no {kind}"
        return
    shape = shape_of(kind)
    for name in shape.required - value.keys():
        yield f"{place}: {kind} needs {name}"
    for name, item in value.items():
        if name in shape.fields:
            yield from problems(item, shape.fields[name], f"{place}.{name}")
        else:
            yield f"{place}: {kind} has no {name}"


@cache
def shape_of(kind: str) -> Shape:
    """Return the shape of a kind by the class of its name: KServe's own, else Kubernetes'."""
    files = (file for file in KSERVE.iterdir() if file.stem.replace("_", "") == kind.lower())
    file = next(files, None)
    return _kubernetes_shape(kind.removeprefix("V1")) if file is None else _kserve_shape(file.read_text("utf-8"))


def _kserve_shape(text: str) -> Shape:
    """Return the shape of the class in a file: two tables, and setters that refuse None."""
    (written,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    tables = {
        node.targets[0].id: node.value
        for node in written.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    names, kinds = (ast.literal_eval(tables[name]) for name in ("attribute_map", "openapi_types"))
    required = frozenset(names[field] for field in REQUIRED.findall(text))
    return Shape({names[field]: kind for field, kind in kinds.items()}, required)


def _kubernetes_shape(name: str) -> Shape:
    """Return the shape of a dataclass: what has no default is required."""
    fields = [node for node in _classes()[name].body if isinstance(node, ast.AnnAssign)]
    kinds = {ast.unparse(node.target): _kind(ast.literal_eval(node.annotation)) for node in fields}
    return Shape(kinds, frozenset(ast.unparse(node.target) for node in fields if node.value is None))


@cache
def _classes() -> Mapping[str, ast.ClassDef]:
    trees = (ast.parse((KUBERNETES / f"{name}.py").read_text("utf-8")) for name in ("meta_v1", "core_v1"))
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _kind(annotation: str) -> str:
    """Optional[List[EnvVar]] -> list[V1EnvVar]."""
    inner = re.fullmatch(r"Optional\[(.+)\]", annotation)
    annotation = inner[1] if inner else annotation
    items = re.fullmatch(r"List\[(.+)\]", annotation)
    if items:
        return f"list[{_kind(items[1])}]"
    return LOOSE.get(annotation, annotation if annotation in PLAIN else f"V1{annotation.rpartition('.')[2]}")
