"""Load saved models: one, several as an ensemble, or the mean of the weights of several checkpoints.

`from_pretrained` makes up at random what a folder lacks, and only logs it: a tagger that is loaded as a translator, or
a tagger as a classifier of sentences, answers, and is never right. Every program of this package loads through here.
Models that belong together read the same: tokenizers, features and preprocessing beside them are compared. Needs torch
and transformers, for the mean of weights also the extra `train`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import FEATURE_EXTRACTOR_NAME

from ..data.files import DataError, first_few, read_object, sentence
from ..data.outputs import writing
from ..data.preprocessing import COLUMNS_FILE, PREPROCESSING_FILE, SERIES_FILE, Preprocessing
from ..data.processors import save_processor
from ..data.tokenizers import TARGET_TOKENIZER_FOLDER, load_tokenizers
from ..model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from ..model.generation_rules import check_generation
from ..model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from ..model.pretrained import RnnSeq2SeqPreTrainedModel
from .ensemble import EnsembleModel, RnnSeq2SeqEnsemble


# Options that the computation at evaluation does not see: checkpoints of one model may differ in them.
_TRAINING_ONLY = {
    *("token_dropout", "embedding_dropout", "hidden_dropout", "output_dropout", "recurrent_dropout"),
    *(
        "classifier_dropout",
        "regression_loss",
        "label_smoothing",
        "coverage_loss_weight",
        "init_scheme",
        "init_std",
        "use_cache",
    ),
}


def load_model(model_class: Any, directory: str | Path) -> Any:
    """Load a saved model of a class, or of an Auto class of transformers, with all its weights; a checkpoint will do.

    Raises:
        FileNotFoundError: the folder holds no model.
        DataError: it holds a model of another kind, or weights that are not those of its configuration.
    """
    folder = Path(directory)
    saved = saved_classes(folder)
    if isinstance(model_class, type) and issubclass(model_class, PreTrainedModel):
        _check_kind(folder, saved, model_class.__name__)
    _check_files(folder)
    try:
        # False: code beside the model is not run, nor asked about.
        model, loading = model_class.from_pretrained(str(folder), output_loading_info=True, trust_remote_code=False)
        if model.can_generate():
            check_generation(
                dict(vars(model.generation_config)), model.config.target_vocab_size + model.config.copy_slots
            )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"{folder}: its weights cannot be loaded: {error}; wanted what save_pretrained wrote"
        ) from error
    except Exception as error:  # of a configuration they are of many types
        raise DataError(f"{folder}: cannot be loaded: {sentence(error)}; wanted what save_pretrained wrote") from error
    _check_kind(folder, saved, type(model).__name__)
    for problem, names in (
        ("lacks the weights", loading["missing_keys"]),
        ("has weights that belong to another model,", loading["unexpected_keys"]),
        ("has weights of another shape,", [entry[0] for entry in loading["mismatched_keys"]]),
    ):
        if names:
            raise DataError(f"{folder} {problem} {first_few(sorted(names))}: wanted a saved {type(model).__name__}")
    return model


def _check_files(folder: Path) -> None:
    """Refuse what is no file, or holds no object, under the names of settings: transformers passes over some."""
    named = (PREPROCESSING_FILE, COLUMNS_FILE, SERIES_FILE)
    for path in sorted({*folder.glob("*config.json"), *(folder / name for name in named)}):
        if path.exists() or path.is_symlink():
            read_object(path)


def saved_classes(folder: Path) -> list[str]:
    """Return the names of the classes that a folder says its model is of; none if it does not say."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: it is not the folder of a saved model")
    names = read_object(file).get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: architectures: got {names!r}, wanted a list of names of classes")
    return names


def check_class(folder: str | Path, wanted: str) -> None:
    """Refuse a folder that says that its model is of another class."""
    _check_kind(Path(folder), saved_classes(Path(folder)), wanted)


def _check_kind(folder: Path, saved: list[str], wanted: str) -> None:
    if saved and wanted not in saved:
        raise DataError(f"{folder} holds a {', '.join(saved)}, wanted a {wanted}")


def load_ensemble(
    directories: Sequence[str | Path], kind: type[EnsembleModel] = RnnSeq2SeqEnsemble, **options: Any
) -> Any:
    """Load saved models as an ensemble.

    Args:
        directories: their folders; checkpoints will do. The tokenizers, the feature extractors and the preprocessing
            beside the models must be the same.
        kind: the ensemble's class, which names that of its members.
        **options: of the ensemble, such as `average`.

    Raises:
        FileNotFoundError: a folder holds no model.
        ValueError: no directories, a model of another kind, or models that differ in what they read or label.
    """
    _check_folders(directories)
    ensemble = kind([load_model(kind.member_class, directory) for directory in directories], **options)
    # After the numbers, which say more where they differ.
    _check_inputs(directories)
    return ensemble


def average_models(
    directories: Sequence[str | Path],
    output_dir: str | Path,
    model_class: type[RnnSeq2SeqPreTrainedModel] = RnnSeq2SeqForConditionalGeneration,
) -> RnnSeq2SeqPreTrainedModel:
    """Save the mean of the weights of several checkpoints of one run (Junczys-Dowmunt et al. 2016), and return it.

    Models trained from different seeds have no useful mean, although they have the same parameters: make them an
    ensemble. The folder also gets configuration, generation configuration, tokenizers and preprocessing of the first.

    Raises:
        FileNotFoundError: a folder holds no model, or the first no tokenizer.
        ValueError: no directories, they are not checkpoints of one model, or `output_dir` is one of them.
    """
    # Here, because the rest of this file does without what training needs.
    from ..training.checkpoints import average_checkpoints

    _check_folders(directories)
    if Path(output_dir).resolve() in {Path(directory).resolve() for directory in directories}:
        raise ValueError(f"output_dir: {output_dir} is one of the models to average, wanted another folder")
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    options = {field.name for field in dataclasses.fields(RnnSeq2SeqConfig)} - inherited - _TRAINING_ONLY
    first, *others = (RnnSeq2SeqConfig.from_pretrained(str(directory)) for directory in directories)
    for directory, other in zip(directories[1:], others):
        for name in sorted({*options, "id2label"}):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(
                    f"directories: {directory} has {name}={getattr(other, name)!r}, {directories[0]} has "
                    f"{getattr(first, name)!r}; only checkpoints of one model have a mean"
                )
    _check_inputs(directories)
    # A model of values has none.
    of_values = any((Path(directories[0]) / name).is_file() for name in (COLUMNS_FILE, SERIES_FILE))
    tokenizers = None if of_values else load_tokenizers(directories[0])
    preprocessing = Preprocessing.load(directories[0])
    model: RnnSeq2SeqPreTrainedModel = load_model(model_class, directories[0])
    # strict=False: tied weights are in a checkpoint once.
    model.load_state_dict(average_checkpoints(directories), strict=False)
    with writing(output_dir):
        model.save_pretrained(str(output_dir))
    if tokenizers is not None:
        save_processor(output_dir, *tokenizers, preprocessing)
    return model


def _check_folders(directories: Sequence[str | Path]) -> None:
    """Refuse no folders, and those that hold no model, before the first is loaded."""
    if not directories:
        raise ValueError("directories: got none, wanted at least one")
    for directory in directories:
        saved_classes(Path(directory))


def _check_inputs(directories: Sequence[str | Path]) -> None:
    """Refuse models that read the same source in different ways: equal sizes of vocabularies do not show it."""
    first = _reading(Path(directories[0]))
    for directory in directories[1:]:
        for problem, own in _reading(Path(directory)).items():
            wanted = first[problem]
            differing = sorted(name for name in wanted.keys() | own.keys() if wanted.get(name) != own.get(name))
            if differing:
                raise ValueError(
                    f"directories: {directory} {problem} {directories[0]}: they differ in {', '.join(differing)}"
                )


def _reading(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the options by which a model reads its source; the key is what to say where they differ."""
    target = Path(TARGET_TOKENIZER_FOLDER) / "tokenizer.json"
    return {
        "reads other features than": _json(folder / FEATURE_EXTRACTOR_NAME),
        "reads other columns than": _json(folder / COLUMNS_FILE) | _json(folder / SERIES_FILE),
        "reads its sources otherwise than": dataclasses.asdict(Preprocessing.load(folder) or Preprocessing()),
        "has another tokenizer.json than": _tokenizer_rules(folder / "tokenizer.json"),
        # Targets get their `</s>` whether or not its own rules append one.
        f"has another {target} than": {**_tokenizer_rules(folder / target), "post_processor": None},
    }


def _tokenizer_rules(path: Path) -> dict[str, Any]:
    """Return the parts of a saved tokenizer, without what the last call left in it, and the alphabet of its words."""
    alphabet = _json(path.with_name("tokenizer_config.json")).get("character_vocab")
    rules = {name: part for name, part in _json(path).items() if name not in ("padding", "truncation")}
    return {**rules, "character_vocab": alphabet}


def _json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; nothing if there is none."""
    return read_object(path) if path.is_file() else {}
