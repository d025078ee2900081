"""Words with their characters: what is spelt, padding in both dimensions, saving, pipelines, without the package."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SIZES, randomize, tiny_config
from transformers import (
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqWordTokenizer,
)
from hf_rnn_seq2seq.data.tokenizers import SPECIAL_TOKENS, TokenizerOptions, load_tokenizers, train_tokenizer


SENTENCES = ["Anna sees Paris 1999", "New York sees Bob", "bob flies to New  York"]
LONGEST = 8


def words_tokenizer(texts: list[str] = SENTENCES, **options: Any) -> RnnSeq2SeqWordTokenizer:
    tokenizer = train_tokenizer(texts, TokenizerOptions("word", characters=True, max_word_length=LONGEST, **options))
    assert isinstance(tokenizer, RnnSeq2SeqWordTokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> RnnSeq2SeqWordTokenizer:
    return words_tokenizer(lowercase=True, fold_digits=True, add_eos=False)


def spelt(tokenizer: RnnSeq2SeqWordTokenizer, rows: Any) -> list[str]:
    """The characters of each token as text, without padding; unknown ones are question marks."""
    symbols = {0: "?", 1: ""}
    return ["".join(symbols.get(int(n), tokenizer.character_vocab[int(n)]) for n in row) for row in rows]


def test_words_fold_case_and_digits_and_characters_do_not(tokenizer: RnnSeq2SeqWordTokenizer) -> None:
    encoded = tokenizer("ANNA 1234 sees Zoe")  # the texts have no Z, 2, 3, 4
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == ["anna", "0000", "sees", "<unk>"]
    assert spelt(tokenizer, encoded["character_ids"]) == ["ANNA", "1???", "sees", "?oe"]
    assert list(encoded) == ["input_ids", "attention_mask", "character_ids"]


def test_the_character_vocabulary_is_by_frequency_behind_the_special_tokens() -> None:
    tokenizer = words_tokenizer(["bbb aa", "a c"], min_character_frequency=2)
    assert tokenizer.character_vocab == [*SPECIAL_TOKENS, "a", "b"]
    assert tokenizer("abc")["character_ids"] == [[4, 5, 0], [3]]


def test_an_added_token_is_one_character() -> None:
    tokenizer = words_tokenizer()
    assert tokenizer("Bob")["character_ids"][-1] == [tokenizer.eos_token_id]
    assert tokenizer("Bob", add_special_tokens=False)["character_ids"] == tokenizer("Bob")["character_ids"][:-1]


def test_of_a_long_word_the_beginning_and_the_ending_are_kept() -> None:
    text = "abcdefghijklmnopq"
    tokenizer = words_tokenizer([text], add_eos=False)
    assert spelt(tokenizer, tokenizer(text)["character_ids"]) == ["abcdnopq"]
    assert spelt(tokenizer, tokenizer(text[:8])["character_ids"]) == [text[:8]]
    tokenizer.max_word_length = 1
    assert spelt(tokenizer, tokenizer(text)["character_ids"]) == ["a"]


def test_words_and_characters_have_the_same_unicode_form() -> None:
    composed = "café"
    decomposed = unicodedata.normalize("NFD", composed)
    tokenizer = words_tokenizer([composed], normalization="NFC", add_eos=False)
    assert tokenizer(decomposed) == tokenizer(composed)
    assert spelt(tokenizer, tokenizer(decomposed)["character_ids"]) == [composed]


@pytest.mark.parametrize("text", ["  Anna\tYork\n1999 ", "İstanbul ß 12é", "a", ""])
def test_offsets_are_those_of_the_text(text: str) -> None:
    tokenizer = words_tokenizer([*SENTENCES, "İstanbul ß 12é"], lowercase=True, fold_digits=True, add_eos=False)
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert [text[start:end] for start, end in encoded["offset_mapping"]] == text.split()
    assert spelt(tokenizer, encoded["character_ids"]) == text.split()
    assert len(encoded["character_ids"]) == len(encoded["input_ids"])


def test_lists_of_words(tokenizer: RnnSeq2SeqWordTokenizer) -> None:
    words = [["Anna", "sees"], [], ["bob"], ["New York", "Bob"]]
    encoded = tokenizer(words, is_split_into_words=True)
    assert [spelt(tokenizer, rows) for rows in encoded["character_ids"]] == [
        ["Anna", "sees"],
        [],
        ["bob"],
        ["New", "York", "Bob"],
    ]
    assert encoded.word_ids(3) == [0, 0, 1]
    for row, one in enumerate(words):
        assert tokenizer(one, is_split_into_words=True)["character_ids"] == encoded["character_ids"][row]


def test_pairs_of_texts() -> None:
    tokenizer = words_tokenizer()
    wanted = ["Anna", "sees", "</s>", "Bob", "</s>"]
    assert spelt(tokenizer, tokenizer("Anna sees", "Bob")["character_ids"]) == wanted
    for batch in (tokenizer([("Anna sees", "Bob")]), tokenizer(["Anna sees"], ["Bob"])):
        assert spelt(tokenizer, batch["character_ids"][0]) == wanted
    split = tokenizer([["Anna", "sees"]], [["Bob"]], is_split_into_words=True)
    assert spelt(tokenizer, split["character_ids"][0]) == wanted


@pytest.mark.parametrize("side", ["left", "right"])
def test_tensors_have_one_width_and_padding_is_padding(side: str) -> None:
    tokenizer = words_tokenizer()
    tokenizer.padding_side = side
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    assert batch["character_ids"].shape == (*batch["input_ids"].shape, LONGEST)
    assert batch["character_ids"].dtype == torch.int64
    for sentence, mask, rows in zip(SENTENCES, batch["attention_mask"].bool(), batch["character_ids"], strict=True):
        assert spelt(tokenizer, rows[mask]) == [*sentence.split(), "</s>"]
        assert (rows[~mask] == tokenizer.pad_token_id).all()
    lists = tokenizer(SENTENCES, padding="max_length", max_length=9)
    assert torch.tensor(lists["character_ids"]).shape == (3, 9, LONGEST)
    one = tokenizer(SENTENCES[0], return_tensors="np")
    assert one["character_ids"].shape == (1, 5, LONGEST)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("how", ["lists", "tensors"])
def test_collators_pad_both_dimensions_as_the_tokenizer_does(how: str, side: str) -> None:
    tokenizer = words_tokenizer()
    tokenizer.padding_side = side
    wanted = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    features: list[dict[str, Any]] = [dict(tokenizer(sentence)) for sentence in SENTENCES]
    if how == "tensors":
        encoded = [tokenizer(sentence, return_tensors="pt") for sentence in SENTENCES]
        features = [{name: value[0] for name, value in one.items()} for one in encoded]
    got = DataCollatorWithPadding(tokenizer)(features)
    assert set(got) == set(wanted)
    for name in wanted:
        assert torch.equal(got[name], wanted[name]), name
    labelled = [{**one, "labels": [5] * len(one["input_ids"])} for one in features]
    got = DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=4)(labelled)
    assert got["character_ids"].shape == (3, 8, LONGEST) and got["labels"].shape == (3, 8)
    real = got["attention_mask"].bool()
    assert torch.equal(got["labels"] == 5, real)
    assert torch.equal(got["character_ids"][real], wanted["character_ids"][wanted["attention_mask"].bool()])
    assert (got["character_ids"][~real] == tokenizer.pad_token_id).all()


def test_truncated_and_overflowing_texts_keep_their_characters() -> None:
    tokenizer = words_tokenizer()
    cut = tokenizer(SENTENCES[0], truncation=True, max_length=3)
    assert spelt(tokenizer, cut["character_ids"]) == ["Anna", "sees", "</s>"]
    parts = tokenizer(SENTENCES[:2], truncation=True, max_length=3, return_overflowing_tokens=True)
    assert [spelt(tokenizer, rows) for rows in parts["character_ids"]] == [
        ["Anna", "sees", "</s>"],
        ["Paris", "1999", "</s>"],
        ["New", "York", "</s>"],
        ["sees", "Bob", "</s>"],
    ]


def test_a_saved_tokenizer_comes_back(tmp_path: Path) -> None:
    tokenizer = words_tokenizer(lowercase=True, fold_digits=True, normalization="NFC", add_eos=False)
    wanted = tokenizer(SENTENCES, return_offsets_mapping=True)
    for round_number in range(2):
        tokenizer.save_pretrained(tmp_path)
        files = {path.name for path in tmp_path.iterdir()}
        code = {"tokenization_words.py", "tokenization_rnn_seq2seq.py"}
        assert files == {"tokenizer.json", "tokenizer_config.json", *code}, round_number
        tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        assert type(tokenizer) is RnnSeq2SeqWordTokenizer
        assert tokenizer(SENTENCES, return_offsets_mapping=True) == wanted
    assert pickle.loads(pickle.dumps(tokenizer))(SENTENCES)["character_ids"] == wanted["character_ids"]
    source, target = load_tokenizers(tmp_path)
    assert source is target and type(source) is RnnSeq2SeqWordTokenizer
    text = "anna sees bob"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_plain_tokenizer_beside_a_model_stays_plain(tmp_path: Path) -> None:
    plain = train_tokenizer(SENTENCES, TokenizerOptions("word"))
    tiny_config(vocab_size=len(plain)).save_pretrained(tmp_path)
    plain.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert not isinstance(loaded, RnnSeq2SeqWordTokenizer)
    assert loaded(SENTENCES) == plain(SENTENCES) and "character_ids" not in loaded(SENTENCES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "bpe", "characters": True}, "characters: type bpe has no words.*wanted type word"),
        ({"type": "word", "min_character_frequency": 0}, "min_character_frequency: got 0, wanted at least 1"),
        ({"type": "word", "max_word_length": 0}, "max_word_length: got 0, wanted at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        TokenizerOptions(**options)


def test_vocabularies_that_cannot_work_are_refused() -> None:
    backend = words_tokenizer().backend_tokenizer
    options: dict[str, Any] = {"tokenizer_object": backend, "unk_token": "<unk>", "pad_token": "<pad>"}
    for vocabulary in (None, ["a", "b"], ["<pad>", "<unk>", "a"]):
        with pytest.raises(ValueError, match="character_vocab must hold '<unk>' at 0"):
            RnnSeq2SeqWordTokenizer(character_vocab=vocabulary, **options)
    with pytest.raises(ValueError, match="max_word_length must be at least 1; got 0"):
        RnnSeq2SeqWordTokenizer(character_vocab=list(SPECIAL_TOKENS), max_word_length=0, **options)


NAMES = ["O", "B-PER", "B-LOC", "I-LOC"]
TAGS = ["B-PER O B-LOC O", "B-LOC I-LOC O B-PER", "B-PER O O B-LOC I-LOC"]
# Of these the word vocabulary holds "sees" alone; case tells names.
UNSEEN = "Zoe sees Milano"


def configured(tokenizer: RnnSeq2SeqWordTokenizer, labels: list[str], **options: Any) -> RnnSeq2SeqConfig:
    return RnnSeq2SeqConfig(
        **{
            **SIZES,
            "vocab_size": len(tokenizer),
            "character_vocab_size": len(tokenizer.character_vocab),
            "character_embedding_size": 8,
            "character_hidden_size": 8,
            "id2label": dict(enumerate(labels)),
            "label2id": {name: n for n, name in enumerate(labels)},
            **options,
        }
    )


@pytest.fixture(scope="module", params=[False, True], ids=["softmax", "crf"])
def tagger_folder(
    request: pytest.FixtureRequest, tokenizer: RnnSeq2SeqWordTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tagger that a stock Trainer has taught three sentences, saved with its tokenizer."""
    folder = tmp_path_factory.mktemp("tagger")
    torch.manual_seed(0)
    config = configured(tokenizer, NAMES, token_dropout=0.1, use_crf=request.param, encoder_layers=1)
    model = RnnSeq2SeqForTokenClassification(config)
    data = [
        {
            **tokenizer(sentence.split(), is_split_into_words=True),
            "labels": [NAMES.index(tag) for tag in tags.split()],
        }
        for sentence, tags in zip(SENTENCES, TAGS, strict=True)
    ]
    arguments = TrainingArguments(
        str(folder / "run"), max_steps=80, per_device_train_batch_size=3, learning_rate=0.05, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    Trainer(model, arguments, DataCollatorForTokenClassification(tokenizer), data).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_token_pipeline_groups_entities(tagger_folder: Path, batch_size: int) -> None:
    tag = pipeline("token-classification", model=str(tagger_folder), aggregation_strategy="simple")
    found = tag(SENTENCES, batch_size=batch_size)
    assert [
        [(e["entity_group"], s[e["start"] : e["end"]]) for e in entities]
        for s, entities in zip(SENTENCES, found, strict=True)
    ] == [
        [("PER", "Anna"), ("LOC", "Paris")],
        [("LOC", "New York"), ("PER", "Bob")],
        [("PER", "bob"), ("LOC", "New  York")],
    ]
    words = SENTENCES[1].split()
    (entities,) = tag([words], is_split_into_words=True)
    assert [e["entity_group"] for e in entities] == ["LOC", "PER"]


def test_batches_of_the_token_pipeline_score_as_single_texts(tagger_folder: Path) -> None:
    # Texts of different length: the pipeline itself pads them, and knows nothing of characters.
    tag = pipeline("token-classification", model=str(tagger_folder), ignore_labels=[])
    texts = [*SENTENCES, UNSEEN]
    for one, together in zip([tag(text) for text in texts], tag(texts, batch_size=4), strict=True):
        assert [(e["word"], e["entity"]) for e in together] == [(e["word"], e["entity"]) for e in one]
        assert [e["score"] for e in together] == pytest.approx([e["score"] for e in one], abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_text_pipeline_classifies(tokenizer: RnnSeq2SeqWordTokenizer, batch_size: int, tmp_path: Path) -> None:
    model = RnnSeq2SeqForSequenceClassification(configured(tokenizer, ["bad", "good", "so-so"])).eval()
    randomize(model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path))
    texts = [*SENTENCES, UNSEEN, "Eva sees Verona"]
    got = classify(texts, batch_size=batch_size)
    for text, entry in zip(texts, got, strict=True):
        p = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1)
        assert entry["label"] == model.config.id2label[int(p.argmax())]
        assert entry["score"] == pytest.approx(p.max().item(), abs=1e-6)
    assert got[3]["score"] != got[4]["score"]  # equal words, most of them unknown


PROGRAM = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_rnn_seq2seq":
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Hidden())
from transformers import AutoTokenizer, pipeline
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
assert type(tokenizer).__module__.startswith("transformers_modules")
tag = pipeline("token-classification", model=folder, trust_remote_code=True, ignore_labels=[])
entities = [[(e["start"], e["end"], e["entity"]) for e in found] for found in tag(texts)]
tokenizer.save_pretrained(f"{folder}/again")
print(json.dumps({"encoded": dict(tokenizer(texts)), "entities": entities}))
"""


def test_a_saved_tokenizer_carries_its_code(tagger_folder: Path, tmp_path: Path) -> None:
    texts = [*SENTENCES, UNSEEN]
    tag = pipeline("token-classification", model=str(tagger_folder), ignore_labels=[])
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", PROGRAM, str(tagger_folder), json.dumps(texts)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["encoded"] == dict(AutoTokenizer.from_pretrained(tagger_folder)(texts))
    assert got["entities"] == [[[e["start"], e["end"], e["entity"]] for e in found] for found in tag(texts)]
    assert (tagger_folder / "again" / "tokenization_words.py").is_file()
