"""JSON schemas: plausible instances, schemas in texts, and OpenAI's strict mode.

Schemas come from clients, so that generating and validating instances must have a budget, which no
library offers. jsf also ignores if/then and fails on ``$ref: "#"``; hypothesis-jsonschema takes up
to seconds, and no recursive schemas.
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
