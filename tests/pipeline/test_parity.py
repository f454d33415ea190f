"""Documented, built, listed as not built: each row is one of the two, and the roles agree."""

from pathlib import Path

import pytest

from scripts.pipeline import parity
from scripts.pipeline.__main__ import ROOT
from tests.pipeline.conftest import Tree


def problems(tree: Tree) -> list[str]:
    return parity.check(tree.root / "contracts", [tree.bundle()])


def rewrite(tree: Tree, table: str, old: str, new: str) -> None:
    file: Path = tree.root / "contracts" / table
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_a_contract_that_agrees_passes(tree: Tree) -> None:
    assert problems(tree) == []


def test_a_built_row_leaves_the_list(tree: Tree) -> None:
    rewrite(tree, "not_built.tsv", "DELETE\t/notes/{note_id}", "GET\t/notes")
    rewrite(tree, "documented.tsv", "tiny\tDELETE\t/notes/{note_id}\tuser\tdelete\n", "")
    assert problems(tree) == [
        "tiny: GET /notes: is built; take its line out of contracts/not_built.tsv"
    ]


def test_a_documented_row_is_built_or_listed(tree: Tree) -> None:
    rewrite(tree, "not_built.tsv", "tiny\tDELETE\t/notes/{note_id}\tnobody needs it yet\n", "")
    assert problems(tree) == [
        "tiny: DELETE /notes/{note_id}: is documented, and neither built nor in "
        "contracts/not_built.tsv"
    ]


def test_a_row_of_a_contract_without_a_folder_is_listed_too(tree: Tree) -> None:
    rewrite(tree, "documented.tsv", "tiny\tDELETE", "other\tGET\t/a\tpublic\tlist\ntiny\tDELETE")
    assert problems(tree) == [
        "other: GET /a: is documented, and neither built nor in contracts/not_built.tsv"
    ]


def test_the_list_holds_documented_rows_with_a_reason(tree: Tree) -> None:
    rewrite(tree, "not_built.tsv", "nobody needs it yet\n", "\ntiny\tGET\t/moon\tfar away\n")
    assert problems(tree) == [
        "tiny: DELETE /notes/{note_id}: in contracts/not_built.tsv without a reason",
        "tiny: GET /moon: in contracts/not_built.tsv, and not documented",
    ]


def test_what_nobody_documents_says_that_it_is_ours(tree: Tree) -> None:
    rewrite(tree, "documented.tsv", "tiny\tPOST\t/notes/{note_id}/archive\tadmin\tarchive\n", "")
    (problem,) = problems(tree)
    assert problem.startswith("tiny: POST /notes/{note_id}/archive: no row of contracts/")
    tree.edit(
        "paths/notes_{note_id}_archive", "x-role: admin", "x-role: admin\n  x-extension: true"
    )
    assert problems(tree) == []


def test_what_is_documented_is_no_extension(tree: Tree) -> None:
    tree.edit("paths/notes", "x-rate-limit: chat", "x-rate-limit: chat\n  x-extension: true")
    assert problems(tree) == ["tiny: POST /notes: is documented, so it is no x-extension"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("GET\t/notes\tpublic", "GET\t/notes\tuser", "documented as user"),
        ("GET\t/notes/{note_id}\tuser", "GET\t/notes/{note_id}\tpublic", "documented as public"),
        ("archive\tadmin", "archive\tuser", "documented as user; the spec says x-role admin"),
        ("archive\tadmin", "archive\tgate", "documented as gate"),
        ("archive\tadmin", "archive\toauth2 token", "documented as oauth2 token"),
        ("archive\tadmin", "archive\tsomebody", "'somebody', which the parity check does not know"),
        ("/old/{note_id}\tuser", "/old/{note_id}\tadmin", "documented as admin"),
    ],
)
def test_the_auth_column_outranks_the_spec(tree: Tree, old: str, new: str, said: str) -> None:
    rewrite(tree, "documented.tsv", old, new)
    (problem,) = problems(tree)
    assert said in problem


def test_any_is_every_method_but_trace_and_one_row(tree: Tree) -> None:
    rewrite(tree, "documented.tsv", "tiny\tGET\t/old", "tiny\tANY\t/old")
    (problem,) = problems(tree)
    assert problem == "tiny: ANY /old/{note_id}: HEAD, POST, PUT, PATCH, DELETE, OPTIONS missing"
    old = tree.spec("paths/old_{note_id}")
    get = old.read_text()
    old.write_text(
        get
        + "".join(
            get.replace("get:", f"{method.lower()}:").replace("get_compat", f"get_{method.lower()}")
            for method in parity.ANY
            if method != "GET"
        )
    )
    assert problems(tree) == []


def test_the_tables_of_the_repository_name_each_row_once() -> None:
    for table in ("documented.tsv", "not_built.tsv"):
        lines = (ROOT / "contracts" / table).read_text().splitlines()[1:]
        rows = [tuple(line.split("\t")[:3]) for line in lines]
        assert len(rows) == len(set(rows))
        assert all(len(line.split("\t")) >= 4 for line in lines)
