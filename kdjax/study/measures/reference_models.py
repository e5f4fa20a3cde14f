"""Reference models of a study: what its arms stand between, untrained starts and teachers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdjax.config import ModelConfig, plain, to_dict
from kdjax.results.runs import ReferenceModel
from kdjax.runtime.clock import CLOCK
from kdjax.storage.files import digest, read_json, write_json
from kdjax.storage.typed_json import check_fields, from_plain, to_plain
from kdjax.study.measures.evaluation import Evaluation
from kdjax.study.measures.task_scores import FinetuningRecords
from kdjax.study.runs.run_backup import FINETUNING, RESULT
from kdjax.study.study import Study
from kdjax.training.arm import Arm


class ReferenceModels:
    """The untrained starts of each seed and the teachers, measured like the runs."""

    def __init__(self, study: Study):
        """Take the study; `measure` does the work.

        Args:
            study: study whose `prepare` has been called.
        """
        self._plan = study.plan
        self._artifacts = study.artifacts
        self._reporter = study.reporter

    def measure(self) -> list[ReferenceModel]:
        """Measure what was not measured before; return a row of `results.json` for each."""
        return [*self._starts(), *self._teachers()]

    def _starts(self) -> list[ReferenceModel]:
        """Measure each start that arms share, under every seed."""
        arms_by_start: dict[Any, list[Arm]] = {}
        for arm in self._plan.arms.values():
            arms_by_start.setdefault((arm.student_config, arm.start), []).append(arm)
        rows: list[ReferenceModel] = []
        for arms in arms_by_start.values():
            name = "untrained start"
            if rows:  # not the first
                name += f" ({', '.join(arm.name for arm in arms)})"
            # The name follows from student and start, not from the first arm that has them: other
            # arms may join a study.
            follows_from = [to_dict(arms[0].student_config), plain(to_dict(arms[0].start))]
            for seed in self._plan.config.seeds:
                rows.append(
                    self._reference(
                        f"untrained-{digest(follows_from)[:8]}-seed{seed}",
                        name,
                        seed,
                        arms[0].student_config,
                        functools.partial(self._artifacts.start_params, arms[0], seed),
                        self._artifacts.evaluation_for(seed),
                    )
                )
        return rows

    def _teachers(self) -> list[ReferenceModel]:
        """Measure each teacher; none that reads tokens of its own: text, tasks and pairs are in the
        student's."""
        if self._plan.config.data.teacher_tokenizer:
            return []
        rows = []
        teachers = self._artifacts.teachers
        # A study without a teacher has one evaluation all the same.
        for teacher, evaluation in zip(teachers, self._artifacts.evaluations, strict=False):
            directory = "teacher"
            name = "teacher"
            if len(teachers) > 1 and teacher.seed is not None:
                directory = f"teacher-seed{teacher.seed}"
                name = f"teacher, seed {teacher.seed}"
            model = teacher.model
            params = functools.partial(getattr, model, "params")
            rows.append(self._reference(directory, name, None, model.config, params, evaluation))
        return rows

    def _reference(
        self,
        directory: str,
        name: str,
        seed: int | None,
        model: ModelConfig,
        make_params: Callable[[], Any],
        evaluation: Evaluation,
    ) -> ReferenceModel:
        """Measure a reference, or read how it was measured before.

        Args:
            directory: directory of its result, among the references'.
            name: name of the model as reports show it.
            seed: seed of an untrained start; None: it is a teacher.
            model: configuration of the model to measure.
            make_params: function that makes the model's parameters, when they are needed.
            evaluation: evaluation that measures it.
        """
        path = self._plan.artifact_dirs["references"] / directory / RESULT
        if not path.exists():
            self._reporter.status(f"{name}: evaluating")
            params = make_params()
            # A start's MLM head has learnt nothing yet; a teacher is not fine-tuned.
            is_teacher = seed is None
            with CLOCK.measure("evaluation"):
                metrics, details = evaluation.measure(
                    model,
                    params,
                    seed or 0,
                    mlm=is_teacher and "mlm" in params,
                    finetuning=None if is_teacher else self._plan.config.evaluation.finetune,
                    records=FinetuningRecords(
                        directory=path.parent / FINETUNING,
                        status=lambda task: self._reporter.status(f"{name}: {task}"),
                    ),
                )
            write_json(path, {"metrics": metrics, "details": to_plain(details)})
        return read_measured(path, name, seed)


def read_measured(path: Path, name: str = "", seed: int | None = None) -> ReferenceModel:
    """Read the stored measures of a start or a teacher.

    Args:
        path: path of its result.json, which does not say of what model it is.
        name: name of the model.
        seed: seed of the model, where it has one.

    Raises:
        InputError: the file is not whole, or a field is missing or mistyped.
    """
    kinds = {"metrics": dict[str, float], "details": dict[str, Any]}
    measured = check_fields(read_json(path), kinds, f"{path}:")
    # Whatever has details has a value.
    check_fields(measured["metrics"], dict.fromkeys(measured["details"], float), f"{path}: metrics")
    return from_plain(ReferenceModel, {"name": name, "seed": seed, **measured}, f"{path}:")
