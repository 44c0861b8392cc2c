"""Late fusion as a model of lm-evaluation-harness: `lavis-lm-eval --model late_fusion ...`.

    lavis-lm-eval --model late_fusion --tasks piqa,hellaswag --batch_size 8 \\
        --model_args llm=gpt2,pretrained=trained.safetensors,generator=diffusion,k=10

Every request's images are drawn from its context, so the options of a question share them. Needs
the extra `eval`. Shapes: B rows, L tokens, R target positions, M requests of one row, V
vocabulary.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from lavis.common import dist
from lavis.common.config.renamed import present_options
from lavis.common.errors import ConfigError
from lavis.common.logger import Progress
from lavis.common.pretrained import Specials, check_vocabulary, load_tokenizer, padding_token
from lavis.common.registry import import_module
from lavis.integrations.harness_batches import (
    Continuation,
    padded,
    target_tokens,
    text_before,
)
from lavis.integrations.harness_images import TextImages
from lavis.integrations.harness_options import (
    GenerationOptions,
    Options,
    batch_rows,
    is_usable,
    whole_number,
)
from lavis.integrations.lm_eval_command import register

logger = logging.getLogger(__name__)

_NUMBERS = 2**26  # log-probabilities held at a time

register()


class LateFusionLM(TemplateLM):
    """Scores and continues texts with the images of their contexts.

    Args:
        llm: the frozen language model; optional if `pretrained` is a folder of `save_pretrained`.
        pretrained: trained weights, as `model.pretrained`.
        generator: where images come from, as `run.images.generator`; none: text only.
        k: images of a text; 0 is text only (default: the config's, where there is a generator).
        tokenizer: default: the language model's.
        images_of: `context` is shared by the options of a question and shows nothing that is to
            be predicted; `all` draws context and continuation, as released.
        image_size: edge of the tower's images, pixels.
        add_bos_token: start texts with the tokenizer's start token, or with none of its special
            tokens (default: the tokenizer's way).
        max_length: longest text in tokens (default: what fits behind the images).
        import_modules: modules that register generators or scorers, joined by `+`.
        options: any other key of `model`, such as `mix`, `weights` or `vision.name`, or of
            `run.images`, such as `scorer`, `cache_dir` or `options.root`.

    Raises:
        ConfigError: an unknown key, or a wrong value.
    """

    def __init__(
        self,
        llm: str | None = None,
        pretrained: str | None = None,
        generator: str | None = None,
        k: int | None = None,
        *,
        tokenizer: str | None = None,
        images_of: Literal["context", "all"] | None = None,
        image_size: int | None = None,
        add_bos_token: bool | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        import_modules: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for module in filter(None, (import_modules or "").split("+")):
            import_module(module.strip(), "import_modules")
        named = {"images_of": images_of, "image_size": image_size}
        options |= {name: value for name, value in named.items() if value is not None}
        options = present_options(options, "--model_args")
        images_of = options.pop("images_of", "context")
        if images_of not in ("context", "all"):
            raise ConfigError(f"images_of is '{images_of}'; use context or all")
        if not (add_bos_token is None or isinstance(add_bos_token, bool)):
            raise ConfigError(f"add_bos_token is {add_bos_token!r:.60}; use True or False")
        self.batch_size = batch_rows(batch_size, max_batch_size)
        self.add_bos_token = add_bos_token
        self.max_gen_toks = whole_number("max_gen_toks", max_gen_toks)
        wished = None if max_length is None else whole_number("max_length", max_length, 2)
        there = is_usable(device)
        chosen = Options.of(llm, pretrained, generator, k, options.pop("image_size", None), options)
        self._world = dist.start("cpu" if device == "cpu" else "auto")
        self._rank, self._world_size = self._world.rank, self._world.size
        self._device = self._world.device
        if self._world.size == 1 and there:
            self._device = torch.device(str(device))
        with dist.building_for(self._device):
            self.model = chosen.build().to(self._device).eval()
        if self.model.language.is_masked:
            raise ConfigError(f"llm: '{chosen.model.llm}' fills masks; lm_eval needs a causal one")
        self.tokenizer: Any = load_tokenizer(tokenizer or chosen.model.llm, "tokenizer")
        check_vocabulary(self.tokenizer, self.model, "tokenizer")
        self._opening = self._texts_start()
        self._whole = images_of == "all"
        self._images = None
        if chosen.images is not None:
            with dist.building_for(self._device):
                self._images = TextImages(chosen.images, chosen.processor)
        size = chosen.processor.image_size if self._images is not None else None
        room = self.model.longest_text(size) if size else self.model.longest_text()
        if wished and room and wished > room:
            raise ConfigError(f"max_length is {wished}, but texts of at most {room} tokens fit")
        self.max_length = wished or room or 2048
        self._warned = False

    # The harness's interface for every model

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text, if there is one."""
        end = self.tokenizer.eos_token_id
        return None if end is None else int(end)

    @property
    def prefix_token_id(self) -> int:
        """Token before a text without context; `ConfigError` if there is no start or end token."""
        for token in (self.tokenizer.bos_token_id, self.eot_token_id):
            if token is not None:
                return int(token)
        raise ConfigError(
            f"tokenizer: '{self.tokenizer.name_or_path}' has neither a start token nor an end "
            "token, and a text without context must follow one; name its bos_token in "
            "tokenizer_config.json"
        )

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer in the harness's request cache."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation in the tokenizer's own form."""
        text: Any = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Return a text's tokens, with the start token unless the text begins with it.

        No end token closes it: predictions are read behind the text.
        """
        if add_special_tokens is None:
            start = self.tokenizer.bos_token
            begun = bool(start) and string.startswith(start)
            add_special_tokens = False if begun else self.add_bos_token
        opening = [] if add_special_tokens is False else self._opening
        tokens = opening + self.tokenizer.encode(string, add_special_tokens=False)
        if max(tokens, default=0) >= self.model.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(max(tokens))
            raise ConfigError(
                f"tokenizer: a text holds the token '{token}', number {max(tokens)}, and the "
                f"language model has vectors for {self.model.vocabulary}; name its own tokenizer"
            )
        return tokens

    def _texts_start(self) -> list[int]:
        opening, start = list(Specials.of(self.tokenizer).opening), self.tokenizer.bos_token_id
        if not self.add_bos_token or start in opening:
            return opening
        if start is None:
            name = self.tokenizer.name_or_path
            raise ConfigError(f"add_bos_token: the tokenizer '{name}' has no start token")
        return [int(start), *opening]

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, one behind the other."""
        parts = self._world.gather(tensor.reshape(-1).cpu(), "lm_eval tensors")
        return torch.cat(parts).to(tensor.device)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """Return the objects of all processes on process `dst`, None on others."""
        objects = self._world.gather(obj, "lm_eval objects")
        return objects if self._rank == dst else None

    def barrier(self) -> None:
        """Wait until every process is here."""
        self._world.barrier("lm_eval")

    # Likelihoods

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        continuations = []
        for (context, continuation), before, after in requests:
            text = context + continuation if self._whole else context
            continuations.append(self._fitted(before, after, text))
        answers = self._score(continuations)
        for (key, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", key, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return each text's log-likelihood; every token is predicted once.

        A window sees images of what stands before the tokens it predicts (`images_of=all`: of
        the whole text), so the first window of a text is text-only.
        """
        continuations, owners = [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            tokens = self.tok_encode(text)
            done = 0
            for window in get_rolling_token_windows(
                token_list=tokens,
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                before, after = make_disjoint_window(window)
                prefix = self.tokenizer.decode(tokens[:done], skip_special_tokens=True)
                continuations.append(self._fitted(before, after, text if self._whole else prefix))
                owners.append(number)
                done += len(after)
        totals = [0.0] * len(requests)
        for number, (total, _) in zip(owners, self._score(continuations), strict=True):
            totals[number] += total
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _fitted(self, before: Sequence[int], after: Sequence[int], text: str) -> Continuation:
        """Return a continuation with as much context as fits; `ConfigError` if too long without."""
        if len(after) > self.max_length:
            raise ConfigError(
                f"max_length: a continuation of {len(after)} tokens, but {self.max_length} fit"
            )
        tokens = tuple(before) + tuple(after)
        if len(tokens) > self.max_length + 1 and not self._warned:
            self._warned = True
            logger.warning("contexts of more than %d tokens lose their beginning", self.max_length)
        return Continuation(tokens[-(self.max_length + 1) :], len(after), text)

    def _score(self, continuations: Sequence[Continuation]) -> list[tuple[float, bool]]:
        """Return log-likelihood, and whether each token is the likeliest one.

        Continuations that differ in their last token only are read off one row.
        """
        groups: dict[tuple[tuple[int, ...], str], list[int]] = {}
        for number, continuation in enumerate(continuations):
            if continuation.count:
                row = continuation.tokens[:-1]
                groups.setdefault((row, continuation.text), []).append(number)
        if self._images is not None:
            self._images.prepare(self.model, (text for _, text in groups))
        order = sorted(groups, key=lambda group: (-len(group[0]), group))
        answers = [(0.0, True)] * len(continuations)
        progress = Progress(len(order), "lm_eval likelihoods", unit="texts", shown=not self._rank)
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            owners = [groups[group] for group in part]
            targets, counts = target_tokens(owners, continuations)
            for one, values, greedy in zip(owners, *self._read(part, targets, counts), strict=True):
                for number, value, best in zip(one, values, greedy, strict=False):
                    answers[number] = (value, best)
            progress.add(len(part))
        progress.close()
        return answers

    def _read(
        self, part: Sequence[tuple[tuple[int, ...], str]], targets: Tensor, counts: Tensor
    ) -> tuple[list[list[float]], list[list[bool]]]:
        """Return sums of log-probabilities, and whether all are the likeliest, both `(B, M)`.

        Args:
            targets: `(B, M, R)`, tokens that follow the last R tokens of each row.
            counts: `(B, M)`, how many of them each request reads, the last ones.
        """
        samples = padded([row for row, _ in part], side="right")
        samples |= self._shown([text for _, text in part])
        encoded = self.model.encode_text(samples["input_ids"], samples["attention_mask"])
        samples["text_hidden"] = encoded.hidden
        count = targets.shape[2]
        ends = samples["attention_mask"].sum(dim=1)
        positions = (ends[:, None] - count + torch.arange(count)).clamp(min=0)  # (B, R)
        used = torch.arange(count) >= count - counts[..., None]  # (B, M, R)
        totals = torch.zeros(counts.shape, dtype=torch.float64)
        greedy = torch.ones(counts.shape, dtype=torch.bool)
        vocabulary = self.model.language.config.vocab_size
        step = max(1, _NUMBERS // (len(part) * vocabulary))
        for start in range(0, count, step):
            now = slice(start, start + step)
            outputs = self.model.predict({**samples, "positions": positions[:, now]})
            log_probs = outputs["log_probs"]  # (B, r, V)
            token_ids = targets[..., now].transpose(1, 2).to(log_probs.device)  # (B, r, M)
            values = log_probs.gather(-1, token_ids).transpose(1, 2).cpu().double()
            same = (log_probs.argmax(dim=-1, keepdim=True) == token_ids).transpose(1, 2).cpu()
            totals += values.masked_fill(~used[..., now], 0).sum(dim=-1)
            greedy &= (same | ~used[..., now]).all(dim=-1)
        return totals.tolist(), greedy.tolist()

    # Written answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue contexts until a stop text, the likeliest token at a time (or by beams)."""
        answers = [""] * len(requests)
        if self._images is not None:
            self._images.prepare(self.model, (request.args[0] for request in requests))
        progress = Progress(len(requests), "lm_eval texts", unit="texts", shown=not self._rank)
        for options, numbers in self._alike(requests):
            room = self.max_length - options.max_gen_toks
            if room < 1:
                raise ConfigError(
                    f"max_gen_toks is {options.max_gen_toks}, but texts have {self.max_length} "
                    "tokens; give a smaller one with --gen_kwargs or in the task"
                )
            rows = {n: self.tok_encode(requests[n].args[0])[-room:] for n in numbers}
            rows = {n: row or [self.prefix_token_id] for n, row in rows.items()}
            order = sorted(numbers, key=lambda n: -len(rows[n]))
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                texts = [requests[n].args[0] for n in part]
                made = self._continue([rows[n] for n in part], texts, options)
                for number, answer in zip(part, made, strict=True):
                    answers[number] = answer
                    self.cache_hook.add_partial("generate_until", requests[number].args, answer)
                progress.add(len(part))
        progress.close()
        return answers

    def _alike(self, requests: Sequence[Any]) -> Iterator[tuple[GenerationOptions, list[int]]]:
        """Yield options, and which requests have them."""
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
        for key, numbers in groups.items():
            yield GenerationOptions.of(json.loads(key), self.max_gen_toks), numbers

    def _continue(
        self, rows: list[list[int]], texts: list[str], options: GenerationOptions
    ) -> list[str]:
        tokenizer, end = self.tokenizer, self.eot_token_id
        stops = [*options.until, *([] if end is None else [tokenizer.decode([end])])]

        def stop(tokens: Tensor) -> Tensor:
            texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
            return torch.tensor([any(s and s in text for s in stops) for text in texts])

        samples = padded(rows, side="left") | self._shown(texts)
        tokens = self.model.generate(
            **samples,
            max_new_tokens=options.max_gen_toks,
            num_beams=options.num_beams,
            length_penalty=options.length_penalty,
            eos_token_id=end,
            pad_token_id=padding_token(tokenizer),
            stop=stop,
        )
        decoded = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text_before(text, stops) for text in decoded]

    # Samples

    def _shown(self, texts: list[str]) -> dict[str, Tensor]:
        return {} if self._images is None else self._images.samples(texts)
