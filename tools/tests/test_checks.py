"""The smaller checks find what they are for."""

import json

import check_contracts
import check_links
import coverage_table
import pytest
import tidy


def link_problems(tmp_path, text):
    (tmp_path / "docs").mkdir(exist_ok=True)
    (tmp_path / "docs" / "there.md").write_text("# A title, with `code`\n\n## Twice\n\n## Twice\n")
    page = tmp_path / "README.md"
    page.write_text(text)
    return list(check_links.check_file(page, tmp_path))


@pytest.mark.parametrize(
    "link",
    [
        "[a](docs/there.md)",
        "[a](docs/there.md#a-title-with-code)",
        "[a](docs/there.md#twice-1)",
        "[a](/docs/there.md)",
        "[a](docs)",
        "[a](https://example.com/none)",
        "`[a](none.md)`",
        "```\n[a](none.md)\n```",
        "# Here\n[a](#here)",
    ],
)
def test_a_good_link_passes(tmp_path, link):
    assert link_problems(tmp_path, link) == []


@pytest.mark.parametrize(
    "link", ["[a](none.md)", "[a](docs/there.md#none)", "![a](none.png)", "[a]: none.md\n", "[a](#none)"]
)
def test_a_broken_link_is_found_with_its_line(tmp_path, link):
    (problem,) = link_problems(tmp_path, "first\n\n" + link)
    assert problem.startswith("README.md:3: no such ")


def contract_problems(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return list(check_contracts.lint_file(path))


GOOD_REASON = "{status: [429], retry: after, title: t, error_type: e}"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (f"reasons:\n  policy_a: {GOOD_REASON}\n", 0),
        (f"reasons:\n  policy_a: {GOOD_REASON}\n  policy_a: {GOOD_REASON}\n", 1),
        (f"reasons:\n  somebody_a: {GOOD_REASON}\n", 1),
        ("reasons:\n  policy_a: {status: [200], retry: maybe}\n", 4),
        ("reasons: [\n", 1),
        ("other: 1\n", 1),
    ],
)
def test_reasons_are_linted(tmp_path, text, problems):
    assert len(contract_problems(tmp_path, "reasons.yaml", text)) == problems


@pytest.mark.parametrize(
    ("metric", "problems"),
    [
        ("{name: calls_total, type: counter, help: h, labels: [provider]}", 0),
        ("{name: calls, type: counter, help: h}", 1),
        ("{name: wait_ms, type: histogram, help: h}", 1),
        ("{name: calls_total, type: counter, help: h, labels: [path]}", 1),
        ("{name: depth, type: gauge}", 1),
    ],
)
def test_metrics_are_linted(tmp_path, metric, problems):
    assert len(contract_problems(tmp_path, "metrics.yaml", f"metrics:\n  - {metric}\n")) == problems


def test_every_setting_needs_a_description_and_a_place_in_the_manual():
    schema = {
        "properties": {
            "listen": {"type": "string", "description": "where"},
            "limits": {
                "type": "object",
                "properties": {"burst": {"type": "integer"}},
                "description": "how many",
            },
        }
    }
    problems = list(check_contracts.lint_schema(schema, "`listen` and `limits`"))
    assert problems == [
        "/limits/burst: no description",
        "/limits/burst: 'burst' does not stand in docs/configure.md",
    ]


def test_a_schema_that_is_none_is_found(tmp_path):
    (problem,) = contract_problems(tmp_path, "x.schema.json", json.dumps({"type": "text"}))
    assert "not a JSON Schema" in problem


def test_coverage_is_summed_by_folder():
    def file(name, lines, branches):
        summary = {
            "lines": {"count": lines[0], "covered": lines[1]},
            "branches": {"count": branches[0], "covered": branches[1]},
        }
        return {"filename": f"{coverage_table.ROOT}/{name}", "summary": summary}

    files = [
        file("src/http/a.cpp", (10, 5), (4, 1)),
        file("src/http/tls/b.hpp", (10, 10), (0, 0)),
        file("src/store/memory/c.cpp", (2, 2), (2, 2)),
        file("tools/mock_provider/d.cpp", (100, 0), (100, 0)),
    ]
    assert coverage_table.table({"data": [{"files": files}]}) == [
        ("http", 20, 15, 4, 1),
        ("store/memory", 2, 2, 2, 2),
        ("all", 22, 17, 6, 3),
    ]


def test_a_header_is_tidied_with_one_source_and_changes_its_key(tmp_path, monkeypatch):
    monkeypatch.setattr(tidy, "ROOT", tmp_path)
    folder = tmp_path / "src" / "policy"
    folder.mkdir(parents=True)
    for name, text in {
        "a.hpp": "",
        "a.cpp": "",
        "b.hpp": "",  # tested only
        "b_test.cpp": "",
        "c.hpp": "",  # no namesake
        "z.cpp": '#include "policy/c.hpp"\n#include "policy/a.hpp"\n',
    }.items():
        (folder / name).write_text(text)
    sources = ["src/policy/a.cpp", "src/policy/b_test.cpp", "src/policy/z.cpp"]
    headers = tidy.headers_of(sources)
    assert headers == {
        "src/policy/a.cpp": ["src/policy/a.hpp"],
        "src/policy/b_test.cpp": ["src/policy/b.hpp"],
        "src/policy/z.cpp": ["src/policy/c.hpp"],
    }
    entry = {"command": "clang++ -c z.cpp"}

    def keys():
        return {s: tidy.key_of(s, headers[s], entry, b"config") for s in sources}

    before = keys()
    (folder / "c.hpp").write_text("int c;\n")
    after = keys()
    assert [s for s in sources if before[s] != after[s]] == ["src/policy/z.cpp"]
    assert tidy.key_of(sources[0], [], entry, b"config") != tidy.key_of(sources[0], [], entry, b"other")
