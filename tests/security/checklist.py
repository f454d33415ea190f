"""The checklist, line by line: what shows it, or what it waits for.

`python -m tests.security.checklist` writes docs/security-checklist.md from it and from
the *_defences.py; test_checklist.py refuses a name that does not exist and an outdated document.
"""

from pathlib import Path
from typing import NamedTuple

from tests.security.every_defence import DEFENCES

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "security-checklist.md"


class Line(NamedTuple):
    """`tests` are further tests (`file::name`) beside the checks of *_defences.py. `where` is the
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
_MCP = "tests/tools/test_client.py::"
_SKILLS = "tests/skills/test_skills.py::"
_ARCHIVES = "tests/skills/test_archives.py::"
_FORMATS = "tests/knowledge/test_formats.py::"
_WORK = "tests/storage/test_workspace_files.py::"
_OBJECTS = "tests/storage/test_objects.py::"
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
        waits="TOTP, passkey and link-code logins: their routes",
    ),
    5: Line(
        "Ends take effect on HTTP and open streams within a second",
        (_ENDS + "test_an_end_reaches_the_other_processes",),
        waits="deleting API keys",
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
        (
            _STRANGERS + "test_a_strangers_id_is_like_none",
            "contracts/test_foreign.py::test_a_strangers_id_is_forbidden_and_nobodys_is_missing",
        ),
    ),
    16: Line("Server-owned fields", (_STRANGERS + "test_server_owned_fields",)),
    17: Line(
        "POST never updates",
        (_STRANGERS + "test_creating_with_an_id_that_exists_changes_nothing",),
    ),
    18: Line(
        "Administrators are safe from one another",
        (
            "tests/identity/test_users.py::test_administrators_are_protected_from_one_another_and_themselves",
        ),
        waits="changing roles: the fleet contract",
    ),
    19: Line("Workers see their own", waits="fleet worker routes"),
    20: Line("Nobody approves their own request", waits="approval routes"),
    21: Line(
        "Share links",
        (_STRANGERS + "test_a_share_is_the_one_conversation_and_can_be_revoked",),
    ),
    22: Line("Websocket channels of others", waits="/ws: the assistant and fleet contracts"),
    23: Line("URL forms", (_DOOR + "test_no_form_of_the_corpus_reaches_anything",)),
    24: Line(
        "DNS rebinding", (_DOOR + "test_the_connection_goes_to_the_address_that_was_checked",)
    ),
    25: Line(
        "Redirects",
        (
            _DOOR + "test_a_redirect_is_checked_like_any_url",
            _MCP + "test_no_redirect_leaves_the_origin",
        ),
    ),
    26: Line(
        "Size, time and decompression caps",
        (
            _DOOR + "test_an_endless_answer_is_cut",
            _DOOR + "test_a_slow_answer_ends_at_the_time_cap",
            "tests/gateways/test_webpage.py::test_a_page_built_to_be_slow_holds_nobody_up",
            _MCP + "test_a_huge_result_is_refused",
        ),
    ),
    27: Line(
        "Checked at save and at use",
        (
            "tests/providers/test_providers.py::test_addresses_are_checked_at_save",
            _MCP + "test_addresses_are_checked_at_use",
            _SKILLS + "test_addresses_inside_need_the_operators_leave",
            "tests/versions/test_versions.py::test_addresses_inside_are_refused",
        ),
    ),
    28: Line("Metadata addresses", (_DOOR + "test_metadata_is_recognised_inside_other_addresses",)),
    29: Line("SSH", waits="SSH routes"),
    30: Line(
        "Path traversal",
        (
            _WORK + "test_paths_that_lead_elsewhere",
            _WORK + "test_sessions_that_lead_elsewhere",
            _OBJECTS + "test_a_key_is_not_a_path",
            "contracts/test_workspaces.py::test_no_path_leads_out",
            "contracts/test_files.py::test_folders_that_lead_elsewhere_are_refused",
            "tests/server/test_portal.py::test_nothing_else_is_served",
        ),
    ),
    31: Line(
        "Links and devices",
        (
            _WORK + "test_links_are_not_there",
            _WORK + "test_a_link_in_the_place_of_the_workspace",
        ),
    ),
    32: Line(
        "Zip archives",
        (
            _ARCHIVES + "test_refused",
            _ARCHIVES + "test_every_cut_is_refused",
            _ARCHIVES + "test_no_flipped_byte_gives_anything_else",
            _SKILLS + "test_a_refused_archive_leaves_nothing",
            _SKILLS + "test_a_damaged_late_file_takes_the_early_ones_along",
        ),
    ),
    33: Line(
        "XML",
        (
            _FORMATS + "test_hostile_and_broken_documents_say_why",
            _FORMATS + "test_memory_is_limited",
        ),
    ),
    34: Line(
        "Media types and sizes",
        (
            _LANE + "test_multipart_is_spooled_and_limited",
            _SOCKETS + "test_headers_beyond_the_limit_are_431",
        ),
    ),
    35: Line(
        "Downloads",
        (
            "contracts/test_files.py::test_browsers_show_images_and_save_the_rest",
            "contracts/test_workspaces.py::test_a_file_and_its_folder",
            "tests/files/test_sandbox.py::test_a_file_comes_back_as_it_went",
        ),
    ),
    36: Line(
        "Local sources under configured roots",
        (
            "tests/skills/test_installing.py::test_only_what_lies_below_a_root_is_read",
            "tests/skills/test_installing.py::test_no_link_is_followed",
        ),
    ),
    37: Line(
        "Presigned URLs, and public addresses in their place",
        (
            _OBJECTS + "test_presigned_urls_are_short_lived",
            _OBJECTS + "test_a_signature_is_for_one_object_and_one_method",
            "contracts/test_files.py::test_an_address_cannot_be_guessed",
            "tests/server/test_sandbox_status.py::test_our_own_links_are_for_one_object_and_time",
        ),
    ),
    38: Line(
        "CSV and XLSX",
        waits="exports: the fleet contract (sage writes no table, it reads them)",
    ),
    39: Line(
        "MCP stdio",
        (
            "tests/tools/test_stdio.py::test_what_is_not_listed_is_not_started",
            "tests/tools/test_stdio.py::test_nothing_of_the_servers_own_environment_is_passed_on",
            "tests/app_config/test_platform_tools.py::test_stdio_is_for_administrators",
            "tests/runs/test_brought_mcp.py::test_what_is_no_server_is_refused_before_anything_is_kept",
        ),
    ),
    40: Line("Import, list and preview start nothing"),
    41: Line(
        "Tools: enabled, permitted, approved, within budget",
        ("tests/runs/test_turns.py::test_a_tool_that_is_not_chosen_does_not_run",),
        where="domain.turn.toolset:Toolset",
        waits="approvals and budgets: their routes",
    ),
    42: Line(
        "Child processes inherit nothing",
        (
            "tests/gateways/models/test_smollm2.py::test_it_dies_with_its_parent",
            "tests/gateways/models/test_smollm2.py::test_its_socket_is_private_and_asks_for_the_key",
            "tests/sandbox/test_confinement.py::test_nothing_can_be_gained",
            "tests/sandbox/test_confinement.py::test_two_sessions_do_not_meet",
            "tests/sandbox/test_ends.py::test_it_dies_with_the_server",
            "tests/sandbox/test_ends.py::test_where_bubblewrap_fails_nothing_runs",
        ),
    ),
    43: Line("No eval", (_CASES + "test_n8n_expressions_are_not_evaluated",)),
    44: Line(
        "Cross-site writes",
        (_CONTRACTS + "test_a_cookie_from_another_site_writes_nothing",),
    ),
    45: Line(
        "Origins of websockets; nothing secret in a log line",
        (_CASES + "test_a_websocket_is_refused_before_it_opens",),
    ),
    46: Line("next and redirect_uri, and whose login at a provider it is"),
    47: Line("The OAuth2 server"),
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
        (
            "tests/runs/test_ends.py::test_an_account_has_a_bounded_number_of_runs",
            "tests/files/test_quota.py::test_uploads_at_once_do_not_exceed_it",
        ),
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
        found = (defence for defence in DEFENCES if defence.line == number)
        defences = sorted(found, key=lambda defence: defence.name)
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
