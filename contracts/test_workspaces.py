"""The files of a workspace: whose they are, and that no path leads out of it (security 30, 31,
35)."""

import io
import zipfile

import pytest

from contracts.sage import PNG, World, unique
from contracts.test_sub_agents import results, script

PATHS = [
    "..",
    "../../../secrets.key",
    "../other/summary.md",
    "/etc/passwd",
    "//etc/passwd",
    "sess_1/../../x",
    "sess_1//summary.md",
    "./sess_1/summary.md",
    "sess_1/summary.md/",
    "..\\..\\secrets.key",
    "C:\\secrets.key",
    "%2e%2e/%2e%2e/secrets.key",
    "%252e%252e%252fsecrets.key",
    "sess_1/summary.md.",
    "sess_1/summary.md ",
    "sess_1/a\nb",
    "．．/．．/secrets.key",
    "..／secrets.key",
    ".hidden",
    "sess_1/.hidden",
    "x" * 256,
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out(path: str, world: World) -> None:
    """For reading and for deleting, and the file inside stays as it was."""
    agent, inside = world.workspace(world.owner)
    world.started.worked(agent, world.owner.user_id, ".hidden", b"secret")
    for operation_id in ("workspace_download", "workspace_delete"):
        query = {"file_path": path}
        reply = world.owner.client.call(operation_id, path={"agent_id": agent}, query=query)
        assert (reply.status, reply.body["code"]) == (400, 500)
    query = {"file_path": inside}
    kept = world.owner.client.call("workspace_download", path={"agent_id": agent}, query=query)
    assert kept.body == b"work"


def test_no_session_leads_out(world: World) -> None:
    agent, _ = world.workspace(world.owner)
    for session_id in ("..", ".", "../..", "a/b", "a\\b", "%2e%2e", "a.", "x" * 129):
        for operation_id in ("workspace_list", "workspace_download", "workspace_delete"):
            query = {"session_id": session_id, "file_path": "summary.md"}
            reply = world.owner.client.call(operation_id, path={"agent_id": agent}, query=query)
            assert reply.status in (400, 422)


def test_a_file_and_its_folder(world: World) -> None:
    agent, path = world.workspace(world.owner)
    world.started.worked(agent, world.owner.user_id, "sess_1/report <1>.html", b"<script>")
    client, place = world.owner.client, {"agent_id": agent}
    listed = client.call("workspace_list", path=place, query={"session_id": "sess_1"}).data
    assert [each["path"] for each in listed["files"]] == ["report <1>.html", "summary.md"]
    assert listed["user_id"] == world.owner.user_id
    query = {"session_id": "sess_1", "file_path": "report <1>.html"}
    page = client.call("workspace_download", path=place, query=query)
    assert page.body == b"<script>"
    assert page.headers["content-type"] == "application/octet-stream"
    assert page.headers["content-disposition"].startswith('attachment; filename="report _1_.html"')
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in page.headers["content-security-policy"]
    folder = client.call("workspace_download", path=place, query={"file_path": "sess_1"})
    assert folder.headers["content-type"] == "application/zip"
    assert "sess_1.zip" in folder.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(folder.body)) as archive:
        assert archive.namelist() == ["report <1>.html", "summary.md"]
    assert client.call("workspace_delete", path=place, query={"file_path": path}).data == {}
    assert client.call("workspace_delete", path=place, query={"file_path": path}).status == 404
    assert client.call("workspace_delete", path=place, query={"file_path": "sess_1"}).success
    assert client.call("workspace_list", path=place).data["files"] == []


def test_a_link_is_not_there(world: World) -> None:
    agent, _ = world.workspace(world.owner)
    assert world.started.data is not None
    folder = world.started.data / "workspaces" / agent / world.owner.user_id
    (folder / "link").symlink_to(world.started.data)
    for path in ("link", "link/secrets.key", "link/quartet.sqlite"):
        for operation_id in ("workspace_download", "workspace_delete"):
            query = {"file_path": path}
            reply = world.owner.client.call(operation_id, path={"agent_id": agent}, query=query)
            assert reply.status == 404
    assert (world.started.data / "quartet.sqlite").exists()


def test_everybody_has_a_workspace_of_their_own(world: World) -> None:
    """Also with an agent that is granted to others; an administrator sees the owner's."""
    agent, path = world.workspace(world.owner)
    place, query = {"agent_id": agent}, {"file_path": path}
    grants = {"user_ids": [world.stranger.user_id]}
    assert world.owner.client.call("agent_set_grants", path=place, body=grants).success
    friend = world.stranger.client
    assert friend.call("workspace_list", path=place).data["files"] == []
    assert friend.call("workspace_download", path=place, query=query).status == 404
    assert friend.call("workspace_delete", path=place, query=query).status == 404
    world.started.worked(agent, world.stranger.user_id, "mine.txt")
    seen = world.admin.client.call("workspace_list", path=place).data
    assert (seen["user_id"], len(seen["files"])) == (world.owner.user_id, 2)
    assert friend.call("workspace_delete", path=place, query={"file_path": "mine.txt"}).success


def test_what_an_agent_writes_in_a_turn_is_in_its_workspace(world: World) -> None:
    """Of the account that it works for, in the session: nobody else's."""
    agent, session_id = world.agent(world.owner), unique("sess")
    grants = {"user_ids": [world.stranger.user_id]}
    place = {"agent_id": agent}
    assert world.owner.client.call("agent_set_grants", path=place, body=grants).success
    steps = (
        {"call": "file_write", "args": {"path": "notes/today.md", "content": "# Today"}},
        {"call": "file_read", "args": {"path": "notes/today.md"}},
        {"say": "Done."},
    )
    body = {"messages": script(*steps), "session_id": session_id, "agent_id": agent}
    assert results(world.owner.client.call("chat_stream", body=body))[1] == "# Today"
    client, query = world.owner.client, {"session_id": session_id}
    listed = client.call("workspace_list", path=place, query=query).data["files"]
    assert [one["path"] for one in listed] == ["notes", "notes/today.md"]
    whole = client.call("workspace_list", path=place).data["files"]
    assert f"{session_id}/notes/today.md" in [one["path"] for one in whole]
    query["file_path"] = "notes/today.md"
    assert client.call("workspace_download", path=place, query=query).body == b"# Today"

    friend = world.stranger.client
    assert friend.call("workspace_list", path=place, query=query).data["files"] == []
    assert friend.call("workspace_download", path=place, query=query).status == 404
    read = {**body, "messages": script(steps[1], {"say": "Done."})}
    assert "there is no file" in results(friend.call("chat_stream", body=read))[0]
    assert client.call("workspace_download", path=place, query=query).body == b"# Today"


def test_the_tools_over_files_are_listed_and_work_in_turns_alone(world: World) -> None:
    client = world.owner.client
    listed = {tool["name"] for tool in client.call("tool_list").data["tools"]}
    assert listed >= {"file_read", "file_write", "file_find", "file_search"}
    body = {"tool_name": "file_write", "tool_params": {"path": "a.txt", "content": "x"}}
    reply = client.call("tool_execute", body=body)
    assert (reply.http, reply.body["code"]) == (400, 500)


def test_a_deleted_agent_leaves_no_file(world: World) -> None:
    agent, _ = world.workspace(world.owner)
    assert world.started.data is not None
    assert (world.started.data / "workspaces" / agent).exists()
    assert world.owner.client.call("agent_delete", path={"agent_id": agent}).success
    assert not (world.started.data / "workspaces" / agent).exists()


def test_a_model_sees_an_image_of_the_callers_workspace(world: World) -> None:
    """With the caller's rights: another's is as if it were not there."""
    agent = world.agent(world.owner)
    path = world.started.worked(agent, world.owner.user_id, "a.png", PNG)
    url = f"{world.started.url}/api/agent/{agent}/file_workspace/download?file_path={path}"
    image = {"type": "image_url", "image_url": {"url": url}}
    content = [{"type": "text", "text": "What is it?"}, image]
    for account, seen in ((world.owner, True), (world.stranger, False)):
        body = {
            "messages": [{"role": "user", "content": content}],
            "session_id": unique("sess"),
        }
        reply = account.client.call("chat_stream", body=body)
        assert any(line["type"] == "error" for line in reply.lines) is not seen
