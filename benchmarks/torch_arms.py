"""The four arms in plain eager PyTorch: the baseline that the speed benchmark compares kdjax with.

The mathematics of `kdjax.models` and `kdjax.objectives` (default variants) as one would write it by
hand: attention through `scaled_dot_product_attention` where nobody asks for scores, the MLM head at
the masked slots alone, a teacher without gradients that stops at the last layer needed, one
log-softmax of the student's logits where two terms read it. Modules are named as kdjax's parameters
are, so that parameters and gradients can be handed over and compared.

Letters in shapes: B batch, L length, H heads, d head width, D width, S slots, V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases import OPTIMIZER, RATE, Case
from kdjax.config import ModelConfig
from kdjax.models.features import FeatureRequest
from kdjax.objectives.relations import Relation

Batch = Mapping[str, Tensor]
AdamW = Literal["foreach", "fused"]
Precision = Literal["float32", "autocast", "master"]
"""How a step is computed: in float32; in bfloat16 by `torch.autocast`; or by a bfloat16 copy of
float32 parameters."""

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


@dataclass
class Features:
    """What a forward pass hands out; layer 1 is the first, hidden state 0 the embedding output."""

    scores: dict[int, Tensor] = field(default_factory=dict)
    query: dict[int, Tensor] = field(default_factory=dict)
    key: dict[int, Tensor] = field(default_factory=dict)
    value: dict[int, Tensor] = field(default_factory=dict)
    hidden: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


class Embeddings(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.width)
        self.position = None
        if config.positions == "learned":
            self.position = nn.Embedding(config.max_positions, config.width)
        self.token_type = nn.Embedding(config.type_vocab_size, config.width)
        self.norm = nn.Identity()
        if config.embedding_norm:
            self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        x = self.word(batch["tokens"]) + self.token_type.weight[0]
        if self.position is not None:
            x = x + self.position(batch["positions"])
        return self.dropout(self.norm(x))


class Rotary(NamedTuple):
    """The cosines and sines of rotary positions (Su et al. 2021, arXiv 2104.09864), each `[B, 1, L,
    d]`."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate queries or keys `[B, H, L, d]`: feature i forms a pair with feature i + d/2."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin


def rotary_tables(config: ModelConfig, positions: Tensor) -> Rotary:
    """Compute the tables for positions `[B, L]`, once for all layers."""
    half = config.head_width // 2
    exponents = torch.arange(half, device=positions.device) / half
    angles = positions[:, None, :, None] * config.rotary_base**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    return Rotary(angles.cos(), angles.sin())


class Attention(nn.Module):
    """Queries, keys and values come from one product: every arm needs all three of every layer it
    runs."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.joined = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)
        self.heads = config.heads
        self.drop = config.attention_dropout
        self.scale = 1 / math.sqrt(config.head_width)

    def parts(self, x: Tensor, rotary: Rotary | None, *, scores: bool) -> dict[str, Tensor]:
        """Query, key, value `[B, H, L, d]` and, if wanted, the scores `[B, H, L, L]` before mask
        and softmax."""
        query, key, value = (
            self.joined(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        )
        if rotary is not None:
            query = rotary.rotate(query)
            key = rotary.rotate(key)
        parts = {"query": query, "key": key, "value": value}
        if scores:
            parts["scores"] = (query * self.scale) @ key.transpose(-1, -2)
        return parts

    def mix(self, parts: dict[str, Tensor], mask: Tensor) -> Tensor:
        drop = self.drop if self.training else 0.0
        if "scores" in parts:
            weights = F.softmax(parts["scores"] + mask, dim=-1)
            if drop:
                weights = F.dropout(weights, drop)
            mixed = weights @ parts["value"]
        else:
            mixed = F.scaled_dot_product_attention(
                parts["query"],
                parts["key"],
                parts["value"],
                attn_mask=mask,
                dropout_p=drop,
                scale=self.scale,
            )
        return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.ffn)
        self.down = nn.Linear(config.ffn, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.ffn = FeedForward(config)
        self.ffn_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.pre_norm = config.norm == "pre"

    def forward(
        self, x: Tensor, mask: Tensor, rotary: Rotary | None, *, scores: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parts = self.attend(x, rotary, scores=scores)
        x = x + self.dropout(self.attention.mix(parts, mask))
        if self.pre_norm:
            return x + self.dropout(self.ffn(self.ffn_norm(x))), parts
        x = self.attention_norm(x)
        return self.ffn_norm(x + self.dropout(self.ffn(x))), parts

    def attend(self, x: Tensor, rotary: Rotary | None, *, scores: bool) -> dict[str, Tensor]:
        """The attention's parts, and nothing after them."""
        attended = self.attention_norm(x) if self.pre_norm else x
        return self.attention.parts(attended, rotary, scores=scores)


class MlmHead(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor, word: nn.Embedding) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), word.weight, self.bias)


class Encoder(nn.Module):
    """BERT with the exact GELU; post-LN or pre-LN, learned or rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleDict({str(n): Layer(config) for n in range(1, config.layers + 1)})
        self.final_norm = None
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlm = MlmHead(config)

    def forward(self, batch: Batch, request: FeatureRequest) -> Features:
        """The features asked for; the layers above them are not run, nor the rest of the highest
        one."""
        found = Features()
        top = len(self.layers) if request.head else request.depth
        whole = top if request.head or top in request.hidden else top - 1
        x = self.embeddings(batch)
        if 0 in request.hidden:
            found.hidden[0] = x
        mask = _additive(_same_segment(batch["segments"]), x.dtype)
        rotary = None
        if self.config.positions == "rotary":
            rotary = rotary_tables(self.config, batch["positions"])
        for n in range(1, top + 1):
            layer = self.layers[str(n)]
            asked = request.attention(n)
            if n <= whole:
                x, parts = layer(x, mask, rotary, scores="scores" in asked)
            else:
                parts = layer.attend(x, rotary, scores="scores" in asked)
            if n == len(self.layers) and n <= whole and self.final_norm is not None:
                x = self.final_norm(x)
            for name in asked:
                getattr(found, name)[n] = parts[name]
            if n in request.hidden:
                found.hidden[n] = x
        if request.head:
            slots = batch["slots"]
            at_slots = x[torch.arange(len(slots), device=slots.device)[:, None], slots]
            found.logits = self.mlm(at_slots.flatten(0, 1), self.embeddings.word)
        return found


def scratch(
    student: Features, teacher: Features, batch: Batch, project: nn.Linear | None
) -> Tensor:
    """The mean cross-entropy of the masked tokens."""
    return F.cross_entropy(student.logits.float(), batch["labels"])


def logit(student: Features, teacher: Features, batch: Batch, project: nn.Linear | None) -> Tensor:
    """That, and the mean over the masked slots of KL(p_t‖p_s), at temperature 1."""
    own = F.log_softmax(student.logits.float(), -1)
    weights = batch["weights"]
    divergence = _kl(own, teacher.logits.float())
    return F.nll_loss(own, batch["labels"]) + (divergence * weights).sum() / weights.sum()


def tinybert(
    student: Features, teacher: Features, batch: Batch, project: nn.Linear | None
) -> Tensor:
    """Squared differences of attention scores and of projected hidden states, uniform layer map."""
    together = _together(batch)
    valid = batch["valid"]
    losses = []
    apart = ~together
    pairs = together.sum()
    padding = ~valid[..., None]
    tokens = valid.sum()
    for n, own in student.scores.items():
        target = teacher.scores[n * max(teacher.scores) // max(student.scores)]
        difference = (own - target).float().masked_fill_(apart, 0)
        losses.append(difference.square().sum() / (pairs * own.shape[1]))
    for n, own in student.hidden.items():
        target = teacher.hidden[n * max(teacher.hidden) // max(student.hidden)]
        difference = (project(own) - target).float().masked_fill_(padding, 0)
        losses.append(difference.square().sum() / (tokens * target.shape[-1]))
    return torch.stack(losses).sum()


def minilm(
    student: Features,
    teacher: Features,
    batch: Batch,
    project: nn.Linear | None,
    relation_heads: int = 0,
) -> Tensor:
    """KL between the relations of queries, of keys and of values of the last layers."""
    apart = ~_together(batch)
    rows = batch["valid"][:, None].float()
    losses = []
    for kind in ("query", "key", "value"):
        (own,) = getattr(student, kind).values()
        (target,) = getattr(teacher, kind).values()
        heads = Relation(relation_heads=relation_heads).heads(
            own.shape[1] * own.shape[3], target.shape[1] * target.shape[3]
        )
        divergence = _kl(
            F.log_softmax(_relation(own, heads, apart), dim=-1), _relation(target, heads, apart)
        )
        losses.append((divergence * rows).sum() / (rows.sum() * heads))
    return torch.stack(losses).sum()


def _relation(x: Tensor, heads: int, apart: Tensor) -> Tensor:
    """X X^T/√(D/heads) `[B, heads, L, L]`."""
    x = x.transpose(1, 2).flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2).float()
    scores = (x / math.sqrt(x.shape[-1])) @ x.transpose(-1, -2)
    return scores.masked_fill_(apart, -1e30)


def _kl(own: Tensor, target: Tensor) -> Tensor:
    """KL(target‖own) over the last axis, of log-probabilities and of scores.

    A softmax of its own is faster than `F.kl_div`, whose exp of log-probabilities near -1e30 is
    slow on a CPU.
    """
    return (F.softmax(target, -1) * (F.log_softmax(target, -1) - own)).sum(-1)


def _same_segment(segments: Tensor) -> Tensor:
    return segments[:, None, :, None] == segments[:, None, None, :]


def _together(batch: Batch) -> Tensor:
    """Which pairs of positions belong together, bool `[B, 1, L, L]`."""
    valid = batch["valid"]
    return _same_segment(batch["segments"]) & valid[:, None, :, None] & valid[:, None, None, :]


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, -torch.inf
    )


LOSSES: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (scratch, logit, tinybert, minilm)
}


class Torch:
    """An arm's step in eager PyTorch.

    Attributes:
        student, teacher: the models; no teacher where none is needed.
        project: TinyBERT's projection to the teacher's width.
    """

    name = "torch"

    def __init__(
        self,
        case: Case,
        params: Any,
        teacher: Any,
        batches: list[Mapping[str, np.ndarray]],
        *,
        objective: Mapping[str, Any],
        device: str = "cpu",
        precision: Precision = "float32",
        adamw: AdamW = "foreach",
    ) -> None:
        """Builds it from kdjax's parameters.

        Args:
            case: what to run.
            params, teacher: kdjax's parameters of both models.
            batches: kdjax's, on the host.
            objective: kdjax's parameters of the terms.
            device: where.
            precision: how the step is computed.
            adamw: the implementation of `torch.optim.AdamW`.
        """
        needs = case.phase.needs
        self._loss = LOSSES[case.arm]
        self._needs = needs
        self._precision = precision
        self._device = device
        if case.arm == "minilm":
            self._loss = functools.partial(minilm, relation_heads=case.pair.relation_heads)
        self.student = _loaded(Encoder(case.pair.student), params).to(device).train()
        self.teacher = None
        if case.phase.teacher:
            wide = torch.float32 if precision == "float32" else torch.bfloat16
            self.teacher = (
                _loaded(Encoder(case.pair.teacher), teacher)
                .to(device, wide)
                .eval()
                .requires_grad_(False)
            )
        self.project = None
        self._trained = nn.ModuleDict({"model": self.student})
        for name, own in objective.items():
            self.project = _loaded(
                nn.Linear(case.pair.student.width, case.pair.teacher.width), own
            ).to(device)
            self._trained["objective"] = nn.ModuleDict({name: self.project})
        self.batches = [_placed(one, device) for one in batches]
        self._master = None
        if precision == "master":
            self._master = [p.detach().clone().requires_grad_() for p in self._trained.parameters()]
            self._trained.to(torch.bfloat16)
        self._optimizer = self._adamw(adamw)
        self._done = 0

    def _adamw(self, kind: AdamW) -> torch.optim.AdamW:
        named = list(self._trained.named_parameters())
        held = self._master or [parameter for _, parameter in named]
        plain = [p for (name, _), p in zip(named, held, strict=True) if _undecayed(name)]
        decayed = [p for (name, _), p in zip(named, held, strict=True) if not _undecayed(name)]
        groups = [
            {"params": decayed, "weight_decay": OPTIMIZER.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=RATE, betas=(OPTIMIZER.b1, OPTIMIZER.b2), eps=OPTIMIZER.eps, **{kind: True}
        )

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a placed batch."""
        with self._cast():
            target = Features()
            if self.teacher is not None:
                with torch.no_grad():
                    target = self.teacher(batch, self._needs.teacher)
            return self._loss(self.student(batch, self._needs.student), target, batch, self.project)

    def _cast(self) -> contextlib.AbstractContextManager[Any]:
        if self._precision != "autocast":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self._device).type, torch.bfloat16)

    def step(self) -> Tensor:
        """One step on the next batch; on a GPU it may still run when this returns."""
        batch = self.batches[self._done % len(self.batches)]
        loss = self.loss(batch)
        loss.backward()
        if self._master is None:
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        else:
            self._through_master()
        self._done += 1
        return loss.detach()

    def _through_master(self) -> None:
        """The update of the float32 parameters, and their copy in bfloat16."""
        pairs = [
            (m, p)
            for m, p in zip(self._master, self._trained.parameters(), strict=True)
            if p.grad is not None
        ]
        masters = [m for m, _ in pairs]
        copies = [p for _, p in pairs]
        for master, copy in pairs:
            master.grad = copy.grad.float()
            copy.grad = None
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(copies, masters)

    def wait(self) -> None:
        """Until all steps are done."""
        if self._device != "cpu":
            torch.cuda.synchronize()

    def gradients(self, batch: int = 0) -> tuple[float, dict[str, np.ndarray]]:
        """The loss of one of the batches and its gradients, by kdjax's dotted paths and in its
        layout."""
        loss = self.loss(self.batches[batch])
        loss.backward()
        found = {}
        for name, parameter in self._trained.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.float().cpu().numpy()
                parameter.grad = None
        return loss.item(), found


def named(tree: Any) -> dict[str, np.ndarray]:
    """kdjax's parameters, or their gradients, by PyTorch's names and in its layout.

    A query without its key and value has no place in the joined product, and stays as it is.
    """
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *module, last = (str(key.key) for key in path)
        array = np.asarray(leaf, np.float32)
        # Every nn.Module has a method `type`
        module = ["token_type" if name == "type" else name for name in module]
        found[".".join([*module, _LEAVES[last]])] = array.T if last == "kernel" else array
    for name in [name for name in found if ".query." in name]:
        parts = [name.replace(".query.", f".{kind}.") for kind in ("query", "key", "value")]
        if all(part in found for part in parts):
            found[name.replace(".query.", ".joined.")] = np.concatenate(
                [found.pop(part) for part in parts]
            )
    return found


def _loaded(module: nn.Module, params: Any) -> nn.Module:
    state = {name: torch.tensor(array) for name, array in named(params).items()}
    if isinstance(module, Encoder) and not any(name.startswith("mlm.") for name in state):
        module.mlm = None
    module.load_state_dict(state)
    return module


def _undecayed(name: str) -> bool:
    return name.endswith("bias") or "norm." in name


def _placed(batch: Mapping[str, np.ndarray], device: str) -> dict[str, Tensor]:
    """kdjax's batch as PyTorch likes it: indices of 64 bits, unused slots labelled -100."""
    held = {name: torch.tensor(array, device=device) for name, array in batch.items()}
    weights = held["label_weights"]
    return {
        **{name: held[name].long() for name in ("tokens", "positions", "slots")},
        "segments": held["segments"],
        "valid": held["valid"],
        "labels": held["labels"].long().masked_fill(weights == 0, -100).flatten(),
        "weights": weights.flatten(),
    }


def torch_product(device: str, dtype: torch.dtype) -> Callable[[int], Callable[[], None]]:
    """As `benchmarks.timing.xla_product`, by PyTorch."""

    def make(size: int) -> Callable[[], None]:
        square = torch.randn(size, size, device=device, dtype=dtype)

        def product() -> None:
            square @ square
            if device != "cpu":
                torch.cuda.synchronize()

        return product

    return make
