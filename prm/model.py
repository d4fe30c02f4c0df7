"""The process reward model: a causal language model's backbone with one number per token."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codegym.episode import Episode
from prm.alignment import newlines_per_token
from prm.backbone import load_backbone, without_dropout
from prm.batching import EncodedProgram, LineBatch, collate, encode, encode_sampled, plan_batches
from prm.heads import make_head
from prm.lora import active_name, merge_adapter
from prm.model_folder import read_head, read_head_name, write_folder
from prm.program import SampledProgram


@dataclass(frozen=True, kw_only=True)
class LineReading:
    """What the model says about one program of L lines.

    Attributes:
        outputs: The head's number per line: a logit or a regressed label, by head. [L]
        scores: In [-1, 1]; 0 on comment and blank lines. [L]
    """

    outputs: NDArray[np.float64]
    scores: NDArray[np.float64]

    def first_lines(self, n_lines: int) -> "LineReading":
        """What it says about the first `n_lines` lines."""
        return LineReading(outputs=self.outputs[:n_lines], scores=self.scores[:n_lines])


class ProcessRewardModel(nn.Module):
    """Scores every line of a program: how right the program is up to and including it.

    A `codegym.rewards.LineScorer`. The backbone may be any Hugging Face causal language model; dropout is
    off, so that a score is a function of the program. The head computes in float32 whatever the backbone's
    type. A LoRA adapter (`prm.lora`) may sit in the backbone while it trains.

    Args:
        backbone: A causal transformer that returns `last_hidden_state`; taken over, not copied.
        tokenizer: Its tokenizer.
        head: One of `prm.heads.HEADS`.
        max_batch_tokens: Padded tokens per forward pass when scoring.
    """

    def __init__(
        self, backbone: Any, tokenizer: Any, *, head: str = "token_sum", max_batch_tokens: int = 8192
    ) -> None:
        super().__init__()
        if max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens must be at least 1, got {max_batch_tokens}")
        self.line_head = make_head(head)
        self.head_name = head
        self.backbone = without_dropout(backbone)
        self.tokenizer = tokenizer
        self.max_batch_tokens = max_batch_tokens
        self.autocast_dtype: torch.dtype | None = None  # of the backbone's arithmetic, if not its weights'
        self.newlines = newlines_per_token(tokenizer)
        self.head = nn.Linear(backbone.config.hidden_size, 1, device=backbone.device, dtype=torch.float32)
        nn.init.zeros_(
            self.head.weight
        )  # an untrained model knows nothing: every line starts at the same score
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_backbone(
        cls,
        source: str | Path | Any,
        tokenizer: Any = None,
        *,
        head: str = "token_sum",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Start a reward model from a language model's weights.

        Args:
            source: A folder or hub name of a causal language model, or such a model (copied, so that training
                one does not change the other).
            tokenizer: The model's tokenizer; read from the folder if None.
            head: One of `prm.heads.HEADS`.
            dtype: Of the backbone.
            device: Where it lives.

        Raises:
            ValueError: If `source` is a model and no tokenizer is given, or its vocabulary is too small for
                it.
            UnknownNameError: If there is no such head.
        """
        make_head(head)
        backbone, tokenizer = load_backbone(source, tokenizer, dtype=dtype)
        return cls(backbone.to(device), tokenizer, head=head).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.head.weight.device

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of prompt and program that can be read; None if the backbone has no bound."""
        bound: int | None = getattr(self.backbone.config, "max_position_embeddings", None)
        return bound

    @property
    def identity(self) -> str:
        """Names head and weights: equal if and only if the scores are."""
        digest = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return f"prm/{self.head_name}/{digest.hexdigest()[:12]}"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The head's output at every token; padding on the right. [B, T] to [B, T], float32."""
        lower = self.autocast_dtype
        with torch.autocast(self.device.type, dtype=lower, enabled=lower is not None):
            hidden = self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False
            ).last_hidden_state
        outputs: Tensor = self.head(hidden.float())
        return outputs.squeeze(-1)

    def line_outputs(self, batch: LineBatch) -> Tensor:
        """The head's number for every line. [B, L]."""
        tokens = self(batch.input_ids, batch.attention_mask)
        return self.line_head.read(tokens, batch.line_of_token, batch.line_ends)

    def batch(self, programs: Sequence[EncodedProgram]) -> LineBatch:
        """Pad programs into one batch on the model's device.

        Raises:
            ValueError: If a program is longer than the backbone's positions.
        """
        longest = max(program.n_tokens for program in programs)
        if self.max_tokens is not None and longest > self.max_tokens:
            raise ValueError(
                f"a program of {longest} tokens does not fit the backbone's {self.max_tokens} positions"
            )
        return collate(programs, pad_id=self.tokenizer.pad_token_id or 0, device=self.device)

    @torch.no_grad()
    def read(self, programs: Sequence[EncodedProgram]) -> list[LineReading]:
        """Read every line of every program, in few batches of similar length."""
        readings = [LineReading(outputs=np.zeros(0), scores=np.zeros(0))] * len(programs)
        filled = [index for index, program in enumerate(programs) if program.n_lines]
        for plan in plan_batches([programs[index].n_tokens for index in filled], self.max_batch_tokens):
            chosen = [filled[position] for position in plan]
            batch = self.batch([programs[index] for index in chosen])
            outputs = self.line_outputs(batch)
            scores = self.line_head.score(outputs, batch.scored).cpu().numpy().astype(np.float64)
            numbers = outputs.cpu().numpy().astype(np.float64)
            for row, index in enumerate(chosen):
                n_lines = programs[index].n_lines
                readings[index] = LineReading(outputs=numbers[row, :n_lines], scores=scores[row, :n_lines])
        return readings

    def encode_episodes(self, episodes: Sequence[Episode]) -> list[EncodedProgram]:
        """Tokenise episodes with the model's own tokenizer, prompt and completion apart."""
        if not episodes:
            return []
        # hostile text may hold lone surrogates, which tokenizers refuse
        texts = [episode.task.prompt.encode(errors="replace").decode() for episode in episodes]
        prompts = self.tokenizer(texts)["input_ids"]
        texts = [episode.completion.encode(errors="replace").decode() for episode in episodes]
        completions = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [
            encode(prompt, completion, episode.lines, self.newlines)
            for prompt, completion, episode in zip(prompts, completions, episodes, strict=True)
        ]

    def score(self, episodes: Sequence[Episode]) -> list[NDArray[np.float64]]:
        """Score the lines of whole programs from their text, so any policy's tokenizer will do.

        Returns:
            One score in [-1, 1] per line, 0 on comment and blank lines; empty for a program without lines.
        """
        return [reading.scores for reading in self.read(self.encode_episodes(episodes))]

    def score_programs(self, programs: Sequence[SampledProgram]) -> list[NDArray[np.float64]]:
        """Score sampled programs from the exact tokens that a policy with the same tokenizer wrote."""
        encoded = [encode_sampled(program, self.newlines) for program in programs]
        return [reading.scores for reading in self.read(encoded)]

    def check_same_tokenizer(self, tokenizer: Any) -> None:
        """Check that another model's token ids mean the same to this one, as a critic's start from it needs.

        This one may know further tokens, for example a special one that a tokenizer's class adds when read.

        Args:
            tokenizer: The other model's.

        Raises:
            ValueError: If the two do not agree on every token of the other one; names the first difference.
        """
        mine, theirs = (
            {number: token for token, number in vocabulary.get_vocab().items()}
            for vocabulary in (self.tokenizer, tokenizer)
        )
        for number in sorted(theirs):
            if mine.get(number) != theirs[number]:
                raise ValueError(
                    f"the reward model has another tokenizer ({len(mine)} and {len(theirs)} tokens): token "
                    f"{number} is {mine.get(number)!r} to it and {theirs[number]!r} to the other model"
                )

    def merge_adapter(self) -> None:
        """Fold an adapter, if the backbone carries one, into the backbone's weights, which become float32."""
        self.backbone = self._plain_backbone()

    def _plain_backbone(self) -> Any:
        active = active_name(self.backbone)
        return self.backbone if active is None else merge_adapter(self.backbone, name=active)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write backbone, head, tokenizer and configuration to `folder`, in the Hugging Face layout.

        `AutoModel.from_pretrained(folder)` reads the backbone; an adapter is merged into it. A folder cut
        short by a kill does not look like a reward model.
        """
        write_folder(Path(folder), self._plain_backbone(), self.tokenizer, self.head, self.head_name)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Read what `save_pretrained` wrote.

        Raises:
            ValueError: If the folder does not hold a reward model, or a damaged one; says what is missing.
        """
        folder = Path(folder)
        model = cls.from_backbone(folder, head=read_head_name(folder), dtype=dtype, device=device)
        read_head(folder, model.head, device)
        return model
