"""Skills over HTTP, in turns of the script model."""

import json
from pathlib import Path
from typing import Any

import requests

from tests.serving import serving
from tests.skills.packing import packed_skill

PASSWORD = "skills administrator 7"
SETTINGS = {
    "ADMIN_PASSWORD": PASSWORD,
    "DEFAULT_PROVIDER": "embedded/script",
    "LOG_LEVEL": "warning",
}


class Account:
    """A login on a running server."""

    def __init__(self, url: str, username: str) -> None:
        self._url = f"{url}/api"
        self._session = requests.Session()
        self._session.trust_env = False
        body = {"username_or_email": username, "password": PASSWORD}
        token = self.post("/auth/login", body)["access_token"]
        self._session.headers["authorization"] = f"Bearer {token}"

    def post(self, path: str, body: Any) -> Any:
        return self._session.post(self._url + path, json=body, timeout=30).json()["data"]

    def upload(self, name: str, **fields: str) -> None:
        file = {"file": ("skill.zip", packed_skill(name))}
        answer = self._session.post(
            f"{self._url}/skills/upload", data=fields, files=file, timeout=30
        )
        assert answer.json()["code"] == 200, answer.text

    def chat(self, name: str, **fields: Any) -> tuple[str, str]:
        """What `load_skill` gave for a name, and what the system said."""
        script = [{"call": "load_skill", "args": {"name": name}}, {"say": "Done."}]
        said = {"role": "user", "content": f"script:{json.dumps(script)}"}
        body = {"messages": [said], **fields}
        answer = self._session.post(f"{self._url}/stream", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        lines = [json.loads(line) for line in answer.text.splitlines() if line.startswith("{")]
        return tuple(  # type: ignore[return-value]
            "\n".join(str(line["content"]) for line in lines if line["type"] == kind)
            for kind in ("tool_call_result", "system")
        )


def test_an_agent_loads_a_skill(tmp_path: Path) -> None:
    with serving(tmp_path / "data", given=SETTINGS) as server:
        admin = Account(server.url, "admin")
        admin.post("/user/add", {"username": "ann", "password": PASSWORD})
        ann = Account(server.url, "ann")
        ann.upload("market-research")
        ann.upload("unnamed")
        fields = {"name": "Clerk", "availableSkills": ["market-research", "nobodys"]}
        agent = ann.post("/agent/create", fields)["agent_id"]

        loaded, told = ann.chat("market-research", agent_id=agent)
        assert "Ask three people." in loaded
        assert "nobodys" in told
        assert "market-research" not in told
        assert "Ask three people." not in ann.chat("unnamed", agent_id=agent)[0]

        loaded, told = ann.chat("unnamed", agent_id=agent, available_skills=["unnamed"])
        assert "Ask three people." in loaded
        assert told == ""

        # To another account they are like skills that do not exist.
        loaded, told = admin.chat("unnamed", available_skills=["unnamed"])
        assert "Ask three people." not in loaded
        assert "unnamed" in told
