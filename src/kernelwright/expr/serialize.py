"""Programs as JSON: one flat list of nodes, children before parents, so sharing is kept."""

# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from typing import Any, cast

from kernelwright.expr.nodes import (
    Apply,
    Axis,
    Constant,
    Extent,
    Load,
    Node,
    Order,
    Output,
    Parameter,
    Program,
    Reduce,
    Scan,
    walk,
)
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument

VERSION = 1


def to_json(program: Program) -> dict[str, Any]:
    """A document of lists, strings, numbers and null, for `json.dumps`."""
    nodes = list(walk(*(output.body for output in program.outputs)))
    number = {node: position for position, node in enumerate(nodes)}
    return {
        "version": VERSION,
        "signature": _signature_to_json(program.signature),
        "nodes": [_node_to_json(node, number) for node in nodes],
        "outputs": [
            {"name": o.name, "axes": list(o.axes), "dims": list(o.dims), "body": number[o.body]}
            for o in program.outputs
        ],
    }


def from_json(document: dict[str, Any]) -> Program:
    """The program of a document.

    Raises:
        ValueError: the document is of another version or names an unknown node.
    """
    if document.get("version") != VERSION:
        raise ValueError(f"programs of version {document.get('version')} cannot be read")
    nodes: list[Node] = []
    for entry in document["nodes"]:
        nodes.append(_node_from_json(entry, nodes))
    outputs = tuple(
        Output(o["name"], tuple(o["axes"]), tuple(o["dims"]), nodes[o["body"]])
        for o in document["outputs"]
    )
    return Program(_signature_from_json(document["signature"]), outputs)


def _node_to_json(node: Node, number: dict[Node, int]) -> list[Any]:
    children = [number[child] for child in node.children]
    match node:
        case Constant():
            # repr round-trips, and spells the infinities that JSON lacks
            return ["constant", type(node.value).__name__, repr(node.value)]
        case Parameter():
            return ["parameter", node.name, node.kind]
        case Extent():
            return ["extent", node.dim]
        case Axis():
            return ["axis", node.name]
        case Load():
            return ["load", node.tensor, children]
        case Apply():
            return ["apply", node.op, children]
        case Reduce():
            return ["reduce", node.op, node.axis, node.extent, *children]
        case Order():
            return ["order", node.largest, node.axis, node.extent, *children]
        case Scan():
            return ["scan", node.axis, node.extent, *children]
        case _:
            raise TypeError(f"unknown node {type(node).__name__}")


def _node_from_json(entry: list[Any], nodes: list[Node]) -> Node:
    match entry:
        case ["constant", kind, text]:
            if kind == "bool":
                return Constant(text == "True")
            return Constant(int(text) if kind == "int" else float(text))
        case ["parameter", name, kind]:
            return Parameter(name, kind)
        case ["extent", dim]:
            return Extent(dim)
        case ["axis", name]:
            return Axis(name)
        case ["load", tensor, children]:
            return Load(tensor, tuple(nodes[i] for i in cast("list[int]", children)))
        case ["apply", op, children]:
            return Apply(op, tuple(nodes[i] for i in cast("list[int]", children)))
        case ["reduce", op, axis, extent, body]:
            return Reduce(op, axis, extent, nodes[body])
        case ["scan", axis, extent, at, body]:
            return Scan(axis, extent, nodes[at], nodes[body])
        case ["order", largest, axis, extent, at, body]:
            return Order(axis, extent, nodes[at], nodes[body], largest)
        case _:
            raise ValueError(f"unknown node {entry!r}")


def _signature_to_json(signature: Signature) -> dict[str, Any]:
    def tensor(t: TensorArgument) -> dict[str, Any]:
        return {"name": t.name, "dims": list(t.dims), "dtype": t.dtype, "static": t.static}

    return {
        "inputs": [tensor(t) for t in signature.inputs],
        "outputs": [tensor(t) for t in signature.outputs],
        "scalars": [
            {"name": s.name, "kind": s.kind, "default": s.default} for s in signature.scalars
        ],
    }


def _signature_from_json(document: dict[str, Any]) -> Signature:
    def tensor(t: dict[str, Any]) -> TensorArgument:
        dtype = None if t["dtype"] is None else Dtype(t["dtype"])
        return TensorArgument(t["name"], tuple(t["dims"]), dtype, t["static"])

    return Signature(
        tuple(tensor(t) for t in document["inputs"]),
        tuple(tensor(t) for t in document["outputs"]),
        tuple(ScalarArgument(s["name"], s["kind"], s["default"]) for s in document["scalars"]),
    )
