"""YAML in and out: strict where people write, plain where programs do.

PyYAML takes the last of two equal keys without a word; here the second one is an error.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import yaml
from stretto_shared.errors import InvalidInput

Manifest = dict[str, Any]


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}. Remove one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_PlainDumper.add_representer(str, _text)


def load_all(text: str, name: str) -> list[Manifest]:
    """The documents of one file, in order; empty ones are left out.

    Raises:
        InvalidInput: If it is not YAML, a key comes twice, or a document is no mapping.
    """
    try:
        documents = [document for document in yaml.load_all(text, _StrictLoader) if document is not None]
    except yaml.YAMLError as error:
        raise InvalidInput(name, f"is not valid YAML: {' '.join(str(error).split())}.") from error
    for document in documents:
        if not isinstance(document, dict):
            raise InvalidInput(name, f"expected a mapping in each document, got {type(document).__name__}.")
    return documents


def dump_all(documents: Iterable[Manifest]) -> str:
    """Documents as text, keys in the order of the dicts."""
    return yaml.dump_all(documents, Dumper=_PlainDumper, sort_keys=False, width=110, allow_unicode=True)
