"""The contract of the configuration file: its schema, the examples, and the manual say the same."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "contracts" / "config.schema.json").read_text())
MANUAL = (ROOT / "docs" / "configure.md").read_text()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


class Loader(yaml.SafeLoader):
    """YAML as Penstock reads it: dates stay text, and only true and false are booleans."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def load(text: str):
    return yaml.load(text, Loader=Loader)


def sections() -> dict[str, dict]:
    """Every kind of mapping with fixed fields."""
    return {"config": SCHEMA} | {name: part for name, part in SCHEMA["$defs"].items() if "properties" in part}


def example() -> dict:
    return load((ROOT / "examples" / "penstock.yaml").read_text())


def test_schema_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_match_the_schema(path: Path):
    assert [error.message for error in VALIDATOR.iter_errors(load(path.read_text()))] == []


def test_bad_file_does_not_match_the_schema():
    text = (ROOT / "tests" / "integration" / "data" / "bad.yaml").read_text()
    assert not VALIDATOR.is_valid(load(text))


@pytest.mark.parametrize("name", sections())
def test_every_section_is_closed_and_described(name: str):
    section = sections()[name]
    assert section["additionalProperties"] is False
    assert section["description"]
    for field, part in section["properties"].items():
        assert part.get("description"), f"{name}.{field} has no description"


def test_every_definition_is_used():
    used = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert used == set(SCHEMA["$defs"])


@pytest.mark.parametrize(
    "where",
    [
        (),
        ("listen",),
        ("inbound", "overrides", 0),
        ("providers", "openai"),
        ("providers", "openai", "credential"),
        ("providers", "openai", "budgets", 0),
        ("providers", "openai", "endpoints", 0),
        ("providers", "openai", "prices", "models", "gpt-4o"),
        ("routes", "chat", "targets", 0),
        ("consumers", "alice"),
        ("keys", "ci-1"),
    ],
    ids=lambda where: ".".join(map(str, where)) or "root",
)
def test_unknown_fields_are_refused(where: tuple):
    config = example()
    part = config
    for step in where:
        part = part[step]
    part["limts"] = "1/minute"
    assert not VALIDATOR.is_valid(config)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("listen", "max_header"), "32kb"),
        (("listen", "header_timeout"), "5 seconds"),
        (("inbound", "limit"), "60/fortnight"),
        (("anonymous",), "yes"),
        (("budget_status",), 503),
        (("trusted_proxies",), ["proxy.example.com"]),
        (("providers", "openai", "base_url"), "https://user:password@api.openai.com"),
        (("providers", "openai", "retry", "max_attempts"), 9),
        (("providers", "openai", "credential", "file"), "beside-value"),
        (("providers", "openai", "prices", "models", "gpt-4o", "input_usd_per_million"), -1),
        (("providers", "Open AI"), {"base_url": "https://api.openai.com"}),
        (("consumers", "ci-bot", "allow"), ["everything"]),
        (("keys", "ci-1", "hash"), "pk_something"),
        (("keys", "ci-1", "expires"), "next year"),
    ],
    ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else "",
)
def test_wrong_values_are_refused(where: tuple, value):
    config = example()
    part = config
    for step in where[:-1]:
        part = part.setdefault(step, {})
    part[where[-1]] = value
    assert VALIDATOR.is_valid(example())
    assert not VALIDATOR.is_valid(config)


def manual_tables() -> dict[str, dict[str, list[str]]]:
    """The manual's tables of fields: section to field to the row's other cells."""
    tables: dict[str, dict[str, list[str]]] = {}
    for name, body in re.findall(r"<!-- fields: (\w+) -->\n\n((?:\|.*\n)+)", MANUAL):
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines()[2:]]
        tables[name] = {row[0].strip("` |"): row[1:] for row in rows}
    return tables


def test_manual_has_a_table_for_every_section():
    assert set(manual_tables()) == set(sections())


@pytest.mark.parametrize("name", sections())
def test_manual_names_every_field_with_its_default(name: str):
    section = sections()[name]
    table = manual_tables()[name]
    assert set(table) == set(section["properties"])
    for field, part in section["properties"].items():
        default = table[field][1]
        if field in section.get("required", []):
            assert default == "required", field
        elif "default" in part:
            value = part["default"]
            text = json.dumps(value).replace('"', "") if not isinstance(value, str) else value
            assert default == f"`{text}`", field
        else:
            assert default == "–", field


def manual_examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", MANUAL, flags=re.DOTALL)


def wrapped(part: dict) -> dict:
    """An example of a part as a whole file: a field of a provider, if it is none of the file."""
    config = {"providers": {"openai": {"base_url": "https://api.openai.com"}}}
    for field, value in copy.deepcopy(part).items():
        owner = config if field in SCHEMA["properties"] else config["providers"]["openai"]
        owner[field] = value
    return config


def test_manual_examples_match_the_schema():
    count = 0
    for text in manual_examples():
        # Alternatives of one field, a line each.
        lines = text.splitlines()
        parts = (
            lines
            if len({line.split(":")[0] for line in lines}) < len(lines)
            and all(line[0] != " " for line in lines)
            else [text]
        )
        for part in parts:
            errors = [error.message for error in VALIDATOR.iter_errors(wrapped(load(part)))]
            assert errors == [], part
            count += 1
    assert count > 20
