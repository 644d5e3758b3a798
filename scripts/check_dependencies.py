#!/usr/bin/env python3
"""Checks licences, sources and duplicate versions of all dependencies against deny.toml.

It asks cargo only, so it works with what the build has already fetched, and covers what `cargo deny check licenses bans
sources` covers of this project. Every finding is printed; exits 1 when there is one.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cargo(*arguments):
    done = subprocess.run(["cargo", *arguments, "--locked"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"cargo {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def is_allowed(expression, allowed):
    """Whether an SPDX expression can be met with allowed licences alone. `A/B` is the old way to write `A OR B`."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def one_of():
        met = all_of()
        while words and words[0] == "OR":
            words.pop(0)
            met = all_of() or met
        return met

    def all_of():
        met = term()
        while words and words[0] == "AND":
            words.pop(0)
            met = term() and met
        return met

    def term():
        if not words:
            raise ValueError(f"the licence expression breaks off: {expression}")
        word = words.pop(0)
        if word == "(":
            met = one_of()
            if not words or words.pop(0) != ")":
                raise ValueError(f"a parenthesis is not closed: {expression}")
            return met
        if words and words[0] == "WITH":
            words.pop(0)
            word = f"{word} WITH {words.pop(0) if words else ''}"
        return word in allowed

    met = one_of()
    if words:
        raise ValueError(f"not understood from `{words[0]}` on: {expression}")
    return met


def check_the_reader():
    """The reader of expressions decides alone what passes, so it is tried on cases with a known end at every run."""
    allowed = {"MIT", "ISC", "Apache-2.0 WITH LLVM-exception"}
    for expression, want in [
        ("MIT", True),
        ("GPL-3.0", False),
        ("GPL-3.0 OR MIT", True),
        ("GPL-3.0/MIT", True),
        ("MIT AND GPL-3.0", False),
        ("(MIT OR GPL-3.0) AND ISC", True),
        ("(MIT OR GPL-3.0) AND BSD-3-Clause", False),
        ("GPL-3.0 OR MIT AND BSD-3-Clause", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("Apache-2.0", False),
    ]:
        assert is_allowed(expression, allowed) == want, expression


def check_packages(packages, allowed):
    """Licences, and where a package comes from."""
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not package["license"]:
            yield f"{name}: has no licence expression; read its licence file, and leave it out if in doubt"
        else:
            try:
                if not is_allowed(package["license"], allowed):
                    yield f"{name}: its licence is {package['license']}, and deny.toml does not allow that"
            except ValueError as error:
                yield f"{name}: {error}"
        # A package without a source is our own.
        if package["source"] and not package["source"].startswith("registry+https://github.com/rust-lang/crates.io-index"):
            yield f"{name}: comes from {package['source']}, not from crates.io"


def duplicates(target):
    """{name: versions} of what is there in more than one version."""
    versions = {}
    for line in cargo("tree", "--duplicates", "--depth", "0", "--prefix", "none", "--target", target).splitlines():
        if found := re.match(r"(\S+) v(\S+)", line):
            versions.setdefault(found[1], set()).add(found[2])
    # cargo also lists one version that is built twice with different features; that is no duplicate.
    return {name: found for name, found in versions.items() if len(found) > 1}


def check_duplicates(found, skipped):
    for name, versions in sorted(found.items()):
        extra = sorted(version for version in versions if f"{name}@{version}" not in skipped)
        if len(extra) > 1:
            yield f"{name}: versions {', '.join(extra)}; update who needs the old one, or give a reason in deny.toml"
    for entry in sorted(skipped):
        name, _, version = entry.partition("@")
        if version not in found.get(name, ()):
            yield f"{entry}: deny.toml accepts it as a duplicate, and it is none any more; remove the line"


def main():
    check_the_reader()
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    allowed = set(rules["licenses"]["allow"])
    skipped = {entry["crate"] for entry in rules["bans"]["skip"]}
    packages, found = {}, {}
    for target in rules["graph"]["targets"]:
        metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", target))
        packages.update((package["id"], package) for package in metadata["packages"])
        for name, versions in duplicates(target).items():
            found.setdefault(name, set()).update(versions)
    findings = [*check_packages(packages.values(), allowed), *check_duplicates(found, skipped)]
    for finding in findings:
        print(finding)
    if findings:
        sys.exit(1)
    accepted = ", ".join(sorted(skipped)) or "none"
    print(f"{len(packages)} packages: licences and sources are fine; duplicates accepted: {accepted}")


if __name__ == "__main__":
    main()
