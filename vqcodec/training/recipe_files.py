"""Recipes as YAML files: what is read, over which bases, and how faults are told."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from vqcodec.data.data_config import DataConfig
from vqcodec.errors import ConfigError
from vqcodec.extras import library
from vqcodec.models.config import Section
from vqcodec.training.recipe import CODEC_FILE, Recipe, RunConfig, packaged_recipes

if TYPE_CHECKING:
    import yaml
else:
    yaml = library("yaml")

Kind = TypeVar("Kind", bound=RunConfig)

OF_THE_FIRST = ("output", "initial_model", "stages")  # those after it have their own, or none


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check the recipe of a codec; see `read_recipe` and `validated`."""
    return validated(Recipe, path, read_recipe(path, overrides))


def read_recipe(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Read a recipe alone, as `read_stages` reads it with those that follow."""
    return read_stages(path, overrides)[0]


def read_stages(path: str | Path, overrides: list[str] | None = None) -> list[dict[str, Any]]:
    """Read a recipe of any stage and the stages that follow it, as they are written.

    A recipe may name another one with `base: NAME.yaml` and then states only what differs. Where
    neither NAME.yaml nor recipes/NAME.yaml exists, it is the packaged recipe of that name. What it
    lists as `stages` states what differs from the recipe itself, or from a `base` of its own; each
    trains, on the same data, the model of the one before, in a folder of its own in `output`.

    Overrides are `section.key=value`. They hold for all stages, apart from `output` and
    `initial_model`. One of `stage` leaves the others out.

    Raises:
        ConfigError: There is no such recipe, or it, a stage or an override is not YAML, or a stage
            states what follows from its place.
    """
    changes = [_parsed_override(override) for override in overrides or []]
    first = _changed(_read(Path(path)), changes)
    later = first.pop("stages", None)
    if later is None or any(keys == ["stage"] for keys, _ in changes):
        later = []
    if not isinstance(later, list) or not all(isinstance(each, dict) for each in later):
        raise ConfigError(f"{path}: stages is a list of what differs, each key: value")
    if later and first.get("stage") == "prior":
        raise ConfigError(f"{path}: a prior has no stages after it; leave them out")
    trees = [first]
    shared = [(keys, value) for keys, value in changes if keys[0] not in OF_THE_FIRST]
    data = first.get("data")
    root = data.get("root", DataConfig().root) if isinstance(data, dict) else DataConfig().root
    for number, own in enumerate(later, 2):
        _refuse_of_the_first(own, f"{path}, stage {number}")
        base = _read(_beside(Path(path), own["base"])) if "base" in own else first
        tree = merge(base, {key: value for key, value in own.items() if key != "base"})
        tree.pop("stages", None)
        stage, output = tree.get("stage", "codec"), str(first.get("output", Recipe().output))
        tree["initial_model"] = str(Path(str(trees[-1].get("output", output))) / CODEC_FILE)
        tree["output"] = str(Path(output) / f"{number}_{stage}")
        if isinstance(tree.setdefault("data", {}), dict):
            tree = merge(tree, {"data": {"root": root}})
        trees.append(_changed(tree, shared))
    return trees


def _refuse_of_the_first(own: dict[str, Any], name: str) -> None:
    given = [key for key in OF_THE_FIRST if key in own]
    if isinstance(own.get("data"), dict) and "root" in own["data"]:
        given.append("data.root")
    if given:
        raise ConfigError(f"{name}: {', '.join(given)} is for the first alone; leave it out")


def _parsed_override(override: str) -> tuple[list[str], Any]:
    """Return the keys, from the outermost in, and the value."""
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"{override!r} is not an override: write key=value, as in steps=1000")
    try:
        return key.split("."), _parsed(value)
    except ValueError as error:
        raise ConfigError(f"{override!r}: the value is not YAML ({error}); quote it") from None


def _changed(tree: dict[str, Any], changes: list[tuple[list[str], Any]]) -> dict[str, Any]:
    for (*sections, leaf), value in changes:
        branch = tree
        for section in sections:
            if branch.get(section) is None:  # perhaps the recipe's own null, for no such part
                branch[section] = {}
            branch = branch[section]
            if not isinstance(branch, dict):
                key = ".".join([*sections, leaf])
                raise ConfigError(f"{key}: {section!r} has no keys of its own")
        branch[leaf] = value
    return tree


def validated(kind: type[Kind], path: str | Path, tree: dict[str, Any]) -> Kind:
    """What `read_recipe` read from `path` as a recipe of a kind.

    Raises ConfigError, which names all unknown keys (and the nearest known ones) and impossible
    values.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = "; ".join(_describe(error, kind))
        raise ConfigError(f"{path}: {' '.join(faults.split())}") from None


class _Loader(yaml.SafeLoader):
    """Refuses what a recipe has no use for.

    A key that a mapping has twice, of which YAML's own readers keep the last, and aliases: nested,
    a few lines of them mean billions of values.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.get_event()
            fault = f"the alias *{alias.anchor}: write out what it stands for"
            raise yaml.composer.ComposerError(None, None, fault, alias.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # which Python refuses of thousands of digits, and messages do
            return value
        # What PyYAML lets through of values that are not what their form or their tag says.
        except (ValueError, LookupError, AttributeError, TypeError):
            fault = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = str(key.value)
            if name in seen:
                fault = f"the key {name!r} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, fault, key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    """What YAML says; a ValueError of one line if it is none, or not for recipes."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _read(path: Path, derived: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The recipe at `path`, which those of `derived` are based on, from the first to the last."""
    if not _exists(path):
        packaged = packaged_recipes()
        if path.name not in packaged or path.parent not in (Path(), Path("recipes")):
            names = ", ".join(packaged)
            raise ConfigError(f"{path}: no such recipe; the packaged ones are {names}")
        path = packaged[path.name]
    try:
        tree = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a recipe") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values")
    base = tree.pop("base", None)
    if base is None:
        return tree
    parent, derived = _beside(path, base), (*derived, path)
    if _exists(parent) and any(map(parent.samefile, derived)):
        raise ConfigError(f"{path}: is its own base; rename it or give base another recipe")
    return merge(_read(parent, derived), tree)


def _beside(path: Path, base: object) -> Path:
    """Return where the `base` of the recipe at `path` lies: beside it, or where it says."""
    beside = path.parent / str(base)
    return beside if _exists(beside) else Path(str(base))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name
        return False


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A tree of settings in which `changes`, at any depth, stand over those of `base`."""
    tree = dict(base)
    for key, value in changes.items():
        inner = tree.get(key)
        tree[key] = (
            merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return tree


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Of two trees of settings, the keys that differ, each with a phrase that says how."""
    found: dict[str, str] = {}
    for key in sorted(before.keys() | now.keys()):
        old, new, name = before.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new, f"{name}.")
        elif old != new:
            found[name] = f"{name} {new}, was {old}"
    return found


def _describe(error: ValidationError, kind: type[RunConfig]) -> list[str]:
    """One phrase per fault."""
    faults = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place, _known_keys(kind), n=1, cutoff=0)
            faults.append(f"unknown key {place}; did you mean {near[0]}?")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            value = fault["input"]
            got = "" if isinstance(value, dict) else f" (got {value!r})"
            faults.append(f"{place}: {message}{got}" if place else message)
    return faults


def _known_keys(section: type[Section], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Section):
                keys += _known_keys(kind, f"{prefix}{name}.")
    return keys
