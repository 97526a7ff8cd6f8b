"""The categories of moderations, as OpenAI names them."""

# Of those that look at texts alone, and of those that look at pictures too.
_OF_TEXTS = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "sexual/minors",
)
OF_IMAGES = (
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "violence",
    "violence/graphic",
)
CATEGORIES = tuple(sorted((*_OF_TEXTS, *OF_IMAGES)))
# The older models have no others.
OLD_CATEGORIES = tuple(name for name in CATEGORIES if not name.startswith("illicit"))

_ANY = f"(?:{'|'.join(CATEGORIES)})"
LISTED = f"^{_ANY}(?:, ?{_ANY})*$"


def listed(text: str | None) -> frozenset[str]:
    """Return the categories that a header lists."""
    return frozenset(name.strip() for name in text.split(",")) if text else frozenset()
