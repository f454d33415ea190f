"""Models of the sandbox contract. Generated, do not edit: run `scripts/generate`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, field


class A2AServerCreate(Struct, kw_only=True):
    base_url: str


class A2AServerItem(Struct, kw_only=True):
    id: str
    name: str
    description: str
    input_modes: list[str]
    output_modes: list[str]
    streaming: bool
    push_notifications: bool
    enabled: bool


class AgentConfig(Struct, kw_only=True):
    """
    How far the agent behind sessions goes.
    """

    max_iterations: int
    max_retries: int
    max_search_results: int


class AgentConfigUpdate(Struct, kw_only=True):
    """
    The limits as they are to be. A field left out has its default.
    """

    max_iterations: int | UnsetType = 100
    max_retries: int | UnsetType = 3
    max_search_results: int | UnsetType = 10


class BadRequestError(Struct, kw_only=True):
    code: Literal[400]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class BodyTooLargeError(Struct, kw_only=True):
    code: Literal[413]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class ChatRequest(Struct, kw_only=True):
    """
    With `message` it is said to the agent, with `attachments` too, or alone, they are given to it;
    without either the stream goes on behind `event_id`, or shows the session from its beginning.
    null is not given.

    """

    message: str | None | UnsetType = UNSET
    attachments: list[str] | None | UnsetType = UNSET
    event_id: str | None | UnsetType = UNSET
    timestamp: int | None | UnsetType = UNSET


class ConflictError(Struct, kw_only=True):
    code: Literal[409]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class ConsoleRecord(Struct, kw_only=True):
    ps1: str
    command: str
    output: str


class CreateSessionResponse(Struct, kw_only=True):
    session_id: str


class DoneData(Struct, kw_only=True):
    """
    The run has ended, or was stopped.
    """

    event_id: str
    created_at: int


class DoneEvent(Struct, kw_only=True, tag_field='event', tag='done'):
    data: DoneData


class ErrorData(Struct, kw_only=True):
    """
    The run has failed.
    """

    event_id: str
    created_at: int
    error: str


class ErrorEvent(Struct, kw_only=True, tag_field='event', tag='error'):
    data: ErrorData


ExecutionStatus: TypeAlias = Literal['pending', 'running', 'completed', 'failed']


class FaultError(Struct, kw_only=True):
    code: Literal[500]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class FileInfo(Struct, kw_only=True):
    id: str
    filename: str
    filepath: str
    key: str
    extension: str
    mime_type: str
    size: int


class FileReadRequest(Struct, kw_only=True):
    filepath: str


class FileReadResponse(Struct, kw_only=True):
    filepath: str
    content: str


class ForbiddenError(Struct, kw_only=True):
    code: Literal[403]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class Data(Struct, kw_only=True):
    code: Literal['SKILL_API_MOVED']
    migrate_to: str


class GoneError(Struct, kw_only=True):
    code: Literal[410]
    msg: str
    data: Data


class HealthStatus(Struct, kw_only=True):
    service: str
    status: Literal['ok', 'error']
    details: str


HealthStatuses: TypeAlias = list[HealthStatus]


class LLMConfig(Struct, kw_only=True):
    """
    The model that sessions talk to, an OpenAI-compatible endpoint or one inside the server.
    """

    base_url: str
    model_name: str
    temperature: float
    max_tokens: int


class LLMConfigUpdate(Struct, kw_only=True):
    """
    The model as it is to be. A field left out has its default.
    """

    base_url: str | UnsetType = 'https://api.deepseek.com'
    api_key: str | UnsetType = ''
    model_name: str | UnsetType = 'deepseek-reasoner'
    temperature: float | UnsetType = 0.7
    max_tokens: int | UnsetType = 8192


class ListA2AServerResponse(Struct, kw_only=True):
    a2a_servers: list[A2AServerItem]


class LoginRequest(Struct, kw_only=True):
    """
    A name or a mail address, and the password. A username wins over an e-mail address.
    """

    password: str
    username: str | None | UnsetType = UNSET
    email: str | None | UnsetType = UNSET


class MCPConfig(Struct, kw_only=True):
    """
    MCP servers by name.
    """

    mcpServers: dict[str, dict[str, Any]]


class MCPServerItem(Struct, kw_only=True):
    server_name: str
    enabled: bool
    transport: Literal['stdio', 'sse', 'streamable_http']
    tools: list[str]
    error: Literal['not allowed by the operator', 'its answer is an error', 'no answer'] | UnsetType = (
        UNSET
    )


class MediaTypeError(Struct, kw_only=True):
    code: Literal[415]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class MessageData(Struct, kw_only=True):
    """
    Something said. Pieces of one message have `partial: true` and one `stream_id`, and follow each
    other; then the whole text comes once more with `partial: false`.

    """

    event_id: str
    created_at: int
    role: Literal['user', 'assistant']
    message: str
    stream_id: str | None
    partial: bool
    attachments: list[FileInfo]


class MessageEvent(Struct, kw_only=True, tag_field='event', tag='message'):
    data: MessageData


class Data2(Struct, kw_only=True):
    bucket: str
    object: str


class NoBucketError(Struct, kw_only=True):
    """
    There is no such bucket (HTTP 200).
    """

    code: Literal[400]
    msg: Literal['bucket_not_exists']
    data: Data2


class NotAcceptableError(Struct, kw_only=True):
    code: Literal[406]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class NotFoundError(Struct, kw_only=True):
    code: Literal[404]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class Data3(Struct, kw_only=True):
    error: Literal['object_store_unavailable']


class ObjectStoreFailure(Struct, kw_only=True):
    """
    The object store does not answer (HTTP 200).
    """

    code: Literal[500]
    msg: str
    data: Data3


class ObjectStoreStatus(Struct, kw_only=True):
    """
    A ping says `reachable`; a smoke test says `object`, `uploaded_bytes`, `downloaded_bytes` and
    `match` where the bucket exists.

    """

    ok: bool
    endpoint: str
    secure: bool
    bucket: str
    bucket_exists: bool
    reachable: bool | UnsetType = UNSET
    object: str | UnsetType = UNSET
    uploaded_bytes: int | UnsetType = UNSET
    downloaded_bytes: int | UnsetType = UNSET
    match: bool | UnsetType = UNSET
    error: Literal['bucket_not_exists'] | UnsetType = UNSET


class PlanStep(Struct, kw_only=True):
    event_id: str
    created_at: int
    id: str
    status: ExecutionStatus
    description: str


class PreconditionError(Struct, kw_only=True):
    code: Literal[412]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class RefreshTokenRequest(Struct, kw_only=True):
    refresh_token: str


class RegisterRequest(Struct, kw_only=True):
    """
    A new account. At least one of `username` and `email` is needed.
    """

    password: str
    username: str | None | UnsetType = UNSET
    email: str | None | UnsetType = UNSET
    nickname: str | None | UnsetType = UNSET


class ServicesAnswer(Struct, kw_only=True):
    code: Literal[200]
    msg: str
    data: HealthStatuses


class ServicesDegraded(Struct, kw_only=True):
    """
    Not every service answers (HTTP 200).
    """

    code: Literal[503]
    msg: str
    data: HealthStatuses


class SessionFiles(Struct, kw_only=True):
    files: list[FileInfo]


SessionStatus: TypeAlias = Annotated[
    Literal['pending', 'running', 'waiting', 'completed'],
    Meta(
        description='`pending`: nothing has begun; `running`; `waiting`: the agent has asked and waits for an answer;\n`completed`: the latest run has ended, also by a failure (an `error` event) or because it was\nstopped.\n'
    ),
]


class ShellReadRequest(Struct, kw_only=True):
    session_id: str


class ShellReadResponse(Struct, kw_only=True):
    session_id: str
    output: str
    console_records: list[ConsoleRecord]


class SkillEnabledRequest(Struct, kw_only=True):
    enabled: bool


class SkillInstallRequest(Struct, kw_only=True):
    source_type: Literal['local', 'github']
    source_ref: str
    manifest: dict[str, Any] | UnsetType = field(default_factory=dict)
    skill_md: str | UnsetType = ''


class SkillItem(Struct, kw_only=True):
    id: str
    slug: str
    name: str
    description: str
    version: str
    source_type: Literal['local', 'github']
    source_ref: str
    runtime_type: Literal['native', 'mcp', 'a2a']
    enabled: bool
    installed_by: str | None
    created_at: str
    updated_at: str
    bundle_file_count: int
    context_ref_count: int
    last_sync_at: str | None


class SkillListResponse(Struct, kw_only=True):
    skills: list[SkillItem]


class SkillRiskPolicyItem(Struct, kw_only=True):
    mode: Literal['off', 'enforce_confirmation']


class SoftError(Struct, kw_only=True):
    """
    A refusal that comes with HTTP 200, as the reference promises for most: only `code` tells it from
    a success.

    """

    code: Literal[400, 401, 403, 404, 500, 503]
    msg: str
    data: dict[str, Any] | None


class StepData(Struct, kw_only=True):
    """
    A step of the plan has begun or ended.
    """

    event_id: str
    created_at: int
    id: str
    status: ExecutionStatus
    description: str


class StepEvent(Struct, kw_only=True, tag_field='event', tag='step'):
    data: StepData


class StorageFullError(Struct, kw_only=True):
    code: Literal[507]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class StoredObject(Struct, kw_only=True):
    bucket: str
    object: str
    etag: str
    version_id: str | None
    filename: str
    content_type: str
    size: int
    presigned_get_url: str | UnsetType = UNSET


class Data4(Struct, kw_only=True):
    retry_after: int
    limit: int | UnsetType = UNSET
    window_seconds: int | UnsetType = UNSET
    bucket: str | UnsetType = UNSET


class ThrottledError(Struct, kw_only=True):
    code: Literal[429]
    msg: str
    data: Data4


class TitleData(Struct, kw_only=True):
    event_id: str
    created_at: int
    title: str


class TitleEvent(Struct, kw_only=True, tag_field='event', tag='title'):
    data: TitleData


class TokenResponse(Struct, kw_only=True):
    access_token: str
    refresh_token: str
    token_type: Literal['bearer']


class ToolData(Struct, kw_only=True):
    event_id: str
    created_at: int
    tool_call_id: str
    name: Literal['browser', 'search', 'shell', 'file', 'mcp', 'a2a', 'skill', 'tool']
    status: Literal['calling', 'called']
    function: str
    args: dict[str, Any]
    content: dict[str, Any] | None


class ToolEvent(Struct, kw_only=True, tag_field='event', tag='tool'):
    data: ToolData


class ToolPreferenceRequest(Struct, kw_only=True):
    enabled: bool


class ToolWithPreference(Struct, kw_only=True):
    tool_id: str
    tool_name: str
    description: str | None
    enabled_global: bool
    enabled_user: bool


class UnauthorizedError(Struct, kw_only=True):
    code: Literal[401]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class UnavailableError(Struct, kw_only=True):
    code: Literal[503]
    msg: str
    data: Annotated[dict[str, Any], Meta(max_length=0)]


class UpdateUserRequest(Struct, kw_only=True):
    """
    What is absent or null stays as it is.
    """

    nickname: str | None | UnsetType = UNSET
    avatar: str | None | UnsetType = UNSET


class UserResponse(Struct, kw_only=True):
    id: str
    username: str
    email: str | None
    nickname: str | None
    avatar: str | None
    role: Literal['super_admin', 'user']
    status: Literal['active', 'inactive', 'banned']
    created_at: str


class UserStatusUpdateRequest(Struct, kw_only=True):
    status: str


class Violation(Struct, kw_only=True):
    """
    One place where the request breaks its schema. Never repeats the value that was sent.
    """

    loc: list[str | int]
    msg: str
    type: str


class WaitData(Struct, kw_only=True):
    """
    The agent has asked; the next message answers it and the run goes on.
    """

    event_id: str
    created_at: int


class WaitEvent(Struct, kw_only=True, tag_field='event', tag='wait'):
    data: WaitData


class WeChatAuthorization(Struct, kw_only=True):
    authorize_url: str


class Data1(Struct, kw_only=True):
    errors: list[Violation]


class InvalidError(Struct, kw_only=True):
    code: Literal[422]
    msg: str
    data: Data1


class ListMCPServerResponse(Struct, kw_only=True):
    mcp_servers: list[MCPServerItem]


class ListSessionItem(Struct, kw_only=True):
    session_id: str
    title: str
    latest_message: str
    latest_message_at: str | None
    status: SessionStatus
    unread_message_count: int


class ListSessionResponse(Struct, kw_only=True):
    sessions: list[ListSessionItem]


class LoginResponse(Struct, kw_only=True):
    user: UserResponse
    tokens: TokenResponse


class ObjectStoreAnswer(Struct, kw_only=True):
    code: Literal[200]
    msg: str
    data: ObjectStoreStatus


class PlanData(Struct, kw_only=True):
    event_id: str
    created_at: int
    steps: list[PlanStep]


class PlanEvent(Struct, kw_only=True, tag_field='event', tag='plan'):
    data: PlanData


SessionEvent: TypeAlias = MessageEvent | TitleEvent | PlanEvent | StepEvent | ToolEvent | WaitEvent | DoneEvent | ErrorEvent


class ToolListResponse(Struct, kw_only=True):
    tools: list[ToolWithPreference]


class UserListResponse(Struct, kw_only=True):
    users: list[UserResponse]
    total: int


class SessionDetail(Struct, kw_only=True):
    session_id: str
    title: str
    status: SessionStatus
    events: list[SessionEvent]
