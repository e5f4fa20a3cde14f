"""The measurements of every model of a study: the same held-out masks, probes and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdjax.arms.charges import probe_batch_shape
from kdjax.config import Config, EvaluationConfig, FinetuneConfig, ModelConfig
from kdjax.data.corpus import Corpus
from kdjax.data.minimal_pairs import PairSet
from kdjax.evaluation.minimal_pairs import pairs_flops, score_pairs
from kdjax.evaluation.mlm import HeldOut
from kdjax.evaluation.mlm_probe import FittedProbe, MlmProbe, cost_of
from kdjax.results.runs import (
    Details,
    HeadLoss,
    PairScores,
    ProbeFit,
    ProbeLoss,
)
from kdjax.study.batches import probe_batches
from kdjax.study.measures.task_scores import FinetuningRecords, TaskScores

Metrics = dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """The measurements of a model: `mlm_loss`, `mlm_probe`, `minimal_pairs.SET`, and on tasks
    `PROTOCOL.RESULT`.

    On a text from elsewhere, the first two are `mlm_loss.TEXT` and `mlm_probe.TEXT`.

    Attributes:
        config: settings of the evaluation, from the recipe.
        held_out: held-out sequences with fixed masks, and what the teacher says of them.
        task_scores: what measures models on the downstream tasks.
        texts: name -> held-out text from elsewhere, with fixed masks.
        mlm_probe: the MLM probe; None: there is none.
        minimal_pairs: sets of minimal pairs; none where nothing is measured on them.
    """

    config: EvaluationConfig
    held_out: HeldOut
    task_scores: TaskScores
    texts: Mapping[str, HeldOut] = field(default_factory=dict)
    mlm_probe: MlmProbe | None = None
    minimal_pairs: tuple[PairSet, ...] = ()

    def evaluate_during_training(
        self, model: ModelConfig, params: Any, *, mlm: bool
    ) -> dict[str, float]:
        """Measure a point of the learning curve.

        Args:
            model: configuration of the student.
            params: parameters of the student at this point.
            mlm: whether its MLM head is trained, so that its held-out loss means something.

        Returns:
            `teacher_mlm_loss` where there is a teacher; if `mlm`, `mlm_loss`, and beside a teacher
            `teacher_kl` (at temperature 1, whatever the objective's) and `teacher_agreement`;
            `mlm_probe` where the recipe has it measured along the way.
        """
        figures = {}
        teacher = self.held_out.teacher
        if teacher is not None:
            figures["teacher_mlm_loss"] = teacher.loss
        # The student's own head, where it is trained.
        if mlm:
            result = self.held_out.measure(model, params)
            figures["mlm_loss"] = result.loss
            if result.kl is not None and result.agreement is not None:
                figures |= {"teacher_kl": result.kl, "teacher_agreement": result.agreement}
        if self.mlm_probe is not None and self.mlm_probe.settings.along_the_way:
            figures["mlm_probe"] = self.mlm_probe.fit(model, params).measure(self.held_out).loss
        return figures

    def measure(
        self,
        model: ModelConfig,
        params: Any,
        seed: int,
        *,
        mlm: bool,
        finetuning: FinetuneConfig | None,
        records: FinetuningRecords = FinetuningRecords(),
    ) -> tuple[Metrics, Details]:
        """Measure a model on every endpoint.

        Args:
            model: configuration of the model to measure.
            params: parameters of the model to measure.
            seed: random seed of fine-tuning: its head, order and dropout.
            mlm: whether the MLM head was trained, so that the held-out loss means something.
            finetuning: settings of fine-tuning the model as well; None: it is not fine-tuned.
            records: where fine-tuning is kept, so that it goes on after a kill.

        Returns:
            Endpoints by name, and details of each.
        """
        metrics: Metrics = {}
        details: Details = {}
        # The model's own head: held-out loss on the study's text and on others, minimal pairs.
        if mlm:
            records.status("held-out loss")
            for name, held_out in self._named("mlm_loss").items():
                result = held_out.measure(model, params)
                metrics[name] = result.loss
                shuffled = None
                if held_out.shuffled is not None:
                    shuffled = held_out.shuffled.measure(model, params).loss
                details[name] = HeadLoss(
                    result.accuracy, result.count, result.kl, result.agreement, shuffled
                )

            for pairs in self.minimal_pairs:
                records.status(f"minimal pairs, {pairs.name}")
                scores = self._pair_scores(model, params, pairs)
                endpoint = f"minimal_pairs.{pairs.name}"
                metrics[endpoint] = next(iter(scores.scoring.values())).accuracy
                details[endpoint] = scores

        # The same of a fresh head that every model gets.
        if self.mlm_probe is not None:
            records.status("fitting the MLM probe")
            fitted = self.mlm_probe.fit(model, params)
            for name, held_out in self._named("mlm_probe").items():
                result = fitted.measure(held_out)
                metrics[name] = result.loss
                shuffled = None
                if held_out.shuffled is not None:
                    shuffled = fitted.measure(held_out.shuffled).loss
                details[name] = ProbeLoss(result.accuracy, result.count, shuffled)
            details["mlm_probe"] = self._probe_fit(
                self.mlm_probe, model, fitted, metrics["mlm_probe"], vars(details["mlm_probe"])
            )

        # The downstream tasks, by each protocol.
        task_metrics, task_details = self.task_scores.measure(
            model, params, seed, finetuning, records
        )
        return metrics | task_metrics, details | task_details

    def _named(self, endpoint: str) -> dict[str, HeldOut]:
        """Return each held-out text by an endpoint's name on it."""
        texts = {f"{endpoint}.{name}": held_out for name, held_out in self.texts.items()}
        return {endpoint: self.held_out, **texts}

    def _pair_scores(self, model: ModelConfig, params: Any, pairs: PairSet) -> PairScores:
        """Return a model's scores on a set of minimal pairs, and their cost."""
        settings = self.config.minimal_pairs
        ways = settings.scoring
        batch_tokens = settings.batch_tokens
        return PairScores(
            pairs=len(pairs),
            sentences=len(pairs.tokens),
            scoring=score_pairs(model, params, pairs, ways, batch_tokens),
            flops=pairs_flops(model, pairs, ways, batch_tokens),
            digest=pairs.digest,
        )

    def _probe_fit(
        self,
        probe: MlmProbe,
        model: ModelConfig,
        fitted: FittedProbe,
        loss: float,
        measured: Mapping[str, Any],
    ) -> ProbeFit:
        """Return the record of a probe's fit, and whether more tokens would lower its loss.

        Args:
            probe: the probe.
            model: configuration of the model it was fitted on.
            fitted: the fitted probe.
            loss: its loss on the study's own text.
            measured: what else was measured there, the fields of a `ProbeLoss`.
        """
        # Its loss at half the tokens: what is still to be gained shows in the second half.
        half = fitted.measure(self.held_out, half=True).loss
        gain = half - loss
        cost = cost_of(probe.settings, model, probe.batch_shape)
        return ProbeFit(
            **measured,
            half=half,
            gain=gain,
            tolerance=probe.settings.tolerance,
            converged=gain <= probe.settings.tolerance,
            tokens=cost.steps * probe.batch_shape.tokens_per_step,
            steps=cost.steps,
            flops=cost.total,
            layer_weights=tuple(fitted.layer_weights),
            curve=tuple(fitted.curve(probe.batch_shape.tokens_per_step)),
        )


def mlm_probe_of(config: Config, corpus: Corpus) -> MlmProbe | None:
    """Return the probe that every model gets; None where the recipe has none.

    Args:
        config: the recipe.
        corpus: text whose training split it is fitted on.

    Raises:
        InputError: fewer training sequences than a batch of the probe has.
    """
    settings = config.evaluation.mlm_probe
    if not settings.tokens:
        return None
    return MlmProbe(settings, probe_batches(config, corpus), probe_batch_shape(config))
