"""What the runs of a study share, each made or read once: corpus, teachers, cache, evaluations."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from kdjax.arms.charges import stored_features
from kdjax.arms.recipe_arms import finetuning_of
from kdjax.arms.teacher_cost import TeacherCost, cost_by_recipe
from kdjax.data import minimal_pairs
from kdjax.data.contamination.check import Contamination
from kdjax.data.corpus import Corpus
from kdjax.data.minimal_pairs import PairSet
from kdjax.data.tasks.load import load_tasks
from kdjax.data.tasks.task import Task
from kdjax.data.text_figures import unknown_warning
from kdjax.evaluation.finetuning import check_tasks
from kdjax.evaluation.finetuning.trial import one_device
from kdjax.evaluation.mlm import HeldOut
from kdjax.evaluation.mlm_probe import MlmProbe
from kdjax.models import Model, zoo
from kdjax.objectives.logits import same_but_for_padding
from kdjax.parallel import hosts
from kdjax.parallel.layout import local
from kdjax.progress import Reporter
from kdjax.runtime.clock import CLOCK
from kdjax.study.artifacts.cache import study_cache
from kdjax.study.artifacts.contamination import study_contamination
from kdjax.study.artifacts.corpus import held_out_text, study_corpus, tokenizer_of, trains_tokenizer
from kdjax.study.batches import calibration_batches, make_held_out
from kdjax.study.measures.evaluation import Evaluation, mlm_probe_of
from kdjax.study.measures.task_scores import TaskScores
from kdjax.study.study_plan import StudyPlan
from kdjax.study.teachers.from_directory import Teacher
from kdjax.study.teachers.study_teachers import study_teachers
from kdjax.training.arm import Arm
from kdjax.training.starts.importance import Importance, measured_importance
from kdjax.training.starts.start import calibration_depth, start_params
from kdjax.training.teacher_cache.store import Cache


class Artifacts:
    """What the runs of a study share: each is made, or found and checked, when first asked for."""

    def __init__(self, plan: StudyPlan, reporter: Reporter):
        """Take the plan; an artifact is made when it is first asked for.

        Args:
            plan: plan of the study, with the directories of what is made.
            reporter: receiver of reports on progress.
        """
        self._plan = plan
        self._config = plan.config
        self._reporter = reporter
        self._importances: dict[tuple[int, int, int], Importance] = {}

    # Each artifact is a property that keeps its value; these ask for some before a run does.

    def make_measures(self) -> None:
        """Read the downstream tasks and the minimal pairs now.

        Raises:
            InputError: a task, the minimal pairs or the tokenizer cannot be used.
        """
        _ = self.task_scores
        _ = self.minimal_pairs

    def look_for_tasks_in_text(self) -> None:
        """Look now for the tasks' rows in the text.

        Raises:
            InputError: the recipe refuses what is there, or the text cannot be used.
        """
        _ = self.contamination

    def make_for_runs(self) -> None:
        """Make the teacher's stored outputs and all evaluations now.

        Raises:
            InputError: the text, the teacher or a directory cannot be used.
        """
        _ = self.teacher_cache
        _ = self.evaluations

    # Text.

    @cached_property
    def corpus(self) -> Corpus:
        """Prepare the corpus, or open it."""
        # What is made counts as the command's time of its kind.
        with CLOCK.measure("text"):
            return study_corpus(self._config, self._plan.artifact_dirs["data"], self._reporter)

    @cached_property
    def held_out_texts(self) -> dict[str, Corpus]:
        """Prepare the held-out texts from elsewhere, by name."""
        directory = self._plan.artifact_dirs["texts"]
        texts = {}
        with CLOCK.measure("text"):
            for name in self._config.evaluation.texts:
                texts[name] = held_out_text(
                    self._config, self.corpus, name, directory / name, self._reporter
                )
        return texts

    @cached_property
    def _tokenizer(self) -> Path:
        """Find the tokenizer of tasks and minimal pairs: the text's."""
        # Only a trained tokenizer needs the corpus, which may take long to prepare.
        if trains_tokenizer(self._config):
            return tokenizer_of(self._config, self.corpus)
        return tokenizer_of(self._config, None)

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Read the downstream tasks."""
        tokenizer = self._tokenizer
        evaluation = self._config.evaluation
        seq_len = evaluation.seq_len or self._config.data.seq_len
        with CLOCK.measure("text"):
            tasks = load_tasks(evaluation, tokenizer, seq_len)
        for task in tasks:
            if warning := unknown_warning({"all": task.unknown}):
                self._reporter.warn(f"task {task.name}: {warning}")
            for reason, rows in task.left_out.items():
                self._reporter.warn(f"task {task.name}: {rows:,} rows {reason} and are left out")
        return tasks

    @cached_property
    def task_scores(self) -> TaskScores:
        """Build the fine-tuning that measures models on the tasks, in the precision of students.

        Raises:
            InputError: a task cannot be fine-tuned on as the recipe or an arm says.
        """
        evaluation = self._config.evaluation
        for arm in self._plan.arms.values():
            settings = finetuning_of(self._config, arm)
            check_tasks(
                self.tasks, settings, evaluation.protocols, arm.student_config.max_positions
            )
        # Several processes fine-tune alike, each on a device of its own.
        layout = one_device() if hosts.is_multiprocess() else self._plan.layout
        dtype = self._config.train.compute.dtype
        return TaskScores(evaluation, self.tasks, layout, dtype)

    @cached_property
    def contamination(self) -> Contamination | None:
        """Look for the tasks' rows in the text, or read what was found before."""
        corpus = self.corpus
        with CLOCK.measure("text"):
            return study_contamination(self._config, corpus, self._reporter)

    @cached_property
    def minimal_pairs(self) -> tuple[PairSet, ...]:
        """Read the sets of minimal pairs."""
        settings = self._config.evaluation.minimal_pairs
        if not settings.directory:
            return ()
        tokenizer = self._tokenizer
        with CLOCK.measure("text"):
            pair_sets = minimal_pairs.load(settings, tokenizer, self._config.data.seq_len)
        for pairs in pair_sets:
            if warning := unknown_warning({"all": pairs.unknown}):
                self._reporter.warn(f"evaluation.minimal_pairs, {pairs.name}: {warning}")
        return pair_sets

    # The teacher and its stored outputs.

    @cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """Make or open the teachers, by ascending seeds; none where no arm needs one."""
        if not self._plan.needs_teacher:
            return ()
        corpus = self.corpus  # its time is the text's, not the teacher's
        directory = self._plan.artifact_dirs["teacher"]
        with CLOCK.measure("teacher", whole=True):
            return study_teachers(
                self._config, corpus, directory, self._plan.layout, self._reporter
            )

    def teacher_number(self, seed: int) -> int:
        """Return the number of the teacher of a seed's student among n: seed modulo n."""
        return seed % max(1, len(self.teachers))

    def teacher_for(self, seed: int) -> Model | None:
        """Return the teacher that a seed's student learns from; None where no arm needs one."""
        if not self.teachers:
            return None
        return self.teachers[self.teacher_number(seed)].model

    def teacher_cost(self, arm: Arm) -> TeacherCost | None:
        """Return the cost of an arm's teacher; None where it needs none.

        One that is trained here need not be trained yet to know it.
        """
        if not arm.needs_teacher:
            return None
        if self._config.teacher.train.budget:
            return cost_by_recipe(self._config)
        return self.teachers[0].cost

    @cached_property
    def teacher_cache(self) -> Cache | None:
        """Make or open the teacher's stored outputs; None where no arm reads them."""
        request = stored_features(self._plan.arms)
        if not request or not self.teachers:
            return None
        teacher = self.teachers[0].model  # the only one: `arms_of` refuses more
        corpus = self.corpus
        directory = self._plan.artifact_dirs["cache"]
        with CLOCK.measure("stored outputs", whole=True):
            return study_cache(
                self._config, request, teacher, corpus, directory, local(), self._reporter
            )

    def cache_bytes(self, arm: Arm) -> int:
        """Return the size of the stored outputs that an arm reads; 0 where it reads none."""
        if not arm.stored_features or self.teacher_cache is None:
            return 0
        return self.teacher_cache.manifest.bytes

    def start_params(self, arm: Arm, seed: int) -> Any:
        """Return the parameters of an arm's student before its first step."""
        teacher = self.teacher_for(seed)
        importance = None
        if arm.start.prunes and teacher is not None:
            depth = calibration_depth(arm.start, arm.student_config, teacher.config)
            importance = self._importance(
                self.teacher_number(seed), depth, arm.start.calibration_sequences
            )
        return start_params(arm.start, arm.student_config, teacher, seed, importance)

    def _importance(self, number: int, depth: int, sequences: int) -> Importance:
        """Measure how much the parts of a teacher are used; once for all runs of a process.

        Args:
            number: number of the teacher.
            depth: number of its layers that are run.
            sequences: number of training sequences that it reads.
        """
        key = (number, depth, sequences)
        if key not in self._importances:
            self._reporter.status(f"calibrating on {sequences:,} sequences")
            batches = calibration_batches(self._config, self.corpus, sequences)
            teacher = self.teachers[number].model
            self._importances[key] = measured_importance(teacher, depth, batches)
        return self._importances[key]

    # What every model is measured by.

    @cached_property
    def mlm_probe(self) -> MlmProbe | None:
        """Return the probe that every model gets; None where the recipe has none."""
        return mlm_probe_of(self._config, self.corpus)

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Build an evaluation beside each teacher, alike in all else; one without a teacher."""
        texts = {
            name: make_held_out(self._config, text) for name, text in self.held_out_texts.items()
        }
        # Read and shuffled once: only the teacher whose predictions stand beside them differs.
        study_text = make_held_out(self._config, self.corpus)
        models: list[Model | None] = [teacher.model for teacher in self.teachers]
        evaluations = []
        for model in models or [None]:
            comparable_teacher = None
            if model is not None and self._predicts_students_tokens(model):
                comparable_teacher = model
            beside_teacher = HeldOut(study_text.batches, comparable_teacher, study_text.shuffled)
            evaluations.append(
                Evaluation(
                    self._config.evaluation,
                    beside_teacher,
                    self.task_scores,
                    texts,
                    self.mlm_probe,
                    self.minimal_pairs,
                )
            )
        return tuple(evaluations)

    def _predicts_students_tokens(self, teacher: Model) -> bool:
        """Return whether a teacher's predictions can be compared with those of students."""
        if self._config.data.teacher_tokenizer:
            return False
        vocab_size = zoo.resolve(self._config.student).vocab_size
        return same_but_for_padding(vocab_size, teacher.config.vocab_size)

    def evaluation_for(self, seed: int) -> Evaluation:
        """Return the measures of a seed's student, with the teacher that it learns from."""
        return self.evaluations[self.teacher_number(seed)]
