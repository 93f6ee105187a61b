#!/usr/bin/env python3
"""Lints contracts/: files that parse, names that keep the rules, and every setting documented."""

import json
import re
import sys
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parent.parent
SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
METRIC_TYPES = {"counter", "gauge", "histogram"}
# What a metric's name ends in says its unit; a counter ends in _total after that.
BAD_UNITS = re.compile(
    r"_(ms|millis|milliseconds|micros|nanos|minutes|hours|kb|mb|kib|mib|percent|cents)(_total)?$"
)
# Labels of these names are values that callers choose: unbounded, or secret.
BAD_LABELS = {"key", "path", "url", "user", "call", "call_id", "ip", "client", "le", "quantile"}


class Strict(yaml.SafeLoader):
    """YAML in which a key given twice is an error, not a silent overwrite."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise ValueError(f"given twice: {', '.join(sorted(twice))}")
    return dict(pairs)


def load(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text, object_pairs_hook=no_duplicates)
    return yaml.load(text, Loader=Strict)  # a SafeLoader


def lint_reasons(document):
    for name, reason in document["reasons"].items():
        if not SNAKE.fullmatch(name):
            yield f"{name}: not snake_case"
        if name.split("_")[0] not in {"caller", "policy", "provider", "gateway"}:
            yield f"{name}: does not say whose fault it is (caller_, policy_, provider_, gateway_)"
        statuses = reason.get("status") or []
        if not statuses or not all(isinstance(s, int) and 400 <= s <= 599 for s in statuses):
            yield f"{name}: status is not a list of 4xx and 5xx"
        if reason.get("retry") not in {"after", "no"}:
            yield f"{name}: retry is neither 'after' nor 'no'"
        for field in ("title", "error_type"):
            if not reason.get(field):
                yield f"{name}: no {field}"


def lint_metrics(document):
    metrics = document["metrics"]
    items = metrics.items() if isinstance(metrics, dict) else [(m.get("name", "?"), m) for m in metrics]
    names = [name for name, _ in items]
    yield from (f"{name}: given twice" for name in sorted({n for n in names if names.count(n) > 1}))
    for name, metric in items:
        kind = metric.get("type")
        if not SNAKE.fullmatch(name):
            yield f"{name}: not snake_case"
        if kind not in METRIC_TYPES:
            yield f"{name}: type is none of {', '.join(sorted(METRIC_TYPES))}"
        if (kind == "counter") != name.endswith("_total"):
            yield f"{name}: counters, and only they, end in _total"
        if BAD_UNITS.search(name):
            yield f"{name}: base units only (seconds, bytes, ratio, usd)"
        if not metric.get("help"):
            yield f"{name}: no help"
        labels = metric.get("labels") or []
        for label in labels:
            if not SNAKE.fullmatch(label) or label in BAD_LABELS:
                yield f"{name}: label '{label}' is not allowed"


def schema_properties(node, path=""):
    """(path, property schema) of every named property, wherever it stands in the schema."""
    if isinstance(node, dict):
        for name, child in (node.get("properties") or {}).items():
            if isinstance(child, dict):
                yield f"{path}/{name}", child
        for key, child in node.items():
            yield from schema_properties(
                child, f"{path}/{key}" if key not in ("properties", "$defs") else path
            )
    elif isinstance(node, list):
        for child in node:
            yield from schema_properties(child, path)


def lint_schema(schema, manual):
    jsonschema.Draft202012Validator.check_schema(schema)
    definitions = schema.get("$defs", {})
    for path, child in schema_properties(schema):
        definition = definitions.get(child.get("$ref", "").removeprefix("#/$defs/"), {})
        if not child.get("description") and not definition.get("description"):
            yield f"{path}: no description"
        name = path.rsplit("/", 1)[1]
        if manual is not None and not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", manual):
            yield f"{path}: '{name}' does not stand in docs/configure.md"


def lint_file(path):
    try:
        document = load(path)
    except (ValueError, yaml.YAMLError) as error:
        yield f"does not parse: {error}"
        return
    try:
        if path.name == "reasons.yaml":
            yield from lint_reasons(document)
        elif path.name == "metrics.yaml":
            yield from lint_metrics(document)
        elif path.name.endswith(".schema.json"):
            manual = ROOT / "docs" / "configure.md"
            is_config = path.name == "config.schema.json" and manual.exists()
            yield from lint_schema(document, manual.read_text(encoding="utf-8") if is_config else None)
    except jsonschema.SchemaError as error:
        yield f"not a JSON Schema: {error.message} at {error.json_path}"
    except (AttributeError, KeyError, TypeError) as error:
        yield f"not of the shape that tools/check_contracts.py knows: {error!r}"


def main():
    folder = ROOT / "contracts"
    paths = sorted(p for p in folder.rglob("*") if p.suffix in {".yaml", ".yml", ".json"})
    problems = [f"{path.relative_to(ROOT)}: {problem}" for path in paths for problem in lint_file(path)]
    if not paths:
        problems.append("contracts/: nothing there")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
