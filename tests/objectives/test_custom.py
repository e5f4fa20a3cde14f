"""Terms of a user's own: from a module on Python's path, by `module:attribute`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdjax.config import ArmConfig, OptimizerConfig, Schedule, TermConfig
from kdjax.errors import InputError
from kdjax.objectives import FeatureNeeds, FeatureRequest, Features, get
from kdjax.objectives.objective import Objective
from kdjax.training.arm import resolve
from kdjax.training.phase_price import price
from tests.objectives.examples import STUDENT, TEACHER, features, packed
from tests.support import tiny

OWN = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from kdjax.objectives import FeatureNeeds, FeatureRequest, Term, term


def last(config):
    return FeatureRequest(hidden=frozenset({config.layers}))


@term(student=last, teacher=last, normalizer="valid")
def last_hidden_l1(student, teacher, batch, params, *, scale: float = 1.0):
    """The mean absolute difference of the last hidden states."""
    difference = student.hidden[max(student.hidden)] - teacher.hidden[max(teacher.hidden)]
    distance = jnp.abs(difference).mean(-1)
    return scale * jnp.where(batch["valid"], distance, 0).sum() / batch["valid"].sum()


def make(student, teacher, seed):
    return {"shift": jnp.full(student.width, float(seed))}


@term(student=last, params=make)
def shifted(student, teacher, batch, params, *, shape=(1, 2)):
    return jnp.sum((student.hidden[max(student.hidden)] + params["shift"]) ** 2)


@term(student=lambda config: FeatureRequest(logits=True), normalizer="slots")
def strict(student, teacher, batch, params, *, power):
    return jnp.mean(student.logits.astype(jnp.bfloat16)) ** power


@term(student=last, normalizer="sequences")
def vector(student, teacher, batch, params):
    return student.hidden[max(student.hidden)].sum((1, 2))


@term(student=last)
def nothing(student, teacher, batch, params):
    return None


@term(student=lambda config: FeatureRequest(hidden=frozenset({config.layers + 1})))
def too_deep(student, teacher, batch, params):
    return 0.0


@term(student=lambda config: {1, 2})
def no_request(student, teacher, batch, params):
    return 0.0


@dataclass(frozen=True)
class Constant(Term):
    name: ClassVar[str] = "constant"
    size: float = 2.0

    def needs(self, student, teacher):
        return FeatureNeeds(FeatureRequest(), FeatureRequest())

    def __call__(self, student, teacher, batch, params):
        return self.size


class Loose(Constant.__mro__[1]):
    name: ClassVar[str] = "loose"

    def needs(self, student, teacher):
        return FeatureNeeds(FeatureRequest(), FeatureRequest())

    def __call__(self, student, teacher, batch, params):
        return 0.0


@dataclass(frozen=True)
class Unfinished(Term):
    name: ClassVar[str] = "unfinished"


def undecorated(student, teacher, batch, params):
    return 0.0


NUMBER = 3
'''

BROKEN = {
    "raises": "1 / 0\n",
    "wants_another": "import a_package_nobody_has\n",
    "leaves": "raise SystemExit('bye')\n",
    "takes_three": (
        "from kdjax.objectives import term\n@term(student=None)\ndef f(student, teacher, batch): "
        "...\n"
    ),
    "miscounts": (
        "from kdjax.objectives import term\n"
        "@term(student=None, normalizer='row')\n"
        "def f(a, b, c, d): ...\n"
    ),
}


@pytest.fixture(scope="module")
def terms_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a module that is on Python's path."""
    directory: Path = tmp_path_factory.mktemp("own")
    for name, text in {"own_terms": OWN, **BROKEN}.items():
        (directory / f"{name}.py").write_text(text)
    (directory / "own_package").mkdir()
    (directory / "own_package" / "inner.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        # Python finds the modules only while the tests of this file run.
        patch.syspath_prepend(directory)
        yield "own_terms"
    # Another file's terms may have the same names and must be imported anew.
    for name in ("own_terms", "own_package", "own_package.inner", *BROKEN):
        sys.modules.pop(name, None)


def absolute_difference(batch: dict[str, np.ndarray]) -> float:
    student = features(STUDENT, batch, 1)
    teacher = features(TEACHER, batch, 2)
    distance = np.abs(np.asarray(student.hidden[2]) - np.asarray(teacher.hidden[4]))
    return float(distance[batch["valid"]].mean())


@pytest.fixture
def example(float64: None) -> tuple[Any, Any, dict[str, np.ndarray]]:
    batch = packed()
    return features(STUDENT, batch, 1), features(TEACHER, batch, 2), batch


@pytest.mark.parametrize("call", [lambda f: f, jax.jit], ids=["plain", "jitted"])
def test_custom_term_computes_what_its_function_does(
    terms_module: str, example: Any, call: Callable[..., Any]
) -> None:
    # The function's value is computed in NumPy, from the same features.
    expected = absolute_difference(example[2])
    term = get(f"{terms_module}:last_hidden_l1")
    scaled = get(f"{terms_module}:last_hidden_l1", scale=2.5)
    assert call(term)(*example, {}) == pytest.approx(expected, rel=1e-12)
    assert call(scaled)(*example, {}) == pytest.approx(2.5 * expected, rel=1e-12)


def test_function_declared_a_term_can_still_be_called(terms_module: str, example: Any) -> None:
    own_terms = importlib.import_module(terms_module)

    assert own_terms.last_hidden_l1(*example, {}, scale=2.0) == pytest.approx(
        2 * absolute_difference(example[2])
    )
    assert "absolute difference" in own_terms.last_hidden_l1.__doc__


def test_custom_term_declares_its_needs_and_its_normalizer(terms_module: str, example: Any) -> None:
    term = get(f"{terms_module}:last_hidden_l1")
    batch = example[2]
    # The function's name and the layers it names decide what the forward passes hand out.
    assert term.name == "last_hidden_l1"
    assert term.needs(STUDENT, TEACHER) == FeatureNeeds(
        FeatureRequest(hidden=frozenset({STUDENT.layers})),
        FeatureRequest(hidden=frozenset({TEACHER.layers})),
    )
    assert term.needs_teacher
    assert term.init(STUDENT, TEACHER, 0) == {}
    # Of three sequences, 16 tokens are valid and 8 slots used.
    assert term.normalizer(batch) == 16
    # Without a request of the teacher there is none, and none is missed.
    alone = get(f"{terms_module}:strict", power=1)
    assert not alone.needs_teacher
    assert alone.needs(STUDENT, None) == FeatureNeeds(FeatureRequest(logits=True), FeatureRequest())
    assert alone.normalizer(batch) == 8
    assert get(f"{terms_module}:vector").normalizer(batch) == 3
    assert get(f"{terms_module}:shifted").normalizer(batch) is None
    # A request of the teacher is no option of the arm: without a teacher it is an error.
    with pytest.raises(InputError, match="last_hidden_l1: found no teacher, expected one"):
        term.needs(STUDENT, None)


def test_custom_term_is_frozen_and_equals_another_of_the_same_options(terms_module: str) -> None:
    first = get(f"{terms_module}:shifted", shape=[3, [4]])
    second = get(f"{terms_module}:shifted", shape=(3, (4,)))
    # Lists of a recipe and tuples of Python are the same option.
    assert first == second
    assert hash(first) == hash(second)
    assert first != get(f"{terms_module}:shifted")
    with pytest.raises(AttributeError):
        first.options = ()


def test_custom_term_learns_its_parameters(terms_module: str, example: Any) -> None:
    student, _, batch = example
    objective = Objective((("shifted", 2.0, get(f"{terms_module}:shifted")),))
    params = objective.init(STUDENT, None, seed=3)
    # The seed reaches the user's function, which fills the vector with it.
    assert np.array_equal(params["shifted"]["shift"], np.full(8, 3.0))
    # The weight of 2 and the square's own 2 make 4.
    grads, _ = jax.grad(lambda p: objective(student, student, batch, p), has_aux=True)(params)
    np.testing.assert_allclose(
        grads["shifted"]["shift"], 4 * (np.asarray(student.hidden[2]) + 3).sum((0, 1)), rtol=1e-12
    )


def test_custom_terms_option_may_be_a_schedule(terms_module: str, example: Any) -> None:
    term = get(
        f"{terms_module}:last_hidden_l1", scale={"shape": "linear", "points": [[0, 1], [1, 3]]}
    )
    # One schedule makes the whole term scheduled; a number does not.
    assert term.scheduled
    assert not get(f"{terms_module}:last_hidden_l1", scale=2).scheduled
    # A recipe's mapping and a schedule object are one option, and compile once.
    assert hash(term) == hash(
        get(f"{terms_module}:last_hidden_l1", scale=Schedule("linear", ((0.0, 1.0), (1.0, 3.0))))
    )
    # At three quarters the scale is 1 + 2 · 0.75.
    total, _ = Objective((("mine", 1.0, term),))(*example, {}, 0.75)
    assert float(total) == pytest.approx(2.5 * absolute_difference(example[2]))


def test_custom_loss_in_bfloat16_becomes_float32(terms_module: str, example: Any) -> None:
    objective = Objective((("mine", 1.0, get(f"{terms_module}:strict", power=1)),))
    total, terms = objective(*example, {})
    assert total.dtype == np.float32
    assert terms["mine"].dtype == np.float32


def test_class_of_a_users_own_is_a_term(terms_module: str, example: Any) -> None:
    assert get(f"{terms_module}:Constant")(*example, {}) == 2
    assert get("own_package.inner:Constant", size=3)(*example, {}) == 3


@pytest.mark.parametrize(
    ("attribute", "complaint"),
    [
        ("vector", "vector: its loss has the shape (3,), expected a scalar"),
        ("nothing", "nothing: its loss is a NoneType, expected a scalar"),
    ],
)
def test_custom_loss_that_is_no_scalar_is_refused_while_it_is_traced(
    terms_module: str, example: Any, attribute: str, complaint: str
) -> None:
    objective = Objective((("mine", 1.0, get(f"{terms_module}:{attribute}")),))
    with pytest.raises(InputError) as e:
        jax.eval_shape(objective, *example, {})
    assert str(e.value) == complaint


@pytest.mark.parametrize(
    ("attribute", "complaint"),
    [
        ("too_deep", "^too_deep: asks for hidden of student layer 3, expected 0 to 2$"),
        ("no_request", "^no_request: asks the student for {1, 2}, expected a FeatureRequest$"),
    ],
)
def test_custom_term_cannot_request_layers_that_are_not_there(
    terms_module: str, attribute: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        get(f"{terms_module}:{attribute}").needs(STUDENT, TEACHER)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        (
            "no_such_module:f",
            {},
            "^no_such_module:f: found no module 'no_such_module', expected one on Python's path",
        ),
        ("own_package.absent:f", {}, "found no module 'own_package.absent'"),
        (
            "own_terms:last_hiden_l1",
            {},
            "own_terms has no 'last_hiden_l1' .did you mean 'last_hidden_l1'",
        ),
        (
            "own_terms:NUMBER",
            {},
            "found a int, expected a function decorated with kdjax.objectives.term or a subclass",
        ),
        ("own_terms:undecorated", {}, "found a function, expected a function decorated with"),
        ("own_terms:FeatureNeeds", {}, "found a type, expected"),
        ("own_terms:Unfinished", {}, "a Term without __call__, needs, expected them"),
        ("own_terms:Loose", {}, "a Term that is no frozen dataclass"),
        ("own_terms:", {}, "not a term's name, expected MODULE:NAME"),
        (":f", {}, "not a term's name"),
        (".own_terms:f", {}, "not a term's name"),
        ("own_terms:a:b", {}, "not a term's name"),
        (
            "raises:f",
            {},
            "^raises:f: importing raises failed: ZeroDivisionError: division by zero$",
        ),
        (
            "wants_another:f",
            {},
            "importing wants_another failed: ModuleNotFoundError: .*a_package_nobody_has",
        ),
        ("leaves:f", {}, "importing leaves failed: SystemExit: bye"),
        (
            "takes_three:f",
            {},
            r"f\(student, teacher, batch\): expected \(student, teacher, batch, params, \*",
        ),
        (
            "miscounts:f",
            {},
            "f: normalizer is 'row', expected None or one of slots, valid, sequences",
        ),
        (
            "own_terms:last_hidden_l1",
            {"scal": 2},
            "unknown option 'scal' of variant original .did you mean 'scale'",
        ),
        (
            "own_terms:Constant",
            {"sise": 2},
            "unknown option 'sise' of variant original .did you mean 'size'",
        ),
        (
            "own_terms:vector",
            {"scale": 2},
            "unknown option 'scale' of variant original .it has none",
        ),
        (
            "own_terms:strict",
            {},
            "own_terms:strict: found no option 'power', expected one: it has no default",
        ),
        (
            "own_terms:last_hidden_l1",
            {"scale": {"a": 1}},
            "last_hidden_l1: scale: unknown setting 'a' of a schedule",
        ),
    ],
)
def test_find_of_what_is_no_term_is_refused(
    terms_module: str, name: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as e:
        get(name, **options)
    # The message begins with the term as the recipe names it, and fits one line.
    assert str(e.value).startswith(f"{name}: ")
    assert "\n" not in str(e.value)


def test_custom_term_has_one_variant(terms_module: str) -> None:
    with pytest.raises(
        InputError, match=r"own_terms:vector: unknown variant 'bui2024' \(valid: original\)"
    ):
        get(f"{terms_module}:vector", "bui2024")


TROUBLE = """
from kdjax.objectives import FeatureRequest, term
import jax
import jax.numpy as jnp

@term(student=lambda c: FeatureRequest(hidden=frozenset({1})))
def misfit(student, teacher, batch, params):
    return jnp.sum(student.hidden[1] @ jnp.ones((3, 3)))

@term(student=lambda c: FeatureRequest(hidden=frozenset({1})))
def looping(student, teacher, batch, params):
    return jax.lax.scan(lambda total, row: (total + jnp.sum(row), None), 0.0, student.hidden[1])[0]
"""


def test_error_in_a_custom_function_is_one_line_that_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_terms.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(tmp_path)
    batch = packed()
    with pytest.raises(
        InputError, match=r"misfit: .*broken_terms.py, line 8: TypeError: .*dot_general"
    ) as e:
        get("broken_terms:misfit")(features(STUDENT, batch, 1, np.float32), Features(), batch, {})
    # The cause stays for those who want the whole traceback.
    assert "\n" not in str(e.value)
    assert isinstance(e.value.__cause__, TypeError)


def test_custom_term_with_a_loop_has_no_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "looping_terms.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(tmp_path)
    # A program with a loop cannot be counted from its jaxpr, so the arm is refused before it runs.
    config = ArmConfig(terms=(TermConfig("looping_terms:looping"),))
    (phase,) = resolve("mine", config, tiny.STUDENT, tiny.TEACHER, OptimizerConfig()).phases
    with pytest.raises(InputError, match=r"arms.mine: the program holds `scan`"):
        price(phase, tiny.SHAPE)
