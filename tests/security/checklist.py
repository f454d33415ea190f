"""The checklist, line by line: what shows it, or what it waits for.

`python -m tests.security.checklist` writes docs/security-checklist.md from it and from
defences.py; test_checklist.py refuses a name that does not exist and an outdated document.
"""

from pathlib import Path
from typing import NamedTuple

from tests.security import mcp_defences, oauth2_defences
from tests.security.defences import DEFENCES

assert oauth2_defences.DEFENCES is mcp_defences.DEFENCES is DEFENCES, "registered by import"

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "security-checklist.md"


class Line(NamedTuple):
    """`tests` are further tests (`file::name`) beside the checks of defences.py. `where` is the
    defence where no check of ours patches it. `waits` names the routes that a line, or the rest of
    it, waits for."""

    says: str
    tests: tuple[str, ...] = ()
    where: str = ""
    waits: str = ""


_LANE = "tests/lane/test_requests.py::"
_ACCESS = "tests/lane/test_access.py::"
_LOGIN = "tests/identity/test_login.py::"
_ENDS = "tests/identity/test_revocation.py::"
_CODES = "tests/identity/test_registration.py::"
_DOOR = "tests/gateways/test_outbound.py::"
_BOX = "tests/gateways/test_secretbox.py::"
_FAULTS = "tests/storage/test_faults.py::"
_FOLLOW = "tests/storage/events/test_followers.py::"
_CASES = "tests/security/test_real_cases.py::"
_CONTRACTS = "contracts/test_credentials.py::"
_STRANGERS = "contracts/test_strangers.py::"
_SOCKETS = "tests/chaos/test_sockets.py::"

LINES: dict[int, Line] = {
    1: Line(
        "No credential: 401 before the body is read",
        (_CONTRACTS + "test_no_credential_no_answer",),
    ),
    2: Line(
        "Forged, foreign and misused tokens: 401",
        ("tests/identity/test_tokens.py::test_a_forged_token_is_invalid",),
        waits="OAuth2 tokens: the OAuth2 routes",
    ),
    3: Line(
        "No default secret, weak ones refused",
        (
            "tests/identity/test_keys.py::test_a_known_weak_key_is_refused",
            _BOX + "test_keys_that_are_none_stop_the_start",
        ),
    ),
    4: Line(
        "Refresh rotates, reuse ends the family",
        (_ENDS + "test_of_refreshes_at_once_one_wins_and_the_family_ends",),
        waits="TOTP, passkey, OAuth2 and link-code logins: their routes",
    ),
    5: Line(
        "Ends take effect on HTTP and open streams within a second",
        (_ENDS + "test_an_end_reaches_the_other_processes",),
        waits="websockets; deleting API keys",
    ),
    6: Line("TOTP", waits="TOTP routes"),
    7: Line("Passkey challenges", waits="passkey routes"),
    8: Line(
        "Equal work for unknown names; no lockout of others",
        (_LOGIN + "test_unknown_and_wrong_are_one_answer_and_one_amount_of_work",),
    ),
    9: Line(
        "Password hashing is bounded",
        (
            "tests/identity/test_passwords.py::test_a_flood_is_told_to_come_back_and_the_pool_recovers",
        ),
    ),
    10: Line(
        "Registration codes",
        (
            _CODES + "test_attempts_are_capped_also_at_once",
            _CODES + "test_nobody_learns_whether_an_address_has_an_account",
        ),
    ),
    11: Line(
        "Proxy headers from listed peers only",
        (_ACCESS + "test_proxy_identity_only_from_a_trusted_peer",),
    ),
    12: Line("API keys", waits="API key routes"),
    13: Line(
        "Everybody against every operation",
        (_CONTRACTS + "test_administrators_alone", _CONTRACTS + "test_viewers_write_nothing"),
    ),
    14: Line(
        "Every id in path, query and body swapped",
        (
            _STRANGERS + "test_a_strangers_id_is_like_none",
            _CASES + "test_others_messages_are_not_listed_by_a_stated_user",
            _CASES + "test_a_conversation_named_like_another_s_hides_nothing",
        ),
    ),
    15: Line(
        "404 for the invisible",
        (_STRANGERS + "test_a_strangers_id_is_like_none",),
        waits="the 403 of the sandbox contract: its routes",
    ),
    16: Line("Server-owned fields", (_STRANGERS + "test_server_owned_fields",)),
    17: Line(
        "POST never updates",
        (_STRANGERS + "test_creating_with_an_id_that_exists_changes_nothing",),
    ),
    18: Line(
        "Administrators are safe from one another",
        ("tests/identity/test_users.py::test_administrators_are_protected_from_one_another",),
        waits="changing roles: the sandbox contract's administration",
    ),
    19: Line("Workers see their own", waits="fleet worker routes"),
    20: Line("Nobody approves their own request", waits="approval routes"),
    21: Line(
        "Share links",
        (_STRANGERS + "test_a_share_is_the_one_conversation_and_can_be_revoked",),
    ),
    22: Line("Websocket channels of others", waits="websockets"),
    23: Line("URL forms", (_DOOR + "test_no_form_of_the_corpus_reaches_anything",)),
    24: Line(
        "DNS rebinding", (_DOOR + "test_the_connection_goes_to_the_address_that_was_checked",)
    ),
    25: Line("Redirects", (_DOOR + "test_a_redirect_is_checked_like_any_url",)),
    26: Line(
        "Size, time and decompression caps",
        (
            _DOOR + "test_an_endless_answer_is_cut",
            _DOOR + "test_a_slow_answer_ends_at_the_time_cap",
            "tests/gateways/test_webpage.py::test_a_page_built_to_be_slow_holds_nobody_up",
        ),
    ),
    27: Line(
        "Checked at save and at use",
        ("tests/providers/test_providers.py::test_addresses_are_checked_at_save",),
    ),
    28: Line("Metadata addresses", (_DOOR + "test_metadata_is_recognised_inside_other_addresses",)),
    29: Line("SSH", waits="SSH routes"),
    30: Line("Path traversal", waits="file routes"),
    31: Line("Links and devices", waits="file routes"),
    32: Line("Zip archives", waits="upload of skills and documents"),
    33: Line("XML", waits="documents of knowledge bases"),
    34: Line(
        "Media types and sizes",
        (
            _LANE + "test_multipart_is_spooled_and_limited",
            _SOCKETS + "test_headers_beyond_the_limit_are_431",
        ),
        waits="each upload route",
    ),
    35: Line("Downloads", waits="download routes"),
    36: Line("Local sources under configured roots", waits="skills"),
    37: Line("Presigned URLs", waits="object routes"),
    38: Line("CSV and XLSX", waits="exports"),
    39: Line("MCP stdio", waits="MCP routes"),
    40: Line("Import, list and preview start nothing", waits="import and MCP routes"),
    41: Line(
        "Tools: enabled, permitted, approved, within budget",
        ("tests/runs/test_turns.py::test_a_tool_that_is_not_chosen_does_not_run",),
        where="domain.turn.loop:Turn",
        waits="approvals and budgets: their routes",
    ),
    42: Line(
        "Child processes inherit nothing",
        (
            "tests/gateways/models/test_smollm2.py::test_it_dies_with_its_parent",
            "tests/gateways/models/test_smollm2.py::test_its_socket_is_private_and_asks_for_the_key",
        ),
        waits="shells and stdio servers",
    ),
    43: Line("No eval", (_CASES + "test_n8n_expressions_are_not_evaluated",)),
    44: Line(
        "Cross-site writes",
        (_CONTRACTS + "test_a_cookie_from_another_site_writes_nothing",),
    ),
    45: Line(
        "Nothing secret in a log line",
        (_CASES + "test_a_websocket_is_refused_before_it_opens",),
        waits="Origin and tokens of websockets",
    ),
    46: Line("next and redirect_uri", waits="upstream login and OAuth2 routes"),
    47: Line("The OAuth2 server", waits="OAuth2 routes"),
    48: Line("Security headers, CORS", (_LANE + "test_cors_answers_only_listed_origins",)),
    49: Line(
        "Smuggling, repeated and oversize headers, slow bodies",
        (
            _SOCKETS + "test_no_second_request_comes_out_of_an_ambiguous_one",
            "tests/chaos/test_slow_protocol.py::test_headers_that_drip_are_408",
            "tests/chaos/test_slow_protocol.py::test_a_body_that_stalls_ends_the_connection",
        ),
    ),
    50: Line(
        "JSON that no store holds",
        (
            _CASES + "test_cve_2026_31949_absent_null_and_wrong_bodies",
            _CASES + "test_no_query_overflows",
        ),
    ),
    51: Line("Patterns in linear time", ("tests/security/test_logs.py::test_scrubbing_is_linear",)),
    52: Line("Sorting by listed names"),
    53: Line("Canaries", ("tests/security/test_canaries.py::test_no_secret_comes_out",)),
    54: Line(
        "Envelopes, rotation, the wrong key",
        (
            _BOX + "test_a_wrong_key_is_refused_at_start",
            _BOX + "test_parts_of_two_values_do_not_mix",
        ),
    ),
    55: Line("Revealing", waits="the fleet vault"),
    56: Line("A hash-chained audit", waits="audit routes"),
    57: Line("Errors carry an id and nothing else", (_LANE + "test_request_id_is_echoed_or_made",)),
    58: Line(
        "Limits per user",
        ("tests/runs/test_ends.py::test_an_account_has_a_bounded_number_of_runs",),
        waits="storage: files; sockets: websockets",
    ),
    59: Line(
        "Slow readers are cut off and resume",
        (
            _FOLLOW + "test_a_slow_reader_is_cut_off_and_the_others_are_not",
            _FOLLOW + "test_a_reader_too_slow_for_large_payloads_is_cut_off",
        ),
        where="storage.followers:PENDING_RECORDS",
    ),
    60: Line(
        "A full disk",
        (
            _FAULTS + "test_a_disk_that_fills_up_fails_the_group_and_loses_nothing",
            "tests/chaos/test_disk_full.py::test_a_full_disk_refuses_writes_and_loses_nothing",
        ),
        where="storage.database:StorageFull",
    ),
    61: Line(
        "Clock jumps",
        ("tests/identity/test_tokens.py::test_a_clock_set_back_revives_no_token",),
        waits="cron routes",
    ),
    62: Line(
        "Metrics and health leak nothing",
        ("tests/server/test_metrics.py::test_nothing_that_a_client_sent_becomes_a_label",),
    ),
    63: Line(
        "Locked dependencies",
        ("tests/security/test_checklist.py::test_every_requirement_is_pinned_by_hash",),
        waits="SBOM, scan and reproducible build: the release",
    ),
    64: Line(
        "Real cases",
        (
            _CASES + "test_cve_2026_31950_stream_of_another_user",
            _CASES + "test_cve_2026_45402_others_objects_inside_bodies",
        ),
        waits="each case of a route that is not built",
    ),
}


def document() -> str:
    """The table as Markdown."""
    rows = [
        "# Security checklist",
        "",
        "Written by `python -m tests.security.checklist`. Each check fails when its defence is",
        "taken away by the patch beside it (`tests/security/test_defences_matter.py`).",
        "",
        "| line | says | defence, patched away | noticed by | further tests | waits for |",
        "|---|---|---|---|---|---|",
    ]
    for number, line in LINES.items():
        defences = [defence for defence in DEFENCES if defence.line == number]
        where = list(dict.fromkeys(f"`{where}`" for d in defences for where in d.removed))
        if line.where:
            where.append(f"`{line.where}` (not patched)")
        checks = list(dict.fromkeys(f"`{d.check.__name__}`" for d in defences))
        tests = [f"`{test.rpartition('::')[2]}`" for test in line.tests]
        cells = [
            str(number),
            line.says,
            *("<br>".join(c) for c in (where, checks, tests)),
            line.waits,
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
