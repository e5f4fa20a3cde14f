"""Terms of a user's own: a function or a class in an importable module, named
`module:attribute`."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, cast

import jax

from kdjax.config import ModelConfig, Schedule
from kdjax.errors import InputError, nearest
from kdjax.models.features import ATTENTION_FEATURES, FeatureRequest, Features
from kdjax.objectives import counts
from kdjax.objectives.base import Batch, FeatureNeeds, Params, Term
from kdjax.objectives.schedule import current, read

_COUNTS = {"slots": counts.slots, "valid": counts.valid, "sequences": counts.sequences}

Ask = Callable[[ModelConfig], FeatureRequest]
Init = Callable[[ModelConfig, ModelConfig | None, int], dict[str, Any]]


class TermFunction:
    """A function that `term` has made a term of; it can still be called as what it was."""

    def __init__(
        self,
        function: Callable[..., Any],
        student: Ask,
        teacher: Ask | None,
        count: str | None,
        params: Init | None,
    ):
        self.name: str = getattr(function, "__name__", repr(function))
        self.function = function
        self.student = student
        self.teacher = teacher
        self.count = count
        self.params = params
        self.__doc__ = function.__doc__
        signature = inspect.signature(function)
        keywords = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
        self.options = {p.name: p.default is not p.empty for p in keywords}
        try:
            signature.bind(*("student", "teacher", "batch", "params"), **self.options)
        except TypeError:
            raise InputError(
                f"{self.name}{signature}: expected (student, teacher, batch, params, *, options)"
            ) from None
        if count is not None and count not in _COUNTS:
            raise InputError(
                f"{self.name}: count is {count!r}, expected None or one of {', '.join(_COUNTS)}"
            )

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the function computes."""
        return self.function(*args, **options)


def term(
    *,
    student: Ask,
    teacher: Ask | None = None,
    count: str | None = None,
    params: Init | None = None,
) -> Callable[[Callable[..., Any]], TermFunction]:
    """Makes a term of a function `(student, teacher, batch, params, *, options) -> scalar`.

    The function is called with what any term is called with (`kdjax.objectives.base.Term`). It is
    traced, so it must be pure. Its keyword-only arguments are the term's options; one that a recipe
    gives as a schedule {shape, points} comes as its value at the moment.

    Args:
        student: which of the student's features it looks at, from the student's config.
        teacher: the same of the teacher; None: it looks at none.
        count: what its loss is a mean over: the masked `slots` by their weights, the `valid`
            positions, or the `sequences`, padding included. None: something else, and then a batch
            cannot be split.
        params: (student config, teacher config, seed) -> the parameters it learns, a dict of
            arrays. None: none.

    Raises:
        InputError: the function does not take these arguments, or an unknown count.
    """

    def decorate(function: Callable[..., Any]) -> TermFunction:
        return TermFunction(function, student, teacher, count, params)

    return decorate


@dataclass(frozen=True)
class CustomTerm(Term):
    """A term that a function computes.

    Attributes:
        function: the function.
        options: (name, value) of those that were given.
    """

    function: TermFunction
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.name

    @property
    def needs_teacher(self) -> bool:
        """Whether it asks for features of a teacher."""
        return self.function.teacher is not None

    @property
    def temperature(self) -> float | Schedule:
        """Its option of this name, if it has one."""
        given: float | Schedule = dict(self.options).get("temperature", 1.0)
        return given

    @property
    def scheduled(self) -> bool:
        """Whether an option changes over the budget."""
        return any(isinstance(option, Schedule) for _, option in self.options)

    def needs(self, student: ModelConfig, teacher: ModelConfig | None) -> FeatureNeeds:
        """What the function was declared to look at.

        Raises:
            InputError: no teacher where one is needed, or a layer that is not there.
        """
        own = self._request(self.function.student, student, "student")
        if self.function.teacher is None:
            return FeatureNeeds(own, FeatureRequest())
        if teacher is None:
            raise InputError(f"{self.name}: found no teacher, expected one to learn from")
        return FeatureNeeds(own, self._request(self.function.teacher, teacher, "teacher"))

    def init(self, student: ModelConfig, teacher: ModelConfig | None, seed: int) -> dict[str, Any]:
        """What the function was declared to learn."""
        return {} if self.function.params is None else self.function.params(student, teacher, seed)

    def count(self, batch: Batch) -> jax.Array | None:
        """What the function's loss was declared to be a mean over."""
        return None if self.function.count is None else _COUNTS[self.function.count](batch)

    def _loss(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        options = {
            name: current(option, batch) if isinstance(option, Schedule) else option
            for name, option in self.options
        }
        try:
            return cast(jax.Array, self.function(student, teacher, batch, params, **options))
        except InputError:
            raise
        # Whatever is wrong with a user's function is for its user to see in a line
        except Exception as e:
            raise InputError(
                f"{self.name}: {_where(e, self.function.function)}{type(e).__name__}: {e}"[:500]
            ) from e

    def _request(self, ask: Ask, config: ModelConfig, whose: str) -> FeatureRequest:
        try:
            request = ask(config)
        except InputError as e:
            raise InputError(f"{self.name}: {e}") from None
        if not isinstance(request, FeatureRequest):
            raise InputError(f"{self.name}: asks the {whose} for {request!r}, expected a Request")
        for kind in (*ATTENTION_FEATURES, "hidden"):
            lowest = 0 if kind == "hidden" else 1
            for layer in getattr(request, kind):
                if not lowest <= layer <= config.layers:
                    raise InputError(
                        f"{self.name}: asks for {kind} of {whose} layer {layer}, expected "
                        f"{lowest} to {config.layers}"
                    )
        return request


def _where(error: Exception, function: Callable[..., Any]) -> str:
    """The line of a function's file at which an error came up: `FILE, line N: `."""
    file = inspect.getsourcefile(function)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    return f"{file}, line {lines[-1]}: " if lines else ""


Kind = type[Term] | TermFunction
"""What terms are made of by their options."""


def options_of(kind: Kind) -> dict[str, bool]:
    """The options of a term, and whether each may be left out."""
    if isinstance(kind, TermFunction):
        return kind.options
    found = fields(cast(Any, kind))
    return {
        f.name: f.default is not MISSING or f.default_factory is not MISSING
        for f in found
        if f.init
    }


def make(kind: Kind, options: Mapping[str, Any]) -> Term:
    """The term with these options.

    Raises:
        InputError: a value the option cannot take.
    """
    if isinstance(kind, TermFunction):
        return CustomTerm(
            kind, tuple((name, _hashable(name, value)) for name, value in sorted(options.items()))
        )
    return kind(**options)


def find(name: str) -> Kind:
    """What `module:attribute` names; the module is imported, which runs it.

    Raises:
        InputError: no such module, one that cannot be imported, no such attribute, or one that is
            no term.
    """
    path, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in path.split(".")):
        raise InputError(f"{name}: not a term's name, expected MODULE:NAME")
    try:
        module = importlib.import_module(path)
    except (Exception, SystemExit) as e:
        if (
            isinstance(e, ModuleNotFoundError)
            and e.name is not None
            and f"{path}.".startswith(f"{e.name}.")
        ):
            raise InputError(
                f"{name}: found no module {e.name!r}, expected one on Python's path (PYTHONPATH)"
            ) from None
        raise InputError(f"{name}: importing {path} failed: {type(e).__name__}: {e}") from None
    if not hasattr(module, attribute):
        terms = [other for other, found in vars(module).items() if isinstance(found, TermFunction)]
        raise InputError(f"{name}: {path} has no {attribute!r}{nearest(attribute, terms)}")
    found = getattr(module, attribute)
    if isinstance(found, TermFunction):
        return found
    if not (isinstance(found, type) and issubclass(found, Term)):
        raise InputError(
            f"{name}: found a {type(found).__name__}, expected a function decorated with "
            "kdjax.objectives.term or a "
            "subclass of Term"
        )
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise InputError(
            f"{name}: a Term without {', '.join(missing)}, expected them to be defined"
        )
    if not is_dataclass(found) or not cast(Any, found).__dataclass_params__.frozen:
        raise InputError(f"{name}: a Term that is no frozen dataclass, expected one")
    return found


def _hashable(name: str, value: Any) -> Any:
    """An option's value as something that can be compared and hashed; a mapping is a schedule.

    Raises:
        InputError: a mapping that is no schedule.
    """
    if isinstance(value, Mapping):
        return read(value, name)
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(name, item) for item in value)
    return value
