"""OpenAI's endpoints that this emulator does not have, so that a 404 can say so."""

# By the beginning of the path; what ends with a slash are the paths below it alone. They are those
# of openai-python 3.54.
ABSENT = {
    "/v1/agents": "agents",
    "/v1/assistants": "assistants",
    "/v1/audio": "speech, transcriptions and translations",
    "/v1/batches": "batches",
    "/v1/chat/completions/": "stored chat completions",
    "/v1/chatkit": "ChatKit",
    "/v1/containers": "containers",
    "/v1/content_provenance_checks": "checks of where content comes from",
    "/v1/conversations": "conversations",
    "/v1/decisions": "decisions",
    "/v1/evals": "evals",
    "/v1/files": "files",
    "/v1/fine_tuning": "fine-tuning",
    "/v1/images": "images",
    "/v1/live": "live sessions",
    "/v1/organization": "the administration of an organization",
    "/v1/projects": "the administration of projects",
    "/v1/realtime": "realtime sessions",
    "/v1/safety": "safety alerts and cases",
    "/v1/skills": "skills",
    "/v1/threads": "threads, messages and runs",
    "/v1/uploads": "uploads",
    "/v1/vaults": "vaults",
    "/v1/vector_stores": "vector stores",
    "/v1/videos": "videos",
    "/v1/webhook_endpoints": "webhooks",
    "/v1/webhook_event_types": "webhooks",
}


def absent_endpoint(path: str) -> str | None:
    """Return what OpenAI has at a path, if it is one of those."""
    for beginning, what in ABSENT.items():
        below = f"{beginning.rstrip('/')}/"
        if path == beginning != below or (path.startswith(below) and path != beginning):
            return what
    return None
