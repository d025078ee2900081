"""Pronounce words with one system, in a process of its own: what g2p_comparison.py starts.

    python g2p_systems.py SYSTEM FOLDER {batch|single} < words.json > answers.json

The input is [[language, word], ...], the output {"answers": [...], "milliseconds": [...], "processor": the same of a
processor's time, "first_answer": the time of day, "memory": MB}. Needs of a system only what it needs itself: neither
torch nor this package.
"""

import ctypes
import importlib
import json
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import MagicMock


Answer = Callable[[Sequence[tuple[str, str]]], list[str]]

ESPEAK_VOICES = {
    "eng": "en-us", "arm": "hy", "bul": "bg", "dut": "nl", "fre": "fr", "geo": "ka", "gre": "el", "hin": "hi",
    "hun": "hu", "ice": "is", "jpn": "ja", "kor": "ko", "lit": "lt", "rum": "ro", "vie": "vi",
}  # fmt: skip


def exported(folder: Path, num_beams: int | None = None) -> Answer:
    """An exported folder of ours, with the runtime that lies in it."""
    sys.path.insert(0, str(folder))
    runtime_class = importlib.import_module("rnn_seq2seq_runtime").RnnSeq2SeqRuntime
    pronouncer = importlib.import_module("rnn_seq2seq_pronounce").Pronouncer(runtime_class.from_pretrained(folder))
    search = {} if num_beams is None else {"num_beams": num_beams}

    def answer(words: Sequence[tuple[str, str]]) -> list[str]:
        texts = [f"{word}\t{language}" for language, word in words]
        if num_beams == 1:
            return [found[0].text for found in pronouncer.runtime.generate(texts, 64, num_beams=1)]
        return [found.pronunciations[0] for found in pronouncer(texts, batch_size=64, **search)]

    return answer


def espeak(folder: Path) -> Answer:
    """eSpeak NG's library: its phonemes in the International Phonetic Alphabet."""
    library = ctypes.CDLL("libespeak-ng.so.1")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_Initialize(2, 0, None, 0)  # no sound
    now = None

    def one(language: str, word: str) -> str:
        nonlocal now
        if language != now:
            if library.espeak_SetVoiceByName(ESPEAK_VOICES[language].encode()):
                sys.exit(f"eSpeak NG has no voice {ESPEAK_VOICES[language]}")
            now = language
        rest, clauses = ctypes.c_char_p(word.encode()), []
        while rest:
            clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), 1, 0x02).decode())  # UTF-8; IPA
        return re.sub(r"\([a-z-]+\)", "", " ".join(clauses))  # without the names of languages that it changes to

    return lambda words: [one(*word) for word in words]


def g2p_en(folder: Path) -> Answer:
    """The network of g2p_en, without its dictionary, which nltk would load: it has the test words."""
    for name in ("nltk", "nltk.corpus", "nltk.tokenize"):
        sys.modules[name] = MagicMock()
    G2p = importlib.import_module("g2p_en").G2p

    model = G2p()
    return lambda words: [" ".join(model.predict(word)) for _, word in words]


def phonetisaurus(folder: Path) -> Answer:
    """Phonetisaurus' transducers FOLDER/LANGUAGE.fst; a process for each call, as its command does."""
    library = importlib.import_module("phonetisaurus")
    environment = library.guess_environment()

    def answer(words: Sequence[tuple[str, str]]) -> list[str]:
        found: dict[tuple[str, str], str] = {}
        for language in dict.fromkeys(language for language, _ in words):
            own = [word for one, word in words if one == language]
            for word, phones in library.predict(own, folder / f"{language}.fst", nbest=1, env=environment):
                found[language, word] = " ".join(phones)
        return [found.get(word, "") for word in words]

    return answer


SYSTEMS: dict[str, Callable[[Path], Answer]] = {
    "ours": exported,
    "ours_greedy": lambda folder: exported(folder, 1),
    "espeak_ng": espeak,
    "g2p_en": g2p_en,
    "phonetisaurus": phonetisaurus,
}


def main() -> None:
    """Run the command line."""
    system, folder, mode = sys.argv[1:]
    words = [(language, word) for language, word in json.load(sys.stdin)]
    answer = SYSTEMS[system](Path(folder))
    who = resource.RUSAGE_CHILDREN if system == "phonetisaurus" else resource.RUSAGE_SELF

    def used() -> float:
        """Seconds of a processor: on a busy machine they say more than those of a clock."""
        usage = resource.getrusage(who)
        return usage.ru_utime + usage.ru_stime

    answers, milliseconds, processor = answer(words[:1]), [], []
    first_answer = time.time()
    if mode == "batch":
        answers = answer(words)
    for word in words[1:] if mode == "single" else []:
        before, start = used(), time.perf_counter()
        answers += answer([word])
        milliseconds.append(1000 * (time.perf_counter() - start))
        processor.append(1000 * (used() - before))
    memory = resource.getrusage(who).ru_maxrss / 1024
    status = Path("/proc/self/status")
    if who == resource.RUSAGE_SELF and status.exists():  # Linux: what getrusage says began with the parent
        memory = int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0]) / 1024
    json.dump(
        {
            "answers": answers,
            "milliseconds": milliseconds,
            "processor": processor,
            "first_answer": first_answer,
            "memory": memory,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
