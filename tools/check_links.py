#!/usr/bin/env python3
"""Fails on a Markdown link to a file or a heading of the tree that is not there. Asks no other machine."""

import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!\\)!?\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", re.M)
FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1[^\n]*$", re.M | re.S)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$", re.M)


def blank(match):
    """The same lines without their text, so that line numbers stand."""
    return re.sub(r"[^\n]", " ", match.group())


def anchors(text):
    """The ids that a forge gives to headings: lower case, no punctuation, dashes for spaces, -1 for a second."""
    seen = {}
    for heading in HEADING.findall(FENCE.sub(blank, text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        yield f"{slug}-{count}" if count else slug
    yield from re.findall(r"<a\s+(?:id|name)=\"([^\"]+)\"", text)


def check_file(path, root):
    text = path.read_text(encoding="utf-8")
    prose = CODE.sub(blank, FENCE.sub(blank, text))
    for pattern in (LINK, REFERENCE):
        for match in pattern.finditer(prose):
            target = match.group(1)
            if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.I):
                continue
            line = prose.count("\n", 0, match.start()) + 1
            name, _, fragment = target.partition("#")
            name = urllib.parse.unquote(name)
            file = path if not name else root / name[1:] if name.startswith("/") else path.parent / name
            if not file.exists():
                yield f"{path.relative_to(root)}:{line}: no such file: {target}"
            elif (
                fragment
                and file.suffix == ".md"
                and fragment not in set(anchors(file.read_text(encoding="utf-8")))
            ):
                yield f"{path.relative_to(root)}:{line}: no such heading: {target}"


def main():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    pages = [ROOT / name for name in sorted(filter(None, listed)) if (ROOT / name).is_file()]
    problems = [problem for page in pages for problem in check_file(page, ROOT)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
