"""The documentation: its examples run, its figures are the code's, its links have targets."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import kdjax
from kdjax import objectives, recipes
from kdjax.arms.recipe_arms import arms_of
from kdjax.cli import command_line
from kdjax.cli.command_line import PAPER
from kdjax.config import (
    ArmConfig,
    Config,
    ContaminationConfig,
    ContrastConfig,
    EvaluationConfig,
    FinetuneConfig,
    MarginsConfig,
    MinimalPairsConfig,
    MlmProbeConfig,
    ProbeConfig,
    TaskConfig,
    TermConfig,
)
from kdjax.config.values import RENAMED
from kdjax.dry_run import named_arms
from kdjax.dry_run.recipe_prices import prices
from kdjax.errors import InputError
from kdjax.models.features import Features
from kdjax.objectives import custom
from kdjax.objectives.presets import PRESETS
from kdjax.study.study_plan import StudyPlan

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))
OBJECTIVES = ROOT / "docs" / "objectives"
OWN = OBJECTIVES / "own-terms.md"
LARGE = 1e18
"""A budget that affords some steps of anything, in FLOPs."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def rows(page: Path) -> list[list[str]]:
    """Return the cells of all tables' rows, code as it is."""
    # A row begins and ends with a bar; separators have no spaces.
    table_rows = []
    for line in re.findall(r"^\| (.*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE):
        table_rows.append([cell.strip() for cell in line.split("|")])
    return table_rows


def former_settings(text: str) -> list[str]:
    """Return former names of settings that a text uses as names of settings."""
    former = "|".join(RENAMED)
    sections = "|".join(field.name for field in fields(Config))
    # With its section, as a line of a recipe, and in a table of a section's settings.
    found = re.findall(rf"\b(?:{sections})\.(?:\w+\.)*(?:{former})\b", text)
    found += re.findall(rf"`(?:{former}): [^`]*`", text)
    section = ""
    for line in text.splitlines():
        first_cell = re.match(r"\| `([\w.]+)`", line)
        if not line.startswith("|"):
            section = ""
        elif first_cell and first_cell[1].endswith("."):
            section = first_cell[1]
        elif first_cell and section and first_cell[1] in RENAMED:
            found.append(section + first_cell[1])
    # These two are also words of the package: an argument of terms, and masked positions.
    settings_only = "|".join(RENAMED.keys() - {"batch", "slots"})
    found += re.findall(rf"`(?:{settings_only})\b[^`(]*`", text)
    return found


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def command_lines(text: str) -> list[list[str]]:
    """Return the words after `kdjax` of each command of a page's blocks, or of a recipe's header,
    that names a recipe of the project."""
    lines = re.findall(
        r"^(?:#   )?kdjax (\w+ configs/.*)$", text.replace("\\\n", " "), re.MULTILINE
    )
    # In a header two spaces end the command, and a remark follows.
    return [shlex.split(re.split(r"\s{2,}(?=[A-Za-z])", line)[0]) for line in lines]


def recipe(text: str, directory: Path) -> Config:
    path = directory / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return recipes.load(path)


def priced_terms() -> Iterator[tuple[Path, str, str, str]]:
    """Yield page, term, price alone and price beside `mlm` of the objectives' price tables."""
    for page in sorted(OBJECTIVES.glob("*.md")):
        for cells in rows(page):
            if cells[0].startswith("`{name:"):
                yield page, code(cells[0])[0], cells[1], cells[2]


def paper(terms: list[dict[str, Any]]) -> Config:
    """Return the paper's recipe with one arm of some terms."""
    arm = ArmConfig(terms=tuple(TermConfig(**term) for term in terms))
    return replace(PAPER, arms={"x": arm}, budget=replace(PAPER.budget, flops=LARGE))


def shallow(config: Config) -> Config:
    """Return a recipe with models of two and four layers, which are traced sooner than the
    paper's."""
    architecture = replace(config.teacher.architecture, layers=4)
    teacher = replace(config.teacher, architecture=architecture)
    return replace(config, student=replace(config.student, layers=2), teacher=teacher)


def arms_in_table() -> dict[str, list[str]]:
    """Return each named arm's price and what gets no gradient, as documented."""
    arms = {}
    # Rows of the table of arms have a price of three decimals.
    for cells in rows(OBJECTIVES / "README.md"):
        if re.fullmatch(r"\d\.\d{3}", cells[1]):
            arms[code(cells[0])[0]] = cells[1:]
    return arms


def priced(config: Config) -> dict[str, Any]:
    """Return the price of the only arm's only phase."""
    (phases,) = prices(config).values()
    assert len(phases) == 1
    return phases[0]


@pytest.fixture(scope="module")
def named() -> dict[str, dict[str, Any]]:
    """Some named arms as `kdjax arms` lists them."""
    # All arms would take a minute; two stand for them.
    with pytest.MonkeyPatch.context() as monkeypatch:
        some = ("scratch", "logit")
        monkeypatch.setattr(named_arms, "PRESETS", {name: PRESETS[name] for name in some})
        return named_arms.named_arms(PAPER)


@pytest.fixture
def own_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the documentation's own term, on Python's path."""
    (source,) = blocks(OWN, "python")
    (tmp_path / "my_terms.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("my_terms")
    del sys.modules["my_terms"]


def test_library_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    exec("\n".join(blocks(ROOT / "docs" / "library.md", "python")), {})
    cost, shapes, loss = capsys.readouterr().out.splitlines()
    # The examples print a price, shapes and a loss.
    assert "FLOPs" in cost
    assert shapes == "(1, 6, 128) (1, 2, 6, 6)"
    assert float(loss) > 0


def test_program_of_the_readme_calls_functions_as_they_are() -> None:
    (program,) = blocks(README, "python")
    called = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            named = {str(keyword.arg): None for keyword in node.keywords}
            member = functools.reduce(getattr, function.split(".")[1:], kdjax)
            # Raises where an argument is missing or has no place.
            inspect.signature(member).bind(*node.args, **named)
            called.add(function)
    assert called >= {"kdjax.arm", "kdjax.price", "kdjax.train", "kdjax.save"}


def test_example_of_statistics_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks(ROOT / "docs" / "statistics.md", "python")
    exec(block, {})
    expected = re.findall(r"^print\(.*\)\s+# (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_round_trips_through_yaml(path: Path, tmp_path: Path) -> None:
    loaded = recipes.load(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipes.dump(loaded), encoding="utf-8")
    assert recipes.load(copy) == loaded


def test_budgets_worked_out_in_the_paper_page_are_right() -> None:
    (block,) = blocks(ROOT / "docs" / "paper.md", "python")
    exec(block, {})


@pytest.mark.parametrize(
    "page",
    [
        ROOT / "docs" / "paper.md",
        ROOT / "docs" / "studies.md",
        *sorted((ROOT / "configs" / "paper").glob("*.yaml")),
        *sorted((ROOT / "configs" / "studies").glob("*.yaml")),
    ],
    ids=lambda page: page.name,
)
def test_commands_of_the_papers_and_the_studies_pages_can_be_given(page: Path) -> None:
    commands = command_lines(page.read_text(encoding="utf-8"))
    assert commands
    for words in commands:
        _, options = command_line.read(words)
        assert arms_of(options.config)


def test_overrides_of_the_paper_page_are_the_scripts_differences() -> None:
    commands = command_lines((ROOT / "docs" / "paper.md").read_text(encoding="utf-8"))
    as_run = [command_line.read(words)[1].config for words in commands if "--seeds" in words]
    assert len(as_run) == 2
    for config in as_run:
        arms = arms_of(config)
        assert {name: arm.config.preset for name, arm in arms.items()} == {
            name: f"paper_as_run_{name}" for name in ("scratch", "logit", "tinybert", "minilm")
        }
        biases = {name: arm.phases[0].student_config.decoder_bias for name, arm in arms.items()}
        assert biases == {"scratch": False, "logit": True, "tinybert": True, "minilm": True}
        assert (config.data.packing, config.data.mask_copies) == ("none", 10)
    warmups = [arms_of(config)["logit"].phases[0].optimizer.warmup for config in as_run]
    assert warmups == [0.06, 0.12]


@pytest.mark.parametrize(
    "page", ["mlm-and-logits", "attention", "hidden-states", "relations", "pearson"]
)
def test_worked_equations_equal_the_terms(page: str) -> None:
    (block,) = blocks(OBJECTIVES / f"{page}.md", "python")
    assert block.count("assert_allclose(") >= 2
    exec(block, {})


@pytest.mark.usefixtures("own_terms")
def test_each_recipe_in_the_docs_resolves(tmp_path: Path) -> None:
    pages_with_recipes = set()
    for page in (README, *PAGES):
        for block in blocks(page, "yaml"):
            # Resolving an arm needs its terms, which are on the path here.
            assert arms_of(recipe(block, tmp_path))
            pages_with_recipes.add(page.stem)
    assert pages_with_recipes >= {"README", "arms", "own-terms", "stored-outputs"}


def test_each_recipe_in_the_docs_says_whether_it_is_whole(tmp_path: Path) -> None:
    whole = 0
    for page in (README, *PAGES):
        for block in blocks(page, "yaml"):
            head, _, _ = block.partition("\n")
            sections = ", ".join(yaml.safe_load(block))
            assert head in ("# a whole recipe", f"# part of a recipe: {sections}"), page.stem
            if head == "# a whole recipe":
                whole += 1
                config = recipe(block, tmp_path)
                # Nothing that a study needs is left to a default: text, tokenizer, models, budget.
                assert config.data.files and config.data.tokenizer
                assert config.budget.flops
                plan = StudyPlan(config, tmp_path / "out")
                for arm in plan.arms.values():
                    plan.check_budget(arm, plan.prices(arm))
    assert whole


def test_custom_term_of_the_docs_is_priced(own_terms: Any, tmp_path: Path) -> None:
    (block,) = blocks(OWN, "yaml")
    config = recipe(block, tmp_path)
    custom_arms = {name: arm for name, arm in config.arms.items() if name == "own"}
    config = replace(config, arms=custom_arms, budget=replace(config.budget, flops=LARGE))
    config = shallow(config)
    phase = priced(config)
    # The term is priced, and costs less than the models do.
    assert phase["teacher_forward"] > phase["student_forward"] > phase["objective"] > 0
    needed = [phase.needs for phase in arms_of(config)["own"].phases]
    (needs,) = needed
    # The highest layer of each model is what the page asks for.
    assert (needs.student.hidden, needs.teacher.hidden) == (frozenset({2}), frozenset({4}))


def test_custom_term_of_the_docs_equals_its_formula(own_terms: Any) -> None:
    rng = np.random.default_rng(0)
    h_s = rng.normal(size=(2, 5, 3)).astype(np.float32)
    h_t = rng.normal(size=(2, 5, 4)).astype(np.float32)
    segments = np.array([[1, 1, 2, 2, 0], [1, 1, 1, 0, 0]])
    batch = {"segments": segments, "valid": segments > 0}

    def cosine(h: np.ndarray, i: int, j: int) -> float:
        return float(h[i] @ h[j] / np.linalg.norm(h[i]) / np.linalg.norm(h[j]))

    # Pairs of tokens within one segment, row by row.
    means = []
    for row, ids in enumerate(segments):
        distances = []
        for i, j in itertools.product(range(5), repeat=2):
            if ids[i] == ids[j] > 0:
                distances.append(abs(cosine(h_s[row], i, j) - cosine(h_t[row], i, j)) ** 1.5)
        means.append(np.mean(distances))
    term = objectives.get("my_terms:similarity", power=1.5)
    loss = term(
        Features(hidden={6: jnp.asarray(h_s)}), Features(hidden={12: jnp.asarray(h_t)}), batch, {}
    )
    assert float(loss) == pytest.approx(np.mean(means), rel=1e-5)


def test_names_elsewhere_are_taken_where_the_table_says_and_nowhere_else() -> None:
    table: dict[str, set[str]] = {}
    for cells in rows(ROOT / "docs" / "data.md"):
        names = code(cells[0])
        # Places in capitals tell this table from that of what each protocol needs.
        if names and re.match(r"(hf|https|s3|gs):.*[A-Z]+/", names[0]):
            table |= {name: set(code(cells[1])) for name in names}
    assert len(table) == 6
    places = set().union(*table.values()) | {"data.prepared", "cache.source"}
    for name, taken in table.items():
        values: dict[str, Any] = dict.fromkeys(places, name)
        values["evaluation.texts"] = {"text": name}
        values["evaluation.tasks"] = {"task": {"file": name}}
        for setting, value in values.items():
            refusal = nullcontext() if setting in taken else pytest.raises(InputError)
            # Nothing is asked of a server when a recipe is read.
            with refusal:
                recipes.changed(Config(), {setting: value})


def test_each_term_variant_and_option_is_documented() -> None:
    documented = set()
    for _, text, _, _ in priced_terms():
        term = yaml.safe_load(text)
        documented.add((term["name"], term.get("variant", "original")))
    registered = {}
    # Every variant of every term that is registered.
    for name, variants in objectives.registered().items():
        for variant, kind in variants.items():
            registered[name, variant] = kind
    same = ("mlm", "bui2024")  # the original under another name
    assert documented == registered.keys() - {same}
    pages = {yaml.safe_load(term)["name"]: page for page, term, _, _ in priced_terms()}
    # Each option of a term stands in a table of its page.
    for (name, _), kind in registered.items():
        cells: set[str] = set()
        for row in rows(pages[name]):
            cells.update(code(row[0]))
        assert set(custom.options_of(kind)) <= cells, name


def test_each_term_has_a_row_that_names_its_variants_and_page() -> None:
    table: dict[str, list[str]] = {}
    for row in rows(OBJECTIVES / "README.md"):
        names = code(row[0])
        # The page has other tables, none of them with variants.
        if len(row) == 5 and len(names) == 1:
            table[names[0]] = row
    assert table.pop("MODULE:NAME")
    registered = objectives.registered()
    assert table.keys() == registered.keys()
    pages = {yaml.safe_load(term)["name"]: page for page, term, _, _ in priced_terms()}
    for name, row in table.items():
        # Both variants of `mlm` are the same.
        variants = ["one"] if name == "mlm" else list(registered[name])
        assert row[3].replace("`", "").split(", ") == variants, name
        assert f"({pages[name].name})" in row[4], name


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["value_relation"])
def test_documented_prices_of_terms_are_current(
    name: str, named: dict[str, dict[str, Any]]
) -> None:
    scratch = named["scratch"]["flops"]
    label, alone, beside = next(
        cells for _, *cells in priced_terms() if yaml.safe_load(cells[0])["name"] == name
    )
    term = yaml.safe_load(label)
    # The price is relative to pretraining, which is 1.
    assert f"{priced(paper([term]))['total'] / scratch:.3f}" == alone
    if name == "value_relation":
        both = priced(paper([{"name": "mlm"}, term]))["total"]
        assert f"{both / scratch:.3f}" == beside


def test_documented_prices_of_some_named_arms_are_current(named: dict[str, dict[str, Any]]) -> None:
    table = arms_in_table()
    assert table.keys() == PRESETS.keys()
    # Prices were written down with three decimals.
    for name, row in named.items():
        assert f"{row['relative']:.3f}" == table[name][0]


@pytest.mark.exhaustive
def test_documented_prices_of_all_named_arms_are_current() -> None:
    table = arms_in_table()
    listed = named_arms.named_arms(PAPER)
    shown = {name: f"{row['relative']:.3f}" for name, row in listed.items() if "relative" in row}
    assert shown == {name: table[name][0] for name in shown}
    assert len(shown) > 8


def test_documented_untrained_parts_of_named_arms_are_current() -> None:
    """The number of layers makes no difference."""
    table = arms_in_table()
    arms = {name: ArmConfig() for name in PRESETS}
    for name, arm in arms_of(replace(shallow(PAPER), arms=arms)).items():
        # What has no gradient is what the table says.
        model = arm.gradient_mask["model"]
        assert ("MLM head" in table[name][1]) != any(model["mlm"]["dense"].values()), name
        assert ("attention output" in table[name][1]) != any(
            model["layers"]["2"]["ffn"]["up"].values()
        ), name


def test_each_named_arm_is_documented() -> None:
    described = " ".join(cells[0] for cells in rows(ROOT / "docs" / "arms.md"))
    for name in PRESETS:
        assert f"`{name}`" in described or f"`…_{name.rpartition('_')[2]}`" in described, name


def test_documented_cost_of_stored_outputs_is_current(
    named: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    matching = [
        cells for cells in rows(OBJECTIVES / "stored-outputs.md") if cells[0] == "`{logits: top_k}`"
    ]
    (cells,) = matching
    settings = (
        f"data: {{mask_copies: 10}}\ncache: {code(cells[0])[0]}\narms: {code(cells[1])[0]}\ntrain: "
        f"{{batch_size: 1024}}\n"
    )
    config = recipe(f"{settings}budget: {{flops: {LARGE:g}}}\n", tmp_path)
    # The row's figures, one by one.
    row = priced(config)
    assert f"{row['cache']['bytes_a_sequence']:,}" == cells[2]
    assert f"{row['total'] / named['scratch']['flops']:.3f}" == cells[3]
    assert f"{row['cache']['pays_off_after_epochs']:.2f} epochs" == cells[4]


def test_documented_refusals_are_current(tmp_path: Path) -> None:
    # The table's second column is the recipe that is refused, and its first the line.
    table = [
        cells
        for cells in rows(ROOT / "docs" / "arms.md")
        if code(cells[1])[:1] and code(cells[1])[0][0] == "{"
    ]
    assert len(table) > 12
    for cells in table:
        with pytest.raises(InputError) as refusal:
            prices(recipe(code(cells[1])[0], tmp_path))
        assert str(refusal.value).endswith(code(cells[0])[0])


@pytest.mark.parametrize(
    "page",
    [README, ROOT / "CONTRIBUTING.md", *PAGES, *RECIPES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_page_names_no_former_setting(page: Path) -> None:
    assert former_settings(page.read_text(encoding="utf-8")) == []


def test_former_settings_are_found_wherever_a_page_may_name_them() -> None:
    table = "| `evaluation.mlm_probe.` | default |\n|---|---|\n| `batch` | 8 |\n"
    assert former_settings(table) == ["evaluation.mlm_probe.batch"]
    assert former_settings("set `data.length` to 9") == ["data.length"]
    assert former_settings("with `batch: 8`") == ["`batch: 8`"]
    assert former_settings("chunks of `length - 2` tokens") == ["`length - 2`"]
    assert former_settings("`batch` with `data.seq_len` and `len(batch)`") == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        # A link to a heading of this page has no path.
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            # Headings become anchors as GitHub makes them.
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
            assert anchor in [heading.replace(" ", "-") for heading in anchors], link


@pytest.mark.parametrize(
    ("page", "section", "kind"),
    [
        ("evaluation.md", "evaluation.", EvaluationConfig),
        ("evaluation.md", "evaluation.mlm_probe.", MlmProbeConfig),
        ("evaluation.md", "evaluation.minimal_pairs.", MinimalPairsConfig),
        ("evaluation.md", "evaluation.probe.", ProbeConfig),
        ("evaluation.md", "evaluation.finetune.", FinetuneConfig),
        ("tasks.md", "evaluation.tasks.NAME.", TaskConfig),
        ("data.md", "evaluation.contamination.", ContaminationConfig),
        ("statistics.md", "evaluation.margins.", MarginsConfig),
        ("statistics.md", "evaluation.hypotheses.NAME.", ContrastConfig),
    ],
)
def test_table_of_settings_names_every_setting_and_no_other(
    page: str, section: str, kind: type
) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| `{re.escape(section)}` \|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    named = set()
    for line in table.splitlines():
        # A setting that has settings of its own is named with them: `few_shot.draws`, `.steps`.
        names = [name for name in code(line.split("|")[1]) if not name.startswith(".")]
        named |= {name.partition(".")[0] for name in names}
    assert named == {field.name for field in fields(kind)}
