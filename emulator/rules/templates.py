"""Texts with places for what a request says: Jinja2's sandbox, bounded in time and in size.

A template reads the names of `NAMES`, and nothing else: nothing is called, no attribute of a
Python object is seen, and no value grows beyond `MAX_SIZE`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, cast

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context, LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from emulator.rules.globs import Budget, OverBudgetError

NAMES = ("user", "messages", "tool_result", "model", "turn", "n")
MAX_TEMPLATE_LENGTH = 16_384
MAX_SIZE = 2**20  # characters of a text, entries of a list
MAX_STEPS = 100_000
MAX_BITS = 4096
_MARKS = ("{{", "{%", "{#")
_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "first", "float", "int", "last", "length"),
    *("lower", "round", "string", "title", "trim", "upper", "wordcount"),
)

# What a template may be made of: no calls, no assignments, nothing that is loaded.
_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.If),
    *(nodes.For, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
    *(nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Filter, nodes.Test, nodes.Concat),
    *(nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.BinExpr),
    *(nodes.UnaryExpr,),
)


class TemplateError(ValueError):
    """A template cannot be used, or failed; the message says why."""


class _Meter:
    """What one rendering has left."""

    __slots__ = ("_budget", "_steps")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._steps = 0

    def step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise TemplateError(f"it takes more than {MAX_STEPS} steps")
        if not self._steps % 16:
            self._budget.left_s()


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.filters |= {"replace": _replaced, "join": _joined, "tojson": _json}
        self.filters |= {"_stepped": _stepped, "_concatenated": _concatenated}
        self.tests = {
            name: test
            for name, test in self.tests.items()
            if name not in ("callable", "sameas", "filter", "test")
        }

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 - what templates see
        """Return what stands under a name; Python's own attributes do not count."""
        if isinstance(obj, Undefined):
            str(obj)  # raises the error of its own
        if isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401 - what templates see
        """Return an item; Python's own attributes do not count."""
        try:
            return obj[argument]
        except (LookupError, TypeError, ValueError):
            return self.undefined(obj=obj, name=str(argument)[:64])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - what templates see
        """Compute with numbers; of texts and lists join some of bounded size."""
        meter = context.parent.get("_meter")
        if isinstance(meter, _Meter):
            meter.step()
        if isinstance(left, int | float) and isinstance(right, int | float):
            bits = abs(left).bit_length() if isinstance(left, int) else 64
            if bits > MAX_BITS or (operator == "**" and bits * abs(right) > MAX_BITS):
                raise TemplateError(f"a number has more than {MAX_BITS} bits")
        elif operator == "+" and type(left) is type(right) and isinstance(left, str | list | tuple):
            _refuse_large(len(left) + len(right))
        else:
            raise TemplateError(
                f"expected numbers around {operator}, but got {type(left).__name__} and "
                f"{type(right).__name__}"
            )
        return super().call_binop(context, operator, left, right)


_LOOP = ("index", "index0", "revindex", "revindex0", "first", "last", "length")


def _refuse_large(size: int) -> None:
    if size > MAX_SIZE:
        raise TemplateError(f"a value has more than {MAX_SIZE} characters or entries")


def _text(value: object) -> str:
    if isinstance(value, Undefined):
        return str(value)  # raises the error of its own
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise TemplateError(f"a number has more than {MAX_BITS} bits")
    text = value if isinstance(value, str) else str(value)
    _refuse_large(len(text))
    return text


def _replaced(text: object, old: str, new: str) -> str:
    given = _text(text)
    _refuse_large(len(given) + given.count(_text(old)) * len(_text(new)))
    return given.replace(old, new)


def _joined(values: Iterable[object], between: str = "") -> str:
    size, texts = 0, []
    for value in values:
        texts.append(_text(value))
        size += len(texts[-1]) + len(between)
        _refuse_large(size)
    return between.join(texts)


def _json(value: object) -> str:
    if isinstance(value, Undefined):
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    _refuse_large(len(text))
    return text


@jinja2.pass_context
def _stepped(context: Context, values: Iterable[object]) -> Iterator[object]:
    """Count the steps of a loop."""
    meter = context.parent["_meter"]
    for value in values:
        meter.step()
        yield value


@jinja2.pass_context
def _concatenated(context: Context, values: Sequence[object]) -> str:
    """Join texts, as ``~`` does."""
    context.parent["_meter"].step()
    return _joined(values)


def is_template(text: str) -> bool:
    """Tell whether a text has places to be filled."""
    return any(mark in text for mark in _MARKS)


class Template:
    """A compiled template; ``names`` are those that it reads.

    Args:
        source: The template.

    Raises:
        TemplateError: It does not compile, or is made of more than templates may be.
    """

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE_LENGTH:
            raise TemplateError(
                f"expected at most {MAX_TEMPLATE_LENGTH} characters, but got {len(source)}"
            )
        try:
            tree = _ENVIRONMENT.parse(source)
            _check(tree)
            self.names = frozenset(meta.find_undeclared_variables(tree))
            if unknown := sorted(self.names - set(NAMES)):
                raise TemplateError(_unknown(unknown[0]))
            code = _ENVIRONMENT.compile(_bounded(tree))
            self._template = jinja2.Template.from_code(_ENVIRONMENT, code, {})
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"template line {error.lineno}: {error.message}") from None
        except (RecursionError, MemoryError, SyntaxError, OverflowError):
            raise TemplateError("expected a template that is nested less deeply") from None

    def render(self, values: Mapping[str, Any], budget: Budget) -> str:
        """Return the text.

        Raises:
            TemplateError: A value is not there or not what an operation takes, or it takes too
                many steps or characters.
            OverBudgetError: It takes too long.
        """
        parts, size = [], 0
        meter = _Meter(budget)
        try:
            context = self._template.new_context({**values, "_meter": meter})
            for part in self._template.root_render_func(context):
                meter.step()
                parts.append(part)
                size += len(part)
                _refuse_large(size)
        except (TemplateError, OverBudgetError):
            raise
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise TemplateError(str(error)[:256]) from None
        except (RecursionError, MemoryError, AttributeError) as error:
            raise TemplateError(type(error).__name__) from None
        return "".join(parts)


def _unknown(name: str) -> str:
    nearest = get_close_matches(name, NAMES, n=1)
    guess = f"did you mean {nearest[0]}? There are" if nearest else "there are"
    return f"there is no name '{name[:64]}'; {guess} {', '.join(NAMES)}"


def _check(tree: nodes.Template) -> None:
    """Refuse what templates may not be made of."""
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.Operand | nodes.Template):
            continue
        problem = ""
        if not isinstance(node, _ALLOWED) or (isinstance(node, nodes.For) and node.recursive):
            problem = f"expected no {type(node).__name__.lower()}"
        elif isinstance(node, nodes.Filter) and node.name not in (*_FILTERS, *_OWN):
            problem = f"there is no filter '{node.name}'; there are "
            problem += ", ".join(sorted({*_FILTERS, *_OWN}))
        elif isinstance(node, nodes.Test) and node.name not in _ENVIRONMENT.tests:
            problem = f"there is no test '{node.name}'"
        elif isinstance(node, nodes.Name) and (node.name.startswith("_") or node.name == "self"):
            problem = f"there is no name '{node.name[:64]}'"
        if problem:
            raise TemplateError(f"template line {node.lineno}: {problem}")


_OWN = ("replace", "join", "tojson")


def _bounded(tree: nodes.Template) -> nodes.Template:
    """Have loops and concatenations counted."""
    for loop in tree.find_all(nodes.For):
        loop.iter = _filtered(cast("nodes.Expr", loop.iter), "_stepped")
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for field, value in parent.iter_fields():
            if isinstance(value, nodes.Concat):
                setattr(parent, field, _joining(value))
            elif isinstance(value, list):
                value[:] = [_joining(v) if isinstance(v, nodes.Concat) else v for v in value]
    return tree


def _joining(concat: nodes.Concat) -> nodes.Filter:
    return _filtered(nodes.List(concat.nodes, lineno=concat.lineno), "_concatenated")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    bounded = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
    bounded.set_environment(_ENVIRONMENT)
    node.set_environment(_ENVIRONMENT)
    return bounded


_ENVIRONMENT = _Environment()


@lru_cache(4096)
def compiled(source: str) -> Template:
    """Return a template, compiled once in each process.

    Raises:
        TemplateError: It does not compile.
    """
    return Template(source)


Filled = Callable[[str], str]


def fill(value: object, render: Filled) -> Any:  # noqa: ANN401 - JSON
    """Return JSON whose texts are rendered, wherever they stand but in names."""
    match value:
        case str():
            return render(value)
        case list():
            return [fill(item, render) for item in value]
        case dict():
            return {name: fill(item, render) for name, item in value.items()}
        case _:
            return value
