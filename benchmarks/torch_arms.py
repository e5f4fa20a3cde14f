"""The four arms in plain eager PyTorch, which the speed benchmark compares kdjax with.

The mathematics of `kdjax.models` and `kdjax.objectives` (default variants) as one would write it by
hand: attention through `scaled_dot_product_attention` where nobody asks for scores, the MLM head at
the masked slots alone, a teacher without gradients that stops at the last layer needed, one
log-softmax of the student's logits where two terms read it. Modules are named as kdjax's parameters
are, so that parameters and gradients can be handed over and compared.

Letters in shapes: B batch, L length, H heads, d head width, D width, S slots, V vocabulary.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
ADAMW = {"cpu": "foreach", "cuda": "fused"}
"""The faster implementation of `torch.optim.AdamW` on each device."""

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


@dataclass
class Features:
    """The outputs of a forward pass; layer 1 is the first, hidden state 0 the embedding output."""

    scores: dict[int, Tensor] = field(default_factory=dict)
    query: dict[int, Tensor] = field(default_factory=dict)
    key: dict[int, Tensor] = field(default_factory=dict)
    value: dict[int, Tensor] = field(default_factory=dict)
    hidden: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


def _norm(config: ModelConfig) -> nn.LayerNorm:
    """Return a LayerNorm, with a bias where the model's have one."""
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.width)
        self.position = None
        if config.positions == "learned":
            self.position = nn.Embedding(config.max_positions, config.width)
        self.token_type = None
        if config.type_vocab_size:
            self.token_type = nn.Embedding(config.type_vocab_size, config.width)
        self.norm = _norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        # Packed segments only bound attention: every token has type 0.
        x = self.word(batch["tokens"])
        if self.token_type is not None:
            x = x + self.token_type.weight[0]
        if self.position is not None:
            x = x + self.position(batch["positions"])
        return self.dropout(self.norm(x))


class Rotary(NamedTuple):
    """Tables of rotary positions `[B, 1, L, d]` (Su et al. 2021, arXiv 2104.09864)."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate queries or keys `[B, H, L, d]`: feature i forms a pair with feature i + d/2."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin


def rotary_tables(config: ModelConfig, positions: Tensor, *, is_local: bool) -> Rotary:
    """Compute the tables for positions `[B, L]`, once for all layers of a kind."""
    half = config.head_width // 2
    base = config.local_rotary_base if is_local else config.rotary_base
    exponents = torch.arange(half, device=positions.device) / half
    angles = positions[:, None, :, None] * base**-exponents
    # Both halves of a head turn by the same angles.
    angles = torch.cat((angles, angles), dim=-1)
    return Rotary(angles.cos(), angles.sin())


class Attention(nn.Module):
    """Attention whose queries, keys and values come from one product: every arm needs all three."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.joined = nn.Linear(config.width, 3 * config.width, bias=config.linear_bias)
        self.output = nn.Linear(config.width, config.width, bias=config.linear_bias)
        self.heads = config.heads
        self.drop = config.attention_dropout
        self.scale = 1 / math.sqrt(config.head_width)

    def parts(self, x: Tensor, rotary: Rotary | None, *, scores: bool) -> dict[str, Tensor]:
        """Return query, key, value `[B, H, L, d]` and, if asked for, raw scores `[B, H, L, L]`."""
        projected = self.joined(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind()
        if rotary is not None:
            query = rotary.rotate(query)
            key = rotary.rotate(key)
        parts = {"query": query, "key": key, "value": value}
        if scores:
            parts["scores"] = (query * self.scale) @ key.transpose(-1, -2)
        return parts

    def mix(self, parts: dict[str, Tensor], mask: Tensor) -> Tensor:
        # Scores that somebody reads have to exist; a fused attention makes none.
        if "scores" in parts:
            weights = F.softmax(parts["scores"] + mask, dim=-1)
            if self.drop and self.training:
                weights = F.dropout(weights, self.drop)
            mixed = weights @ parts["value"]
        else:
            mixed = F.scaled_dot_product_attention(
                parts["query"],
                parts["key"],
                parts["value"],
                attn_mask=mask,
                dropout_p=self.drop * self.training,
                scale=self.scale,
            )
        return self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Of a gated block, up and gate from one product
        self.gated = config.ffn_gated
        units = config.ffn * (1 + config.ffn_gated)
        self.up = nn.Linear(config.width, units, bias=config.linear_bias)
        self.down = nn.Linear(config.ffn, config.width, bias=config.linear_bias)
        self.dropout = nn.Identity()
        if config.dropout_sites == "modernbert":
            self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        if not self.gated:
            return self.down(self.dropout(F.gelu(hidden)))
        up, gate = hidden.chunk(2, dim=-1)
        return self.down(self.dropout(F.gelu(up) * gate))


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, *, is_first: bool) -> None:
        super().__init__()
        self.attention = Attention(config)
        has_norm = config.first_norm or not is_first
        self.attention_norm = _norm(config) if has_norm else nn.Identity()
        self.ffn = FeedForward(config)
        self.ffn_norm = _norm(config)
        modern = config.dropout_sites == "modernbert"
        self.attention_dropout = nn.Dropout(config.attention_dropout if modern else config.dropout)
        self.ffn_dropout = nn.Identity() if modern else nn.Dropout(config.dropout)
        self.pre_norm = config.norm == "pre"

    def forward(
        self, x: Tensor, mask: Tensor, rotary: Rotary | None, *, scores: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parts = self.attend(x, rotary, scores=scores)
        x = x + self.attention_dropout(self.attention.mix(parts, mask))
        if self.pre_norm:
            return x + self.ffn_dropout(self.ffn(self.ffn_norm(x))), parts
        x = self.attention_norm(x)
        return self.ffn_norm(x + self.ffn_dropout(self.ffn(x))), parts

    def attend(self, x: Tensor, rotary: Rotary | None, *, scores: bool) -> dict[str, Tensor]:
        """Return the attention's parts, and run nothing after them."""
        attended = self.attention_norm(x) if self.pre_norm else x
        return self.attention.parts(attended, rotary, scores=scores)


class MlmHead(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width, bias=config.linear_bias)
        self.norm = _norm(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor, word: nn.Embedding) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), word.weight, self.bias)


class Encoder(nn.Module):
    """An encoder with the exact GELU: BERT, post-LN or pre-LN, with learned or rotary positions, or
    ModernBERT."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        numbers = range(1, config.layers + 1)
        self.layers = nn.ModuleDict({str(n): Layer(config, is_first=n == 1) for n in numbers})
        self.final_norm = _norm(config) if config.norm == "pre" else None
        self.mlm = MlmHead(config)

    def forward(self, batch: Batch, request: FeatureRequest) -> Features:
        """Return the requested features, and run no layer, nor part of one, that none needs."""
        features = Features()
        top = len(self.layers) if request.head else request.depth
        # The highest layer ends with its attention's parts, unless its output is read.
        whole = top if request.head or top in request.hidden else top - 1

        x = self.embeddings(batch)
        if 0 in request.hidden:
            features.hidden[0] = x
        views = {}
        for is_local in {self.config.is_local(n) for n in range(1, top + 1)}:
            views[is_local] = self._view(batch, x.dtype, is_local=is_local)
        for n in range(1, top + 1):
            layer = self.layers[str(n)]
            mask, rotary = views[self.config.is_local(n)]
            requested = request.attention(n)
            if n <= whole:
                x, parts = layer(x, mask, rotary, scores="scores" in requested)
            else:
                parts = layer.attend(x, rotary, scores="scores" in requested)
            if n == len(self.layers) and n <= whole and self.final_norm is not None:
                x = self.final_norm(x)
            for name in requested:
                getattr(features, name)[n] = parts[name]
            if n in request.hidden:
                features.hidden[n] = x

        # The head reads the masked slots alone.
        if request.head:
            # Rows are counted out, so that each sequence is indexed by its own slots.
            slots = batch["slots"]
            at_slots = x[torch.arange(len(slots), device=slots.device)[:, None], slots]
            features.logits = self.mlm(at_slots.flatten(0, 1), self.embeddings.word)
        return features

    def _view(
        self, batch: Batch, dtype: torch.dtype, *, is_local: bool
    ) -> tuple[Tensor, Rotary | None]:
        """Return the mask and the rotary tables of layers of one kind."""
        allowed = _same_segment(batch["segments"])
        if is_local:
            places = torch.arange(allowed.shape[-1], device=allowed.device)
            distance = (places[:, None] - places).abs()
            allowed = allowed & (distance <= self.config.attention_window // 2)
        rotary = None
        if self.config.positions == "rotary":
            rotary = rotary_tables(self.config, batch["positions"], is_local=is_local)
        return _additive(allowed, dtype), rotary


def scratch(
    student: Features, teacher: Features, batch: Batch, project: nn.Linear | None
) -> Tensor:
    """Compute the mean cross-entropy of the masked tokens."""
    return F.cross_entropy(student.logits.float(), batch["labels"])


def logit(student: Features, teacher: Features, batch: Batch, project: nn.Linear | None) -> Tensor:
    """Add the mean KL(p_t‖p_s) over the masked slots, at temperature 1, to the cross-entropy."""
    log_probs = F.log_softmax(student.logits.float(), -1)
    weights = batch["weights"]
    divergence = _kl(log_probs, teacher.logits.float())
    return F.nll_loss(log_probs, batch["labels"]) + (divergence * weights).sum() / weights.sum()


def tinybert(
    student: Features, teacher: Features, batch: Batch, project: nn.Linear | None
) -> Tensor:
    """Sum squared differences of attention scores and of projected hidden states, layer by layer.

    Layers of the student are mapped uniformly to the teacher's.
    """
    # Pairs of other segments and padding count for nothing, nor in the means.
    together = _together(batch)
    valid = batch["valid"]
    losses = []
    apart = ~together
    pairs = together.sum()
    padding = ~valid[..., None]
    tokens = valid.sum()
    for n, scores in student.scores.items():
        target = teacher.scores[n * max(teacher.scores) // max(student.scores)]
        difference = (scores - target).float().masked_fill_(apart, 0)
        losses.append(difference.square().sum() / (pairs * scores.shape[1]))
    for n, hidden in student.hidden.items():
        target = teacher.hidden[n * max(teacher.hidden) // max(student.hidden)]
        difference = (project(hidden) - target).float().masked_fill_(padding, 0)
        losses.append(difference.square().sum() / (tokens * target.shape[-1]))
    return torch.stack(losses).sum()


def minilm(
    student: Features,
    teacher: Features,
    batch: Batch,
    project: nn.Linear | None,
    relation_heads: int = 0,
) -> Tensor:
    """Sum the KL between relations of queries, of keys and of values of the last layers."""
    apart = ~_together(batch)
    rows = batch["valid"][:, None].float()
    losses = []
    for kind in ("query", "key", "value"):
        # Each has one layer's vectors, split into its own heads; relations have heads in common.
        (vectors,) = getattr(student, kind).values()
        (target,) = getattr(teacher, kind).values()
        student_width = vectors.shape[1] * vectors.shape[3]
        teacher_width = target.shape[1] * target.shape[3]
        heads = Relation(relation_heads=relation_heads).heads(student_width, teacher_width)
        log_probs = F.log_softmax(_relation(vectors, heads, apart), dim=-1)
        divergence = _kl(log_probs, _relation(target, heads, apart))
        losses.append((divergence * rows).sum() / (rows.sum() * heads))
    return torch.stack(losses).sum()


def _relation(x: Tensor, heads: int, apart: Tensor) -> Tensor:
    """Compute X X^T/√(D/heads) `[B, heads, L, L]`; low where positions are apart."""
    x = x.transpose(1, 2).flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2).float()
    scores = (x / math.sqrt(x.shape[-1])) @ x.transpose(-1, -2)
    return scores.masked_fill_(apart, -1e30)


def _kl(log_probs: Tensor, target: Tensor) -> Tensor:
    """Compute KL(target‖student) over the last axis, of the student's log-probabilities and scores.

    A softmax of its own is faster than `F.kl_div`, whose exp of log-probabilities near -1e30 is
    slow on a CPU.
    """
    return (F.softmax(target, -1) * (F.log_softmax(target, -1) - log_probs)).sum(-1)


def _same_segment(segments: Tensor) -> Tensor:
    return segments[:, None, :, None] == segments[:, None, None, :]


def _together(batch: Batch) -> Tensor:
    """Return which pairs of positions belong together, bool `[B, 1, L, L]`."""
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
        project: TinyBERT's projection to the teacher's width, or None.
    """

    def __init__(
        self,
        case: Case,
        params: Any,
        teacher: Any,
        batches: list[Mapping[str, np.ndarray]],
        *,
        objective: Mapping[str, Any],
        device: str = "cpu",
        bfloat16: bool = False,
    ) -> None:
        """Build models and optimizer from kdjax's parameters.

        Args:
            case: what to run.
            params, teacher: kdjax's parameters of both models.
            batches: kdjax's batches, on the host.
            objective: kdjax's parameters of the terms.
            device: PyTorch's name of the device.
            bfloat16: whether a bfloat16 copy of the float32 parameters computes the step.
        """
        self._loss = LOSSES[case.arm]
        self._needs = case.phase.needs
        self._device = device
        if case.arm == "minilm":
            self._loss = functools.partial(minilm, relation_heads=case.pair.relation_heads)
        self.student = _loaded(Encoder(case.pair.student), params).to(device).train()
        self.teacher = None
        if case.phase.teacher_config:
            self.teacher = _loaded(Encoder(case.pair.teacher), teacher).to(device)
            # A teacher has no dropout and no gradients.
            self.teacher.eval().requires_grad_(False)
        self.project = None
        self._trained = nn.ModuleDict({"model": self.student})
        # TinyBERT's term is the only one with parameters: a projection.
        for name, term_params in objective.items():
            projection = nn.Linear(case.pair.student.width, case.pair.teacher.width)
            self.project = _loaded(projection, term_params).to(device)
            # Named as in kdjax, so that gradients have the same paths.
            self._trained["objective"] = nn.ModuleDict({name: self.project})
        self.batches = [_placed(host_batch, device) for host_batch in batches]

        # The optimizer updates float32 parameters; in bfloat16 the models compute with a copy.
        parameters = list(self._trained.parameters())
        self._master = None
        if bfloat16:
            parameters = [p.detach().clone().requires_grad_() for p in parameters]
            self._master = parameters
            for module in filter(None, (self._trained, self.teacher)):
                module.to(torch.bfloat16)
        self._optimizer = self._adamw(parameters)
        self._steps = 0

    def _adamw(self, parameters: list[Tensor]) -> torch.optim.AdamW:
        """Return AdamW over parameters in the models' order; biases and norms do not decay."""
        # As in kdjax, biases and normalization do not decay.
        groups: dict[float, list[Tensor]] = {OPTIMIZER.weight_decay: [], 0.0: []}
        for (name, _), parameter in zip(self._trained.named_parameters(), parameters, strict=True):
            undecayed = name.endswith("bias") or "norm." in name
            groups[OPTIMIZER.weight_decay * (not undecayed)].append(parameter)
        return torch.optim.AdamW(
            [{"params": group, "weight_decay": decay} for decay, group in groups.items()],
            lr=RATE,
            betas=(OPTIMIZER.b1, OPTIMIZER.b2),
            eps=OPTIMIZER.eps,
            **{ADAMW[self._device]: True},
        )

    def loss(self, batch: Batch) -> Tensor:
        """Compute the loss of a placed batch."""
        target = Features()
        if self.teacher is not None:
            with torch.no_grad():
                target = self.teacher(batch, self._needs.teacher)
        return self._loss(self.student(batch, self._needs.student), target, batch, self.project)

    def step(self) -> Tensor:
        """Begin a step on the next batch; on a GPU it may still run when this returns."""
        batch = self.batches[self._steps % len(self.batches)]
        loss = self.loss(batch)
        loss.backward()
        # A parameter that no loss reads has no gradient, and is not updated.
        if self._master is None:
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        else:
            self._update_master()
        self._steps += 1
        return loss.detach()

    def _update_master(self) -> None:
        """Update the float32 parameters, and copy them to the bfloat16 ones."""
        masters = []
        copies = []
        for master, copy in zip(self._master, self._trained.parameters(), strict=True):
            if copy.grad is not None:
                master.grad = copy.grad.float()
                copy.grad = None
                masters.append(master)
                copies.append(copy)
        self._optimizer.step()
        with torch.no_grad():
            # One call for all parameters, as the optimizer makes.
            torch._foreach_copy_(copies, masters)

    def wait(self) -> None:
        """Wait until all steps are done."""
        if self._device != "cpu":
            torch.cuda.synchronize()

    def gradients(self) -> tuple[float, dict[str, np.ndarray]]:
        """Compute the first batch's loss, and its gradients by PyTorch's names."""
        loss = self.loss(self.batches[0])
        loss.backward()
        gradients = {}
        for name, parameter in self._trained.named_parameters():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.float().cpu().numpy()
                parameter.grad = None
        return loss.item(), gradients


def named(tree: Any) -> dict[str, np.ndarray]:
    """Return kdjax's parameters, or their gradients, by PyTorch's names and in its layout.

    A query without its key and value has no place in the joined product, and stays as it is.
    """
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        keys = [str(key.key) for key in path]
        last = keys.pop()
        array = np.asarray(leaf, np.float32)
        # Every nn.Module has a method `type`.
        module = ["token_type" if name == "type" else name for name in keys]
        arrays[".".join([*module, _LEAVES[last]])] = array.T if last == "kernel" else array

    # Query, key and value are the rows of one product, and so are up and gate.
    for kinds, product in ((("query", "key", "value"), "joined"), (("up", "gate"), "up")):
        first = f".{kinds[0]}."
        for name in [name for name in arrays if first in name]:
            parts = [name.replace(first, f".{kind}.") for kind in kinds]
            if all(part in arrays for part in parts):
                joined = np.concatenate([arrays.pop(part) for part in parts])
                arrays[name.replace(first, f".{product}.")] = joined
    return arrays


def _loaded(module: nn.Module, params: Any) -> nn.Module:
    """Load kdjax's parameters into a module; an encoder without a head loses its own."""
    state = {name: torch.tensor(array) for name, array in named(params).items()}
    if isinstance(module, Encoder) and not any(name.startswith("mlm.") for name in state):
        module.mlm = None
    module.load_state_dict(state)
    return module


def _placed(batch: Mapping[str, np.ndarray], device: str) -> dict[str, Tensor]:
    """Return a batch as PyTorch likes it: indices of 64 bits, unused slots labelled -100."""
    tensors = {name: torch.tensor(array, device=device) for name, array in batch.items()}
    # PyTorch leaves labels of -100 out of the mean.
    weights = tensors["label_weights"]
    return {
        **{name: tensors[name].long() for name in ("tokens", "positions", "slots")},
        "segments": tensors["segments"],
        "valid": tensors["valid"],
        "labels": tensors["labels"].long().masked_fill(weights == 0, -100).flatten(),
        "weights": weights.flatten(),
    }


def torch_product(device: str, dtype: torch.dtype) -> Callable[[int], Callable[[], None]]:
    """Return what makes products by PyTorch on a device."""

    def make(size: int) -> Callable[[], None]:
        square = torch.randn(size, size, device=device, dtype=dtype)

        def product() -> None:
            square @ square
            if device != "cpu":
                torch.cuda.synchronize()

        return product

    return make
