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
from typing_extensions import override

from kdjax.config import ModelConfig, Schedule
from kdjax.errors import InputError, nearest
from kdjax.models.features import ATTENTION_FEATURES, Batch, FeatureRequest, Features
from kdjax.objectives import normalizers
from kdjax.objectives.base import FeatureNeeds, Params, Term
from kdjax.objectives.schedule import read_schedule, value_at_step

_NORMALIZERS = {
    "slots": normalizers.masked_slots,
    "valid": normalizers.valid_positions,
    "sequences": normalizers.sequences,
}

Ask = Callable[[ModelConfig], FeatureRequest]
Init = Callable[[ModelConfig, ModelConfig | None, int], dict[str, Any]]


class TermFunction:
    """A function that `term` declares to be a term; it can be called as before.

    Attributes:
        options: the names of its keyword-only arguments -> whether each may be left out.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        student: Ask,
        teacher: Ask | None,
        normalizer: str | None,
        params: Init | None,
    ):
        self.name: str = getattr(function, "__name__", repr(function))
        self.function = function
        self.student = student
        self.teacher = teacher
        self.normalizer = normalizer
        self.params = params
        self.__doc__ = function.__doc__
        signature = inspect.signature(function)
        self.options = {
            parameter.name: parameter.default is not parameter.empty
            for parameter in signature.parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        # Whether it takes what a term is called with; the values do not matter.
        try:
            signature.bind("student", "teacher", "batch", "params", **self.options)
        except TypeError:
            raise InputError(
                f"{self.name}{signature}: expected (student, teacher, batch, params, *, options)"
            ) from None
        if normalizer is not None and normalizer not in _NORMALIZERS:
            raise InputError(
                f"{self.name}: normalizer is {normalizer!r}, expected None or one of "
                f"{', '.join(_NORMALIZERS)}"
            )

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self.function(*args, **options)


def term(
    *,
    student: Ask,
    teacher: Ask | None = None,
    normalizer: str | None = None,
    params: Init | None = None,
) -> Callable[[Callable[..., Any]], TermFunction]:
    """Declare a function to be a term: `(student, teacher, batch, params, *, options) -> scalar`.

    The function is called with what any term is called with (`kdjax.objectives.base.Term`). It is
    traced, so it must be pure. Its keyword-only arguments are the term's options; one that a recipe
    gives as a schedule {shape, points} comes as its value at the step.

    Args:
        student: function of the student's config to the student's features that the term looks at.
        teacher: function of the teacher's config to the teacher's features that the term looks at;
            None: it looks at none.
        normalizer: divisor of the loss, a mean: the masked `slots` by their weights, the `valid`
            positions, or the `sequences`, padding included. None: something else, and then a batch
            cannot be split.
        params: (student config, teacher config, seed) -> the parameters it learns, a dict of
            arrays. None: none.

    Raises:
        InputError: the function does not take these arguments, or an unknown normalizer.
    """

    def decorate(function: Callable[..., Any]) -> TermFunction:
        return TermFunction(function, student, teacher, normalizer, params)

    return decorate


@dataclass(frozen=True)
class CustomTerm(Term):
    """A term that a function computes.

    Attributes:
        function: function that `term` declared to be a term.
        options: (name, value) of the options that a recipe sets.
    """

    function: TermFunction
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Return the function's name."""
        return self.function.name

    @property
    def needs_teacher(self) -> bool:
        """Return whether it asks for features of a teacher."""
        return self.function.teacher is not None

    @property
    def temperature(self) -> float | Schedule:
        """Return the option of this name, if the function has one, or 1."""
        temperature: float | Schedule = dict(self.options).get("temperature", 1.0)
        return temperature

    @property
    def scheduled(self) -> bool:
        """Return whether an option changes over the budget."""
        return any(isinstance(option, Schedule) for _, option in self.options)

    def needs(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None
    ) -> FeatureNeeds:
        """Return the features that the function is declared to look at.

        Raises:
            InputError: no teacher where one is needed, or a layer that is not there.
        """
        student_request = self._request(self.function.student, student_config, "student")
        if self.function.teacher is None:
            return FeatureNeeds(student_request, FeatureRequest())
        if teacher_config is None:
            raise InputError(f"{self.name}: found no teacher, expected one to learn from")
        teacher_request = self._request(self.function.teacher, teacher_config, "teacher")
        return FeatureNeeds(student_request, teacher_request)

    def init(
        self, student_config: ModelConfig, teacher_config: ModelConfig | None, seed: int
    ) -> dict[str, Any]:
        """Return the parameters that the function is declared to learn."""
        if self.function.params is None:
            return {}
        return self.function.params(student_config, teacher_config, seed)

    def normalizer(self, batch: Batch) -> jax.Array | None:
        """Return the number that the function's loss is declared to be divided by."""
        if self.function.normalizer is None:
            return None
        return _NORMALIZERS[self.function.normalizer](batch)

    @override
    def __call__(
        self, student: Features, teacher: Features, batch: Batch, params: Params
    ) -> jax.Array:
        # Schedules become their values at this step.
        options = dict(self.options)
        for name, option in self.options:
            if isinstance(option, Schedule):
                options[name] = value_at_step(option, batch)
        try:
            return cast(jax.Array, self.function(student, teacher, batch, params, **options))
        except InputError:
            raise
        # Whatever is wrong with a user's function is for its user to see in a line.
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
            raise InputError(
                f"{self.name}: asks the {whose} for {request!r}, expected a FeatureRequest"
            )
        # Layers are checked here, where the message can name the term.
        for kind in (*ATTENTION_FEATURES, "hidden"):
            lowest = 0 if kind == "hidden" else 1
            for layer in getattr(request, kind):
                if not lowest <= layer <= config.layers:
                    raise InputError(
                        f"{self.name}: asks for {kind} of {whose} layer {layer}, expected {lowest} "
                        f"to {config.layers}"
                    )
        return request


def _where(error: Exception, function: Callable[..., Any]) -> str:
    """Return the line of a function's file that raised an error, `FILE, line N: `, or nothing."""
    file = inspect.getsourcefile(function)
    # The innermost frame in the user's file.
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == file:
            return f"{file}, line {frame.lineno}: "
    return ""


Kind = type[Term] | TermFunction
"""A class or a function that gives a term for some options."""


def options_of(kind: Kind) -> dict[str, bool]:
    """Return the options of a term, and whether each may be left out."""
    if isinstance(kind, TermFunction):
        return kind.options
    return {
        field.name: field.default is not MISSING or field.default_factory is not MISSING
        for field in fields(cast(Any, kind))
        if field.init
    }


def make(kind: Kind, options: Mapping[str, Any]) -> Term:
    """Return the term with these options.

    Raises:
        InputError: a value the option cannot take.
    """
    if not isinstance(kind, TermFunction):
        return kind(**options)
    # In the order of their names, so that terms of equal options are equal.
    hashable = [(name, _hashable(name, options[name])) for name in sorted(options)]
    return CustomTerm(kind, tuple(hashable))


def find(name: str) -> Kind:
    """Import a module and find what `module:attribute` names in it.

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
        # A missing module is this one or a package it is in; another is one that it imports.
        missing = isinstance(e, ModuleNotFoundError) and e.name
        if missing and f"{path}.".startswith(f"{missing}."):
            raise InputError(
                f"{name}: found no module {missing!r}, expected one on Python's path (PYTHONPATH)"
            ) from None
        raise InputError(f"{name}: importing {path} failed: {type(e).__name__}: {e}") from None
    if not hasattr(module, attribute):
        terms = [other for other, value in vars(module).items() if isinstance(value, TermFunction)]
        raise InputError(f"{name}: {path} has no {attribute!r}{nearest(attribute, terms)}")
    kind = getattr(module, attribute)
    if isinstance(kind, TermFunction):
        return kind
    if not (isinstance(kind, type) and issubclass(kind, Term)):
        raise InputError(
            f"{name}: found a {type(kind).__name__}, expected a function decorated with "
            "kdjax.objectives.term or a subclass of Term"
        )
    undefined = sorted(getattr(kind, "__abstractmethods__", ()))
    if undefined:
        raise InputError(
            f"{name}: a Term without {', '.join(undefined)}, expected them to be defined"
        )
    if not is_dataclass(kind) or not cast(Any, kind).__dataclass_params__.frozen:
        raise InputError(f"{name}: a Term that is no frozen dataclass, expected one")
    return kind


def _hashable(name: str, value: Any) -> Any:
    """Return an option's value as something that can be hashed; a mapping is a schedule.

    Raises:
        InputError: a mapping that is no schedule.
    """
    if isinstance(value, Mapping):
        return read_schedule(value, name)
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(name, item) for item in value)
    return value
