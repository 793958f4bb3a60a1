"""The language model as scripts for Hugging Face's `transformers` expect one: a configuration, `from_pretrained`,
`generate`. Importing this module registers it with `AutoConfig` and `AutoModelForCausalLM`; it needs the extra
`transformers`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import relational_rnn.nn
from relational_rnn._check import InputError, check_choice, check_flags, check_positive, describe, need_extra
from relational_rnn._files import write_together
from relational_rnn._reading.guard import damaged, shown
from relational_rnn._reading.structure import check_entries, from_json
from relational_rnn._reading.tensors import shapes_in_safetensors
from relational_rnn.nn import Core
from relational_rnn.tasks.language.byte_pairs import BytePairs
from relational_rnn.tasks.language.model import LanguageModel, LanguageModelConfig, LanguageState
from relational_rnn.tasks.language.vocabulary import END, Characters, Vocabulary, Words

need_extra("transformers", "transformers", "the class for Hugging Face's generate")
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.generation.configuration_utils import GenerationMode  # noqa: E402
from transformers.utils.generic import ModelOutput  # noqa: E402

CONFIG, MODEL = "RelationalLanguageConfig", "RelationalForCausalLM"
MODEL_TYPE = "relational-rnn-language"
CORE_CLASSES: dict[str, type[Core]] = {
    name: kind
    for name, kind in vars(relational_rnn.nn).items()
    if isinstance(kind, type) and issubclass(kind, Core) and kind is not Core
}
AROUND = {"embedding_size": 64, "window": 128}
MEMORY = {"mem_slots": 1, "head_size": 16, "num_heads": 16, "gate_style": "memory"}
"""What a model has by default; measured on characters (docs/language.md)."""
MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
LOSS_ARGUMENTS = ("num_items_in_batch",)
PYTHON_SPACE = r"[\s\x1c-\x1f]+"
"""What Python's str.split cuts at."""


class RelationalLanguageConfig(PreTrainedConfig):
    """Everything that decides the shapes and the arithmetic of a `RelationalForCausalLM`.

    Args:
        vocab_size: V; by default the number of bytes.
        core: {"class": the name of the core's class, "arguments": those of its constructor}; by default a relational
            memory of one slot of 256 numbers with 16 heads, as in the recipe `shakespeare-char`.
        around: the fields of a `LanguageModelConfig`; by default an embedding as large as the core's input.
        use_cache: give the memory back after a call, except in training.

    Example:
        >>> model = RelationalForCausalLM(RelationalLanguageConfig(vocab_size=20))
        >>> model.model.core().initial_state(3).shape, model.num_parameters() > 100_000
        (torch.Size([3, 1, 256]), True)
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        vocab_size: int = 256,
        core: dict[str, Any] | None = None,
        around: dict[str, Any] | None = None,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        check_positive(CONFIG, vocab_size=vocab_size)
        check_flags(CONFIG, use_cache=use_cache)
        self.use_cache = use_cache
        self.vocab_size = vocab_size
        if core is None:
            around = around or AROUND
            sizes = _sizes_around(around)
            memory = {"input_size": sizes.core_input or sizes.embedding_size, **MEMORY}
            core = {"class": "RelationalMemory", "arguments": memory}
        if not isinstance(core, Mapping):
            raise InputError(describe(CONFIG, "core must be a dict", got=shown(core)))
        kinds = {"class": str, "arguments": Mapping[str, bool | int | float | str | None]}
        check_entries(core, kinds, {}, where=f"{CONFIG}: core")
        self.core = core
        around = {"embedding_size": core["arguments"].get("input_size")} if around is None else around
        _sizes_around(around)
        self.around = dict(around)
        # The softmax shares the embedding inside the model; nothing is left to tie from outside.
        super().__init__(**{**kwargs, "tie_word_embeddings": False})

    def build(self) -> LanguageModel:
        """The model with fresh weights.

        Raises:
            InputError: the core's class is not known, or a size does not fit.
        """
        check_choice(CONFIG, "core", self.core["class"], CORE_CLASSES)
        core = CORE_CLASSES[self.core["class"]](**self.core["arguments"])
        return LanguageModel(self.vocab_size, core, _sizes_around(self.around))


def _sizes_around(around: Mapping[str, Any]) -> LanguageModelConfig:
    if not isinstance(around, Mapping):
        raise InputError(describe(CONFIG, "around must be a dict", got=shown(around)))
    whole = {**dataclasses.asdict(LanguageModelConfig()), **around}
    as_read = {name: list(value) if isinstance(value, tuple) else value for name, value in whole.items()}
    return from_json(LanguageModelConfig, as_read, where=f"{CONFIG}: around")


@dataclasses.dataclass
class RelationalLanguageOutput(ModelOutput):
    """What a call gives: the mean cross entropy of the labels, if any; [B, T, V]; and the memory after the last token,
    to be passed as `state` with the tokens that follow."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: LanguageState | None = None


class RelationalForCausalLM(PreTrainedModel, GenerationMixin):
    """A `LanguageModel` under the interface of `transformers`; its memory is what `generate` keeps between tokens.

    Greedy search and sampling work, with everything that acts on scores (temperature, top_k, top_p, repetition
    penalties, stopping criteria, streamers). Pad prompts of different lengths on the left, with an attention mask.
    Beam search, assisted and contrastive decoding are refused, since they return to states that were not kept. So is
    `resize_token_embeddings`.

    Example:
        >>> import torch
        >>> from relational_rnn.nn import GRU
        >>> model = RelationalForCausalLM.from_model(LanguageModel(9, GRU(8, 8), LanguageModelConfig(embedding_size=8)))
        >>> model.generate(torch.tensor([[1, 2]]), max_new_tokens=5, do_sample=False).shape
        torch.Size([1, 7])
    """

    config_class = RelationalLanguageConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _is_stateful = True

    def __init__(self, config: RelationalLanguageConfig) -> None:
        super().__init__(config)
        self.model = config.build()
        self.post_init()

    @classmethod
    def from_pretrained(cls, source: str | Path, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """See `transformers.PreTrainedModel.from_pretrained`; but a missing weight is refused, not drawn.

        Raises:
            InputError: a file is missing or damaged, or the weights are not those of this configuration.
        """
        where = f"{MODEL}.from_pretrained"
        told = kwargs.pop("output_loading_info", False)
        with damaged(where, f"no model can be loaded from {source}"):
            weights = Path(source) / "model.safetensors"
            if weights.is_file() and "subfolder" not in kwargs:
                config = kwargs.get("config") or RelationalLanguageConfig.from_pretrained(source)
                _check_weights(config, weights)
            made: Any = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
            loaded, about = made
        if about["missing_keys"]:
            problem = f"the weights in {source} are not those of this model"
            raise InputError(describe(where, problem, got=f"missing: {', '.join(sorted(about['missing_keys']))}"))
        return (loaded, about) if told else loaded

    @classmethod
    def from_model(cls, model: LanguageModel) -> RelationalForCausalLM:
        """The same model with the same weights (the tensors are shared)."""
        core = model.core()
        config = RelationalLanguageConfig(
            vocab_size=model.vocabulary_size,
            core={"class": type(core).__name__, "arguments": dict(core.arguments)},
            around=dataclasses.asdict(model.config),
        )
        wrapped = cls(config)
        wrapped.model = model
        return wrapped.train(model.training)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: LanguageState | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Read tokens.

        Args:
            input_ids: [B, T] int64.
            attention_mask: [B, T] or longer (its last T columns count): 0 at padding. Padding on the left is forgotten
                before the first real token; on the right it is allowed if no state is asked for.
            state: the memory before the first token.
            labels: [B, T], usually `input_ids`; they are shifted here, and -100 is left out.
            use_cache: give the memory after the last token back; by default not while training.
            logits_to_keep: of the last so many positions only; 0 means all.
            return_dict: False gives a tuple.
            kwargs: `num_items_in_batch`, as the `Trainer` passes it; anything else is refused.

        Raises:
            InputError: padding that cannot be read, or an argument that would have no effect.
        """
        unknown = [name for name, value in kwargs.items() if value is not None and name not in LOSS_ARGUMENTS]
        if unknown:
            raise InputError(describe(MODEL, f"this model does not take {', '.join(unknown)}"))
        use_cache = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        reset = None
        if attention_mask is not None:
            reset = _starts(attention_mask[:, -input_ids.shape[1] :].bool(), state is not None, bool(use_cache))
        features, after = self.model(input_ids, state, reset=reset)
        logits = self.model.logits(features[:, -logits_to_keep:] if logits_to_keep else features)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = RelationalLanguageOutput(loss=loss, logits=logits, state=after if use_cache else None)
        return output.to_tuple() if return_dict is False else output

    # The library's own models do not fit the protocol that it types `generate` with either, hence the ignores.
    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """See `transformers.GenerationMixin.generate`; refuses ways of decoding that return to earlier states."""
        config, _ = self._prepare_generation_config(generation_config, **kwargs)  # type: ignore[misc]
        mode = config.get_generation_mode(kwargs.get("assistant_model"))
        if mode not in MODES:
            problem = f"{mode.value.replace('_', ' ')} cannot work: it goes back to states that are not kept"
            hint = "do_sample=True or False, with num_beams=1, works."
            raise InputError(describe(f"{MODEL}.generate", problem, hint=hint))
        return super().generate(inputs, generation_config=generation_config, **kwargs)  # type: ignore[misc]

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: embedding, softmax and its bias belong together, and the vocabulary to the text."""
        problem = "the vocabulary of a trained model cannot grow"
        raise InputError(describe(f"{MODEL}.resize_token_embeddings", problem, hint="train a new model."))

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    def get_output_embeddings(self) -> None:
        """None: a tied softmax has no module of its own."""
        return None

    def _init_weights(self, module: nn.Module) -> None:
        """Every part draws its own weights when it is made."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> dict[str, Any]:
        model_kwargs["state"] = outputs.get("state")
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder, num_new_tokens)


def _check_weights(config: RelationalLanguageConfig, path: Path) -> None:
    """Refuse weights of other shapes than `config` has, before anything of these sizes is made."""
    found = shapes_in_safetensors(path, problem="it cannot be read as safetensors")
    with torch.device("meta"):
        model = config.build()
    there: set[int] = set()  # of weights that are tied, the file holds one
    for name, tensor in model.state_dict(keep_vars=True).items():
        expected = tuple(tensor.shape)
        if f"model.{name}" not in found:
            continue
        there.add(id(tensor))
        if found[f"model.{name}"] != expected:
            problem, got = f"{name} has another shape than the configuration gives it", found[f"model.{name}"]
            raise InputError(describe(str(path), problem, got=got, expected=expected))
    for name, parameter in model.named_parameters():
        if id(parameter) not in there:
            raise InputError(describe(str(path), f"it lacks the weight {name}"))


def _starts(mask: Tensor, carried: bool, wanted: bool) -> Tensor | None:
    """[B, T] true at the first real token of every row that is padded on the left; None if no row is.

    `mask` [B, T] is false at padding; a state was handed over (`carried`), or is asked for (`wanted`).
    """
    if bool(mask.all()):
        return None
    starts = mask & ~nn.functional.pad(mask, (1, 0))[:, :-1]
    ends = mask[:, :-1] & ~mask[:, 1:]
    if bool((starts.sum(1) > 1).any()):
        raise InputError(describe(MODEL, "attention_mask has padding in the middle of a row"))
    if bool(ends.any()) and wanted:
        hint = "pad on the left, or ask for no state with use_cache=False."
        raise InputError(describe(MODEL, "a state was asked for, and a row is padded on the right", hint=hint))
    left = ~mask[:, :1]
    if carried and bool(left.any()):
        raise InputError(describe(MODEL, "a state was handed over, and a row begins with padding"))
    return starts & left


def tokenizer_of(vocabulary: Vocabulary) -> PreTrainedTokenizerFast:
    """The vocabulary as a tokenizer of `transformers`: the same numbers for the same text, and the same text back.

    It has no tokens for padding or the end of a text, since the vocabularies have none. Unknown text becomes the
    vocabulary's unknown token, if it has one; else encoding raises the library's own exception.

    Example:
        >>> words = Vocabulary.build("word", ["to be or\\nnot to be\\n"], line_ends=True)
        >>> tokenizer = tokenizer_of(words)
        >>> tokenizer("be to\\n")["input_ids"], tokenizer.decode([2, 1, 0])
        ([1, 2, 0], 'to be\\n')
    """
    if isinstance(vocabulary, BytePairs):
        tokenizer = Tokenizer.from_str(json.dumps(json.loads(vocabulary.to_json())["tokenizer"]))
        tokenizer.decoder = decoders.ByteLevel()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
    assert isinstance(vocabulary, Characters | Words)
    unknown = None if vocabulary.unknown is None else vocabulary.symbol(vocabulary.unknown)
    # If there is none, a name that no text can hold: the library raises when it does not find it.
    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary.numbers), unk_token=unknown or ""))
    if isinstance(vocabulary, Characters):
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PYTHON_SPACE), "removed")
        spaced = [decoders.Replace(Regex("^"), " "), decoders.Fuse()]  # a space before every word
        ends = []
        if vocabulary.line_ends:
            tokenizer.normalizer = normalizers.Replace("\n", f" {END} ")
            ends = [decoders.Replace(f" {END}", "\n"), decoders.Replace("\n ", "\n")]
        tokenizer.decoder = decoders.Sequence([*spaced, *ends, decoders.Replace(Regex("^ "), "")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=unknown, clean_up_tokenization_spaces=False)


def save_for_transformers(model: LanguageModel, folder: Path | str, vocabulary: Vocabulary | None = None) -> None:
    """Write the files that `RelationalForCausalLM.from_pretrained` reads, and with a vocabulary those of its tokenizer,
    which `AutoTokenizer.from_pretrained` reads. Files that are there are replaced, all of them or none.

    Raises:
        InputError: the vocabulary is not the model's.
        OSError: as the operating system does.
    """
    if vocabulary is not None and vocabulary.size != model.vocabulary_size:
        got, expected = f"{vocabulary.size:,} tokens", f"{model.vocabulary_size:,}"
        problem = "the vocabulary does not match the model"
        raise InputError(describe("save_for_transformers", problem, got=got, expected=expected))
    with tempfile.TemporaryDirectory() as place:
        RelationalForCausalLM.from_model(model).save_pretrained(place)
        if vocabulary is not None:
            tokenizer_of(vocabulary).save_pretrained(place)
        write_together({Path(folder) / path.name: path.read_bytes() for path in Path(place).iterdir()})


AutoConfig.register(MODEL_TYPE, RelationalLanguageConfig)
AutoModelForCausalLM.register(RelationalLanguageConfig, RelationalForCausalLM)
