"""JSON schemas: plausible instances of them, schemas found in a text, and OpenAI's strict mode.

No library serves for the first: jsf ignores if/then and fails on ``$ref: "#"``,
hypothesis-jsonschema takes up to seconds and cannot recurse. Nor can a generator or a validator be
given a budget, and the schemas come from clients; so both halves are here, and every step they take
is counted.
"""

from .errors import SchemaError
from .in_text import schema_in_text
from .least import least_values
from .making import instance
from .strict import StrictFault, strict_fault
from .style import PLAIN, Style
from .values import dumps

__all__ = [
    "PLAIN",
    "SchemaError",
    "StrictFault",
    "Style",
    "dumps",
    "instance",
    "least_values",
    "schema_in_text",
    "strict_fault",
]
