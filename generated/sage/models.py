"""Models of the sage contract. Generated, do not edit: run `scripts/generate`."""

from __future__ import annotations

from builtins import list as list_aliased
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, field


class ActiveSession(Struct, kw_only=True):
    session_id: str
    created_at: float
    is_completed: bool
    status: Literal['running', 'interrupted']
    last_activity: float
    query: str


ActiveSessions: TypeAlias = Annotated[
    list[ActiveSession], Meta(description='The `data` of one event.')
]
"""
The `data` of one event.
"""


class AgentDraft(Struct, kw_only=True):
    """
    An agent that is not stored; create takes it as it is.
    """

    name: str
    description: str
    systemPrefix: str
    systemContext: dict[str, Any]
    availableWorkflows: dict[str, list_aliased[str]]
    availableTools: list_aliased[str]


class AgentGenerateRequest(Struct, kw_only=True):
    agent_description: str
    available_tools: list_aliased[str] | None | UnsetType = UNSET


class AgentGrants(Struct, kw_only=True):
    user_ids: list_aliased[str]


class AgentId(Struct, kw_only=True):
    agent_id: str


class AuthProvider(Struct, kw_only=True):
    """
    One way to log in.
    """

    id: str
    type: Literal['native', 'oidc']
    name: str
    button_text: str
    description: str
    icon: str


class AvailableSkill(Struct, kw_only=True):
    name: str
    description: str
    source_dimension: Literal['system', 'user', 'agent']
    source_path: str
    agent_path: str | UnsetType = UNSET
    need_update: bool | UnsetType = UNSET


class AvailableSkillList(Struct, kw_only=True):
    skills: list_aliased[AvailableSkill]


class BadRequestError(Struct, kw_only=True):
    code: Literal[400]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class BadRequestOrBusinessError(Struct, kw_only=True):
    code: Literal[400, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class BodyTooLargeError(Struct, kw_only=True):
    code: Literal[413]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class BusinessError(Struct, kw_only=True):
    """
    A business failure with the document's code 500 beside a truthful HTTP status.
    """

    code: Literal[500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ConflictError(Struct, kw_only=True):
    code: Literal[409]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ConflictOrBusinessError(Struct, kw_only=True):
    code: Literal[409, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ContextBudget(Struct, kw_only=True):
    """
    How the model's context window is shared out; where nobody knows the window, nothing is cut.
    What the user says now is never cut.

    """

    max_model_len: int | None | UnsetType = UNSET
    history_ratio: float | None | UnsetType = UNSET
    active_ratio: float | None | UnsetType = UNSET
    max_new_message_ratio: float | None | UnsetType = UNSET
    recent_turns: int | None | UnsetType = UNSET


class Conversation(Struct, kw_only=True):
    session_id: str
    conversation_id: str
    user_id: str
    title: str
    message_count: int
    user_count: int
    agent_count: int
    created_at: str
    updated_at: str
    trace_id: str
    agent_id: str | UnsetType = UNSET
    agent_name: str | UnsetType = UNSET


class ConversationInfo(Struct, kw_only=True):
    session_id: str
    title: str
    created_at: str
    updated_at: str
    agent_id: str | UnsetType = UNSET
    agent_name: str | UnsetType = UNSET


class ConversationPage(Struct, kw_only=True):
    list: list_aliased[Conversation]
    total: int
    page: int
    page_size: int
    total_pages: int
    has_next: bool
    has_prev: bool
    user_id: str | UnsetType = UNSET


class ConversationRenamed(Struct, kw_only=True):
    session_id: str
    title: str


class ConversationTitle(Struct, kw_only=True):
    title: str


class DefaultPrompt(Struct, kw_only=True):
    content: str


class DocumentMetadata(Struct, kw_only=True):
    size: int
    chunks: int
    attempt: int
    reason: str | UnsetType = UNSET


class ExtraMcpServer(Struct, kw_only=True):
    """
    A server that is reached by its address; one that is a command is refused.
    """

    protocol: Literal['streamable_http', 'sse', ''] | None | UnsetType = UNSET
    url: str | None | UnsetType = UNSET
    streamable_http_url: str | None | UnsetType = UNSET
    sse_url: str | None | UnsetType = UNSET
    api_key: str | None | UnsetType = UNSET
    headers: dict[str, str] | None | UnsetType = UNSET
    disabled: bool | None | UnsetType = UNSET


class FaultError(Struct, kw_only=True):
    code: Literal[500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ForbiddenError(Struct, kw_only=True):
    code: Literal[403]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ForbiddenOrBusinessError(Struct, kw_only=True):
    code: Literal[403, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class Health(Struct, kw_only=True):
    status: Literal['healthy']
    timestamp: float
    service: str


class ImageUrl(Struct, kw_only=True):
    url: str


class ImagePart(Struct, kw_only=True, tag_field='type', tag='image_url'):
    image_url: ImageUrl


class InterruptRequest(Struct, kw_only=True):
    message: str | None | UnsetType = UNSET


class KnowledgeBase(Struct, kw_only=True):
    kdbId: str
    name: str
    intro: str
    type: Literal['rag', 'qa']
    createdAt: int
    updatedAt: int
    kdbSetting: dict[str, Any]
    user_id: str


class KnowledgeBaseCreateRequest(Struct, kw_only=True):
    name: str
    type: Literal['rag', 'qa']
    intro: str | UnsetType = ''
    language: str | UnsetType = ''


class KnowledgeBaseId(Struct, kw_only=True):
    kdb_id: str
    user_id: str


class KnowledgeBaseItem(Struct, kw_only=True):
    id: str
    name: str
    index_name: str
    intro: str
    createTime: str
    dataSource: Literal['rag', 'qa']
    docNum: int
    cover: Literal['']
    defaultColor: bool
    user_id: str
    type: dict[str, Any] | None


class KnowledgeBasePage(Struct, kw_only=True):
    list: list_aliased[KnowledgeBaseItem]
    total: int
    user_id: str


class KnowledgeBaseRequest(Struct, kw_only=True):
    kdb_id: str


class KnowledgeBaseUpdateRequest(Struct, kw_only=True):
    kdb_id: str
    name: str | UnsetType = ''
    intro: str | UnsetType = ''
    kdb_setting: dict[str, Any] | None | UnsetType = UNSET


class KnowledgeDocument(Struct, kw_only=True):
    id: str
    type: Literal['file', 'qa', 'eml']
    dataName: str
    status: Literal[0, 1, 2, 3]
    createTime: str
    metadata: DocumentMetadata
    taskId: str
    user_id: str


class KnowledgeDocumentItem(Struct, kw_only=True):
    id: str
    doc_name: str
    status: Literal[0, 1, 2, 3]
    create_time: str
    metadata: DocumentMetadata
    task_id: str


class KnowledgeDocumentPage(Struct, kw_only=True):
    list: list_aliased[KnowledgeDocumentItem]
    total: int
    user_id: str


class KnowledgeDone(Struct, kw_only=True):
    success: bool
    user_id: str


class KnowledgeProgress(Struct, kw_only=True):
    success: int
    fail: int
    inProgress: int
    waiting: int
    total: int
    taskProcess: int
    user_id: str


class KnowledgeTask(Struct, kw_only=True):
    taskId: str
    user_id: str


class KnowledgeTaskRequest(Struct, kw_only=True):
    kdb_id: str
    task_id: str


class LLMProvider(Struct, kw_only=True):
    id: str
    name: str
    base_url: str
    api_keys: list_aliased[str]
    model: str
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    presence_penalty: float | None
    max_model_len: int | None
    supports_multimodal: bool
    supports_structured_output: bool
    is_default: bool
    user_id: str | None
    created_at: str | None
    updated_at: str | None


class LLMProviderCapabilities(Struct, kw_only=True):
    """
    What the endpoint was seen to do.
    """

    supports_streaming: bool
    supports_tool_calls: bool
    supports_structured_output: bool
    supports_multimodal: bool
    errors: dict[str, str]


class LLMProviderCreate(Struct, kw_only=True):
    """
    An OpenAI-compatible endpoint that serves one model.
    """

    base_url: str
    api_keys: list_aliased[str]
    model: str
    name: str | None | UnsetType = UNSET
    max_tokens: int | None | UnsetType = UNSET
    temperature: float | None | UnsetType = UNSET
    top_p: float | None | UnsetType = UNSET
    presence_penalty: float | None | UnsetType = UNSET
    max_model_len: int | None | UnsetType = UNSET
    supports_multimodal: bool | None | UnsetType = UNSET
    supports_structured_output: bool | None | UnsetType = UNSET
    is_default: bool | None | UnsetType = UNSET


class LLMProviderCreated(Struct, kw_only=True):
    provider_id: str


class LLMProviderMultimodal(Struct, kw_only=True):
    supports_multimodal: bool
    response: str | UnsetType = UNSET
    recognized: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET


class LLMProviderUpdate(Struct, kw_only=True):
    """
    What is to change. What is left out stays; null clears what may be null.
    """

    name: str | UnsetType = UNSET
    base_url: str | UnsetType = UNSET
    api_keys: list_aliased[str] | UnsetType = UNSET
    model: str | UnsetType = UNSET
    max_tokens: int | None | UnsetType = UNSET
    temperature: float | None | UnsetType = UNSET
    top_p: float | None | UnsetType = UNSET
    presence_penalty: float | None | UnsetType = UNSET
    max_model_len: int | None | UnsetType = UNSET
    supports_multimodal: bool | UnsetType = UNSET
    supports_structured_output: bool | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET


class LoginRequest(Struct, kw_only=True):
    username_or_email: str
    password: str


class LoginUser(Struct, kw_only=True):
    userid: str
    username: str
    nickname: str | None
    phonenum: str | None
    email: str | None
    role: Literal['admin', 'user']
    avatar: str | None
    avatar_url: str | None


class MCPServer(Struct, kw_only=True):
    name: str
    protocol: Literal['streamable_http', 'sse']
    disabled: bool
    streamable_http_url: str | None
    sse_url: str | None
    api_key: str | None
    command: dict[str, Any] | None
    args: dict[str, Any] | None
    env: dict[str, Any] | None
    user_id: str


class MCPServerAdded(Struct, kw_only=True):
    server_name: str
    status: Literal['success']


class MCPServerList(Struct, kw_only=True):
    servers: list_aliased[MCPServer]


class MCPServerName(Struct, kw_only=True):
    server_name: str


class MCPServerRefreshed(Struct, kw_only=True):
    server_name: str
    status: Literal['refreshed', 'disabled']


class MCPServerRequest(Struct, kw_only=True):
    """
    An MCP server that is reached over HTTP.
    """

    name: str
    protocol: Literal['streamable_http', 'sse']
    streamable_http_url: str | None | UnsetType = UNSET
    sse_url: str | None | UnsetType = UNSET
    api_key: str | None | UnsetType = UNSET


class MediaTypeError(Struct, kw_only=True):
    code: Literal[415]
    message: str
    data: dict[str, Any] | None
    timestamp: float


MessageType: TypeAlias = Literal['user_input', 'assistant_text', 'rewrite', 'task_analysis', 'task_decomposition', 'planning', 'execution', 'observation', 'task_completion_judge', 'final_answer', 'system', 'query_suggest', 'memory_extraction', 'task_router', 'do_subtask_result', 'reasoning_content', 'tool_call', 'tool_call_result', 'skill_select_result', 'skill_exec_plan', 'skill_observation', 'thinking', 'error', 'chunk', 'guide', 'handoff_agent', 'stage_summary', 'token_usage', 'empty']


class ModelConfig(Struct, kw_only=True):
    """
    The model of this run, and limits that win over its provider's. It names a provider by its id;
    or brings an endpoint along, with `base_url` and `model` and the `api_key` if it wants one; or
    names another `model` of the provider that would be used anyway, if that is the caller's own.
    `model` alone may also name a system provider, as `embedded/script`.

    """

    llm_provider_id: str | None | UnsetType = UNSET
    provider_id: str | None | UnsetType = UNSET
    base_url: str | None | UnsetType = UNSET
    api_key: str | None | UnsetType = UNSET
    model: str | None | UnsetType = UNSET
    max_tokens: int | None | UnsetType = UNSET
    temperature: float | None | UnsetType = UNSET
    top_p: float | None | UnsetType = UNSET
    presence_penalty: float | None | UnsetType = UNSET
    max_model_len: int | None | UnsetType = UNSET
    supports_multimodal: bool | None | UnsetType = UNSET
    supports_structured_output: bool | None | UnsetType = UNSET


Names: TypeAlias = list[str] | None


class NotAcceptableError(Struct, kw_only=True):
    code: Literal[406]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class NotFoundError(Struct, kw_only=True):
    code: Literal[404]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class OAuth2Error(Struct, kw_only=True):
    """
    An error by the names of RFC 6749 and RFC 6750.
    """

    error: Literal['invalid_request', 'invalid_client', 'invalid_grant', 'invalid_scope', 'invalid_token', 'unauthorized_client', 'unsupported_grant_type', 'unsupported_response_type', 'access_denied', 'temporarily_unavailable', 'server_error']
    error_description: str


class OAuth2Metadata(Struct, kw_only=True):
    """
    The authorization server by RFC 8414.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    scopes_supported: list_aliased[Literal['openid', 'profile', 'email']]
    response_types_supported: list_aliased[Literal['code']]
    response_modes_supported: list_aliased[Literal['query']]
    grant_types_supported: list_aliased[Literal['authorization_code', 'refresh_token']]
    token_endpoint_auth_methods_supported: list_aliased[Literal['client_secret_basic', 'client_secret_post', 'none']]
    code_challenge_methods_supported: list_aliased[Literal['S256']]
    authorization_response_iss_parameter_supported: bool


class OAuth2TokenRequest(Struct, kw_only=True):
    """
    A code or a refresh token to exchange. Unknown fields are ignored, as RFC 6749 §3.2 has it; none
    may be repeated.

    """

    grant_type: str
    code: str | UnsetType = UNSET
    redirect_uri: str | UnsetType = UNSET
    code_verifier: str | UnsetType = UNSET
    refresh_token: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    client_secret: str | UnsetType = UNSET


class OAuth2Tokens(Struct, kw_only=True):
    token_type: Literal['Bearer']
    access_token: str
    expires_in: int
    refresh_token: str
    scope: str


class OAuth2Userinfo(Struct, kw_only=True):
    sub: str
    iss: str
    preferred_username: str
    role: Literal['admin', 'user']
    name: str | UnsetType = UNSET
    picture: str | UnsetType = UNSET
    avatar_url: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    email_verified: bool | UnsetType = UNSET


class OptimizedPrompt(Struct, kw_only=True):
    optimized_prompt: str


class PassageSource(Struct, kw_only=True):
    document: str
    position: int


class PasswordChange(Struct, kw_only=True):
    old_password: str
    new_password: str


class PromptOptimizeRequest(Struct, kw_only=True):
    original_prompt: str
    optimization_goal: str | None | UnsetType = UNSET


class PublishedFile(Struct, kw_only=True):
    url: str


class RegisterRequest(Struct, kw_only=True):
    username: str
    password: str
    verification_code: str
    email: str | None | UnsetType = UNSET
    phonenum: str | None | UnsetType = UNSET


class Registered(Struct, kw_only=True):
    user_id: str


class RegistrationCode(Struct, kw_only=True):
    expires_in: int
    retry_after: int


class RegistrationCodeRequest(Struct, kw_only=True):
    email: str


class RetrieveRequest(Struct, kw_only=True):
    kdb_id: str
    query: str
    top_k: int | UnsetType = 10


class SessionId(Struct, kw_only=True):
    session_id: str


class SessionInterrupted(Struct, kw_only=True):
    session_id: str
    user_id: str


class ShareId(Struct, kw_only=True):
    share_id: str


class Skill(Struct, kw_only=True):
    name: str
    description: str
    user_id: str
    dimension: Literal['system', 'user', 'agent']
    owner_user_id: str | None
    agent_id: str | None
    agent_name: str | None
    path: str


class SkillContent(Struct, kw_only=True):
    content: str


class SkillContentUpdate(Struct, kw_only=True):
    name: str
    content: str


class SkillForm(Struct, kw_only=True):
    file: str
    is_system: bool | UnsetType = False
    is_agent: bool | UnsetType = False
    agent_id: str | UnsetType = ''


class SkillImportRequest(Struct, kw_only=True):
    url: str
    is_system: bool | UnsetType = False
    is_agent: bool | UnsetType = False
    agent_id: str | None | UnsetType = UNSET


class SkillList(Struct, kw_only=True):
    skills: list_aliased[Skill]


class SkillOwner(Struct, kw_only=True):
    user_id: str


class SoftError(Struct, kw_only=True):
    """
    A refusal that the document answers with HTTP 200: only `code` tells it from a success.

    """

    code: Literal[400, 403, 404, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class StorageFullError(Struct, kw_only=True):
    code: Literal[507]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class StreamEnd(Struct, kw_only=True):
    """
    The last line of a run. A stream that ends without it was cut off: resume it. With
    `resume_fallback` there was nothing left to send.

    """

    type: Literal['stream_end']
    session_id: str
    timestamp: float
    total_stream_count: int | UnsetType = UNSET
    resume_fallback: bool | UnsetType = UNSET


class StreamFailure(Struct, kw_only=True):
    """
    The run failed; `stream_end` follows.
    """

    type: Literal['error']
    content: str
    role: Literal['assistant']
    message_id: str
    session_id: str


class SystemInfo(Struct, kw_only=True):
    """
    What a client needs to know before anybody has logged in. Holds no secret.
    """

    allow_registration: bool
    auth_mode: Literal['native', 'trusted_proxy', 'oauth']
    auth_providers: list_aliased[AuthProvider]
    default_auth_provider: str | None
    has_local_auth: bool
    has_oauth_auth: bool
    oauth_enabled: bool
    oauth_provider_name: str
    native_login_admin_only: bool


class SystemSettings(Struct, kw_only=True):
    allow_registration: bool


class Task(Struct, kw_only=True):
    """
    A step of the workflow that the run's model picked, or a task of a sub-agent.
    """

    task_id: str
    description: str
    status: Literal['pending', 'in_progress', 'completed', 'failed', 'cancelled']
    workflow: str
    agent_name: str | UnsetType = UNSET


class TextPart(Struct, kw_only=True, tag_field='type', tag='text'):
    text: str


class ThrottledError(Struct, kw_only=True):
    code: Literal[429]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class ThrottledOrBusinessError(Struct, kw_only=True):
    code: Literal[429, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class Tokens(Struct, kw_only=True):
    access_token: str
    refresh_token: str
    expires_in: int


class Tool(Struct, kw_only=True):
    """
    A tool that the caller may call, and that agents may name.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    type: Literal['basic', 'mcp']
    source: str
    user_id: str | None


class Function(Struct, kw_only=True):
    name: str
    arguments: str


class ToolCall(Struct, kw_only=True):
    id: str
    type: Literal['function']
    function: Function


class ToolExecution(Struct, kw_only=True):
    tool_name: str
    tool_params: dict[str, Any] | None | UnsetType = UNSET


class ToolList(Struct, kw_only=True):
    tools: list_aliased[Tool]


class UnauthorizedError(Struct, kw_only=True):
    code: Literal[401]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class UnauthorizedOrBusinessError(Struct, kw_only=True):
    code: Literal[401, 500]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class UnavailableError(Struct, kw_only=True):
    code: Literal[503]
    message: str
    data: dict[str, Any] | None
    timestamp: float


class UpdatePlatform(Struct, kw_only=True):
    url: str
    signature: str


class UploadForm(Struct, kw_only=True):
    kdb_id: str
    files: list_aliased[str]
    override: bool | UnsetType = False


class Usage(Struct, kw_only=True):
    usage: dict[str, int]


class UsageRequest(Struct, kw_only=True):
    days: int
    agent_id: str | None | UnsetType = UNSET


class User(Struct, kw_only=True):
    user_id: str
    username: str
    email: str | None
    phonenum: str | None
    role: Literal['admin', 'user']
    created_at: str


class UserAddRequest(Struct, kw_only=True):
    username: str
    password: str
    email: str | None | UnsetType = UNSET
    phonenum: str | None | UnsetType = UNSET
    role: Literal['admin', 'user'] | UnsetType = 'user'


class UserAdded(Struct, kw_only=True):
    user_id: str


class UserConfig(Struct, kw_only=True):
    config: dict[str, Any]


class UserDeleteRequest(Struct, kw_only=True):
    user_id: str


class UserOption(Struct, kw_only=True):
    label: str
    value: str


class UserPage(Struct, kw_only=True):
    items: list_aliased[User]
    total: int


class VersionArtifact(Struct, kw_only=True):
    """
    What is offered for one platform.
    """

    platform: str
    installer_url: str | None | UnsetType = UNSET
    updater_url: str | None | UnsetType = UNSET
    updater_signature: str | None | UnsetType = UNSET


class VersionCreate(Struct, kw_only=True):
    version: str
    release_notes: str | UnsetType = ''
    artifacts: list_aliased[VersionArtifact] | UnsetType = field(default_factory=list_aliased)


class VersionDeleted(Struct, kw_only=True):
    success: bool


class Violation(Struct, kw_only=True):
    """
    One place where the request breaks its schema. Never repeats the value that was sent.
    """

    loc: list_aliased[str | int]
    msg: str
    type: str


Workflows: TypeAlias = dict[str, list[str]]
"""
The steps of each workflow by its name. The model may pick one; its steps become tasks.
"""


class WorkspaceFile(Struct, kw_only=True):
    name: str
    path: str
    size: int
    modified_time: float
    is_directory: bool


class Agent(Struct, kw_only=True):
    """
    An agent as it is read; every key is there, with null for what was not given.
    """

    id: str
    user_id: str
    name: str
    systemPrefix: str | None
    systemContext: dict[str, Any] | None
    availableWorkflows: Workflows | None
    availableTools: Names | None
    availableSubAgentIds: Names | None
    availableSkills: Names | None
    availableKnowledgeBases: Names | None
    memoryType: Literal['session', 'user', 'none'] | None
    maxLoopCount: int | None
    deepThinking: bool
    llm_provider_id: str | None
    enableMultimodal: bool
    multiAgent: bool
    agentMode: str | None
    description: str | None
    created_at: str
    updated_at: str


class AgentConfig(Struct, kw_only=True):
    """
    What an agent is made of. Null, `""`, `[]` and `{}` mean "not given". Tools, skills, workflows
    and knowledge bases may be named before they exist: a run skips what is missing and says so in
    one line of type `system`. Providers and sub-agents must exist.

    """

    name: str
    id: str | None | UnsetType = UNSET
    user_id: str | None | UnsetType = UNSET
    systemPrefix: str | None | UnsetType = UNSET
    systemContext: dict[str, Any] | None | UnsetType = UNSET
    availableWorkflows: Workflows | None | UnsetType = UNSET
    availableTools: list_aliased[str] | None | UnsetType = UNSET
    availableSubAgentIds: list_aliased[str] | None | UnsetType = UNSET
    availableSkills: Names | None | UnsetType = UNSET
    availableKnowledgeBases: Names | None | UnsetType = UNSET
    memoryType: Literal['session', 'user', 'none', ''] | None | UnsetType = UNSET
    maxLoopCount: int | None | UnsetType = UNSET
    deepThinking: bool | None | UnsetType = UNSET
    llm_provider_id: str | None | UnsetType = UNSET
    enableMultimodal: bool | None | UnsetType = UNSET
    multiAgent: bool | None | UnsetType = UNSET
    agentMode: str | None | UnsetType = UNSET
    description: str | None | UnsetType = UNSET


ContentPart: TypeAlias = TextPart | ImagePart


class CustomSubAgent(Struct, kw_only=True):
    """
    What it leaves out is as for the run itself; it has no workflows but its own.
    """

    name: str
    agent_id: str | None | UnsetType = UNSET
    system_prompt: str | None | UnsetType = UNSET
    description: str | None | UnsetType = UNSET
    available_tools: Names | None | UnsetType = UNSET
    available_skills: Names | None | UnsetType = UNSET
    available_workflows: Workflows | None | UnsetType = UNSET
    system_context: dict[str, Any] | None | UnsetType = UNSET


class Data(Struct, kw_only=True):
    errors: list_aliased[Violation]


class InvalidError(Struct, kw_only=True):
    code: Literal[422]
    message: str
    data: Data
    timestamp: float


LineContent: TypeAlias = Annotated[
    str | list[ContentPart], Meta(description='A text, or its parts in order.')
]


class LoginSession(Struct, kw_only=True):
    user: LoginUser
    has_provider: bool
    has_agent: bool


class Message(Struct, kw_only=True):
    """
    A whole message, as its lines add up to it. A run that fails leaves one of type `error`, with a
    `reason` in its metadata: models are not shown it, nor is it shared.

    """

    message_id: str
    role: Literal['user', 'assistant', 'system', 'tool']
    type: MessageType
    timestamp: float
    metadata: dict[str, Any]
    content: LineContent | UnsetType = UNSET
    tool_calls: list_aliased[ToolCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    agent_name: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET


MessageContent: TypeAlias = Annotated[
    str | list[ContentPart], Meta(description='A text, or its parts in order.')
]


class Passage(Struct, kw_only=True):
    doc_id: str
    doc_segment_id: str
    score: float
    content: str
    source: PassageSource


class Retrieved(Struct, kw_only=True):
    results: list_aliased[Passage]
    user_id: str


class TasksStatus(Struct, kw_only=True):
    tasks: list_aliased[Task]


class SessionTasks(Struct, kw_only=True):
    session_id: str
    tasks_status: TasksStatus
    user_id: str


class StreamMessage(Struct, kw_only=True):
    role: Literal['user', 'assistant', 'system', 'tool']
    message_id: str
    type: MessageType
    timestamp: float
    metadata: dict[str, Any]
    content: LineContent | UnsetType = UNSET
    tool_calls: list_aliased[ToolCall] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
    agent_name: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET


class Update(Struct, kw_only=True):
    """
    The dynamic update answer of Tauri's updater.
    """

    version: str
    notes: str
    pub_date: str
    platforms: dict[str, UpdatePlatform]


class Version(Struct, kw_only=True):
    """
    A published version of the desktop application.
    """

    version: str
    release_notes: str
    pub_date: str
    artifacts: list_aliased[VersionArtifact]


class Workspace(Struct, kw_only=True):
    agent_id: str
    files: list_aliased[WorkspaceFile]
    message: str
    user_id: str


class ChatMessage(Struct, kw_only=True):
    role: Literal['user', 'assistant', 'system']
    message_id: str | None | UnsetType = UNSET
    content: MessageContent | None | UnsetType = UNSET


class ChatRequest(Struct, kw_only=True):
    messages: list_aliased[ChatMessage]
    agent_id: str
    session_id: str | None | UnsetType = UNSET
    user_id: str | None | UnsetType = UNSET
    system_context: dict[str, Any] | None | UnsetType = UNSET


class ConversationMessages(Struct, kw_only=True):
    conversation_id: str
    messages: list_aliased[Message]
    message_count: int
    next_stream_index: int
    conversation_info: ConversationInfo


StreamLine: TypeAlias = Annotated[
    StreamMessage | StreamFailure | StreamEnd,
    Meta(
        description='One line of a stream, ended by a newline. Lines of the same `message_id` and type belong\ntogether: their `content` is appended. `: heartbeat` and empty lines are not JSON and are\nskipped; they count for no index.\n'
    ),
]


class StreamRequest(Struct, kw_only=True):
    """
    A chat whose agent may be left out or overridden for this run alone. Null, `""`, `[]` and `{}`
    mean "not given".

    """

    messages: list_aliased[ChatMessage]
    session_id: str | None | UnsetType = UNSET
    user_id: str | None | UnsetType = UNSET
    system_context: dict[str, Any] | None | UnsetType = UNSET
    agent_id: str | None | UnsetType = UNSET
    agent_name: str | None | UnsetType = UNSET
    deep_thinking: bool | None | UnsetType = UNSET
    max_loop_count: int | None | UnsetType = UNSET
    multi_agent: bool | None | UnsetType = UNSET
    agent_mode: str | None | UnsetType = UNSET
    more_suggest: bool | None | UnsetType = UNSET
    available_workflows: Workflows | None | UnsetType = UNSET
    llm_model_config: ModelConfig | None | UnsetType = UNSET
    system_prefix: str | None | UnsetType = UNSET
    available_tools: Names | None | UnsetType = UNSET
    available_skills: Names | None | UnsetType = UNSET
    available_knowledge_bases: Names | None | UnsetType = UNSET
    available_sub_agent_ids: list_aliased[str] | None | UnsetType = UNSET
    force_summary: bool | None | UnsetType = UNSET
    memory_type: Literal['session', 'user', 'none', ''] | None | UnsetType = UNSET
    custom_sub_agents: list_aliased[CustomSubAgent] | None | UnsetType = UNSET
    context_budget_config: ContextBudget | None | UnsetType = UNSET
    extra_mcp_config: dict[str, ExtraMcpServer] | None | UnsetType = UNSET
