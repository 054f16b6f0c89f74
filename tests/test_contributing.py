"""CONTRIBUTING.md and SECURITY.md name what there is, and GitHub can read the issue form."""

import re

import pytest
from conftest import ROOT

TEXT = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
SECURITY = (ROOT / ".github/SECURITY.md").read_text(encoding="utf-8")
PLACES = dict(re.findall(r"`(\w+)(?:\(\))?`\s\(`(\S+\.py)`\)", TEXT))  # {name: the file that it is in}


def test_every_file_is_there():
    paths = set(re.findall(r"[`\s]((?:\.ci|assets|dataset|models|tests)/[\w/.]*)", TEXT + SECURITY))
    assert len(paths) > 25 and [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_name_is_where_it_is_said_to_be():
    assert PLACES.keys() >= {"Network", "REGISTRY", "PRESETS", "SUFFIXES", "deepdream", "find_reader", "check_kind"}
    for name, path in PLACES.items():
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(def|class) {name}\b|^{name} = ", source, re.M), name


def test_what_security_says_is_proved_can_be_run():
    tool = (ROOT / "tests/tools/prove.py").read_text(encoding="utf-8")
    verbs = set(re.findall(r"prove.py (\w+)", SECURITY))
    assert verbs == set(re.findall(r'^        \("(\w+)", ', tool, re.M)) and "[SECURITY.md](SECURITY.md)" in TEXT


def test_it_tests_as_the_readme_does():
    commands = set(re.findall(r"^python -m pytest.*$", TEXT, re.M))
    assert commands == set(re.findall(r"^python -m pytest.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M))


def test_the_issue_form_is_one():
    """As GitHub has it: every field has a label and an id of its own, and says where it must be filled in."""
    yaml = pytest.importorskip("yaml")  # huggingface_hub brings it
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    fields = {field["id"]: field for field in form["body"]}
    assert len(fields) == len(form["body"]) and all(field["type"] == "textarea" for field in fields.values())
    assert all(field["attributes"]["label"] for field in fields.values())
    required = {name for name, field in fields.items() if field.get("validations", {}).get("required")}
    assert required == {"what", "command", "output", "machine"}
    asked = {name: field["attributes"].get("description", "") for name, field in fields.items()}
    assert "python dream.py --recipe PICTURE" in asked["picture"]
    assert "python convert.py --info WEIGHTS" in asked["weights"]
    assert "python tests/tools/benchmark.py" in asked["machine"]
