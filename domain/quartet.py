"""The one object a handler is given."""

import msgspec

from domain.agents import Agents
from domain.conversations import Conversations
from domain.drafting import Drafting
from domain.files import Files
from domain.identity.identity import Identity
from domain.identity.registration import Registration
from domain.identity.upstream import Upstream
from domain.identity.wechat import WeChat
from domain.jaeger import JaegerGate
from domain.knowledge.assembly import Knowledge
from domain.mcp import McpServers
from domain.oauth2.server import AuthorizationServer
from domain.object_checks import ObjectChecks
from domain.platform.assembly import Platform
from domain.platform.skills import PlatformSkills
from domain.probing import Probing
from domain.providers import Providers
from domain.runs.life import Runs
from domain.sessions import Sessions
from domain.skills import Skills
from domain.status import Status
from domain.system import System
from domain.toolbox import Toolbox
from domain.usage import Usage
from domain.users import Users
from domain.versions import Versions
from domain.workspaces import Workspaces


class Quartet(msgspec.Struct, frozen=True):
    """Every part of the domain, by noun."""

    identity: Identity
    registration: Registration
    users: Users
    system: System
    oauth2: AuthorizationServer
    upstream: Upstream
    wechat: WeChat
    providers: Providers
    probing: Probing
    agents: Agents
    drafting: Drafting
    conversations: Conversations
    runs: Runs
    sessions: Sessions
    usage: Usage
    versions: Versions
    files: Files
    objects: ObjectChecks
    status: Status
    tools: Toolbox
    mcp: McpServers
    platform: Platform
    knowledge: Knowledge
    workspaces: Workspaces
    jaeger: JaegerGate
    skills: Skills
    installed: PlatformSkills
