"""What every model has: building from a checked section, loading, freezing, optimizer groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lavis.common.checkpoint import LoadReport, read_state_dict, shorten
from lavis.common.dist import World
from lavis.common.errors import ConfigError
from lavis.common.sharded import is_sharded, like, repeated_layers

# On a CPU, activations over 32 MB get fresh pages from the system at every call: 60 % of the time
# of 128 images (EfficientNet-Lite0, 192 pixels), 12 % of 16 images (ViT-B, 224), none of 4.
CPU_IMAGES = 4
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
IGNORED = -100  # label that cross entropy leaves out


def in_parts(
    frozen: Callable[..., Tensor], *inputs: Tensor, module: nn.Module, most: int = CPU_IMAGES
) -> Tensor:
    """Return what a frozen model makes of inputs `(N, ...)`, on a CPU `most` at a time.

    Args:
        module: what `frozen` calls. One that FSDP splits takes all at once: ranks with inputs of
            different lengths would call it differently often.
    """
    parts: Iterable[tuple[Tensor, ...]] = [inputs]
    on_cpu = inputs[0].device.type == "cpu"
    if on_cpu and not torch.is_grad_enabled() and not is_sharded(module):
        parts = zip(*(one.split(most) for one in inputs), strict=True)
    outputs = [frozen(*part) for part in parts]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class BaseModel(nn.Module):
    """Base of registered models.

    Attributes:
        config: the dataclass of the model's section.
        fresh_keys: prefixes of weights a checkpoint may lack: heads that a task adds.
        unused_keys: prefixes of weights a checkpoint may hold although this model has none.
        stacks: prefix of numbered layers -> option that sets their number; a mismatch is refused.
        uses_every_weight: all trainable weights get a gradient in every step: DDP need not search.
    """

    fresh_keys: tuple[str, ...] = ()
    unused_keys: tuple[str, ...] = ()
    stacks: Mapping[str, str] = MappingProxyType({})

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def uses_every_weight(self) -> bool:
        """See the class; a model whose config leaves heads unused must say so."""
        return False

    @classmethod
    def from_config(cls, config: Any) -> BaseModel:
        """Build the model of a checked section and load the weights it names."""
        model = cls(config)
        model.load_from_config()
        return model

    def load_from_config(self) -> None:
        """Load what the section names; the base class has nothing to load."""

    @property
    def device(self) -> torch.device:
        """Device of the first parameter."""
        return next(self.parameters()).device

    def load_checkpoint(self, source: str) -> LoadReport:
        """Load a file, URL or folder into the built model; see `load_state`."""
        return self.load_state(read_state_dict(source), source=source)

    def load_state(
        self,
        state: Mapping[str, Tensor],
        strict_trainable: bool = True,
        *,
        strict_frozen: bool = False,
        source: str = "the state dict",
    ) -> LoadReport:
        """Load weights, fitting what may be fitted, and log a report.

        Args:
            state: weights under any key names the model knows.
            strict_trainable: weights that training changes must be there, `fresh_keys` aside.
            strict_frozen: frozen weights must be there too.
            source: where they came from, for messages.

        Raises:
            ConfigError: required weights are missing, a shape does not fit, or a stack of layers
                has another depth.
        """
        native = self.to_native(state)
        own = self.state_dict()
        resized = {}
        for name in [name for name in native if name in own]:
            old, new = native[name].shape, own[name].shape
            if old != new:
                native[name] = self.fit(name, native[name], own[name], source)
                resized[name] = (tuple(old), tuple(new))
        report = self._report(native, own, resized, source)
        report.log()
        self._check_layers(native, own, source)
        self._check_missing(report, strict_trainable, strict_frozen)
        fitted = {name: like(value, own[name]) for name, value in native.items() if name in own}
        self.load_state_dict(fitted, strict=False)
        return report

    def _report(
        self,
        native: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        resized: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
        source: str,
    ) -> LoadReport:
        trainable = {name for name, weight in self.named_parameters() if weight.requires_grad}
        absent = [k for k in own if k not in native and not k.endswith("num_batches_tracked")]
        fresh = [name for name in absent if name.startswith(self.fresh_keys or ("\0",))]
        missing = [name for name in absent if name not in set(fresh)]
        return LoadReport(
            source=source,
            loaded=sum(name in own for name in native),
            missing=tuple(missing),
            unexpected=tuple(
                name
                for name in native
                if name not in own and not name.startswith(self.unused_keys or ("\0",))
            ),
            resized=resized,
            missing_trainable=tuple(name for name in missing if name in trainable),
            fresh=tuple(fresh),
        )

    def _check_missing(
        self, report: LoadReport, strict_trainable: bool, strict_frozen: bool
    ) -> None:
        required = list(report.missing_trainable) if strict_trainable else []
        if strict_frozen:
            required += [k for k in report.missing if k not in set(report.missing_trainable)]
        if not required:
            return
        hint = self.missing_hint(required)
        none = "; none of its weights belongs to this model" if not report.loaded else ""
        raise ConfigError(
            f"{report.source} lacks {len(required)} weights the model needs: {shorten(required)}"
            f"{none}{hint}"
        )

    def _check_layers(
        self, native: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str
    ) -> None:
        """Compare the layers of each stack that both have; no option makes up for another depth."""
        theirs = _layers(name for name in native if self._is_stacked(name))
        for stack, layers in _layers(name for name in own if self._is_stacked(name)).items():
            numbers = theirs.get(stack, layers)
            if numbers == layers:
                continue
            option = next((o for s, o in self.stacks.items() if stack.startswith(s)), "")
            same = numbers == set(range(len(numbers)))
            hint = f"set {option}={len(numbers)}, or " if option and same else ""
            raise ConfigError(
                f"{source} has {len(numbers)} layers of {stack}, the model has {len(layers)}; "
                f"{hint}name a checkpoint of the same depth"
            )

    def _is_stacked(self, name: str) -> bool:
        return name.startswith(tuple(self.stacks)) if self.stacks else False

    def missing_hint(self, missing: list[str]) -> str:
        """Return what to do about missing weights, appended to the error."""
        return "; set model.allow_missing=true to start them at random"

    def to_native(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights under this model's own names."""
        return dict(state)

    def fit(self, name: str, value: Tensor, own: Tensor, source: str) -> Tensor:
        """Return a weight in the shape of `own`, or raise `ConfigError`."""
        raise ConfigError(
            f"{source}: {name} has shape {list(value.shape)}, the model's is {list(own.shape)}; "
            "set the model's sizes to the checkpoint's"
        )

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return what a trained checkpoint must hold: everything that is not frozen."""
        frozen = {name for name, weight in self.named_parameters() if not weight.requires_grad}
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return all weights."""
        return self.state_dict()

    def scoring_identity(self) -> dict[str, Any] | None:
        """Return what scores depend on beside weights, JSON-able; None for the section `model`.

        For models whose section also holds what may change between two starts of one run.
        """
        return None

    def scoring(self, folder: Path, world: World) -> AbstractContextManager[None]:
        """Return the context in which the units of a data set are scored; here nothing is held.

        Args:
            folder: of the run's output.
            world: of the processes, each of which enters.
        """
        return nullcontext()

    def layers_to_shard(self, device: torch.device) -> list[nn.Module]:
        """Return the layers whose weights FSDP splits, ready for it; called once, before training.

        All other weights are whole during a step, wherever `forward` reads them.

        Args:
            device: where the model will run; it may still be on the CPU.
        """
        return repeated_layers(self)

    def get_optimizer_params(
        self, weight_decay: float, lr_layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return parameter groups; vectors, biases and norms are not decayed."""
        named = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        return group_parameters(
            (p, 0.0 if p.ndim < 2 or any(s in n for s in ("bias", "ln", "bn")) else weight_decay, 1)
            for n, p in named
        )


class ZeroInit(TorchFunctionMode):
    """Context in which random fills are zero fills, for weights a checkpoint is about to replace.

    Drawing a billion unused random numbers takes longer than reading the checkpoint.
    """

    # by name: transformers puts its own functions of the same names in torch's place
    _FILLS = frozenset({"uniform_", "normal_", "erfinv_", "kaiming_uniform_"})

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run `func`, unless it fills a tensor at random."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in self._FILLS:
            return func(*args, **kwargs)
        with torch.no_grad():
            return (args[0] if args else kwargs["tensor"]).zero_()


def _layers(names: Iterable[str]) -> dict[str, set[int]]:
    """Return the layer numbers of each stack: name up to the first number -> numbers."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        match = re.match(r"(.*?)\.(\d+)\.", name)
        if match is not None:
            numbers.setdefault(match[1], set()).add(int(match[2]))
    return numbers


def freeze(module: nn.Module) -> None:
    """Stop training of a module; the owner keeps it in evaluation mode."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad = False


def group_parameters(items: Iterable[tuple[nn.Parameter, float, float]]) -> list[dict[str, Any]]:
    """Collect `(parameter, weight decay, lr scale)` into optimizer groups, first come first."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter, weight_decay, lr_scale in items:
        groups.setdefault((weight_decay, lr_scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay, "lr_scale": lr_scale}
        for (weight_decay, lr_scale), parameters in groups.items()
    ]
