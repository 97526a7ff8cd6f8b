"""All APIs: a new one is a folder beside these, and a line here."""

from typing import Any

from emulator.apis.api import API
from emulator.apis.chat.api import ChatAPI
from emulator.apis.completions.api import CompletionsAPI
from emulator.apis.computations import Computation
from emulator.apis.embeddings.api import EmbeddingsAPI
from emulator.apis.messages.api import MessagesAPI
from emulator.apis.moderations.api import ModerationsAPI
from emulator.apis.responses.api import CompactAPI, InputTokensAPI, ResponsesAPI
from emulator.apis.vllm.api import DetokenizeAPI, TokenizeAPI

# Answers that are timed, limited and may fail.
APIS: list[type[API[Any]]] = [
    ChatAPI,
    CompletionsAPI,
    ResponsesAPI,
    CompactAPI,
    MessagesAPI,
    EmbeddingsAPI,
    ModerationsAPI,
]
# Answers that are computed at once.
COMPUTATIONS: list[type[Computation]] = [
    InputTokensAPI,
    TokenizeAPI,
    DetokenizeAPI,
]
